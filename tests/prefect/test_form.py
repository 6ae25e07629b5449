"""The form that starts a runbook: what the UI shows and what the API refuses."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from runbooks.loader import load_text
from runbooks.model import Mode
from runbooks.planner import plan

pytestmark = pytest.mark.prefect

TEXT = """
schema: failover/v1
name: asking
title: Asks everything
service: shop
owner: me
objectives: {rto: 5m}
inputs:
  copies: {type: integer, default: 2, min: 1, max: 9, title: How many copies, description: Of the web tier}
  share: {type: number, optional: true, min: 0.5}
  region: {type: choice, choices: [east, west], default: west}
  only: {type: choice, choices: [one]}
  patience: {type: duration, default: 90s, max: 5m}
  since: {type: time, optional: true}
  hosts: {type: list, default: [a], max: 3}
  sure: {type: boolean, default: false}
  mode: {type: text, min: 2}
  from: {type: text, default: here}
  model_name: {type: text, default: x}
  json: {type: text, default: why}
steps:
  - {id: go, manual: Go}
recovered_when: [go]
"""
GIVEN = {"mode": "live", "your_name": "ines", "only": "one", "mode_": "eh"}


@pytest.fixture(scope="module")
def flow() -> Any:
    from flows.prefect_flow import compile_flow

    return compile_flow(load_text(TEXT, "asking.yaml"), lambda: pytest.fail("compiling opens no journal"))


@pytest.fixture(scope="module")
def fields(flow: Any) -> dict[str, Any]:
    return dict(flow.parameters.properties)


def test_the_mode_and_the_name_are_required_and_have_no_default(flow: Any, fields: dict[str, Any]) -> None:
    assert fields["mode"]["enum"] == [mode.value for mode in Mode]
    assert "default" not in fields["mode"]
    assert set(flow.parameters.required) == {"mode", "your_name", "only", "mode_"}


def test_inputs_keep_their_bounds_choices_defaults_titles_and_descriptions(fields: dict[str, Any]) -> None:
    copies = fields["copies"]
    assert (copies["minimum"], copies["maximum"], copies["default"]) == (1, 9, 2)
    assert (copies["title"], copies["description"]) == ("How many copies", "Of the web tier")
    assert fields["region"]["enum"] == ["east", "west"]
    assert fields["only"]["enum"] == ["one"]
    assert fields["share"]["anyOf"][0] == {"minimum": 0.5, "type": "number"}
    assert fields["since"]["anyOf"][0]["format"] == "date-time"
    assert fields["hosts"]["maxItems"] == 3
    assert fields["sure"]["default"] is False
    assert "at most 5m" in fields["patience"]["description"]


def test_the_form_stands_in_the_order_of_the_runbook(fields: dict[str, Any]) -> None:
    names = sorted(fields, key=lambda name: fields[name]["position"])
    assert names[:4] == ["mode", "copies", "share", "region"]
    assert names[-2:] == ["your_name", "reason"]


def test_inputs_called_as_something_of_python_or_prefect_still_arrive(flow: Any) -> None:
    from flows.prefect_form import answers, questions

    loaded = load_text(TEXT, "asking.yaml")
    given = flow.validate_parameters({**GIVEN, "since": "2026-01-01T00:00:00Z", "patience": "2m"})
    read = answers(questions(loaded.runbook), given)
    assert read == {
        "copies": 2, "region": "west", "only": "one", "patience": "2m", "since": "2026-01-01T00:00:00+00:00", "hosts": ["a"],
        "sure": False, "mode": "eh", "from": "here", "model_name": "x", "json": "why",
    }  # fmt: skip
    assert plan(loaded, mode=Mode.live, inputs=read).inputs["mode"] == "eh"


@pytest.mark.parametrize(
    "wrong", [{"mode": "real"}, {"your_name": " "}, {"copies": 0}, {"region": "north"}, {"patience": "90"}, {"hosts": list("abcd")}]
)
def test_a_wrong_answer_is_refused(flow: Any, wrong: dict[str, Any]) -> None:
    from prefect.exceptions import ParameterTypeError

    with pytest.raises(ParameterTypeError):
        flow.validate_parameters({**GIVEN, **wrong})


def test_the_flow_is_named_after_the_runbook_and_nothing_of_prefect_decides_to_act_again(flow: Any) -> None:
    assert (flow.name, flow.retries, flow.persist_result, flow.isasync) == ("asking", 0, False, True)


def test_every_shipped_runbook_has_a_form() -> None:
    from flows.prefect_flow import compile_flow
    from runbooks.loader import load
    from runbooks.shipped import shipped

    for name, path in shipped().items():
        assert compile_flow(load(path), lambda: pytest.fail("opened")).name == name


def test_the_same_flow_run_is_the_same_execution_and_neighbours_differ_from_the_first_letters() -> None:
    from uuid import UUID

    from flows.prefect_flow import execution_of

    first, second = UUID("0197a0b0-0000-7000-8000-000000000001"), UUID("0197a0b0-0000-7000-8000-000000000002")
    assert execution_of(first) == execution_of(first)
    assert execution_of(first)[:4] != execution_of(second)[:4]


def test_a_served_module_gives_the_runbook_of_that_name_and_no_other(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import deployments.prefect_served as served

    (tmp_path / "some-file.yaml").write_text(TEXT)
    (tmp_path / "other.yaml").write_text("nonsense: [")
    monkeypatch.setenv("FAILOVER_RUNBOOKS", str(tmp_path))
    assert getattr(served, "asking").name == "asking"  # noqa: B009 - as an entrypoint is read
    with pytest.raises(AttributeError):
        served.missing  # noqa: B018
