"""Check a step's `with` against its action: every field, every reference, as far as it can be known before a run."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from pydantic import ValidationError

from runbooks.fields import Types, describe, fits, is_scalar, is_secret, leaves, sample
from runbooks.model_errors import explain
from runbooks.paths import Path
from runbooks.references import Reference, whole
from runbooks.values import Values, holes
from tasks.contract import WHICH_FIELDS, Action, ActionType

Source = Callable[[Reference], Types | None]
"""What a reference that is not filled in yet gives; None when that is a problem already."""


@dataclass(frozen=True)
class Arguments:
    """A step's `with` as written and with inputs and targets filled in, and where it stands."""

    action: ActionType
    written: Mapping[str, Any]
    filled: Mapping[str, Any]
    base: Path

    def leaves(self) -> Iterator[tuple[Path, Any, Types]]:
        """Every single value with what the field at its place takes."""
        return leaves((self.action,), self.filled)


def check_arguments(arguments: Arguments, source: Source, values: Values) -> None:
    """Note every missing, unknown or wrong field, and references and literals where they do not belong."""

    def add(path: Path, message: str, *, key: bool = False) -> None:
        where = (*arguments.base, *path)
        values.findings.add(where, message, key=key, at=values.origin(arguments.written, arguments.base, path))

    covered: set[Path] = set()
    uncertain: set[Path] = set()
    for path, value, wanted in arguments.leaves():
        found = tuple(holes(value))
        if is_secret(wanted):
            if message := _secret_problem(value, found):
                covered.add(path)
                add(path, message)
        else:
            for message in _open_problems(value, found, wanted, source):
                add(path, message)
        if found or (isinstance(value, str) and "${" in value):
            covered.add(path)
            if not all(reference.secret for reference in found) or not found:
                uncertain.update(path[:length] for length in range(len(path)))
    try:
        build(arguments)
    except ValidationError as error:
        sure = {one["loc"] for one in error.errors(include_input=False, include_url=False) if one["type"] == WHICH_FIELDS}
        for path, message, on_key in explain(error, arguments.action, arguments.filled, values.findings.names):
            if (path in sure or path not in uncertain) and not any(path[:length] in covered for length in range(len(path) + 1)):
                add(path, message + _help(arguments.action, path, message), key=on_key)
    except Exception as error:  # noqa: BLE001 - a validator of somebody else's action
        if not uncertain:
            add((), f"{arguments.action.name} cannot check its inputs: {type(error).__name__}, a defect of the action")


def _secret_problem(value: Any, found: tuple[Reference, ...]) -> str | None:
    if value is None:
        return None
    if shown := [str(reference) for reference in found if not reference.secret]:
        return (
            f"a secret cannot come from {shown[0]}, which is shown and recorded; write ${{env.NAME}} or ${{file.PATH}}"
        )
    if not found:
        return "a secret does not belong in a runbook or an input; write ${env.NAME} or ${file.PATH}"
    return None


def _open_problems(value: Any, found: tuple[Reference, ...], wanted: Types, source: Source) -> Iterator[str]:
    for reference in found:
        if reference.secret:
            yield f"{reference} is kept secret, and this field is shown; only fields for secrets may hold it"
            continue
        given = source(reference)
        if given is None:
            continue
        if whole(value) is None:
            if not is_scalar(given):
                yield f"{reference} is {describe(given)} and stands within a text; only text, numbers and times can"
        elif not fits(given, wanted):
            yield f"{reference} is {describe(given)}, and this takes {describe(wanted)}"


def _help(action: ActionType, path: Path, message: str) -> str:
    if message != "is missing" or len(path) != 1 or not isinstance(path[0], str):
        return ""
    field = action.model_fields.get(path[0])
    return f"; {action.name} needs it: {field.description}" if field is not None and field.description else ""


def build(arguments: Arguments, variant: int = 0) -> Action[Any]:
    """The action with a stand-in for whatever is not known yet; raises ValidationError.

    variant: stand-ins for what steps will tell differ between variants; those for secrets and inputs do not.
    """
    return arguments.action.model_validate(_stand_in(arguments, variant))


def _stand_in(arguments: Arguments, variant: int) -> Any:
    stand_ins = {
        path: _text_stand_in(leaf, types, variant)
        for path, leaf, types in arguments.leaves()
        if isinstance(leaf, str) and "${" in leaf
    }
    return _with(arguments.filled, stand_ins, ())


def _text_stand_in(text: str, types: Types, variant: int) -> Any:
    found = tuple(holes(text))
    if not found:
        return sample(types)
    if whole(text) is not None:
        return sample(types, variant if found[0].scope == "steps" else 0)
    for reference in found:
        word = f"unknown-{variant}" if reference.scope == "steps" else "unknown"
        text = text.replace(str(reference), word)
    return text


def _with(value: Any, stand_ins: Mapping[Path, Any], path: Path) -> Any:
    if path in stand_ins:
        return stand_ins[path]
    if isinstance(value, Mapping):
        return {key: _with(item, stand_ins, (*path, key)) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_with(item, stand_ins, (*path, index)) for index, item in enumerate(value)]
    return value
