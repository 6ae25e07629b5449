"""Drills: the drill targets stand for the live ones, one for one, and no drill touches what a live run touches."""

from __future__ import annotations

from runbooks.arguments import Arguments, build
from runbooks.drafts import Board, Draft
from runbooks.findings import Findings
from runbooks.loader import Loaded
from runbooks.model import Mode, Runbook, Step
from runbooks.values import Values
from tasks.contract import Change
from tasks.registry import action_type


def can_drill(runbook: Runbook) -> bool:
    """Whether the runbook is meant to be drilled: it has drill targets, or nothing that it could touch."""
    return bool(runbook.targets.drill) or not (runbook.targets.live or any(map(_acts_in_a_drill, runbook.steps)))


def _acts_in_a_drill(step: Step) -> bool:
    if step.uses is None or step.drill != "run":
        return False
    try:
        found = action_type(step.uses)
    except Exception:  # noqa: BLE001 - noted where the step is planned
        return False
    return found is not None and issubclass(found, Change)


def check_drill(loaded: Loaded, mode: Mode, board: Board, values: Values) -> None:
    """Note what keeps a drill from being safe; in other modes only that there can be none."""
    if mode is not Mode.drill:
        if not can_drill(loaded.runbook):
            board.findings.warn(
                ("targets",), "there are no drill targets, so this runbook cannot be rehearsed; add targets.drill"
            )
        return
    live, drill = loaded.runbook.targets.live, loaded.runbook.targets.drill
    for name in live:
        if name not in drill:
            board.add(
                ("targets", "drill"), f"has no '{name}', which targets.live has; a drill needs the same names", key=True
            )
    for name in drill:
        if name not in live:
            board.add(("targets", "drill", name), "is not in targets.live; both have the same names", key=True)
    quiet = Findings(loaded.tree)
    live_values = Values(values.inputs, values.questions, "live", live, quiet)
    live_values.check_targets()
    changes = [one for one in board.drafts.values() if one.change is not None]
    touched = {
        target for one in changes for target in _targets(one, live_values, 0)
    }  # other stand-ins than the drill's, lest two unknowns agree
    for one in (change for change in changes if change.acts):
        shared = [target for target in _targets(one, values, 1) if target in touched]
        if shared:
            board.add(
                (*one.path, "uses"),
                f"a drill would touch what a live run touches ({shared[0]}); "
                "name it in targets, with another value under drill",
            )


def _targets(one: Draft, values: Values, variant: int) -> tuple[str, ...]:
    """What the step changes, with stand-ins for what is not known yet; nothing where that cannot be told."""
    if one.action is None:
        return ()
    filled = values.fill(one.step.with_, (*one.path, "with"))
    try:
        built = build(Arguments(one.action, one.step.with_, filled, ()), variant)
        return built.targets if isinstance(built, Change) else ()
    except Exception:  # noqa: BLE001 - what is wrong with the arguments is noted elsewhere
        return ()
