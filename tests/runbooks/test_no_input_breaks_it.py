"""Whatever a file holds, it is a runbook or a RunbookError, soon, and in little memory."""

import contextlib
import time
import tracemalloc
from pathlib import Path

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from runbooks.loader import Loaded, load_text
from runbooks.model import Mode
from runbooks.planner import check, plan
from runbooks.problems import RunbookError
from runbooks.shipped import find
from tests.runbooks.making import HEAD

REGION = find("region-failover").read_text(encoding="utf-8")
SMALL = find("check-service").read_text(encoding="utf-8")
LINES = REGION.splitlines()


def swallow(text: str | bytes) -> Loaded | None:
    """Load and plan; whatever is wrong must be said by RunbookError, with places in the file."""
    try:
        loaded = load_text(text, "r.yaml")
        check(loaded)
        for mode in Mode:
            plan(loaded, mode=mode, inputs={}, environ={})
    except RunbookError as error:
        refused = error.problems
    else:
        return loaded
    assert refused
    assert all(problem.message and str(problem).startswith("r.yaml") for problem in refused)
    return None


TOKENS = [*"abino019 \n\n\n::--[]{},&*!|>'\"%@`#?$.~\t<=_\\", "  ", "\n  - ", "${", "steps", "id: ", "uses: ", "with:\n"]
YAMLISH = st.lists(st.sampled_from(TOKENS), max_size=60).map("".join)


@settings(max_examples=400, deadline=None)
@given(YAMLISH | st.text(max_size=80))
@example("a: &a [*a]")
@example("? ? ? a")
@example("!!python/object/apply:os.system ['true']")
@example("- - - -")
@example("{a: {b: {c: ")
@example("'\\ud800'")
@example('a: "\\ud800"')
@example("a: |9\n")
@example("--- \n...\n---\n")
@example("%TAG ! tag:x:\n--- !a\n")
def test_any_text_is_a_runbook_or_refused(text):
    swallow(text)
    swallow(HEAD + text)


@settings(max_examples=200, deadline=None)
@given(st.binary(max_size=200))
@example(b"\xef\xbb\xbf")
@example(b"\xff\xfe")
@example(b"\x00" * 100)
def test_any_bytes_are_a_runbook_or_refused(data):
    swallow(data)


VALUES = st.one_of(
    st.sampled_from(["", "no", "~", "null", "[]", "{}", "-1", "0", "010", "1.5", "90s", "true", "{a: 1}", "[a, [b]]", "''", "&x", "*x"]),
    st.sampled_from(["${steps.detect.impact}", "${inputs.capacity}", "${target.west_database}", "${env.X}", "${x}", "${", "${run.id}"]),
    st.sampled_from(["'${steps.detect.signals}'", "['${target.fleet}']", "{host: '${steps.assess.reasons}'}", "'a ${inputs.declared} b'"]),
    st.sampled_from(["detect", "smoke", "[detect, dns]", "postgres.promote", "assess.severity", "roll-back", "9" * 400, '"\\u0000"']),
    st.text(max_size=12),
)


@st.composite
def mutated(draw) -> str:
    """The shipped runbook with some lines dropped, doubled, moved, shifted, or with other values."""
    lines = list(LINES)
    for _ in range(draw(st.integers(1, 4))):
        at = draw(st.integers(0, len(lines) - 1))
        match draw(st.integers(0, 6)):
            case 0:
                del lines[at]
            case 1:
                lines.insert(draw(st.integers(0, len(lines))), lines[at])
            case 2:
                lines[at] = "  " + lines[at]
            case 3:
                lines[at] = lines[at].removeprefix("  ")
            case 4:
                other = draw(st.integers(0, len(lines) - 1))
                lines[at], lines[other] = lines[other], lines[at]
            case 5:
                lines[at] = lines[at].replace(draw(st.sampled_from("aeist:{}[]-")), draw(st.sampled_from(["", "x", ":", " "])), 1)
            case _:
                key, colon, _ = lines[at].partition(": ")
                lines[at] = f"{key}{colon or ': '}{draw(VALUES)}"
        if not lines:
            break
    return "\n".join(lines)


@settings(max_examples=400, deadline=None)
@given(mutated())
def test_a_mutated_runbook_is_planned_or_refused(text):
    swallow(text)


@settings(max_examples=25, deadline=None)
@given(st.dictionaries(st.text(max_size=10), st.none() | st.booleans() | st.integers() | st.floats() | st.text() | st.lists(st.text()), max_size=4))
def test_any_inputs_are_taken_or_refused(inputs):
    loaded = load_text(REGION, "r.yaml")
    for name in ("declared", "impact_at", "capacity"):
        for value in [*inputs.values(), ["P1"], {"a": 1}]:
            with contextlib.suppress(RunbookError):
                plan(loaded, mode=Mode.live, inputs={**inputs, name: value})


BOMBS = {
    "aliases": "a: &a [x, x]\n" + "".join(f"{chr(98 + i)}: &{chr(98 + i)} [*{chr(97 + i)}, *{chr(97 + i)}]\n" for i in range(20)),
    "open lists": "[" * 500_000,
    "open mappings": "{a: " * 200_000,
    "open keys": "? " * 300_000,
    "open items": "- " * 300_000,
    "quotes": "'" * 500_001,
    "one long word": HEAD + "title: " + "x" * 900_000,
    "a long key": HEAD + "x" * 100_000 + ": 1",
    "many keys": HEAD + "".join(f"k{i}: 1\n" for i in range(24_000)),
    "one key again and again": HEAD + "k: 1\n" * 24_000,
    "digits": HEAD + "rto: " + "9" * 900_000,
    "colons": ":" * 500_000,
    "flow commas": HEAD + "steps: [" + "," * 300_000,
    "references": HEAD + "steps:\n  - id: a\n    manual: " + "${a}" * 200_000 + "\nrecovered_when: a\n",
    "different references": HEAD + "steps:\n  - id: a\n    manual: " + "".join(f"${{inputs.a{i}}}" for i in range(60_000)) + "\nrecovered_when: a\n",
    "many unknown references": HEAD + "steps:\n  - id: a\n    uses: http.smoke_test\n    with:\n      requests:\n"
    + "".join(f"      - '${{steps.s{i}.x}}'\n" for i in range(6_000)) + "recovered_when: a\n",
    "many wrong fields": HEAD + "steps:\n  - id: a\n    uses: http.smoke_test\n    with:\n"
    + "".join(f"      f{i}: 1\n" for i in range(6_000)) + "recovered_when: a\n",
    "many steps": HEAD + "steps:\n" + "".join(f"  - {{id: s{i}, manual: x}}\n" for i in range(10_000)) + "recovered_when: s1\n",
    "a thousand steps, all wrong": HEAD + "steps:\n"
    + "".join(f"  - {{id: s{i}, uses: nothing.x{i}, after: [t{i}, u{i}], on_failure: v{i}}}\n" for i in range(1000)) + "recovered_when: s1\n",
    "a thousand steps, each after all": HEAD + "steps:\n"
    + "".join(f"  - {{id: s{i}, manual: x, after: [{', '.join(f's{j}' for j in range(max(0, i - 40), i))}]}}\n" for i in range(1000))
    + "recovered_when: s999\n",
    "a thousand steps in circles": HEAD + "steps:\n"
    + "".join(f"  - {{id: s{i}, manual: x, after: [s{(i * 7 + 1) % 1000}, s{(i * 3 + 5) % 1000}]}}\n" for i in range(1000))
    + "recovered_when: s999\n",
    "everything covers everything": HEAD + "steps:\n"
    + "".join(f"  - {{id: s{i}, manual: x, gate: {{covers: [{', '.join(f's{j}' for j in range(900, 940))}]}}}}\n" for i in range(1000))
    + "recovered_when: s999\n",
    "a target again and again": HEAD + "targets:\n  live:\n    big: [" + ", ".join(["x" * 500] * 400) + "]\nsteps:\n  - id: a\n    uses: http.smoke_test\n"
    + "    with:\n      requests:\n" + "      - '${target.big}'\n" * 5_000 + "recovered_when: a\n",
    "targets within targets": HEAD + "targets:\n  live:\n    a: '${target.a}'\n    b: '${target.c}'\n    c: '${target.b}'\nsteps:\n"
    "  - {id: a, manual: '${target.a} ${target.b}'}\nrecovered_when: a\n",
    "many rules": HEAD + "steps:\n  - id: a\n    uses: assess.severity\n    with:\n      rules:\n" + "        - {severity: P7}\n" * 4_000 + "recovered_when: a\n",
    "goals again and again": HEAD + "steps:\n" + "".join(f"  - {{id: s{i}, manual: x}}\n" for i in range(1000)) + "recovered_when: [" + ", ".join(["s1", "s2", "none"] * 10_000) + "]\n",
}  # fmt: skip


@pytest.mark.parametrize("name", BOMBS)
def test_a_bomb_is_refused_soon(name):
    swallow(SMALL)  # imports are not the bomb's
    start = time.process_time()
    swallow(BOMBS[name])
    assert time.process_time() - start < 10


@pytest.mark.parametrize("name", ["aliases", "open lists", "one long word", "references", "a target again and again"])
def test_a_bomb_takes_little_memory(name):
    swallow(SMALL)
    tracemalloc.start()
    swallow(BOMBS[name])
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak < 200 << 20


def test_the_shipped_text_itself_is_planned():
    loaded = swallow(SMALL)
    assert loaded is not None
    assert Path(find("check-service")).name == "check-service.yaml"
