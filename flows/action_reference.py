"""The actions as documentation, made from their classes: for `failover actions` and docs/actions.md."""

from __future__ import annotations

import inspect
from collections.abc import Iterator
from typing import Any

from pydantic import BaseModel

from tasks.contract import ActionType, Change, kind_of
from tasks.durations import format_duration
from tasks.registry import action_type, names


def summary(action: ActionType) -> str:
    """The first line of an action's docstring."""
    return (inspect.getdoc(action) or "").partition("\n")[0]


def summary_rows() -> list[tuple[str, str, str]]:
    """Name, kind and summary of every action."""
    rows = [("action", "kind", "what it does")]
    for name in names():
        found = action_type(name)
        if found is not None:
            rows.append((name, kind_of(found), summary(found)))
    return rows


def action_lines(action: ActionType) -> list[str]:
    """One action as Markdown."""
    lines = [f"## {action.name}", "", inspect.getdoc(action) or "", ""]
    facts = [f"kind: {kind_of(action)}", f"default budget: {format_duration(action.budget)}",
             f"looks every {format_duration(action.interval)}"]  # fmt: skip
    if issubclass(action, Change):
        facts += [f"reversible: {'yes' if action.reversible else 'no'}", f"leans on the {action.plane.value} plane"]
        facts += ["is a fence"] if action.fences else []
        if action.makes_writer:
            facts.append("makes a writer: is its own fence" if action.fences_itself else "makes a writer: needs a fence before it")
        facts += ["point of no return"] if action.point_of_no_return else []
        facts += ["acts in phases"] if action.phased else []
    lines += ["; ".join(facts) + ".", "", "Inputs:", ""]
    lines += list(_fields(action, required_shown=True))
    lines += ["", "Output (`${steps.ID.FIELD}`):", "", *_fields(action.state_type(), required_shown=False), ""]
    lines += list(_parts(action))
    return lines


def _parts(action: ActionType) -> Iterator[str]:
    """The types that inputs and outputs are made of, each once."""
    known = _schema(action).get("$defs", {}) | _schema(action.state_type()).get("$defs", {})
    for name, schema in known.items():
        if "properties" in schema:
            yield from (f"`{name}`: {_first_line(schema)}".rstrip(": "), "")
            yield from _lines(schema, required_shown=True)
            yield ""


def _schema(model: type[BaseModel]) -> dict[str, Any]:
    return model.model_json_schema(by_alias=True, mode="validation")


def _first_line(schema: dict[str, Any]) -> str:
    return str(schema.get("description", "")).partition("\n")[0]


def _fields(model: type[BaseModel], *, required_shown: bool) -> Iterator[str]:
    yield from _lines(_schema(model), required_shown=required_shown)


def _lines(schema: dict[str, Any], *, required_shown: bool) -> Iterator[str]:
    wanted = set(schema.get("required", ()))
    for name, field in schema.get("properties", {}).items():
        notes = [_type(field)]
        if required_shown:
            notes.append("required" if name in wanted else _default(field))
        said = field.get("description", "").replace("\n", " ")
        yield f"- `{name}` ({', '.join(note for note in notes if note)}): {said}".rstrip(": ")


def _default(field: dict[str, Any]) -> str:
    return f"default {field['default']}" if field.get("default") not in (None, "", [], {}) else "optional"


def _type(field: dict[str, Any]) -> str:
    if "$ref" in field:
        return str(field["$ref"]).rpartition("/")[2]
    if "anyOf" in field:
        return " or ".join(dict.fromkeys(_type(one) for one in field["anyOf"] if one.get("type") != "null"))
    if "enum" in field:
        return " | ".join(map(str, field["enum"]))
    if "const" in field:
        return str(field["const"])
    if field.get("type") == "array":
        return f"list of {_type(field.get('items', {}))}"
    if field.get("type") == "object" and isinstance(field.get("additionalProperties"), dict):
        return f"mapping to {_type(field['additionalProperties'])}"
    if field.get("format") == "password":
        return "secret: ${env.NAME} or ${file.PATH}"
    if "pattern" in field and "ms|s|m|h|d" in field["pattern"]:
        return "duration"
    return str(field.get("format") or field.get("type", "any"))


def reference() -> str:
    """The whole action reference as Markdown."""
    lines = ["# Actions", "", "Generated from the code by `python -m flows.action_reference`; a test keeps it equal.", ""]
    for name in names():
        found = action_type(name)
        if found is not None:
            lines += action_lines(found)
    return "\n".join(lines).rstrip() + "\n"


if __name__ == "__main__":
    print(reference(), end="")
