"""Gates: what each covers, and whether its rule can work and is allowed to."""

from __future__ import annotations

from collections.abc import Mapping

from runbooks.drafts import Draft
from runbooks.findings import Findings, Names
from runbooks.graph import Graph
from runbooks.model import Approval
from runbooks.plan import GateRule
from runbooks.yaml_tree import Path


def check_gates(drafts: Mapping[str, Draft], graph: Graph, findings: Findings) -> tuple[GateRule, ...]:
    """Every gate with what it covers; notes in each draft which gates cover it."""
    gates: dict[str, GateRule] = {}
    names = Names()
    for draft in drafts.values():
        rule = draft.step.gate
        if rule is None:
            continue
        path: Path = (*draft.path, "gate")
        name = rule.name or draft.id
        if name in gates:
            findings.add((*path, "name"), f"gate '{name}' stands on step '{gates[name].step}' already; give it another name")
            continue
        covers = (draft.id, *_covered(draft, rule, drafts, graph, findings, names))
        gates[name] = GateRule(name, draft.id, covers, rule)
        _check_rule(gates[name], path, drafts, findings)
    for draft in drafts.values():
        own = [gate.name for gate in gates.values() if gate.step == draft.id]
        draft.covered_by = own + [gate.name for gate in gates.values() if draft.id in gate.covers and gate.name not in own]
    return tuple(gates[name] for step in graph.order for name in gates if gates[name].step == step)


def _covered(
    draft: Draft, rule: Approval, drafts: Mapping[str, Draft], graph: Graph, findings: Findings, names: Names
) -> tuple[str, ...]:
    covered: list[str] = []
    for index, step in enumerate(rule.covers):
        path: Path = (*draft.path, "gate", "covers", index)
        if step not in drafts:
            findings.add(path, f"there is no step '{step}'{names.nearest(step, drafts)}")
        elif step == draft.id or step in covered:
            continue
        elif not graph.is_before(draft.id, step):
            findings.add(path, f"'{step}' does not come after '{draft.id}', so this gate cannot hold it; put the gate before it")
        elif drafts[step].action is not None and drafts[step].change is None:
            findings.add(path, f"'{step}' is a probe and changes nothing; name the changes that need this approval")
        else:
            covered.append(step)
    return tuple(covered)


def _check_rule(gate: GateRule, path: Path, drafts: Mapping[str, Draft], findings: Findings) -> None:
    rule = gate.rule
    covered = [drafts[step] for step in gate.covers]
    if all(draft.action is not None and draft.change is None for draft in covered):
        findings.add(path, "stands on a probe and covers no change; put it on the change that needs an approval", key=True)
    if rule.on_timeout == "proceed":
        for draft in covered:
            if draft.step.uses is None or draft.change is not None and not is_reversible(draft):
                what = "a person does" if draft.step.uses is None else "cannot be undone"
                findings.add((*path, "on_timeout"), f"silence may not let '{draft.id}' proceed, which {what}; write refuse")
    people = set(rule.approvers) | set(rule.escalate_to)
    if rule.approvers and rule.quorum > len(people):
        findings.add((*path, "quorum"), f"{rule.quorum} must approve and only {len(people)} may, so it can never open")
    elif rule.approvers and rule.exclude_initiator and rule.quorum == len(people):
        findings.warn((*path, "exclude_initiator"), "when an approver starts the run, too few are left to approve", key=True)
    if rule.budget is not None and rule.budget > rule.timeout:
        findings.warn((*path, "budget"), "is longer than the gate's timeout, so people never have the whole of it", key=True)
    if rule.timeout.total_seconds() <= 0:
        findings.add((*path, "timeout"), "must be longer than 0s")


def is_reversible(draft: Draft) -> bool:
    """Whether the step's change can be undone."""
    return draft.change is not None and draft.change.reversible and not draft.change.point_of_no_return
