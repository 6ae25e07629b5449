"""The looks of a preflight: every step says what it will need, all at the same time, within 5 s in all."""

from __future__ import annotations

from collections.abc import Callable, Container, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

from flows.events import Checked, Event, Preflighted
from flows.journal import Journal, JournalError, Unreadable
from runbooks.model import Mode
from runbooks.plan import Plan, PlannedStep
from runbooks.problems import RunbookError
from tasks.clients import Clients, Late
from tasks.contract import Action, Need
from tasks.errors import ActionFailed, Revoked

PATIENCE = timedelta(seconds=4)
"""For the looks, all at the same time; with what is read from the journal it stays below 5 s."""
SKEW = timedelta(seconds=2)
"""Clocks further apart than this falsify the loss that heartbeats tell."""
ROOM = 64 * 2**20
"""Bytes that must be free for the journal: an execution writes about 1 MiB at most."""
EARLIER = 5
"""Executions that are searched for what cannot be asked now."""


@dataclass(frozen=True)
class World:
    """What the looks need: how to build a step's action, a way out, the time, and earlier executions' looks."""

    build: Callable[[PlannedStep], Action[Any] | None]
    clients: Callable[[], Clients]
    now: Callable[[], datetime]
    own: Callable[[], tuple[Need, ...]]
    """What the engine itself needs."""
    recall: Callable[[], Mapping[tuple[str, str], tuple[datetime, Checked]]]


@dataclass(frozen=True)
class _Asked:
    """What one step said it needs, and our clock right before and after."""

    needs: tuple[Need, ...]
    before: datetime
    after: datetime


def look(plan: Plan, world: World, begun: Container[str] = ()) -> tuple[Checked, ...]:
    """Ask every step of the plan at the same time; give what they need in the plan's order. Raises nothing.

    begun: steps that are finished or have acted, in a resumed run. They are as they made the world, not as they need it.
    """
    steps = [step for step in plan.steps if step.action_type is not None and step.id not in begun]
    if plan.mode is Mode.drill:
        steps = [step for step in steps if step.drill == "run"]
    ways = {step.id: world.clients() for step in steps}
    calls = {step.id: _call(step, ways[step.id], world) for step in steps}
    answers = Clients().parallel(calls, PATIENCE)
    found = _own(world)
    found += [one for step in steps for one in _judge(step.id, answers[step.id])]
    for clients in ways.values():  # whoever still hangs may call nothing more
        clients.revoke("the preflight is over")
    if any(one.result == "unknown" for one in found):
        found = _remembered(found, world)
    return tuple(found)


def _own(world: World) -> list[Checked]:
    try:
        return [_check("engine", need) for need in world.own()]
    except (JournalError, OSError) as error:
        return [_unknown("engine", "room for the journal", str(error))]


def _remembered(found: list[Checked], world: World) -> list[Checked]:
    """Must never happen: a journal that does not answer now, or holds what cannot be read, keeps the looks from coming in."""
    try:
        return _fill_in(found, world.recall())
    except JournalError as error:
        return [*found, _unknown("engine", "what earlier runs recorded", str(error))]


def _unknown(step: str, what: str, found: str) -> Checked:
    return Checked(step=step, what=what, result="unknown", found=found)


def _call(step: PlannedStep, clients: Clients, world: World) -> Callable[[], _Asked | None]:
    def ask() -> _Asked | None:
        action = world.build(step)
        if action is None:
            return None
        before = world.now()
        return _Asked(action.preflight(clients), before, world.now())

    return ask


def _judge(step: str, answer: _Asked | Exception | Late | None) -> list[Checked]:
    def one(result: str, found: str) -> list[Checked]:
        return [Checked.model_validate({"step": step, "what": "what it needs", "result": result, "found": found})]

    match answer:
        case _Asked():
            checks = [_check(step, need) for need in answer.needs if need.clock is None]
            return checks + _clocks(step, answer)
        case None:
            return []  # its inputs come from earlier steps: nothing can be said before they ran
        case Late():
            return one("unknown", f"no answer within {answer.after.total_seconds():g} s")
        case RunbookError() | LookupError():
            return one("problem", str(answer))
        case ActionFailed():  # worth asking again: it could not be asked; else it was asked and said no
            return one("unknown" if answer.retry else "problem", answer.reason)
        case Revoked():
            return one("unknown", f"stopped before the call left: {answer}")
        case _:
            return one("unknown", f"defect: {type(answer).__name__} while looking")


def _check(step: str, need: Need) -> Checked:
    result = "problem" if need.problem else "ok"
    return Checked(step=step, what=need.what, result=result, found=need.found, advice=need.advice)


def _clocks(step: str, asked: _Asked) -> list[Checked]:
    """Their clocks against ours: outside the span in which they were read means apart by at least so much."""
    told = []
    for need in asked.needs:
        if need.clock is not None:
            apart = max(asked.before - need.clock, need.clock - asked.after, timedelta(0))
            far = apart > SKEW
            advice = "losses told by heartbeats are off by as much; set the clocks" if far else ""
            told.append(
                Checked(step=step, what=need.what, result="problem" if far else "ok",
                        found=f"{apart.total_seconds():.1f} s from ours at least", advice=advice)
            )  # fmt: skip
    return told


def _fill_in(
    found: Sequence[Checked], earlier: Mapping[tuple[str, str], tuple[datetime, Checked]]
) -> list[Checked]:
    """Take for what cannot be asked now what was recorded last, with its age."""
    filled: list[Checked] = []
    for one in found:
        known = [(at, past) for (step, _), (at, past) in earlier.items() if step == one.step]
        if one.result == "unknown" and known:
            filled += [past.model_copy(update={"as_of": past.as_of or at}) for at, past in known]
        else:
            filled.append(one)
    return filled


def room(journal: Journal) -> tuple[Need, ...]:
    """What the journal needs where it writes."""
    free = journal.free_bytes()
    if free is None:
        return ()
    low = free < ROOM
    found = f"{free / 2**20:,.0f} MiB free"
    advice = f"make room: below {ROOM / 2**20:g} MiB a run may have to stop in the middle" if low else ""
    return (Need(what=f"room for the journal {journal.place}", found=found, problem=low, advice=advice),)


def recorded(journal: Journal, plan: Plan, besides: str = "") -> Mapping[tuple[str, str], tuple[datetime, Checked]]:
    """What the last looks of this runbook at the same targets found, by step and thing; the newest answer that was one."""
    known: dict[tuple[str, str], tuple[datetime, Checked]] = {}
    drill = plan.mode is Mode.drill  # a dry run looks at the live targets
    same = [
        line for line in journal.executions(200)
        if line.runbook == plan.runbook.name and (line.mode is Mode.drill) == drill and line.execution != besides
    ]  # fmt: skip
    for line in same[:EARLIER]:
        for _, event in reversed(_readable(journal, line.execution)):
            if isinstance(event, Preflighted):
                for one in event.checks:
                    if one.result != "unknown":
                        known.setdefault((one.step, one.what), (event.at, one))
    return known


def _readable(journal: Journal, execution: str) -> list[tuple[int, Event]]:
    try:
        return journal.read(execution)
    except Unreadable:  # a newer version's
        return []
