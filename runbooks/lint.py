"""Rules that keep a runbook from making an outage worse, and its budgets within the RTO."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import timedelta

from runbooks.arguments import Arguments, build
from runbooks.drafts import Board, Draft, runs_whenever
from runbooks.gating import is_reversible
from runbooks.graph import Parts
from runbooks.model import Mode
from runbooks.plan import CriticalPath, GateRule
from tasks.contract import Action
from tasks.durations import format_duration


def check_undo(board: Board) -> None:
    """An irreversible change needs people's approval."""
    for draft in board.drafts.values():
        if draft.acts and not is_reversible(draft) and not draft.covered_by:
            board.add(
                (*draft.path, "uses"),
                f"{draft.step.uses} cannot be undone and has no gate; add `gate:` here, "
                "or name the step in the `covers` of a gate before it",
            )


def check_fences(board: Board) -> None:
    """A step that makes a second writer possible needs a fence before it on every run."""
    for draft in board.drafts.values():
        if draft.change is None or not draft.change.makes_writer or draft.change.fences_itself:
            continue  # a planned switchover's own clean stop is its fence, part of its `done` and of its act
        before = [board.drafts[step] for step in board.graph.upstream(draft.id)]
        fences = [each for each in before if each.change is not None and each.change.fences]
        reasons = {fence.id: _no_fence(fence, draft) for fence in fences}
        draft.fenced_by = tuple(step for step, reason in reasons.items() if reason is None)
        unknown = any(each.action is None and each.step.uses for each in before)  # may well be a misspelt fence
        if not draft.acts or draft.fenced_by or unknown:
            continue
        why = "".join(f"; '{step}' {reason}" for step, reason in reasons.items())
        board.add(
            (*draft.path, "uses"),
            f"{draft.step.uses} makes a second writer possible and no fence holds before it on "
            f"every run{why or '; add a step that fences the old primary, such as postgres.fence'}",
        )


def _no_fence(fence: Draft, draft: Draft) -> str | None:
    if not runs_whenever(fence, draft):
        return "is left out in this mode" if fence.never else "may be skipped; give both the same `when`"
    if fence.mode is Mode.drill and fence.step.drill == "simulate":
        return "only looks in a drill; let it run, or simulate both"
    if fence.handles:
        return f"runs only when '{fence.handles[0]}' fails"
    if fence.on_failure not in ("ask", "halt", "roll-back"):
        return f"lets the run go on when it fails (on_failure: {fence.on_failure}); write halt"
    return None


def check_aftermath(board: Board) -> None:
    """After a promotion: what is put right comes before customers, connections are led over, consumers start last."""
    drafts = board.drafts.values()
    promotions = [one for one in drafts if one.acts and one.change is not None and one.change.makes_writer]
    repoints = [one for one in drafts if one.repoints]
    repairs = [one for one in drafts if one.acts and one.change is not None and one.change.before_customers]
    for one in promotions:
        planned = one.change is not None and one.change.fences_itself  # a switchover: customers may be led over beforehand
        if not any(planned or board.graph.is_before(one.id, other.id) for other in repoints):
            board.findings.warn(
                (*one.path, "uses"),
                "nothing after it leads connection strings and pools to the new primary; add a step that does, such as "
                "aws.route53.point, or mark the one that does with `does: repoint`",
            )
    for one in drafts:
        fenced = [board.drafts[step].change for step in board.graph.upstream(one.id)]
        if one.acts and one.change is not None and one.change.behind_fence and not any(each and each.fences for each in fenced):
            board.findings.warn(
                (*one.path, "uses"), f"{one.step.uses} takes from a primary that lives what it needs; put a fence before it"
            )
    for one in repairs:
        early = [other.id for other in repoints if not board.graph.is_before(one.id, other.id)]
        if promotions and early:
            board.findings.warn(
                (*one.path, "after"), f"customers may come before it; let '{early[0]}' wait for it", key=True
            )
    if promotions:
        for one in (each for each in drafts if each.starts_consumers):
            _check_consumers(one, [*promotions, *repairs, *repoints], board)


def _check_consumers(one: Draft, first: Sequence[Draft], board: Board) -> None:
    """Consumers that start too early work on what is not there yet, and their work may be lost or done twice."""
    others = [each for each in board.drafts.values() if not each.starts_consumers and (each.acts or each.repoints)]
    late = [each.id for each in others if board.graph.is_before(one.id, each.id)]
    beside = [each.id for each in first if each.id != one.id and not board.graph.is_before(each.id, one.id)]
    if late:
        board.add((*one.path, "id"), f"starts consumers or jobs, which start last, and '{late[0]}' comes after it")
    elif beside:
        board.add((*one.path, "id"), f"starts consumers or jobs, which start last; add '{beside[0]}' to its `after`")


def check_loss(gates: Sequence[GateRule], board: Board) -> None:
    """A gate that lets data be lost should know how much before it asks."""
    for gate in gates:
        lossy = [board.drafts[step] for step in gate.covers if step != gate.step]
        for one in lossy:
            if one.change is None or not one.change.loses or one.covered_by[0] != gate.name:
                continue
            before = [board.drafts[step].action for step in board.graph.upstream(gate.step)]
            if not any(kind is not None and kind.loss is not Action.loss for kind in before):
                board.findings.warn(
                    (*board.drafts[gate.step].path, "gate"),
                    f"asks before anything has told what '{one.id}' may lose; add postgres.replication before it",
                    key=True,
                )


def check_recovery(goals: Sequence[str], board: Board) -> None:
    """Recovery should be seen, not assumed: a probe or a person after the last change."""
    for index, goal in enumerate(goals):
        if board.drafts[goal].never:
            mode = board.drafts[goal].mode.value
            board.findings.warn(
                ("recovered_when", index), f"'{goal}' is left out of a {mode} run, so it proves nothing there"
            )
    looking = [goal for goal in goals if board.drafts[goal].change is None]
    for step in board.graph.order:
        counts = step in goals or any(board.graph.is_before(step, goal) for goal in goals)
        if board.drafts[step].acts and counts and not any(board.graph.is_before(step, goal) for goal in looking):
            board.findings.warn(
                ("recovered_when",),
                f"nothing looks at the service after '{step}'; name a probe or a manual step that comes after it",
            )


def critical_path(goals: Sequence[str], board: Board, gates: Sequence[GateRule]) -> CriticalPath:
    """The longest chain of budgets and gates to recovery; handlers of failures and steps left out take no time."""
    waits: dict[str, list[tuple[str, timedelta]]] = {}
    for gate in gates:  # it opens where the first step that it covers is about to act, and then stays open
        first = next(
            (step for step in board.graph.order if step in gate.covers and _takes_time(board.drafts[step])), None
        )
        if first is not None:
            waits.setdefault(first, []).append(_waiting(gate, board.drafts[first].mode))

    def cost(step: str) -> Parts:
        draft = board.drafts[step]
        return (*waits.get(step, ()), (step, draft.budget)) if _takes_time(draft) else ()

    return board.graph.longest(goals, cost)


def _takes_time(draft: Draft) -> bool:
    return not (draft.never or draft.handles)


def _waiting(gate: GateRule, mode: Mode) -> tuple[str, timedelta]:
    opens_itself = mode is Mode.drill and "drill" in gate.rule.preapprove
    wait = timedelta(0) if opens_itself else gate.rule.timeout if gate.rule.budget is None else gate.rule.budget
    return f"gate {gate.name}", wait


def check_shortest(draft: Draft, arguments: Arguments, board: Board) -> None:
    """A step needs a timeout within which it can be done."""
    try:
        shortest = build(arguments).shortest
    except Exception:  # noqa: BLE001 - what is wrong with its inputs is said by check_arguments
        return
    if shortest > draft.timeout:
        name = "timeout" if draft.step.timeout is not None else "budget" if draft.step.budget is not None else None
        board.add(
            (*draft.path, name) if name else (*draft.path, "uses"),
            f"{draft.step.uses} takes {format_duration(shortest)} at least with these inputs, and gives up after "
            f"{format_duration(draft.timeout)}; give it a longer `timeout`, with room for going back",
        )


def check_budgets(path: CriticalPath, rto: timedelta, board: Board) -> None:
    """What the runbook plans to take must fit into the RTO."""
    if path.total > rto:
        parts = ", ".join(f"{name} {format_duration(time)}" for name, time in path.parts[:20])
        more = ", …" if len(path.parts) > 20 else ""
        board.findings.whole(
            f"budgets and gates on the critical path add up to {format_duration(path.total)}, "
            f"over the rto of {format_duration(rto)}: {parts}{more}"
        )
