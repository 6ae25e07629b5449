"""`failover approve`, `deny` and `override`: a person's word, put into the execution's inbox like any other channel's."""

from __future__ import annotations

import argparse
import getpass
import sys
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from flows.journal import InboxEntry, Journal
    from flows.state import ExecutionState


def add_commands(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Add approve, deny and override."""
    for word, text in (("approve", "say yes to a gate, that a manual step is done, or what to do about a failed step"),
                       ("deny", "say no to a gate, that a manual step failed, or abort at a failed step")):  # fmt: skip
        parser = commands.add_parser(word, help=text)
        parser.add_argument("execution", help="id of the execution, or its beginning")
        parser.add_argument("gate", help="name of the gate, the manual step or the failed step")
        parser.add_argument("--as", dest="by", default=getpass.getuser(), metavar="NAME", help="your name (default: login)")
        parser.add_argument("--reason", default="", help="why")
        parser.add_argument("--journal", help="the journal: a file or postgresql://… (default: FAILOVER_JOURNAL)")
        if word == "approve":
            parser.add_argument("--choose", choices=("retry", "skip", "roll-back", "abort"), help="for a failed step")
            add_accept_loss(parser)
        parser.set_defaults(run=run_answer, word=word)
    _add_override(commands)


def _add_override(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    parser = commands.add_parser(
        "override", help="let a run pass a fence that does not hold: two different people must say so, each with a reason"
    )
    parser.add_argument("execution", help="id of the execution, or its beginning")
    parser.add_argument("step", help="the fence that failed")
    parser.add_argument("--as", dest="by", required=True, metavar="NAME", help="your own name")
    parser.add_argument("--reason", required=True, metavar="WHY", help="why two nodes that take writes are acceptable")
    parser.add_argument("--journal", help="the journal: a file or postgresql://… (default: FAILOVER_JOURNAL)")
    parser.set_defaults(run=run_override)


def run_override(options: argparse.Namespace) -> int:
    """Put one person's word about a failed fence into the inbox; it counts when a second person says so too."""
    from deployments.journal_location import open_journal
    from flows.fencing import is_fence
    from flows.journal import SaidOverride
    from flows.overrides import LASTS, PEOPLE, counted, said_so_far, wrong_with
    from flows.runs import replan
    from flows.state import fold
    from flows.turn import GATE

    journal = open_journal(options.journal)
    execution = find_execution(journal, options.execution)
    state = fold(event for _, event in journal.read(execution))
    record, plan, now = state.step(options.step), replan(state), datetime.now(UTC)
    trouble = wrong_with(options.by, options.reason)
    if not is_fence(plan, options.step):
        fences = [step.id for step in plan.steps if is_fence(plan, step.id)]
        trouble = f"'{options.step}' is no fence; there are {', '.join(fences) or 'none'}"
    elif record.failed_first is None or record.overridden or (record.status is not None and record.lets_go_on):
        trouble = f"fence {options.step} has not failed, so there is nothing to override; nobody can do so in advance"
    elif record.code == GATE:
        trouble = f"people said no at the gate of {options.step}; that is an answer, and no fence that failed"
    if trouble:
        print(f"{execution}: {trouble}", file=sys.stderr)
        return 2
    journal.put(execution, SaidOverride(step=options.step, by=options.by, reason=options.reason), now)
    said = counted(said_so_far(state.overrides.get(options.step, ()), journal.inbox(execution, state.adopted), options.step), record.failed_first, now)
    people = ", ".join(one.by for one in said)
    print(f"{execution}: override of fence {options.step} by {options.by} recorded; {len(said)} of {PEOPLE} people ({people})")
    if len(said) < PEOPLE:
        print(f"  a second person must say so within {LASTS.total_seconds() / 60:g} minutes: failover override {execution} {options.step} --as NAME --reason WHY")
    elif state.finished is not None:
        print(f"  go on with: failover resume {execution}   # tries the fence once more first")
    return 0


def add_accept_loss(parser: argparse.ArgumentParser) -> None:
    """Add --accept-loss: how much acknowledged data a person lets go, in their own name."""
    parser.add_argument("--accept-loss", type=_loss, metavar="TIME", help="over the RPO: lose up to so much, such as 90s, or unknown")


def _loss(text: str) -> timedelta:
    from flows.gates import read_accepted

    try:
        return read_accepted(text)
    except ValueError as error:
        raise argparse.ArgumentTypeError(f"{error}, or unknown") from None


def find_execution(journal: Journal, prefix: str | None) -> str:
    """The one execution whose id starts so; the newest without a prefix. Raises CannotResume when there is none."""
    from flows.runs import CannotResume

    if prefix is None:
        newest = journal.executions(1)
        if not newest:
            raise CannotResume(f"there is no execution in {journal.place}")
        return newest[0].execution
    found = journal.find(prefix)
    if len(found) != 1:
        names = f"several: {', '.join(found[:5])}" if found else "none"
        raise CannotResume(f"no single execution starts with '{prefix}' in {journal.place}: {names}")
    return found[0]


def run_answer(options: argparse.Namespace) -> int:
    """Put an answer into the inbox."""
    from deployments.journal_location import open_journal
    from flows.state import fold

    journal = open_journal(options.journal)
    execution = find_execution(journal, options.execution)
    state = fold(event for _, event in journal.read(execution))
    said, trouble = _said(options, state)
    if said is None:
        print(f"{execution}: {trouble}", file=sys.stderr)
        return 2
    if state.finished is not None:
        print(f"{execution}: has ended ({state.finished.verdict.value}); resume it to be asked again", file=sys.stderr)
        return 2
    journal.put(execution, said, datetime.now(UTC))
    print(f"{execution}: {options.gate}: {options.word} by {options.by} recorded{trouble}")
    return 0


def _said(options: argparse.Namespace, state: ExecutionState) -> tuple[InboxEntry | None, str]:
    """The entry, with a remark; or None with what is wrong."""
    from flows.events import Answer, Choice
    from flows.gates import Asked, asked_of, may_answer, not_accepted
    from flows.journal import SaidAboutFailure, SaidAboutGate
    from flows.runs import replan
    from runbooks.model import Approval
    from runbooks.plan import PREFLIGHT

    name, choose = options.gate, getattr(options, "choose", None)
    decision = state.decisions.get(name)
    if decision is not None and decision.closed is None:
        if options.word == "approve" and choose is None:
            return None, f"{name} failed: say what to do with --choose {'|'.join(one.value for one in decision.opened.options)}"
        choice = Choice(choose) if choose else Choice.abort
        return SaidAboutFailure(step=name, choice=choice, by=options.by, reason=options.reason), ""
    if choose is not None:
        return None, f"nobody asks what to do about '{name}' now"
    plan = replan(state)
    known = {**{gate.name: gate.rule for gate in plan.gates}, PREFLIGHT: Approval(), **{step.id: None for step in plan.steps if step.manual}}
    if name not in known:
        return None, f"there is no gate '{name}'; there are {', '.join(known) or 'none'}"
    remark = ""
    rule, opened, now = known[name], state.gate(name).opened, datetime.now(UTC)
    answer = Answer.approve if options.word == "approve" else Answer.deny
    accepts = getattr(options, "accept_loss", None)
    if rule is not None and state.started is not None:
        unopened = Asked(now, now + rule.timeout, state.started.initiator, state.started.mode)
        asked = asked_of(opened, state.started) if opened else unopened
        wrong = may_answer(rule, options.by, asked, now)
        if wrong is None and answer is Answer.approve:
            wrong = not_accepted(asked.stake, accepts, now)
        remark = f"; it will not count: {wrong}" if wrong else ("" if opened else "; the gate is not open yet")
    return SaidAboutGate(gate=name, answer=answer, by=options.by, reason=options.reason, accepts_loss=accepts), remark
