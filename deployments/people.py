"""`failover approve` and `deny`: a person's word, put into the execution's inbox like any other channel's."""

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
    """Add approve and deny."""
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
