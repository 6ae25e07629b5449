"""The tables of docs/runbook-reference.md, made from the model and the tiers; `python -m runbooks.reference_tables` writes them."""

from __future__ import annotations

from datetime import timedelta
from pathlib import Path
from typing import Any, Literal, get_args, get_origin

from pydantic import BaseModel
from pydantic.fields import FieldInfo

from runbooks.fields import alternatives, is_model
from runbooks.model import Approval, Comms, Input, Objectives, Retry, Runbook, Step, Targets
from runbooks.tiers import all_tiers
from tasks.durations import format_duration

FILE = Path(__file__).parents[1] / "docs" / "runbook-reference.md"
BEGIN = "<!-- generated: python -m runbooks.reference_tables -->"
END = "<!-- end of generated -->"

_PARTS: tuple[tuple[str, type[BaseModel]], ...] = (
    ("Top level", Runbook),
    ("objectives", Objectives),
    ("inputs.NAME", Input),
    ("targets", Targets),
    ("steps[]", Step),
    ("steps[].gate", Approval),
    ("steps[].retry", Retry),
    ("comms", Comms),
)
_WORDS: dict[Any, str] = {
    str: "text",
    int: "number",
    float: "number",
    bool: "true or false",
    timedelta: "time",
    Any: "any",
}


def generated() -> str:
    """Every field of the grammar, then every tier."""
    parts = [f"### {name}\n\n{_first_line(model)}\n\n{_fields(model)}" for name, model in _PARTS]
    return "\n".join([*parts, "## Tiers\n", *_tiers()])


def updated() -> str:
    """The document with its generated part as it should be."""
    before, _, rest = FILE.read_text(encoding="utf-8").partition(BEGIN)
    _, _, after = rest.partition(END)
    return f"{before}{BEGIN}\n\n{generated()}\n{END}{after}"


def _first_line(model: type[BaseModel]) -> str:
    return (model.__doc__ or "").strip().splitlines()[0]


def _fields(model: type[BaseModel]) -> str:
    rows = ["| field | is | default | meaning |", "|---|---|---|---|"]
    for name, field in model.model_fields.items():
        rows.append(f"| `{field.alias or name}` | {_type(field)} | {_default(field)} | {field.description} |")
    return "\n".join(rows) + "\n"


def _type(field: FieldInfo) -> str:
    return " or ".join(dict.fromkeys(_word(one) for one in alternatives(field.annotation))) or "any"


def _word(one: Any) -> str:
    origin: Any = get_origin(one)
    if origin is Literal:
        return " or ".join(f"`{option}`" for option in get_args(one))
    if origin is tuple:
        return f"list of {_word(alternatives(get_args(one)[0])[0])}"
    if origin is dict:
        return "mapping"
    return "mapping" if is_model(one) else _WORDS.get(one, "text")


def _default(field: FieldInfo) -> str:
    if field.is_required():
        return "**required**"
    value = field.get_default(call_default_factory=True)
    if value in (None, (), {}) or isinstance(value, BaseModel):
        return ""
    if isinstance(value, bool):
        return str(value).lower()
    return format_duration(value) if isinstance(value, timedelta) else str(value)


def _tiers() -> list[str]:
    lines = []
    for kind, each in all_tiers().sets.items():
        lines += [f"### {kind}\n", f"{each.title}. Source: {each.source}.\n"]
        lines += ["| tier | rto | rpo | drill | what it is |", "|---|---|---|---|---|"]
        for name, tier in each.tiers.items():
            says = f' ("{tier.says}")' if tier.says else ""
            told = f"{tier.title or ''}{says}".strip()
            lines.append(f"| `{kind}/{name}` | {_time(tier.rto)} | {_time(tier.rpo)} | {tier.drill or ''} | {told} |")
        lines.append("")
    return lines


def _time(value: timedelta | None) -> str:
    return "" if value is None else format_duration(value)


if __name__ == "__main__":
    FILE.write_text(updated(), encoding="utf-8")
