"""How steps hang together: what each waits for, where failures lead, and which outputs may be referred to."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from runbooks.arguments import Source
from runbooks.drafts import Draft, runs_whenever
from runbooks.fields import Types, fields_of, output_at
from runbooks.findings import Findings, Names
from runbooks.graph import Graph, break_cycles
from runbooks.model import ON_FAILURE
from runbooks.references import Reference
from runbooks.values import Use


def wire(drafts: Sequence[Draft], findings: Findings, names: Names) -> Graph:
    """Resolve `after`; note repeated and unknown ids and cycles. The graph is without what closes a cycle."""
    first: dict[str, Draft] = {}
    for draft in drafts:
        if draft.id in first:
            findings.add((*draft.path, "id"), f"'{draft.id}' is the id of steps[{first[draft.id].index}] already; ids differ")
        first.setdefault(draft.id, draft)
    previous: str | None = None
    for draft in drafts:
        if draft.step.after is None:
            draft.after = (previous,) if previous is not None else ()
        else:
            draft.after = tuple(dict.fromkeys(each for each in draft.step.after if each in first))
            for index, each in enumerate(draft.step.after):
                if each not in first:
                    findings.add((*draft.path, "after", index), f"there is no step '{each}'{names.nearest(each, first)}")
        previous = draft.id
    graph, cycles = break_cycles({step: draft.after for step, draft in first.items()})
    for cycle in cycles[:20]:
        draft = first[cycle[0]]
        findings.add((*draft.path, "after"), _tell_cycle(cycle, first))
    return graph


def _tell_cycle(cycle: tuple[str, ...], drafts: Mapping[str, Draft]) -> str:
    if len(cycle) == 2:
        return f"'{cycle[0]}' waits for itself"
    told = []
    for one, other in zip(cycle, cycle[1:], strict=False):
        told.append(f"'{one}' waits for '{other}'" + (" (the step before it)" if drafts[one].step.after is None else ""))
    return "goes in a circle: " + ", ".join(told[:20]) + (", …" if len(told) > 20 else "")


def lead_failures(drafts: Mapping[str, Draft], graph: Graph, findings: Findings, names: Names) -> None:
    """Check every on_failure that names a step, and note in that step whose failure leads to it."""
    for draft in drafts.values():
        goal = draft.on_failure
        if goal in ON_FAILURE:
            continue
        path = (*draft.path, "on_failure")
        if goal not in drafts:
            findings.add(path, f"is neither {', '.join(ON_FAILURE)} nor a step{names.nearest(goal, (*drafts, *ON_FAILURE))}")
        elif not graph.is_before(draft.id, goal):
            findings.add(path, f"'{goal}' does not come after '{draft.id}'; add '{draft.id}' to its `after`")
        else:
            drafts[goal].handles.append(draft.id)


def check_use(use: Use, draft: Draft, drafts: Mapping[str, Draft], graph: Graph, names: Names) -> str | None:
    """What is wrong with a reference to a step's output where it stands, or None."""
    step, *fields = use.reference.path
    reference = use.reference
    if step not in drafts:
        return f"{reference}: there is no step '{step}'{names.nearest(step, drafts)}"
    source = drafts[step]
    if step == draft.id or not graph.is_before(step, draft.id):
        return f"{reference}: '{step}' does not come before '{draft.id}'; add it to `after`"
    if source.action is None:
        return None if source.step.uses else f"{reference}: '{step}' is done by a person and gives nothing"
    if output_at(source.action.state_type(), fields) is None:
        return f"{reference}: {_what_it_gives(source, fields, names)}"
    if reason := may_be_missing(source, draft):
        return f"{reference}: '{step}' {reason}, so this may not be known; refer to a step that always runs"
    return None


def _what_it_gives(source: Draft, fields: Sequence[str], names: Names) -> str:
    if source.action is None:
        raise TypeError(source.id)
    state = source.action.state_type()
    for length in range(1, len(fields) + 1):
        types = output_at(state, fields[:length])
        if types is None:
            before = output_at(state, fields[: length - 1]) or ()
            known = [name for one in before if hasattr(one, "model_fields") for name in fields_of(one)]
            who = source.step.uses if length == 1 else f"'{'.'.join(fields[: length - 1])}'"
            return f"{who} gives no '{fields[length - 1]}'{names.nearest(fields[length - 1], known)}"
    return ""


def may_be_missing(source: Draft, reader: Draft) -> str | None:
    """Why a step may have no output on a run on which `reader` needs it, or None."""
    if not runs_whenever(source, reader):
        return "is left out in this mode" if source.never else "runs only under its `when`"
    if reader.never:
        return None
    if source.on_failure == "continue":
        return "may fail and be passed over (on_failure: continue)"
    return f"runs only when '{source.handles[0]}' fails" if source.handles and source.handles != reader.handles else None


def source_of(drafts: Mapping[str, Draft], inputs: Mapping[str, Types]) -> Source:
    """What references give that are not filled in: outputs of steps, facts of the run, inputs without an answer yet."""

    def source(reference: Reference) -> Types | None:
        if reference.scope == "run":
            return (str,)
        if reference.scope == "inputs":
            return inputs.get(reference.path[0])
        step = drafts.get(reference.path[0])
        if reference.scope != "steps" or step is None or step.action is None:
            return None
        return output_at(step.action.state_type(), reference.path[1:])

    return source
