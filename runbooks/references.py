"""References, the only thing that text in a runbook may hold beside itself: `${scope.path}`, no expressions."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Literal

Scope = Literal["inputs", "target", "steps", "env", "file", "run"]
SCOPES: tuple[Scope, ...] = ("inputs", "target", "steps", "env", "file", "run")
SECRET_SCOPES = frozenset({"env", "file"})
_REFERENCE = re.compile(r"\$\{([^{}]*)\}")


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
    if scope not in SCOPES or not rest:
        raise ValueError(f"${{{text}}} is no reference; references are ${{inputs.x}}, ${{target.x}}, ${{steps.id.field}}, "
                         "${env.NAME}, ${file.PATH} and ${run.x}")
    path = (rest,) if scope in SECRET_SCOPES else tuple(rest.split("."))
    if any(not re.fullmatch(r"[A-Za-z0-9_-]+", part) for part in path) and scope != "file":
        raise ValueError(f"${{{text}}} is no reference; there are no expressions, only names joined by dots")
    if scope == "steps" and len(path) < 2:
        raise ValueError(f"${{{text}}} names no field; write ${{steps.{path[0]}.field}}")
    return Reference(scope, path)


def found_in(text: str) -> Iterator[Reference]:
    """Every reference in a text, in order; raises ValueError for a malformed one."""
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
    """The value with every reference replaced; `look_up` may return the Reference itself to leave it in place."""
    if isinstance(value, str):
        if (only := whole(value)) is not None:
            known = look_up(only)
            return str(known) if isinstance(known, Reference) else known
        return _REFERENCE.sub(lambda match: str(look_up(parse(match[1]))), value)
    if isinstance(value, Mapping):
        return {key: replace(item, look_up) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [replace(item, look_up) for item in value]
    return value
