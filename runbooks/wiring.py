"""How steps hang together: what each waits for, where failures lead, and which outputs may be referred to."""

from __future__ import annotations

import itertools
from collections.abc import Mapping, Sequence

from runbooks.arguments import Source
from runbooks.drafts import Board, Draft, runs_whenever
from runbooks.fields import Types, fields_of, output_at
from runbooks.findings import Findings
from runbooks.graph import break_cycles
from runbooks.model import ON_FAILURE
from runbooks.references import Reference
from runbooks.values import Use


def wire(drafts: Sequence[Draft], findings: Findings) -> Board:
    """Resolve `after`; note repeated and unknown ids and cycles. The graph is without what closes a cycle."""
    first: dict[str, Draft] = {}
    for draft in drafts:
        if draft.id in first:
            index = first[draft.id].index
            findings.add((*draft.path, "id"), f"'{draft.id}' is the id of steps[{index}] already; ids differ")
        first.setdefault(draft.id, draft)
    previous: str | None = None
    for draft in drafts:
        if draft.step.after is None:
            draft.after = (previous,) if previous is not None else ()
        else:
            draft.after = _known(draft, draft.step.after, first, findings)
        previous = draft.id
    graph, cycles = break_cycles({step: draft.after for step, draft in first.items()})
    for cycle in cycles[:20]:
        findings.add((*first[cycle[0]].path, "after"), _tell_cycle(cycle, first))
    return Board(first, graph, findings)


def _known(draft: Draft, after: Sequence[str], drafts: Mapping[str, Draft], findings: Findings) -> tuple[str, ...]:
    for index, step in enumerate(after):
        if step not in drafts:
            path = (*draft.path, "after", index)
            findings.add(path, f"there is no step '{step}'{findings.names.nearest(step, drafts)}")
    return tuple(dict.fromkeys(step for step in after if step in drafts))


def _tell_cycle(cycle: tuple[str, ...], drafts: Mapping[str, Draft]) -> str:
    if len(cycle) == 2:
        return f"'{cycle[0]}' waits for itself"
    told = []
    for one, other in itertools.pairwise(cycle):
        why = " (the step before it)" if drafts[one].step.after is None else ""
        told.append(f"'{one}' waits for '{other}'{why}")
    return "goes in a circle: " + ", ".join(told[:20]) + (", …" if len(told) > 20 else "")


def lead_failures(board: Board) -> None:
    """Check every on_failure that names a step, and note in that step whose failure leads to it."""
    for draft in board.drafts.values():
        goal = draft.on_failure
        if goal in ON_FAILURE:
            continue
        path = (*draft.path, "on_failure")
        if goal not in board.drafts:
            near = board.findings.names.nearest(goal, (*board.drafts, *ON_FAILURE))
            board.add(path, f"is neither {', '.join(ON_FAILURE)} nor a step{near}")
        elif not board.graph.is_before(draft.id, goal):
            board.add(path, f"'{goal}' does not come after '{draft.id}'; add '{draft.id}' to its `after`")
        else:
            board.drafts[goal].handles.append(draft.id)


def check_use(use: Use, draft: Draft, board: Board) -> str | None:
    """What is wrong with a reference to a step's output where it stands, or None."""
    step, *fields = use.reference.path
    reference = use.reference
    if step not in board.drafts:
        return f"{reference}: there is no step '{step}'{board.nearest(step)}"
    source = board.drafts[step]
    if step == draft.id or not board.graph.is_before(step, draft.id):
        return f"{reference}: '{step}' does not come before '{draft.id}'; add it to `after`"
    if source.action is None:
        return None if source.step.uses else f"{reference}: '{step}' is done by a person and gives nothing"
    if output_at(source.action.state_type(), fields) is None:
        return f"{reference}: {_what_it_gives(source, fields, board.findings)}"
    if reason := may_be_missing(source, draft):
        return f"{reference}: '{step}' {reason}, so this may not be known; refer to a step that always runs"
    return None


def _what_it_gives(source: Draft, fields: Sequence[str], findings: Findings) -> str:
    if source.action is None:
        raise TypeError(source.id)
    state = source.action.state_type()
    for length in range(1, len(fields) + 1):
        types = output_at(state, fields[:length])
        if types is None:
            before = output_at(state, fields[: length - 1]) or ()
            known = [name for one in before if hasattr(one, "model_fields") for name in fields_of(one)]
            who = source.step.uses if length == 1 else f"'{'.'.join(fields[: length - 1])}'"
            return f"{who} gives no '{fields[length - 1]}'{findings.names.nearest(fields[length - 1], known)}"
    return ""


def may_be_missing(source: Draft, reader: Draft) -> str | None:
    """Why a step may have no output on a run on which `reader` needs it, or None."""
    if not runs_whenever(source, reader):
        return "is left out in this mode" if source.never else "runs only under its `when`"
    if reader.never:
        return None
    if source.on_failure not in ("ask", "halt", "roll-back"):
        return f"may fail and be passed over (on_failure: {source.on_failure})"
    if source.handles and source.handles != reader.handles:
        return f"runs only when '{source.handles[0]}' fails"
    return None


def source_of(board: Board, inputs: Mapping[str, Types]) -> Source:
    """What references give that are not filled in: outputs of steps, facts of the run, inputs without an answer yet."""

    def source(reference: Reference) -> Types | None:
        if reference.scope == "run":
            return (str,)
        if reference.scope == "inputs":
            return inputs.get(reference.path[0])
        step = board.drafts.get(reference.path[0])
        if reference.scope != "steps" or step is None or step.action is None:
            return None
        return output_at(step.action.state_type(), reference.path[1:])

    return source
