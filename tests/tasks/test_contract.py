"""What every registered action promises, whoever wrote it."""

from __future__ import annotations

import ast
import importlib
import inspect
import json
import subprocess
import sys
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from pydantic import BaseModel, ValidationError

from tasks import registry
from tasks.contract import Action, Change, Probe, Seen
from tasks.postgres_server import Server
from tests.tasks.samples import INPUTS, SECRET, STATES

NAMES = registry.names()
HEAVY = ("boto3", "botocore", "psycopg", "httpx", "dns", "kubernetes", "prefect")
MODULES = sorted(path for path in Path(registry.__file__).parent.rglob("*.py"))


def action_of(name: str) -> Action[Any]:
    found = registry.action_type(name)
    assert found is not None
    return found.model_validate(INPUTS[name])


def states_of(name: str) -> list[tuple[BaseModel, bool]]:
    kind = type(action_of(name)).state_type()
    return [(kind.model_validate(fields), done) for fields, done in STATES[name]]


def models_in(kind: type[BaseModel], found: set[type[BaseModel]] | None = None) -> set[type[BaseModel]]:
    """Every model a model is made of."""
    found = found if found is not None else set()
    if kind in found:
        return found
    found.add(kind)
    for field in kind.model_fields.values():
        for part in _parts(field.annotation):
            if isinstance(part, type) and issubclass(part, BaseModel):
                models_in(part, found)
    return found


def _parts(annotation: Any) -> list[Any]:
    arguments = getattr(annotation, "__args__", ())
    return [annotation, *(part for argument in arguments for part in _parts(argument))]


def test_every_name_leads_to_an_action_of_that_name() -> None:
    assert set(NAMES) == set(INPUTS) == set(STATES)
    for name in NAMES:
        assert registry.NAME.fullmatch(name)
        assert registry.action_type(name).name == name  # type: ignore[union-attr]
    assert registry.action_type("no.such") is None


@pytest.mark.parametrize("name", NAMES)
def test_it_is_documented(name: str) -> None:
    kind = type(action_of(name))
    first = (inspect.getdoc(kind) or "").splitlines()[0]
    assert first.endswith(".")
    assert len(first) <= 80, first
    for model in models_in(kind) | models_in(kind.state_type()):
        assert model.__doc__, model
        for field_name, field in model.model_fields.items():
            assert field.description, f"{model.__name__}.{field_name}"
    shown = json.dumps([kind.model_json_schema(), kind.state_type().model_json_schema(mode="serialization")])
    assert '"PT' not in shown  # a default that no runbook could say


@pytest.mark.parametrize("name", NAMES)
def test_its_state_survives_the_journal(name: str) -> None:
    for state, _ in states_of(name):
        text = json.dumps(state.model_dump(mode="json"))
        assert type(state).model_validate(json.loads(text)) == state
        assert type(state).model_config.get("frozen") is True


@pytest.mark.parametrize("name", NAMES)
def test_done_is_what_its_states_say_and_all_decisions_are_pure(name: str) -> None:
    action = action_of(name)
    for state, done in states_of(name):
        copy = state.model_copy(deep=True)
        assert action.done(state) is done
        at = datetime.now(UTC)
        folded = action.fold(None, Seen(state, at))
        action.fold(Seen(folded, at), Seen(state, at))
        assert isinstance(action.explain(state), str)
        assert isinstance(dict(action.marks(state)), dict)
        if isinstance(action, Change):
            assert isinstance(action.underway(state), bool)
            assert action.refuse(state) is None or isinstance(action.refuse(state), str)
            assert "\n" not in action.describe(state)
        if isinstance(action, Probe):
            assert action.ends(state) is None or isinstance(action.ends(state), str)
        assert state == copy


@pytest.mark.parametrize("name", NAMES)
def test_it_shows_no_secret(name: str) -> None:
    action = action_of(name)
    shown = [repr(action), str(action), str(action.model_dump(mode="json"))]
    for state, _ in states_of(name):
        shown += [action.explain(state), repr(state)]
        if isinstance(action, Change):
            shown += [action.describe(state), action.target, str(action.refuse(state))]
    assert SECRET not in "".join(shown)


@pytest.mark.parametrize("name", NAMES)
def test_unknown_inputs_are_refused_and_nothing_changes_one(name: str) -> None:
    kind = type(action_of(name))
    with pytest.raises(ValidationError):
        kind.model_validate({**INPUTS[name], "no_such_input": 1})
    field = next(iter(kind.model_fields))
    with pytest.raises(ValidationError):
        setattr(action_of(name), field, None)


@pytest.mark.parametrize("name", [name for name in NAMES if isinstance(action_of(name), Change)])
def test_a_change_says_what_it_changes_and_whether_it_can_be_undone(name: str) -> None:
    action = action_of(name)
    assert isinstance(action, Change)
    assert action.target
    assert ":" in action.target
    assert action.reversible is (type(action).undo is not Change.undo)
    assert not (action.reversible and action.point_of_no_return)
    assert not action.makes_writer or action.point_of_no_return
    assert not action.fences_itself or action.makes_writer
    if action.resend is not None:
        assert action.resend >= action.interval
        assert not action.phased


@pytest.mark.parametrize("name", [name for name in NAMES if isinstance(action_of(name), Change)])
def test_a_change_holds_the_lease_of_every_server_that_it_is_given(name: str) -> None:
    """Must never happen: two runs change one server, because one of them holds only the other server of a pair."""
    action = action_of(name)
    assert isinstance(action, Change)
    servers: list[Server] = []
    for field in type(action).model_fields:
        value = getattr(action, field)
        servers += [one for one in (value.values() if isinstance(value, dict) else [value]) if isinstance(one, Server)]
    assert {f"postgres:{one.name}" for one in servers} <= set(action.targets)


@pytest.mark.parametrize("name", NAMES)
def test_what_is_told_to_hands_holds_no_secret_and_whatever_can_be_undone_has_such_words(name: str) -> None:
    action = action_of(name)
    told = [action.by_hand()]
    if isinstance(action, Change):
        back = [action.undo_by_hand(state) for state, _ in states_of(name)]
        assert any(back) is action.reversible
        told += back
    assert SECRET not in str(told)


@pytest.mark.parametrize("name", NAMES)
def test_looking_it_up_imports_nothing_heavy(name: str) -> None:
    code = f"from tasks import registry; registry.action_type({name!r}); import sys; print(*sys.modules)"
    loaded = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=Path(registry.__file__).parents[1]
    ).stdout.split()
    assert not set(loaded) & set(HEAVY)


@pytest.mark.parametrize("path", MODULES, ids=lambda path: path.stem)
def test_no_module_of_tasks_keeps_time_or_is_too_long(path: Path) -> None:
    text = path.read_text()
    for node in ast.walk(ast.parse(text)):
        if isinstance(node, ast.Import | ast.ImportFrom):
            imported = [node.module or ""] if isinstance(node, ast.ImportFrom) else [one.name for one in node.names]
            assert not {"time", "asyncio", "sched", "yaml"} & {one.split(".")[0] for one in imported}, imported
        if isinstance(node, ast.FunctionDef):
            assert (node.end_lineno or 0) - node.lineno < 50, f"{path.stem}.{node.name}"
    assert len(text.splitlines()) <= 300
    assert "datetime.now" not in text


@pytest.mark.parametrize("name", NAMES)
def test_its_libraries_can_be_imported_beforehand(name: str) -> None:
    for library in action_of(name).libraries:
        importlib.import_module(library)
