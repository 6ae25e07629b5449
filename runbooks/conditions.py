"""`when`: mode, severity, disposition or an earlier step's output, each with the values that let the step run."""

from __future__ import annotations

from collections.abc import Mapping
from enum import Enum
from typing import Any, get_args

from runbooks.drafts import Board, Draft, reference_to
from runbooks.fields import Types, describe, is_literal, is_model, kinds, output_at
from runbooks.findings import shorten
from runbooks.model import Mode
from runbooks.paths import Path
from runbooks.plan import Condition
from runbooks.references import Reference, whole

ASSESS = "assess.severity"
MODES = tuple(mode.value for mode in Mode)


def check_mode(draft: Draft, board: Board) -> tuple[Condition, ...]:
    """The condition on the mode, which must be known before anything else is judged."""
    if "mode" not in draft.step.when:
        return ()
    path: Path = (*draft.path, "when", "mode")
    values = _plain(draft.step.when["mode"], path, board)
    for value in values:
        if value not in MODES:
            board.add(path, f"{shorten(value)} is no mode; write {', '.join(MODES)}")
    return (Condition("mode", values),)


def check_when(draft: Draft, board: Board) -> tuple[Condition, ...]:
    """The other conditions, each resolved to a reference to a step's output."""
    conditions = []
    for key, written in draft.step.when.items():
        if key == "mode":
            continue
        path: Path = (*draft.path, "when", key)
        reference = _subject(key, path, draft, board)
        if reference is None:
            continue
        values = _plain(written, path, board)
        types = _types(reference, board)
        if types is not None:
            _check_values(path, values, types, board)
        conditions.append(Condition(reference, values))
    return tuple(conditions)


def _plain(written: Any, path: Path, board: Board) -> tuple[Any, ...]:
    """The values to compare with; notes what is none."""
    listed = tuple(written) if isinstance(written, list | tuple) else (written,)
    if not listed:
        board.add(path, "names no value; leave it out, or the step never runs")
    for value in listed:
        if isinstance(value, list | Mapping) or (isinstance(value, str) and "${" in value):
            board.add(path, f"{shorten(value)} is no value to compare with; write a value or a list of values")
    return tuple(value for value in listed if not isinstance(value, list | Mapping))


def _subject(key: str, path: Path, draft: Draft, board: Board) -> Reference | None:
    if key in ("severity", "disposition"):
        graded = [each for each in board.graph.upstream(draft.id) if board.drafts[each].step.uses == ASSESS]
        if not graded:
            board.add(path, f"no step before this one grades the incident; add one that uses {ASSESS}", key=True)
            return None
        return reference_to(graded[-1], key)
    try:
        reference = whole(key)
    except ValueError as error:
        board.add(path, str(error), key=True)
        return None
    if reference is None or reference.scope != "steps":
        board.add(path, "is no condition; write mode, severity, disposition or ${steps.id.field}", key=True)
        return None
    return reference


def _types(reference: Reference, board: Board) -> Types | None:
    step = board.drafts.get(reference.path[0])
    if step is None or step.action is None:
        return None
    return output_at(step.action.state_type(), reference.path[1:])


def _check_values(path: Path, values: tuple[Any, ...], types: Types, board: Board) -> None:
    options = tuple(option for one in types for option in _options(one))
    if any(is_model(one) for one in types):
        board.add(path, f"is {describe(types)}; a condition compares text, numbers, true and false", key=True)
        return
    for value in values:
        if options and value not in options:
            board.add(path, f"{shorten(value)} never holds; it is one of {', '.join(map(str, options))}")
        elif not options and value is not None and not any(_comparable(value, one) for one in types):
            board.add(path, f"{shorten(value)} never holds; it is {describe(types)}")


def _options(one: Any) -> tuple[Any, ...]:
    if is_literal(one):
        return get_args(one)
    return tuple(member.value for member in one) if isinstance(one, type) and issubclass(one, Enum) else ()


def _comparable(value: Any, one: Any) -> bool:
    known = kinds(one)
    if not known:
        return True
    given = kinds(type(value))
    return bool(given & known) or ("a number" in known and given == {"a whole number"})
