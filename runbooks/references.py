"""References, the only thing that text in a runbook may hold beside itself: `${scope.path}`, no expressions."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta
from enum import Enum
from typing import Any, Literal

from tasks.durations import format_duration

Scope = Literal["inputs", "target", "steps", "env", "file", "run"]
SCOPES: tuple[Scope, ...] = ("inputs", "target", "steps", "env", "file", "run")
SECRET_SCOPES = frozenset({"env", "file"})
RUN_FIELDS = ("id", "mode", "service", "runbook", "started_at", "initiator")
_REFERENCE = re.compile(r"\$\{([^{}]*)\}")
_NAME = re.compile(r"[A-Za-z0-9_-]+")


@dataclass(frozen=True)
class Reference:
    """`${steps.detect.impact}` as scope 'steps' and path ('detect', 'impact'); a file's path is one part."""

    scope: Scope
    path: tuple[str, ...]

    def __str__(self) -> str:
        return "${" + ".".join((self.scope, *self.path)) + "}"

    @property
    def secret(self) -> bool:
        """Whether its value must never be shown or kept."""
        return self.scope in SECRET_SCOPES


def parse(text: str) -> Reference:
    """Read what stands between `${` and `}`; raise ValueError with what is expected."""
    scope, _, rest = text.partition(".")
    shown = f"${{{text if len(text) <= 60 else text[:50] + '…'}}}"
    if scope not in SCOPES or not rest:
        raise ValueError(
            f"{shown} is no reference; references are ${{inputs.x}}, ${{target.x}}, ${{steps.id.field}}, "
            "${env.NAME}, ${file.PATH} and ${run.x}"
        )
    path = (rest,) if scope in SECRET_SCOPES else tuple(rest.split("."))
    if scope != "file" and not all(_NAME.fullmatch(part) for part in path):
        raise ValueError(f"{shown} is no reference; there are no expressions, only names joined by dots")
    if scope == "file" and not rest.startswith("/"):
        raise ValueError(f"{shown} names no file; write its whole path, such as ${{file./run/secrets/name}}")
    if scope == "steps" and len(path) < 2:
        raise ValueError(f"{shown} names no field; write ${{steps.{path[0]}.field}}")
    if scope == "run" and (len(path) > 1 or path[0] not in RUN_FIELDS):
        raise ValueError(f"{shown}: a run has {', '.join(RUN_FIELDS)}")
    return Reference(scope, path)


def found_in(text: str) -> Iterator[Reference]:
    """Every reference in a text, in order; raises ValueError for a malformed one."""
    if "${" not in text:
        return
    if "${" in _REFERENCE.sub("", text):
        raise ValueError("a reference starts with ${ and has no end; close it with }")
    for match in _REFERENCE.finditer(text):
        yield parse(match[1])


def whole(text: str) -> Reference | None:
    """The reference when the text is nothing but one, whose value then keeps its type; else None."""
    match = _REFERENCE.fullmatch(text.strip())
    return parse(match[1]) if match else None


def inside(value: Any) -> Iterator[Reference]:
    """Every reference anywhere in a value of YAML."""
    if isinstance(value, str):
        yield from found_in(value)
    elif isinstance(value, Mapping):
        for item in value.values():
            yield from inside(item)
    elif isinstance(value, list | tuple):
        for item in value:
            yield from inside(item)


def replace(value: Any, look_up: Callable[[Reference], Any]) -> Any:
    """The value with every reference replaced; `look_up` may return the Reference itself to leave it in place.

    A value that is one reference keeps its type; within a text the value is written as `as_text` does.
    """
    if isinstance(value, str):
        if (only := whole(value)) is not None:
            known = look_up(only)
            return str(known) if isinstance(known, Reference) else known
        return _REFERENCE.sub(lambda match: _written(parse(match[1]), look_up), value)
    if isinstance(value, Mapping):
        return {key: replace(item, look_up) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [replace(item, look_up) for item in value]
    return value


def _written(reference: Reference, look_up: Callable[[Reference], Any]) -> str:
    known = look_up(reference)
    try:
        return str(known) if isinstance(known, Reference) else as_text(known)
    except ValueError as error:
        raise LookupError(f"{reference} stands within a text and {error}") from None


def as_text(value: Any) -> str:
    """Write a value within a text as YAML would: true, 1m30s, 2026-11-21T03:04:05+00:00; raise ValueError if it cannot be."""
    if isinstance(value, Enum):
        value = value.value
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, datetime):
        return value.isoformat()
    if isinstance(value, timedelta):
        return format_duration(value)
    if isinstance(value, str | int | float):
        return str(value)
    raise ValueError(
        "has no value" if value is None else f"is a {type(value).__name__}; only text, numbers and times can"
    )
