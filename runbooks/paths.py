"""Paths into a runbook: steps, 2, with, fence; how they are followed and how people read them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

Path = tuple[str | int, ...]


def entry(value: Any, part: str | int) -> Any:
    """Give one entry of a mapping or list; raises LookupError when there is none."""
    if isinstance(value, Mapping) and part in value:
        return value[part]
    if isinstance(value, list | tuple) and str(part).isdecimal() and len(str(part)) < 7:
        return value[int(part)]
    raise LookupError(part)


def show_path(path: Path, name: str = "") -> str:
    """Write a path for people: steps[2].with.fence; `name` stands behind the first index: steps[2] (promote).with."""
    parts: list[str] = []
    for part in path:
        if isinstance(part, int):
            parts.append(f"[{part}]" + (f" ({name})" if name else ""))
            name = ""
        else:
            parts.append(("." if parts else "") + clip(part))
    return "".join(parts)


def step_name(value: Any, path: Path) -> str:
    """The id of the step that a path leads into, as far as it has one."""
    if len(path) < 2 or path[0] != "steps" or not isinstance(path[1], int):
        return ""
    try:
        name = value["steps"][path[1]]["id"]
    except (KeyError, IndexError, TypeError):
        return ""
    return name if isinstance(name, str) and len(name) <= 63 else ""


def clip(text: str, longest: int = 60) -> str:
    """Show the beginning of a text on one line."""
    text = text.replace("\n", " ")
    return text if len(text) <= longest else text[: longest - 10] + "…"
