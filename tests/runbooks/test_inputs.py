"""What starting a run asks, and how answers are read."""

from datetime import timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from runbooks.inputs import read_answer
from runbooks.model import Input, InputType, Mode
from tasks.durations import format_duration, parse_duration
from tests.runbooks.making import only, plan_problems, planned

ASKED = "steps:\n  - {{id: last, uses: test.look, with: {{text: '${{inputs.x}}'}}}}\ninputs:\n  x: {}"


def question(**fields) -> Input:
    return Input.model_validate(fields)


@pytest.mark.parametrize(
    ("fields", "answer", "value"),
    [
        ({"type": "text"}, "no", "no"),
        ({"type": "text", "min": 2, "max": 3}, "abc", "abc"),
        ({"type": "integer"}, "3", 3),
        ({"type": "integer"}, -3, -3),
        ({"type": "number"}, "0.25", 0.25),
        ({"type": "number"}, "2", 2),
        ({"type": "number"}, 2, 2),
        ({"type": "boolean"}, "True", True),
        ({"type": "boolean"}, False, False),
        ({"type": "choice", "choices": ["a", "b"]}, "b", "b"),
        ({"type": "duration"}, "90s", "1m30s"),
        ({"type": "duration"}, timedelta(hours=1), "1h"),
        ({"type": "duration", "min": "1m", "max": "2m"}, "90s", "1m30s"),
        ({"type": "time"}, "2026-11-21T03:04:05Z", "2026-11-21T03:04:05+00:00"),
        ({"type": "time"}, "2026-11-21T03:04:05+02:00", "2026-11-21T01:04:05+00:00"),
        ({"type": "list"}, "a, b,", ["a", "b"]),
        ({"type": "list"}, ["a"], ["a"]),
        ({"type": "list", "min": 0}, "", []),
    ],
)
def test_an_answer_is_read_by_its_type_from_text_and_from_json(fields, answer, value):
    read = read_answer(question(**fields), answer)
    assert (read, type(read)) == (value, type(value))


@pytest.mark.parametrize(
    ("fields", "answer"),
    [
        ({"type": "text"}, 5),
        ({"type": "text", "min": 2}, "a"),
        ({"type": "text"}, "${env.SECRET}"),
        ({"type": "text"}, "\ud800"),
        ({"type": "text"}, "x" * 10_001),
        ({"type": "integer"}, "3.5"),
        ({"type": "integer"}, True),
        ({"type": "integer"}, 10**18),
        pytest.param({"type": "integer"}, 10**5000, id="huge"),
        ({"type": "integer"}, "9" * 5000),
        ({"type": "integer", "max": 6}, "7"),
        ({"type": "integer", "min": 1}, 0),
        ({"type": "number"}, "nan"),
        ({"type": "number"}, "inf"),
        ({"type": "number"}, 10**400),
        ({"type": "number"}, "word"),
        ({"type": "boolean"}, "yes"),
        ({"type": "boolean"}, 1),
        ({"type": "choice", "choices": ["a"]}, "b"),
        ({"type": "choice", "choices": ["a"]}, ["a"]),
        ({"type": "duration"}, 90),
        ({"type": "duration", "max": "1m"}, "61s"),
        ({"type": "time"}, "2026-11-21T03:04:05"),
        ({"type": "time"}, "0001-01-01T00:00:00+14:00"),
        ({"type": "time"}, "yesterday"),
        ({"type": "list"}, [1]),
        ({"type": "list"}, 5),
        ({"type": "list", "max": 1}, "a,b"),
        ({"type": "list"}, ["x"] * 1001),
    ],
)
def test_an_answer_that_does_not_fit_is_refused_with_a_sentence(fields, answer):
    with pytest.raises(ValueError, match=r"."):
        read_answer(question(**fields), answer)


@pytest.mark.parametrize(
    ("asked", "path", "word"),
    [
        ("{type: choice}", "inputs.x", "needs `choices`"),
        ("{type: text, choices: [a]}", "inputs.x.choices", "only a choice"),
        ("{type: choice, choices: [a, a]}", "inputs.x.choices", "twice"),
        ("{type: boolean, min: 1}", "inputs.x.min", "no min"),
        ("{type: integer, max: high}", "inputs.x.max", "whole number"),
        ("{type: text, min: -1}", "inputs.x.min", "length"),
        ("{type: integer, min: 3, max: 2, default: 2}", "inputs.x.min", "above"),
        ("{type: integer, default: 9, max: 2}", "inputs.x.default", "at most 2"),
        ("{type: duration, default: 90}", "inputs.x.default", "such as 90s"),
        ("{type: duration, default: 1m, max: 30}", "inputs.x.max", "such as 90s"),
    ],
)
def test_a_question_that_makes_no_sense_is_refused(asked, path, word):
    problems = plan_problems(ASKED.format(asked), inputs={"x": "a"})
    assert any(f": {path}: " in problem and word in problem for problem in problems), problems


def test_an_unknown_input_names_the_nearest_one():
    assert "'y'" in only(plan_problems(ASKED.format("{type: text}"), inputs={"x": "a", "y": "b"}))
    found = plan_problems("inputs: {capacity: {type: integer, default: 1}}", inputs={"capacty": 2})
    assert "did you mean 'capacity'" in only(found)


def test_a_required_input_without_an_answer_is_refused_where_it_is_asked():
    problem = only(plan_problems(ASKED.format("{type: duration}")))
    assert problem.startswith("4:3: inputs.x: ")
    assert "90s" in problem


def test_defaults_are_filled_in_and_the_plan_holds_json():
    plan = planned(ASKED.format("{type: duration, default: 90s}"))
    assert plan.inputs == {"x": "1m30s"}
    assert plan.steps[0].arguments == {"text": "1m30s"}


def test_an_empty_optional_input_leaves_its_field_out():
    plan = planned(ASKED.format("{type: text, optional: true}"))
    assert plan.inputs == {"x": None}
    assert plan.steps[0].arguments == {}


def test_an_empty_optional_input_cannot_stand_within_a_text():
    body = ASKED.format("{type: text, optional: true}").replace("${inputs.x}", "for ${inputs.x}")
    assert "no value" in only(plan_problems(body))


@given(st.integers(0, 366 * 86_400_000).map(lambda count: timedelta(milliseconds=count)))
def test_a_duration_survives_being_written_and_read(duration):
    assert parse_duration(format_duration(duration)) == duration


@given(
    st.sampled_from(InputType),
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=40) | st.lists(st.text(max_size=5), max_size=3),
    st.none() | st.integers(-5, 5) | st.text(max_size=5),
)
def test_no_answer_does_more_than_be_refused(kind, answer, bound):
    asked = question(type=kind, min=bound, choices=["a"] if kind is InputType.choice else [])
    try:
        read = read_answer(asked, answer)
    except ValueError:
        return
    assert read is None or isinstance(read, str | int | float | bool | list)


def test_a_plan_is_for_one_mode_and_its_hash_pins_mode_and_inputs():
    body = ASKED.format("{type: text}")
    hashes = {planned(body, mode, {"x": answer}).hash for mode in Mode for answer in "ab"}
    assert len(hashes) == 6
    assert planned(body, inputs={"x": "a"}).hash == planned(body, inputs={"x": "a"}).hash
