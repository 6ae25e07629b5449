"""Gates: what each covers, and whether its rule can work and is allowed to."""

from __future__ import annotations

from runbooks.drafts import Board, Draft
from runbooks.paths import Path
from runbooks.plan import PREFLIGHT, GateRule


def check_gates(board: Board) -> tuple[GateRule, ...]:
    """Every gate with what it covers; notes in each draft which gates cover it."""
    gates: dict[str, GateRule] = {}
    for draft in board.drafts.values():
        rule = draft.step.gate
        if rule is None:
            continue
        path: Path = (*draft.path, "gate")
        name = rule.name or draft.id
        if name == PREFLIGHT:
            board.add((*path, "name"), f"'{PREFLIGHT}' is the engine's own gate; give this one another name")
            continue
        if name in gates:
            board.add(
                (*path, "name"), f"gate '{name}' stands on step '{gates[name].step}' already; give it another name"
            )
            continue
        covers = (draft.id, *_covered(draft, board))
        gates[name] = GateRule(name, draft.id, covers, rule)
        _check_rule(gates[name], path, board)
    for gate in gates.values():
        for step in gate.covers:
            held = board.drafts[step].covered_by
            held.insert(0 if step == gate.step else len(held), gate.name)
    position = {step: index for index, step in enumerate(board.graph.order)}
    return tuple(sorted(gates.values(), key=lambda gate: position[gate.step]))


def _covered(draft: Draft, board: Board) -> tuple[str, ...]:
    covered: list[str] = []
    for index, step in enumerate(draft.step.gate.covers if draft.step.gate else ()):
        path: Path = (*draft.path, "gate", "covers", index)
        if step not in board.drafts:
            board.add(path, f"there is no step '{step}'{board.nearest(step)}")
        elif step == draft.id or step in covered:
            continue
        elif not board.graph.is_before(draft.id, step):
            board.add(
                path, f"'{step}' does not come after '{draft.id}', so this gate cannot hold it; put the gate before it"
            )
        elif board.drafts[step].action is not None and board.drafts[step].change is None:
            board.add(path, f"'{step}' is a probe and changes nothing; name the changes that need this approval")
        else:
            covered.append(step)
    return tuple(covered)


def _check_rule(gate: GateRule, path: Path, board: Board) -> None:
    rule = gate.rule
    covered = [board.drafts[step] for step in gate.covers]
    if all(draft.action is not None and draft.change is None for draft in covered):
        board.add(path, "stands on a probe and covers no change; put it on the change that needs an approval", key=True)
    if rule.on_timeout == "proceed":
        for draft in covered:
            if draft.step.uses is None or (draft.change is not None and not is_reversible(draft)):
                what = "a person does" if draft.step.uses is None else "cannot be undone"
                board.add(
                    (*path, "on_timeout"), f"silence may not let '{draft.id}' proceed, which {what}; write refuse"
                )
    people = set(rule.approvers) | set(rule.escalate_to)
    if rule.approvers and rule.quorum > len(people):
        board.add((*path, "quorum"), f"{rule.quorum} must approve and only {len(people)} may, so it can never open")
    elif rule.approvers and rule.exclude_initiator and rule.quorum == len(people):
        board.findings.warn(
            (*path, "exclude_initiator"), "when an approver starts the run, too few are left to approve", key=True
        )
    if rule.budget is not None and rule.budget > rule.timeout:
        board.findings.warn(
            (*path, "budget"), "is longer than the gate's timeout, so people never have the whole of it", key=True
        )
    for name, time in (("timeout", rule.timeout), ("valid_for", rule.valid_for)):
        if time.total_seconds() <= 0:
            board.add((*path, name), "must be longer than 0s")


def is_reversible(draft: Draft) -> bool:
    """Whether the step's change can be undone."""
    return draft.change is not None and draft.change.reversible and not draft.change.point_of_no_return
