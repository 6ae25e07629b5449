"""What the loader reads and refuses, and where it says the fault is."""

import pytest

from runbooks.loader import load, load_text
from runbooks.problems import RunbookError
from runbooks.scalars import Surprise, read_plain
from tests.runbooks.making import HEAD, HEAD_LINES, load_problems, loaded, only, problems_of, runbook


def test_a_runbook_comes_back_exactly_as_written():
    found = loaded('inputs:\n  size: {type: integer, default: 3, max: 6}\n  name: {type: text, default: "010"}')
    assert (found.runbook.name, found.runbook.service) == ("example", "checkout")
    assert (found.runbook.inputs["size"].default, found.runbook.inputs["name"].default) == (3, "010")
    assert found.runbook.recovered_when == ("last",)
    assert found.text.startswith("schema: failover/v1")


def test_every_value_knows_its_place():
    found = loaded("comms:\n  slack: '#incidents'")
    assert str(found.place("comms", "slack")) == f"r.yaml:{HEAD_LINES + 2}:10"
    assert str(found.place("name")) == "r.yaml:2:7"


def test_what_is_not_in_the_file_has_the_place_of_what_is_around_it():
    found = loaded("")
    assert found.place("steps", 0, "gate", "quorum") == found.place("steps", 0)
    assert str(found.place("nothing", "at", "all")) == "r.yaml:1:1"


@pytest.mark.parametrize(
    "word",
    ["no", "No", "NO", "yes", "on", "off", "y", "N", "True", "FALSE", "~", "NULL", "010", "-012", "00", "0x1F", "0o17"]
    + ["0b101", "1_000", "1:30", "-1:30:00", "190:20:30.15", "2026-11-21", "2026-11-21 03:04:05", ".inf", "-.INF", ".nan"]
    + ["1e3", "1.5E-3", ".5", "5.", "+5", "=", "9" * 19, "1." + "1" * 50],
)
def test_a_word_that_yaml_readers_differ_on_is_refused_where_it_stands(word):
    problem = only(load_problems(runbook("").replace("An example", word)))
    assert problem.startswith("r.yaml:3:8: title: ")
    assert "quote" in problem or "units" in problem


@pytest.mark.parametrize(
    ("word", "value"),
    [("true", True), ("false", False), ("null", None), ("", None), ("0", 0), ("-7", -7), ("3.25", 3.25), ("-0.5", -0.5)]
    + [("127.0.0.1", "127.0.0.1"), ("90s", "90s"), ("1.2.3", "1.2.3"), ("a:1", "a:1"), ("not", "not"), ("-", "-")]
    + [("2026-11-21T", Surprise), ("${inputs.x}", "${inputs.x}"), ("1 2", "1 2"), ("0.0.0.0:80", "0.0.0.0:80")],
)
def test_plain_words_mean_what_they_look_like(word, value):
    found = read_plain(word)
    assert isinstance(found, value) if value is Surprise else (found, type(found)) == (value, type(value))


def test_quotes_keep_any_word_as_text():
    assert load_text(runbook("").replace("An example", '"no"'), "r.yaml").runbook.title == "no"
    assert load_text(runbook("").replace("An example", "'010'"), "r.yaml").runbook.title == "010"
    assert load_text(runbook("").replace("An example", "|\n  yes\n"), "r.yaml").runbook.title == "yes\n"


@pytest.mark.parametrize(
    ("body", "line", "column", "word"),
    [
        ("comms: {}\ncomms: {}", 2, 1, "twice"),
        ("inputs: {a: {type: text, type: text}}", 1, 26, "twice"),
        ("comms: &x {}", 1, 8, "anchor"),
        ("comms: {slack: *x}", 1, 16, "alias"),
        ("comms: !!map {}", 1, 8, "tag"),
        ("comms: {slack: !env X}", 1, 16, "tag"),
        ("comms: {<<: {slack: x}}", 1, 9, "merge"),
        ("comms: {5: x}", 1, 9, "key is text"),
        ("comms: {null: x}", 1, 9, "key is text"),
        ("comms: {true: x}", 1, 9, "key is text"),
        ("comms: {no: x}", 1, 9, "quote it"),
        ("comms: {[a]: x}", 1, 9, "key is plain text"),
        ("comms: {? {a: b} : x}", 1, 11, "key is plain text"),
        ("comms: {&a slack: x}", 1, 9, "key is plain text"),
        ('comms: {slack: "\\e[2J"}', 1, 16, "U+001B"),
        ('comms: {slack: "\\u202e"}', 1, 16, "U+202E"),
    ],
)
def test_yaml_beyond_plain_structure_is_refused_where_it_stands(body, line, column, word):
    problems = load_problems(runbook(body))
    assert any(one.startswith(f"r.yaml:{HEAD_LINES + line}:{column}: ") and word in one for one in problems), problems


@pytest.mark.parametrize(
    ("text", "start"),
    [
        ("a: b\n---\nc: d\n", "r.yaml:2:1: holds several documents"),
        ("%YAML 1.1\n---\na: b\n", "r.yaml:"),
        ("a: [b\n", "r.yaml:2:1: is not YAML"),
        ("a: b: c\n", "r.yaml:1:5: is not YAML"),
        ("a: 'b\n", "r.yaml:"),
        ("a:\n\tb: c\n", "r.yaml:2:1: is not YAML"),
        ("a: \x00\n", "r.yaml:1:4: holds the invisible character U+0000"),
        ("a: \x85\n", "r.yaml:1:4: holds the invisible character U+0085"),
        ("a: \u2028\n", "r.yaml:1:4: holds the invisible character U+2028"),
        ("a: \ud800\n", "r.yaml:1:4: holds the invisible character U+D800"),
        ("a: \u202e\n", "r.yaml:1:4: holds the invisible character U+202E"),
        ("a: b\ufeff\n", "r.yaml:1:5: holds the invisible character U+FEFF"),
        (b"a: \xff\n", "r.yaml:1:4: is not UTF-8"),
        ("a: b\n".encode("utf-16"), "r.yaml:1:1: is not UTF-8"),
        ("", "r.yaml"),
        ("# nothing\n", "r.yaml"),
        ("- a\n", "r.yaml:1:1: is not a mapping"),
        ("just text\n", "r.yaml:1:1: is not a mapping"),
        (" " * (1 << 20) + "\n", "r.yaml: is larger than 1 MiB"),
        ("a: " + "[" * 60, "r.yaml:1:"),
        ("a:\n" + "".join(" " * depth + "a:\n" for depth in range(1, 60)), "r.yaml:52:"),
        ("a:\n" + "- x\n" * 50_001, "r.yaml:49999:3: holds more than 50000 values"),
    ],
)
def test_what_is_no_runbook_is_refused_with_its_place(text, start):
    assert load_problems(text)[0].startswith(start)


def test_a_byte_order_mark_and_windows_line_ends_are_read():
    text = runbook("comms: {slack: x}").replace("\n", "\r\n")
    assert load_text(b"\xef\xbb\xbf" + text.encode(), "r.yaml").runbook.comms.slack == "x"
    assert str(load_text(text, "r.yaml").place("comms")) == f"r.yaml:{HEAD_LINES + 1}:8"


def test_a_reference_without_quotes_inside_brackets_is_explained():
    assert "quotes" in only(load_problems(HEAD + "steps: [${inputs.x}]\n"))


def test_a_tab_is_explained():
    assert "spaces" in only(load_problems("a:\n\tb: c\n"))


@pytest.mark.parametrize(
    ("body", "line", "column", "word"),
    [
        ("comms: {slak: x}", 1, 9, "did you mean 'slack'"),
        ("frobnicate: 1", 1, 1, "known: "),
        ("schema_: failover/v1", 1, 1, "did you mean 'schema'"),
        ("steps:\n  - id: last\n    with_: {}", 3, 5, "did you mean 'with'"),
        ("steps:\n  - id: Last", 2, 9, "small letter"),
        ("steps:\n  - uses: test.look", 2, 5, "missing"),
        ("steps: []", 1, 8, "at least 1 entry"),
        ("steps: {id: a}", 1, 8, "not a list"),
        ("steps:\n  - id: last\n    budget: 90", 3, 13, "such as 90s"),
        ("steps:\n  - id: last\n    budget: 1.5", 3, 13, "such as 90s"),
        ("steps:\n  - id: last\n    budget: 1h1h", 3, 13, "such as 1h30m"),
        ("steps:\n  - id: last\n    budget: 999999999d", 3, 13, "366d"),
        ("steps:\n  - id: last\n    gate: {quorum: 0}", 3, 20, "at least 1"),
        ("steps:\n  - id: last\n    gate: {quorum: two}", 3, 20, "whole number"),
        ("steps:\n  - id: last\n    gate: {on_timeout: open}", 3, 24, "'refuse' or 'proceed'"),
        ("steps:\n  - id: last\n    drill: maybe", 3, 12, "'run', 'simulate' or 'skip'"),
        ("steps:\n  - id: last\n    after: [a, 7]", 3, 16, "put it in quotes"),
        ("steps:\n  - id: last\n    with:", 3, 10, "mapping"),
        ("steps:\n  - id: last\n    with: {A: 1}", 3, 12, "small letter"),
        ("steps:\n  - id: last\n    retry: {factor: 99}", 3, 21, "at most 10"),
        ("inputs: {a: {type: word}}", 1, 20, "'text'"),
        ("inputs: {a: {}}", 1, 13, "missing"),
        ("targets: {live: {a: b}, dril: {}}", 1, 25, "did you mean 'drill'"),
    ],
)
def test_what_the_grammar_does_not_know_is_refused_where_it_stands(body, line, column, word):
    problem = only(load_problems(runbook(body)))
    assert problem.startswith(f"r.yaml:{HEAD_LINES + line}:{column}: ")
    assert word in problem


def test_all_problems_are_told_at_once_in_the_order_of_the_file():
    text = runbook("comms: {slak: x}\nsteps:\n  - id: last\n    budget: 900\n    after: no")
    lines = [int(problem.split(":")[1]) for problem in load_problems(text.replace("owner: team", "owner: 5"))]
    assert lines == [5, HEAD_LINES + 1, HEAD_LINES + 4, HEAD_LINES + 5]


def test_a_problem_names_the_step_by_its_id():
    assert "steps[0] (last).budget: " in only(load_problems(runbook("steps:\n  - id: last\n    budget: 9")))


def test_a_word_already_refused_is_not_refused_again_for_its_type():
    only(load_problems(runbook("steps:\n  - id: last\n    budget: 1:30")))


def test_a_file_that_cannot_be_read_is_a_problem_of_the_runbook(tmp_path):
    for path, word in ((tmp_path / "none.yaml", "no such file"), (tmp_path, "not a file"), ("/dev/zero", "not a file")):
        with pytest.raises(RunbookError, match=word):
            load(path)
    with pytest.raises(RunbookError):
        load("a\x00b")


def test_a_file_is_loaded_by_its_path(tmp_path):
    (tmp_path / "x.yaml").write_text(runbook(""))
    assert load(tmp_path / "x.yaml").file == str(tmp_path / "x.yaml")


def test_a_number_of_five_thousand_digits_is_only_text():
    assert problems_of(load_text, HEAD + f"comms: {{slack: {'9' * 5000}}}\n", "r.yaml")


@pytest.mark.parametrize("line", ["comms:\n  slack: #incidents", "comms: {slack: }", 'comms: {slack: ""}', 'comms: {slack: "#"}'])
def test_a_channel_that_yaml_reads_as_a_comment_is_refused_and_not_silently_nobody(line):
    assert "in quotes" in only(load_problems(runbook(line)))
