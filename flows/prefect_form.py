"""The form that starts a runbook in the Prefect UI: a signature whose parameters are the runbook's inputs."""

from __future__ import annotations

import inspect
import keyword
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Annotated, Any, Literal

from prefect.utilities.callables import ParameterSchema
from pydantic import BaseModel, Field

from runbooks.model import Input, InputType, Mode, Runbook

MODE, INITIATOR, REASON = "mode", "your_name", "reason"
_TAKEN = frozenset({MODE, INITIATOR, REASON, "self", "cls", "wait_for", "return_state", "fn", "args", "kwargs"})
_DURATION = r"^\s*(\d{1,9}(\.\d{1,6})?(ms|s|m|h|d)\s?){1,5}$"


@dataclass(frozen=True)
class Question:
    """One field of the form."""

    parameter: str
    annotation: Any
    default: Any
    title: str
    description: str
    input: str | None = None
    """The runbook's input that it answers; None for what every run asks."""


def questions(runbook: Runbook) -> tuple[Question, ...]:
    """The form's fields in order: how to run, the runbook's inputs, who asks and why."""
    mode = Question(
        MODE, Literal[tuple(mode.value for mode in Mode)], inspect.Parameter.empty, "Mode",
        "live changes the live targets, drill the drill targets, dry-run changes nothing and says what it would do",
    )  # fmt: skip
    taken = set(_TAKEN)
    asked = [_question(name, one, taken) for name, one in runbook.inputs.items()]
    who = Question(
        INITIATOR, Annotated[str, Field(min_length=1, max_length=200, pattern=r"\S")], inspect.Parameter.empty, "Your name",
        "Who starts this; it stands in the record, and some gates do not let you approve your own run",
    )  # fmt: skip
    why = Question(REASON, Annotated[str, Field(max_length=2000)], "", "Reason", "Why, for the record")
    return (mode, *asked, who, why)


def signature(form: tuple[Question, ...]) -> inspect.Signature:
    """Keyword-only parameters, from which Prefect makes the form and checks the answers."""
    kind = inspect.Parameter.KEYWORD_ONLY
    return inspect.Signature(
        [inspect.Parameter(one.parameter, kind, default=one.default, annotation=one.annotation) for one in form]
    )


def describe(schema: ParameterSchema, form: tuple[Question, ...]) -> None:
    """Put titles and descriptions into a schema that Prefect made: it takes neither from the annotations."""
    for one in form:
        field = schema.properties.get(one.parameter)
        if field is not None:
            field["title"] = one.title
            if "const" in field:
                field["enum"] = [field.pop("const")]  # a choice of one is still a choice in the form
            if one.description:
                field["description"] = one.description


def answers(form: tuple[Question, ...], parameters: Mapping[str, Any]) -> dict[str, Any]:
    """The runbook's inputs from a flow run's parameters; what was left empty is left out."""
    given = {one.input: parameters.get(one.parameter) for one in form if one.input is not None}
    return {name: _plain(value) for name, value in given.items() if value is not None}


def _plain(value: Any) -> Any:
    if isinstance(value, datetime):
        return (value if value.tzinfo else value.replace(tzinfo=UTC)).isoformat()
    return list(value) if isinstance(value, list | tuple) else value


def _question(name: str, one: Input, taken: set[str]) -> Question:
    annotation: Any = _annotation(one)
    default: Any = inspect.Parameter.empty
    if one.default is not None:
        default = one.default
    elif one.optional:
        annotation, default = annotation | None, None
    return Question(_parameter(name, taken), annotation, default, one.title or name, _help(one), name)


def _parameter(name: str, taken: set[str]) -> str:
    """A parameter name that neither Python, Prefect, pydantic nor another field uses."""
    chosen = f"in_{name}" if name.startswith("model_") else name
    while chosen in taken or keyword.iskeyword(chosen) or hasattr(BaseModel, chosen):
        chosen += "_"
    taken.add(chosen)
    return chosen


def _help(one: Input) -> str:
    """The input's description, with the bounds that a JSON schema cannot say."""
    parts = [one.description] if one.description else []
    if one.type is InputType.duration:
        parts.append("a time with a unit, such as 90s")
    if one.type in {InputType.duration, InputType.time}:
        parts += [f"{word} {bound}" for word, bound in (("at least", one.min), ("at most", one.max)) if bound is not None]
    return "; ".join(parts)


def _annotation(one: Input) -> Any:
    low: Any = one.min
    high: Any = one.max
    match one.type:
        case InputType.choice:
            return Literal[one.choices]
        case InputType.boolean:
            return bool
        case InputType.integer:
            return Annotated[int, Field(ge=low, le=high)]
        case InputType.number:
            return Annotated[float, Field(ge=low, le=high)]
        case InputType.duration:
            return Annotated[str, Field(pattern=_DURATION)]
        case InputType.time:
            return datetime
        case InputType.list:
            return Annotated[list[str], Field(min_length=low, max_length=high)]
        case _:
            return Annotated[str, Field(min_length=low, max_length=high)]
