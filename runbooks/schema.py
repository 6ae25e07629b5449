"""The grammar as JSON Schema, for editors: made from the model and the actions. `python -m runbooks.schema` writes it.

It knows what each action takes and that a reference may stand for any value. It knows nothing of order, budgets and
fences: that is what `failover check` is for.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from datetime import timedelta
from pathlib import Path
from typing import Any

from pydantic import TypeAdapter

from runbooks.model import Runbook
from tasks.contract import ActionType
from tasks.durations import format_duration
from tasks.registry import OURS, action_type

FILE = Path(__file__).with_name("failover-v1.schema.json")
REFERENCE = {"type": "string", "pattern": r"\$\{[^{}]+\}", "description": "A reference, such as ${inputs.name}."}
ACTIONS = tuple(sorted(OURS))
SECRET = {
    "type": "string",
    "pattern": r"\$\{(env|file)\.[^{}]+\}",
    "description": "A secret: ${env.NAME} or ${file.PATH}.",
}

_DURATIONS: TypeAdapter[Any] = TypeAdapter(timedelta)
_FREE_TEXT = {"type", "description", "examples", "default"}


def schema() -> dict[str, Any]:
    """The whole schema: the grammar, and for each action of ours what its `with` takes."""
    grammar = _tidy(Runbook.model_json_schema(by_alias=True))
    definitions = grammar.pop("$defs")
    cases = []
    for name in ACTIONS:
        action = action_type(name)
        if action is None:
            raise LookupError(name)
        cases.append(_case(name, action, definitions))
    definitions["Step"] |= {
        "oneOf": [{"required": ["uses"]}, {"required": ["manual"]}],
        "allOf": cases,
    }
    definitions["Step"]["properties"]["uses"] |= {"examples": list(ACTIONS)}
    definitions |= {"Reference": REFERENCE, "Secret": SECRET}
    return {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "title": "Runbook failover/v1",
        **grammar,
        "$defs": dict(sorted(definitions.items())),
    }


def _case(name: str, action: ActionType, definitions: dict[str, Any]) -> dict[str, Any]:
    """If the step uses this action, then its `with` is this; adds what that needs to the definitions."""
    takes = _tidy(action.model_json_schema(by_alias=True, ref_template=f"#/$defs/{name}.{{model}}"))
    for part, definition in takes.pop("$defs", {}).items():
        definitions[f"{name}.{part}"] = _fillable(definition)
    definitions[name] = _fillable(takes)
    then: dict[str, Any] = {"properties": {"with": {"$ref": f"#/$defs/{name}"}}}
    if takes.get("required"):
        then["required"] = ["with"]
    return {"if": {"properties": {"uses": {"const": name}}, "required": ["uses"]}, "then": then}


def _tidy(node: Any) -> Any:
    """Without what pydantic adds for itself, and with times as runbooks write them."""
    if isinstance(node, list):
        return [_tidy(item) for item in node]
    if not isinstance(node, Mapping):
        return node
    tidy = {
        key: {name: _tidy(item) for name, item in value.items()} if key in ("properties", "$defs") else _tidy(value)
        for key, value in node.items()
        if not (key == "title" and isinstance(value, str)) and not (key == "default" and value is None)
    }
    default: Any = tidy.get("default")
    if isinstance(default, str) and default.startswith("P") and "(ms|s|m|h|d)" in str(tidy):
        tidy["default"] = format_duration(_DURATIONS.validate_python(default))
    description: Any = tidy.get("description")
    if isinstance(description, str):
        tidy["description"] = " ".join(description.partition("\n\n")[0].split())
    return tidy


def _fillable(node: dict[str, Any]) -> dict[str, Any]:
    """The same, where any value below may also be a reference, and a secret must hold one."""
    filled = dict(node)
    for key in ("properties", "patternProperties"):
        if key in filled:
            filled[key] = {name: _or_reference(item) for name, item in filled[key].items()}
    for key in ("items", "additionalProperties"):
        if isinstance(filled.get(key), dict):
            filled[key] = _or_reference(filled[key])
    for key in ("anyOf", "oneOf", "prefixItems"):
        if key in filled:
            filled[key] = [_fillable(item) for item in filled[key]]
    if filled.get("format") == "password":
        told = {key: value for key, value in filled.items() if key == "description"}
        return {"$ref": "#/$defs/Secret", **told}
    return {key: value for key, value in filled.items() if key not in ("writeOnly", "discriminator")}


def _or_reference(node: dict[str, Any]) -> dict[str, Any]:
    filled = _fillable(node)
    if (
        not filled
        or "Secret" in str(filled.get("$ref"))
        or (filled.get("type") == "string" and filled.keys() <= _FREE_TEXT)
    ):
        return filled
    told: dict[str, Any] = {key: filled.pop(key) for key in ("description", "default", "examples") if key in filled}
    return {
        **told,
        "anyOf": [*(filled["anyOf"] if filled.keys() == {"anyOf"} else [filled]), {"$ref": "#/$defs/Reference"}],
    }


def text() -> str:
    """The schema as it stands in the file."""
    return json.dumps(schema(), indent=1, ensure_ascii=False) + "\n"


if __name__ == "__main__":
    FILE.write_text(text(), encoding="utf-8")
