"""Turn what pydantic says about a tree into problems that a person can act on, at the right node."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, get_args

from pydantic import BaseModel, ValidationError
from pydantic_core import ErrorDetails

from runbooks.findings import Findings, Names, shorten
from runbooks.paths import Path, entry

_WANTED = {
    "string_type": "a text",
    "int_type": "a whole number",
    "float_type": "a number",
    "bool_type": "true or false",
    "dict_type": "a mapping (name: value)",
    "mapping_type": "a mapping (name: value)",
    "model_type": "a mapping (name: value)",
    "model_attributes_type": "a mapping (name: value)",
    "list_type": "a list",
    "tuple_type": "a list",
    "set_type": "a list",
}
_LIMITS = {
    "greater_than_equal": ("ge", "at least"),
    "greater_than": ("gt", "more than"),
    "less_than_equal": ("le", "at most"),
    "less_than": ("lt", "less than"),
}


def report(error: ValidationError, model: type[BaseModel], findings: Findings) -> None:
    """Note every error of a file that was validated as a whole."""
    for path, message, on_key in explain(error, model, findings.tree.value, findings.names):
        if not any(path[:length] in findings.tree.doubtful for length in range(len(path) + 1)):
            findings.add(path, message, key=on_key)


def explain(
    error: ValidationError, model: type[BaseModel], value: Any, names: Names
) -> Iterator[tuple[Path, str, bool]]:
    """For every error its path in the value that was validated, a message, and whether the key is wrong."""
    grouped: dict[Path, list[ErrorDetails]] = {}
    for one in error.errors(include_url=False):
        grouped.setdefault(_in_tree(one["loc"], value, one["type"]), []).append(one)
    around = {path[:length] for path in grouped for length in range(len(path))}
    for path, errors in grouped.items():
        if errors[0]["type"] == "too_short" and path in around:
            continue  # pydantic counts only the good entries
        on_key = errors[0]["type"] == "extra_forbidden" or errors[0]["loc"][-1:] == ("[key]",)
        yield path, _message(errors, model_at(model, path), names), on_key


def _in_tree(loc: tuple[str | int, ...], value: Any, kind: str) -> Path:
    """The part of pydantic's location that exists in the file; it also names alternatives and '[key]'."""
    path: list[str | int] = []
    for index, part in enumerate(loc):
        try:
            value = entry(value, part)
        except LookupError:
            return (*path, part) if kind == "missing" and index == len(loc) - 1 else tuple(path)
        path.append(part)
    return tuple(path)


def _message(errors: list[ErrorDetails], known: frozenset[str], names: Names) -> str:
    """One sentence for the errors at one place; several only where alternatives failed each in its own way."""
    one = errors[0]
    kind, context = one["type"], one.get("ctx", {})
    if kind == "missing":
        return "is missing"
    if kind == "extra_forbidden":
        return f"is no field here{names.nearest(str(one['loc'][-1]), known)}"
    if wanted := sorted({_WANTED[each["type"]] for each in errors if each["type"] in _WANTED}):
        return _wrong_type(one["input"], wanted)
    shown = shorten(one["input"])
    if kind in ("literal_error", "enum"):
        return f"{shown} is not allowed; write {context['expected']}"
    if kind == "string_pattern_mismatch":
        return f"{shown} does not fit the pattern {context['pattern']}" + _pattern_hint(str(context["pattern"]))
    if kind == "value_error":
        return str(context["error"])
    if kind in _LIMITS:
        name, words = _LIMITS[kind]
        return f"{shown} is out of range; it must be {words} {context[name]}"
    if kind in ("too_short", "string_too_short"):
        return f"is too short; it needs at least {_counted(context.get('min_length'), kind)}"
    if kind in ("too_long", "string_too_long"):
        return f"is too long; it may have at most {_counted(context.get('max_length'), kind)}"
    return f"{shown}: {one['msg'][:1].lower()}{one['msg'][1:]}"


def _counted(count: object, kind: str) -> str:
    thing = "character" if kind.startswith("string") else "entry"
    return f"{count} {thing}" if count == 1 else f"{count} {thing.replace('entry', 'entrie')}s"


def _wrong_type(value: Any, wanted: list[str]) -> str:
    hint = ""
    if "a text" in wanted and isinstance(value, bool | int | float):
        hint = f'; put it in quotes: "{shorten(value)}"'
    elif value is None:
        hint = "; give it a value or leave the line out"
    return f"{shorten(value)} is not {' or '.join(wanted)}{hint}"


def _pattern_hint(pattern: str) -> str:
    if pattern.startswith("^[a-z][a-z0-9_"):
        return "; start with a small letter and go on with small letters, digits and _" + (
            " or -" if "-]" in pattern else ""
        )
    return ""


def model_at(model: Any, path: Path) -> frozenset[str]:
    """The keys that the grammar knows beside the last part of a path."""
    current: Any = model
    for part in path[:-1]:
        current = _step_into(current, part)
    if isinstance(current, type) and issubclass(current, BaseModel):
        return frozenset(field.alias or name for name, field in current.model_fields.items())
    return frozenset()


def _step_into(annotation: Any, part: str | int) -> Any:
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        for name, field in annotation.model_fields.items():
            if part in (name, field.alias):
                return _plain(field.annotation)
        return None
    arguments = get_args(annotation)
    return _plain(arguments[0] if isinstance(part, int) else arguments[-1]) if arguments else None


def _plain(annotation: Any) -> Any:
    """Take Annotated and Optional off."""
    while hasattr(annotation, "__metadata__"):
        annotation = get_args(annotation)[0]
    rest = [each for each in get_args(annotation) if each is not type(None)]
    return _plain(rest[0]) if type(None) in get_args(annotation) and rest else annotation
