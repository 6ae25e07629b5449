"""What worker threads do for a step: look, act, undo. Here, and only here, exceptions become data.

Must never happen: a promotion while the fence does not hold. `_demand_fences` looks at every fence again right before
each act of a step that makes a writer, and before such a step is taken as already done. A switchover is its own fence.
"""

from __future__ import annotations

import traceback
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from datetime import datetime
from typing import Any

from pydantic import BaseModel, ValidationError

from flows.messages import Failure, Look
from runbooks.problems import RunbookError
from tasks.clients import Clients
from tasks.contract import Action, Change, Probe, Seen
from tasks.errors import ActionFailed, Revoked


class Unasked(BaseModel):
    """The state of a step that was not looked at."""


@dataclass(frozen=True)
class Work:
    """A step's action with its inputs filled in, the fences it leans on by step id, and its way to the world."""

    action: Action[Any]
    clients: Clients
    fences: Mapping[str, Action[Any]]
    missing_fences: tuple[str, ...] = ()
    """Fence steps that did not succeed in this execution."""
    overridden: tuple[str, ...] = ()
    """Fence steps that do not hold and that two people let it pass (flows/overrides.py); they are not looked at."""
    reads_only: bool = False
    """A dry run or a simulated step: what a look would leave behind must not happen either."""
    fences_seen: Mapping[str, Seen[Any]] = field(default_factory=dict)
    """What each of those fences was last seen as: what the old primary told while it answered still counts."""
    permit: Callable[[], None] = lambda: None
    """Asked right before an act or an undo and never before a look: raises Revoked when no change may start any more."""


def look(work: Work, earlier: Seen[Any] | None, *, acted: bool, now: Callable[[], datetime]) -> Look | Failure:
    """Observe once and ask the action everything that the core needs to decide."""
    try:
        return _look(work, earlier, acted=acted, now=now)
    except Exception as error:  # noqa: BLE001 - the one place where exceptions become data
        return as_failure(error)


def _look(work: Work, earlier: Seen[Any] | None, *, acted: bool, now: Callable[[], datetime]) -> Look:
    action = work.action
    if work.reads_only and isinstance(action, Probe) and not action.harmless:
        return Look(state=Unasked(), done=False, explain="not asked, because it would leave something behind")
    state = action.observe(work.clients)
    state = action.fold(earlier, Seen(state, now()))
    done = action.done(state)
    marks = action.marks(state) if done else {}
    told = Look(state=state, done=done, explain=action.explain(state), steady=action.steady, marks=marks,
                loss=action.loss(state))  # fmt: skip
    if isinstance(action, Probe):
        return replace(told, ends=action.ends(state) if done else None)
    if not isinstance(action, Change):
        return told
    if done:
        if action.makes_writer and not action.fences_itself and not acted:
            _demand_fences(work)  # somebody else's promotion is ours to build on only behind a fence
        return replace(told, target=action.target)
    return replace(
        told, target=action.target, underway=action.underway(state), refuse=action.refuse(state),
        describe=action.describe(state), retreats=action.retreats(state),
    )  # fmt: skip


def act(work: Work, before: BaseModel) -> Failure | None:
    """Start the change once."""
    action = work.action
    if not isinstance(action, Change):
        return Failure(f"{type(action).__name__} is no change", ours=True)
    try:
        if action.makes_writer and not action.fences_itself:  # which looks at its own stop in the act
            _demand_fences(work)
        work.clients.check()
        work.permit()
        action.act(before, work.clients)
    except Exception as error:  # noqa: BLE001 - the one place where exceptions become data
        return as_failure(error)
    return None


def undo(work: Work, before: Mapping[str, Any]) -> Failure | None:
    """Bring the journaled state before a change back."""
    action = work.action
    if not isinstance(action, Change):
        return Failure(f"{type(action).__name__} is no change", ours=True)
    try:
        work.clients.check()
        work.permit()
        action.undo(action.state_type().model_validate(before), work.clients)
    except Exception as error:  # noqa: BLE001 - the one place where exceptions become data
        return as_failure(error)
    return None


def _demand_fences(work: Work) -> None:
    """Raise ActionFailed unless every fence before this step succeeded and holds now, or was overridden by two people."""
    if work.missing_fences:
        raise ActionFailed(f"fence {', '.join(work.missing_fences)} is not in place, so nothing may be promoted", code="unfenced")
    if not work.fences and not work.overridden:
        raise ActionFailed("no fence stands before it, so nothing may be promoted", code="unfenced")
    for name, fence in work.fences.items():
        state, earlier = fence.observe(work.clients), work.fences_seen.get(name)
        state = fence.fold(earlier, Seen(state, earlier.at)) if earlier is not None else state
        if not fence.done(state):
            raise ActionFailed(f"fence {name} does not hold any more: {fence.explain(state)}", code="unfenced")


def as_failure(error: Exception) -> Failure:
    """Translate whatever was raised. Anything that is not the world's or the file's word is a defect of ours."""
    match error:
        case ActionFailed():
            said = f"{error.attempted}: {error.reason}" if error.attempted else error.reason
            return Failure(said, error.code, error.retry)
        case Revoked():
            return Failure(f"stopped before the call left: {error}", "revoked", retry=True)
        case RunbookError() | LookupError() if not isinstance(error, KeyError | IndexError):
            return Failure(str(error), "input")
        case ValidationError():
            return Failure(f"defect: {error.title} does not fit what was seen ({_spot(error)})", "defect", ours=True)
        case _:
            return Failure(f"defect: {type(error).__name__} at {_spot(error)}", "defect", ours=True)


def _spot(error: Exception) -> str:
    """The last line of ours on the way to an error; no values, because they may hold a secret."""
    frames = traceback.extract_tb(error.__traceback__)
    ours = [frame for frame in frames if "site-packages" not in frame.filename] or frames
    return f"{ours[-1].filename.rsplit('/', 1)[-1]}:{ours[-1].lineno}" if ours else "an unknown place"
