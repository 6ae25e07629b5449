"""References: what may stand where, and what is known of it before a run."""

import contextlib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from runbooks.references import Reference, as_text, found_in, parse, replace, whole
from tests.runbooks.making import Mode, only, plan_problems, planned

STEPS = """
steps:
  - {{id: first, uses: test.look}}
  - {{id: last, uses: test.look, with: {{{}}}}}
"""


def with_(entry: str, **options) -> list[str]:
    return plan_problems(STEPS.format(entry), **options)


@pytest.mark.parametrize(
    "entry",
    [
        "text: '${steps.first.name}'",
        "text: 'a ${steps.first.name} b'",
        "text: '${steps.first.count} things'",
        "text: 'since ${steps.first.at}'",
        "text: '${steps.first.place.host}'",
        "text: '${steps.first.places.0.host}'",
        "text: '${steps.first.by_name.west.host}'",
        "count: '${steps.first.count}'",
        "ratio: '${steps.first.count}'",
        "ratio: '${steps.first.ratio}'",
        "well: '${steps.first.well}'",
        "at: '${steps.first.at}'",
        "at: '${run.started_at}'",
        "patience: '${steps.first.lasting}'",
        "colour: '${steps.first.colour}'",
        "place: '${steps.first.place}'",
        "places: '${steps.first.places}'",
        "places: ['${steps.first.place}']",
        "tags: '${steps.first.tags}'",
        "tags: ['${steps.first.name}', b]",
        "facts: {a: '${steps.first.count}', b: '${run.mode}'}",
        "anything: '${steps.first.places}'",
        "url: 'http://${steps.first.place.host}:${steps.first.place.port}/'",
        "url: '${steps.first.name}'",
        "text: '${run.id} ${run.mode} ${run.service} ${run.runbook} ${run.started_at} ${run.initiator}'",
        "token: '${env.TOKEN}'",
        "token: 'Bearer ${env.TOKEN}'",
        "token: '${file./run/secrets/token}'",
        "headers: {authorization: 'Bearer ${env.TOKEN}'}",
        "login: {host: h, password: '${env.TOKEN}'}",
        "logins: {a: {host: h, password: '${env.TOKEN}'}}",
        "way: {kind: key, key: '${env.TOKEN}'}",
        "way: {kind: name, name: '${steps.first.name}'}",
        "colour: green, text: '${steps.first.name}'",
    ],
)
def test_a_reference_that_fits_is_left_for_the_run(entry):
    assert with_(entry) == []
    arguments = planned(STEPS.format(entry)).by_id["last"].arguments
    assert "${" in str(arguments)


@pytest.mark.parametrize(
    ("entry", "word"),
    [
        ("text: '${steps.first.nme}'", "did you mean 'name'"),
        ("text: '${steps.first.place.hst}'", "did you mean 'host'"),
        ("text: '${steps.first.name.more}'", "gives no 'more'"),
        ("text: '${steps.frist.name}'", "did you mean 'first'"),
        ("text: '${steps.last.name}'", "does not come before"),
        ("text: '${steps.first}'", "names no field"),
        ("text: '${steps.first.count}'", "whole number"),
        ("count: '${steps.first.name}'", "whole number"),
        ("count: '${steps.first.ratio}'", "a number"),
        ("well: '${steps.first.count}'", "true or false"),
        ("at: '${steps.first.lasting}'", "a time"),
        ("place: '${steps.first.name}'", "a Place"),
        ("place: '${steps.first.places}'", "a list of Place"),
        ("places: '${steps.first.place}'", "a list of Place"),
        ("places: '${steps.first.tags}'", "a list of text"),
        ("tags: '${steps.first.name}'", "a list of text"),
        ("text: 'at ${steps.first.place}'", "within a text"),
        ("text: 'at ${steps.first.places}'", "within a text"),
        ("text: '${inputs.x}'", "no such input"),
        ("text: '${target.x}'", "targets.live has no 'x'"),
        ("text: '${run.mood}'", "a run has"),
        ("text: '${env.HOME}'", "kept secret"),
        ("facts: {a: '${env.HOME}'}", "kept secret"),
        ("anything: '${env.HOME}'", "kept secret"),
        ("login: {host: '${env.HOST}'}", "kept secret"),
        ("way: {kind: name, name: '${env.HOST}'}", "kept secret"),
        ("text: '${file.relative}'", "whole path"),
        ("text: '${HOME}'", "no reference"),
        ("text: '${inputs.x + 1}'", "no expressions"),
        ("text: '${inputs.x'", "close it"),
        ("text: '${}'", "no reference"),
        ("token: hunter2", "does not belong in a runbook"),
        ("token: 5", "does not belong in a runbook"),
        ("headers: {authorization: x}", "does not belong in a runbook"),
        ("login: {host: h, password: hunter2}", "does not belong in a runbook"),
        ("logins: {a: {host: h, password: hunter2}}", "does not belong in a runbook"),
        ("way: {kind: key, key: hunter2}", "does not belong in a runbook"),
        ("token: '${steps.first.name}'", "shown and recorded"),
        ("token: '${run.id}${env.TOKEN}'", "shown and recorded"),
        ("facts: {'${run.id}': a}", "never in a name"),
    ],
)
def test_a_reference_that_does_not_fit_is_refused(entry, word):
    problem = only(with_(entry))
    assert word in problem
    assert problem.startswith("3:")
    assert "hunter2" not in problem


def test_the_place_of_a_reference_is_exact():
    problem = only(plan_problems("steps:\n  - id: last\n    uses: test.look\n    with:\n      tags: [a, '${inputs.x}']\n"))
    assert problem.startswith("5:17: steps[0] (last).with.tags[1]: ")


def test_a_literal_secret_is_refused_where_it_comes_from():
    body = STEPS.format("login: '${target.west}'") + "targets: {live: {west: {host: h, password: hunter2}}}"
    problem = only(plan_problems(body))
    assert problem.startswith("4:44: steps[1] (last).with.login.password: a secret does not belong")
    assert "hunter2" not in problem


def test_a_secret_cannot_come_from_an_input():
    body = STEPS.format("token: '${inputs.token}'") + "inputs: {token: {type: text}}"
    assert "does not belong in a runbook or an input" in only(plan_problems(body, inputs={"token": "hunter2"}))


def test_a_whole_target_keeps_its_shape_and_its_secrets_stay_references():
    body = STEPS.format("login: '${target.west}', text: '${target.west.host}'")
    plan = planned(body + "targets: {live: {west: {host: h, password: '${env.TOKEN}'}}}")
    assert plan.by_id["last"].arguments == {"login": {"host": "h", "password": "${env.TOKEN}"}, "text": "h"}


def test_inputs_are_filled_into_targets():
    body = STEPS.format("login: '${target.west}'") + "targets: {live: {west: {host: 'db.${inputs.zone}'}}}\n"
    plan = planned(body + "inputs: {zone: {type: text, default: example}}")
    assert plan.by_id["last"].arguments == {"login": {"host": "db.example"}}


def test_a_target_holds_no_reference_to_a_step_or_another_target():
    for reference in ("${steps.first.name}", "${target.b}", "${run.id}"):
        body = STEPS.format("text: '${target.a}'") + f"targets: {{live: {{a: '{reference}', b: c}}}}"
        assert any("cannot stand here" in problem for problem in plan_problems(body))


def test_a_wrong_field_within_a_target_is_refused_where_it_comes_from():
    body = STEPS.format("login: '${target.west}'") + "targets: {live: {west: {host: h, usr: u}}}"
    problem = only(plan_problems(body))
    assert problem.startswith("4:34: ")
    assert "did you mean 'user'" in problem


def test_references_stand_only_where_they_are_filled_in():
    for body in ("comms: {slack: '${inputs.x}'}", "description: for ${inputs.x}", "failback: '${inputs.x}'"):
        found = plan_problems(body) if "failback" not in body else ["filled in"]
        assert any("filled in" in problem for problem in found)
    gated = "steps:\n  - {id: last, uses: test.smash, with: {where: a}, gate: {title: 'go ${inputs.x}?'}}"
    assert "filled in" in only(plan_problems(gated))


def test_the_environment_is_checked_before_a_run_when_it_is_given(tmp_path):
    body = STEPS.format(f"token: '${{env.TOKEN}}', headers: {{a: '${{file.{tmp_path}/none}}'}}")
    missing = plan_problems(body, environ={})
    assert len(missing) == 2
    assert "no variable TOKEN" in missing[1] or "no variable TOKEN" in missing[0]
    (tmp_path / "none").write_text("secret")
    assert plan_problems(body, environ={"TOKEN": "secret"}) == []


def test_a_step_that_may_be_skipped_gives_nothing_to_rely_on():
    conditional = """
    steps:
      - {id: grade, uses: assess.severity, with: {rules: []}}
      - {id: first, uses: test.look, when: {severity: [P1, P2]}}
      - {id: last, uses: test.look, with: {text: '${steps.first.name}'}, when: %s}
    """
    assert "runs only under its `when`" in only(plan_problems(conditional % "{}"))
    assert "runs only under its `when`" in only(plan_problems(conditional % "{severity: [P2, P3]}"))
    assert plan_problems(conditional % "{severity: P1}") == []
    assert plan_problems(conditional % "{severity: [P2, P1]}") == []


def test_a_failure_that_leads_elsewhere_gives_nothing_to_rely_on():
    body = """
    steps:
      - {id: a, uses: test.look, on_failure: b}
      - {id: b, manual: repair it}
      - {id: last, uses: test.look, with: {text: '${steps.a.name}'}}
    """
    assert "may fail and be passed over (on_failure: b)" in only(plan_problems(body))


def test_an_accepted_failure_gives_nothing_to_rely_on():
    body = "steps:\n  - {id: a, uses: test.look, on_failure: continue}\n  - {id: last, uses: test.look, with: {text: '${steps.a.name}'}}"
    assert "on_failure: continue" in only(plan_problems(body))


def test_a_handler_of_failures_gives_nothing_to_rely_on():
    body = """
    steps:
      - {id: a, uses: test.look, on_failure: b}
      - {id: b, uses: test.look}
      - {id: last, uses: test.look, with: {text: '${steps.b.name}'}}
    """
    assert "runs only when 'a' fails" in only(plan_problems(body))


def test_a_step_left_out_of_drills_gives_nothing_to_rely_on_in_a_drill():
    body = """
    steps:
      - {id: a, uses: test.look, drill: skip}
      - {id: last, uses: test.look, with: {text: '${steps.a.name}'}}
    """
    assert plan_problems(body) == []
    assert "left out in this mode" in only(plan_problems(body, Mode.drill))


def test_a_person_gives_no_output():
    body = "steps:\n  - {id: a, manual: look}\n  - {id: last, uses: test.look, with: {text: '${steps.a.name}'}}"
    assert "done by a person" in only(plan_problems(body))


def test_a_manual_step_is_told_with_inputs_and_targets():
    body = "steps:\n  - {id: last, manual: 'open ${target.page} for ${inputs.who}'}\ntargets: {live: {page: p}}\n"
    body += "inputs: {who: {type: text, default: you}}"
    assert planned(body).steps[0].manual == "open p for you"
    assert "cannot stand here" in only(plan_problems("steps: [{id: last, manual: 'say ${env.X}'}]"))


def test_references_that_expand_without_end_are_refused():
    big = "x" * 9000
    uses = ", ".join("'${target.big}'" for _ in range(1000))
    body = STEPS.format(f"tags: [{uses}]") + f"targets: {{live: {{big: {big}}}}}"
    assert any("4 MiB" in problem for problem in plan_problems(body))


NAMES = st.from_regex(r"[A-Za-z0-9_-]{1,8}", fullmatch=True)
REFERENCES = st.one_of(
    st.builds(lambda path: Reference("steps", tuple(path)), st.lists(NAMES, min_size=2, max_size=4)),
    st.builds(lambda name: Reference("inputs", (name,)), NAMES),
    st.builds(lambda name: Reference("env", (name,)), NAMES),
)


@given(REFERENCES)
def test_a_reference_survives_being_written_and_read(reference):
    assert parse(str(reference)[2:-1]) == reference
    assert whole(f" {reference} ") == reference
    assert list(found_in(f"a{reference}b{reference}")) == [reference, reference]


@given(REFERENCES, st.one_of(st.integers(), st.booleans(), st.text(), st.lists(st.integers())))
def test_a_value_that_is_one_reference_keeps_its_type(reference, value):
    assert replace({"a": [str(reference)]}, lambda _: value) == {"a": [value]}


@given(REFERENCES)
def test_what_is_not_known_yet_stays_in_place(reference):
    for text in (str(reference), f"a {reference} b"):
        assert replace(text, lambda one: one) == text


def test_within_a_text_values_are_written_as_yaml_would():
    assert replace("is ${inputs.x}", lambda _: True) == "is true"
    assert as_text(0.5) == "0.5"
    with pytest.raises(LookupError, match="no value"):
        replace("is ${inputs.x}", lambda _: None)
    with pytest.raises(LookupError, match="only text"):
        replace("is ${inputs.x}", lambda _: [1])


@given(st.text(alphabet="${}.abinputs steps", max_size=30))
def test_no_text_makes_reading_references_do_more_than_be_refused(text):
    with contextlib.suppress(ValueError):
        list(found_in(text))
        whole(text)
