"""A plan at run time: references looked up, actions built, secrets kept."""

from datetime import UTC, datetime, timedelta

import pytest

from runbooks.plan import change_type, is_change, look_up_in
from runbooks.problems import RunbookError
from runbooks.references import parse
from tests.runbooks.actions import Alter, Place, Sight
from tests.runbooks.making import planned

SIGHT = Sight(
    name="n",
    count=2,
    ratio=0.5,
    well=True,
    at=datetime(2026, 11, 21, 3, 4, 5, tzinfo=UTC),
    lasting=timedelta(seconds=90),
    colour="red",
    place=Place(host="h"),
    places=(Place(host="a"), Place(host="b")),
    by_name={"west": Place(host="w")},
    tags=("x",),
)
RUN = {"id": "7f3a", "mode": "live"}


def look_up(reference: str, environ=None, outputs=None):
    return look_up_in(outputs or {"first": SIGHT}, RUN, environ or {})(parse(reference))


@pytest.mark.parametrize("outputs", [{"first": SIGHT}, {"first": SIGHT.model_dump()}])
def test_outputs_are_found_in_states_and_in_their_json(outputs):
    for path, value in [("name", "n"), ("place.host", "h"), ("places.1.host", "b"), ("by_name.west.host", "w"), ("places.7", None)]:
        assert look_up(f"steps.first.{path}", outputs=outputs) == value


def test_a_secret_is_read_when_it_is_needed(tmp_path):
    (tmp_path / "secret").write_text("hunter2\n")
    assert look_up("env.TOKEN", {"TOKEN": "hunter2"}) == "hunter2"
    assert look_up(f"file.{tmp_path}/secret") == "hunter2"


@pytest.mark.parametrize("reference", ["env.NONE", "file./no/such/file", "steps.second.name", "run.service", "inputs.x"])
def test_what_is_not_known_is_told_without_values(reference):
    with pytest.raises(LookupError):
        look_up(reference)


def test_an_action_is_built_with_everything_looked_up():
    plan = planned("""
    steps:
      - {id: first, uses: test.look}
      - id: last
        uses: test.look
        with:
          at: ${steps.first.at}
          patience: ${steps.first.lasting}
          places: ${steps.first.places}
          text: "${steps.first.count} since ${steps.first.at}, ${run.id}"
          token: Bearer ${env.TOKEN}
    """)
    action = plan.by_id["last"].action(look_up_in({"first": SIGHT}, RUN, {"TOKEN": "hunter2"}))
    assert (action.at, action.patience, action.places) == (SIGHT.at, SIGHT.lasting, SIGHT.places)
    assert action.text == "2 since 2026-11-21T03:04:05+00:00, 7f3a"
    assert action.token.get_secret_value() == "Bearer hunter2"
    assert "hunter2" not in repr(action)


def test_a_value_that_does_not_fit_after_all_is_a_problem_of_the_step_without_the_value():
    plan = planned("steps:\n  - {id: first, uses: test.look}\n  - {id: last, uses: test.look, with: {url: '${steps.first.name}'}}")
    with pytest.raises(RunbookError) as caught:
        plan.by_id["last"].action(look_up_in({"first": SIGHT}, RUN, {}))
    assert caught.value.problems[0].path == "step last.with.url"
    assert caught.value.problems[0].place == plan.by_id["last"].place


def test_an_empty_output_within_a_text_is_told_by_its_name():
    plan = planned("steps:\n  - {id: first, uses: test.look}\n  - {id: last, uses: test.look, with: {text: 'at ${steps.first.at}'}}")
    empty = SIGHT.model_copy(update={"at": None})
    with pytest.raises(LookupError, match=r"\$\{steps.first.at\} stands within a text and has no value"):
        plan.by_id["last"].action(look_up_in({"first": empty}, RUN, {}))


def test_a_manual_step_is_no_action():
    step = planned("steps: [{id: last, manual: look}]").steps[0]
    assert (is_change(step), change_type(step)) == (False, None)
    with pytest.raises(TypeError):
        step.action(lambda reference: reference)


def test_changes_are_told_from_probes():
    plan = planned("steps:\n  - {id: a, uses: test.alter, with: {where: x}}\n  - {id: last, uses: test.look}")
    assert [(is_change(step), change_type(step)) for step in plan.steps] == [(True, Alter), (False, None)]
