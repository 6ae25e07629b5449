"""A report as text: Markdown for people and for Prefect, JSON for programs, aligned lines for a terminal."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime, timedelta

from flows.report_parts import LossRange, LostTransactions, Report, Seal
from tasks.durations import show_seconds
from tasks.lost import moment

Row = Sequence[str]
BAR = 48
"""Characters of the widest bar of the timeline in text."""


def seconds(value: float | None) -> str:
    """A time for people; '-' when there is none."""
    return "-" if value is None else show_seconds(timedelta(seconds=value))


def timeline_rows(report: Report) -> list[Row]:
    """Step, status, budget, expected, actual, people, what it did."""
    rows: list[Row] = [("step", "status", "budget", "actual", "people", "what")]
    rows += [
        (line.step, line.status, seconds(line.budget), seconds(line.actual), seconds(line.waited or None),
         line.change or line.detail)
        for line in report.steps
    ]  # fmt: skip
    return rows


def recovery_lines(report: Report) -> list[str]:
    """RTA against RTO, split into its parts; or why there is none."""
    if report.rta is None:
        return [f"RTA   none: {report.verdict}{': ' + report.detail if report.detail else ''}", f"RTO   {seconds(report.rto)}"]
    word = "within" if report.rto_met else "over"
    return [
        f"RTA   {seconds(report.rta.total)} from the impact, {word} the RTO of {seconds(report.rto)}",
        "      " + " + ".join(f"{name} {seconds(part)}" for name, part in parts(report)),
    ]


def parts(report: Report) -> tuple[tuple[str, float], ...]:
    """What the RTA consisted of, in order: (name, seconds); empty without an RTA."""
    if report.rta is None:
        return ()
    rta = report.rta
    return (
        ("detection", rta.detection), ("decision", rta.decision), ("automation", rta.automation),
        ("verification", rta.verification),
    )  # fmt: skip


def loss_text(loss: LossRange) -> str:
    """A loss as a range: 'between 0.00 s and 1.20 s of writes'."""
    if loss.at_most is None:
        told = f"at least {seconds(loss.at_least)} of writes, not bounded above"
    elif loss.at_most <= loss.at_least:
        told = f"{seconds(loss.at_most)} of writes at most"
    else:
        told = f"between {seconds(loss.at_least)} and {seconds(loss.at_most)} of writes"
    told += {True: ", within the RPO", False: ", OVER the RPO", None: ""}[loss.within_rpo]
    return told + (f"; {', '.join(loss.accepted_by)} accepted {loss.accepted}" if loss.accepted else "")


def loss_lines(report: Report) -> list[str]:
    """What each promotion of this run may have lost."""
    return [f"Loss  {loss_text(loss)} ({loss.step}, {clock(loss.at)})" for loss in report.losses if loss.promoted]


def lost_text(told: LostTransactions) -> str:
    """What a step listed as lost, in numbers."""
    lost = told.lost
    unread = f"; not all could be read: {lost.unread}" if lost.unread else ""
    if not lost.committed:
        return f"no transaction was found{unread}" if unread else "nothing was lost"
    least = "at least " if lost.unread else ""
    return f"{least}{lost.committed} transaction(s), {least}{lost.missing} row(s) that the new primary has none for{unread}"


def lost_rows(told: LostTransactions) -> list[Row]:
    """Table, key, time of commit, and what is not listed."""
    rows: list[Row] = [(one.table, one.key, moment(one.at) if one.at else "-") for one in told.lost.rows]
    rest = told.lost.rest_of_rows
    return [*rows, (rest, "", "")] if rest else rows


def lost_commits(told: LostTransactions) -> list[Row]:
    """Transaction, position, time of commit, and what is not listed."""
    rows: list[Row] = [(str(one.xid), one.lsn, moment(one.at)) for one in told.lost.transactions]
    rest = told.lost.rest_of_transactions
    return [*rows, (rest, "", "")] if rest else rows


LOST_ROWS, LOST_COMMITS = ("table", "key", "committed (UTC)"), ("transaction", "commit at", "committed (UTC)")
"""Heads of the two tables."""


def clock(at: datetime | None) -> str:
    """A time of day, '-' when there is none."""
    return "-" if at is None else f"{at:%H:%M:%S}"


def aligned(rows: Sequence[Row], width: int = 120) -> list[str]:
    """Rows as lines with columns under each other; the last column is cut at the width."""
    widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]) - 1)]
    lines = []
    for row in rows:
        head = "  ".join(cell.ljust(size) for cell, size in zip(row, widths, strict=False))
        line = f"{head}  {row[-1]}".rstrip()
        lines.append(line if len(line) <= width else line[: width - 1] + "…")
    return lines


def markdown(report: Report) -> str:
    """The report as Markdown. Nothing that was journaled can add markup of its own."""
    lines = [
        f"# {plain(report.title)}: {report.verdict}",
        "",
        f"Execution `{report.execution}` of runbook `{report.runbook}` for service `{plain(report.service)}`, mode **{report.mode}**, "
        f"started {report.started:%Y-%m-%d %H:%M:%S} UTC by {plain(report.initiator)} ({plain(report.channel)})"
        + (f": {plain(report.reason)}" if report.reason else "") + ".",
        "",
        *(f"**{plain(one)}**\n" for one in (*report.overridden, *report.unleased)),
        *recovery_lines(report),
        *loss_lines(report),
        "",
        "## Timeline",
        "",
        *markdown_table(timeline_rows(report)),
        "",
    ]  # fmt: skip
    for section in (_facts, _lost, _gates, _fences, _answers, _forecast, _lists):
        lines += section(report)
    details: list[Row] = [("step", "detail"), *((line.step, line.detail) for line in report.steps if line.detail)]
    lines += ["## Details", "", *markdown_table(details), ""]
    lines += [f"{_sealed(report.seal)}.", f"Plan {report.plan_hash[:16]}; failover {report.version}.", ""]
    return "\n".join(lines)


def _sealed(seal: Seal) -> str:
    anchored = f", anchor `{seal.anchor}`" if seal.anchor else ""
    told = [*(f"; NOT INTACT: {one}" for one in seal.problems), *(f"; not checked: {one}" for one in seal.unchecked)]
    return f"Journal {seal.journal}: {seal.events} events sealed by `{seal.hash}`{anchored}{plain(''.join(told))}"


def _facts(report: Report) -> list[str]:
    if not report.facts:
        return []
    return ["## Measured from outside", "", *markdown_table([("what", "value"), *((f.name, f.value) for f in report.facts)]), ""]


def _lost(report: Report) -> list[str]:
    lines = ["## Lost transactions", ""] if report.lost_transactions else []
    for told in report.lost_transactions:
        lines += [f"Listed by {told.step} at {clock(told.at)} UTC: {plain(lost_text(told))}.", ""]
        for head, rows in ((LOST_ROWS, lost_rows(told)), (LOST_COMMITS, lost_commits(told))):
            lines += [*markdown_table([head, *rows]), ""] if rows else []
    return lines


def _gates(report: Report) -> list[str]:
    lines = []
    for gate in report.gates:
        about = f"Covers {', '.join(gate.covers) or 'itself'}; {plain(gate.outcome)}; people took {seconds(gate.waited)}."
        lines += [f"## Gate {gate.gate}: {plain(gate.question)}", "", f"{about} What was known:", ""]
        lines += [*(f"- {plain(one)}" for one in gate.evidence), ""]
    return lines


def _fences(report: Report) -> list[str]:
    if not report.fences:
        return []
    rows: list[Row] = [("fence", "status", "at (UTC)", "evidence")]
    rows += [(one.step, one.status, clock(one.at), one.evidence) for one in report.fences]
    return ["## Fences", "", *markdown_table(rows), ""]


def _answers(report: Report) -> list[str]:
    if not report.answers:
        return []
    rows: list[Row] = [("time (UTC)", "gate", "answer", "by", "how", "reason")]
    rows += [(clock(one.at), one.gate, one.answer, one.by, one.how, one.reason) for one in report.answers]
    return ["## Answers", "", *markdown_table(rows), ""]


def _forecast(report: Report) -> list[str]:
    if not report.expectations:
        return []
    lines = ["## Forecast", "", f"From {report.history}."]
    if report.expectations[0].recovery is not None:
        lines.append(f"At the start, recovery was expected at {clock(report.expectations[0].recovery)} UTC.")
    said = [f"- {clock(one.at)} {one.verdict}: recovery expected {clock(one.recovery)}" for one in report.warnings]
    return [*lines, "", *said, *([""] if said else [])]


def _lists(report: Report) -> list[str]:
    lines = []
    run = [f"{clock(one.at)} {one.what}{' by ' + one.by if one.by else ''}: {one.reason}" for one in report.interventions]
    for title, texts in (
        ("Preflight", report.preflight),
        ("Not undone", [f"{one.step}: {one.why}" for one in report.lasting]),
        ("Calls that were refused", report.refusals),
        ("Stops, takeovers and notes", run),
    ):
        if texts:
            lines += [f"## {title}", "", *(f"- {plain(text)}" for text in texts), ""]
    return lines


def markdown_table(rows: Sequence[Row]) -> list[str]:
    """A Markdown table; cells are made plain."""

    def line(cells: Row) -> str:
        return "| " + " | ".join(plain(cell).replace("|", "\\|") for cell in cells) + " |"

    return [line(rows[0]), "|" + "---|" * len(rows[0]), *(line(row) for row in rows[1:])]


def plain(text: str) -> str:
    """Text as one line that no reader of Markdown takes for HTML, a link or a picture."""
    return " ".join(text.split()).replace("&", "&amp;").replace("<", "&lt;").replace("[", "\\[")


def timeline_text(report: Report) -> list[str]:
    """The timeline as bars of characters, for places that show no pictures: one line a step, gates apart."""
    start, end = min(report.impact, report.started), max(report.ended, report.started + timedelta(milliseconds=1))
    whole = (end - start).total_seconds()
    names = max(len(one) for one in (*(line.step for line in report.steps), *(f"gate {gate.gate}" for gate in report.gates)))

    def bar(begun: datetime, over: datetime | None, sign: str) -> str:
        first = min(BAR - 1, int((begun - start).total_seconds() / whole * BAR))
        last = max(first + 1, round(((over or end) - start).total_seconds() / whole * BAR))
        return " " * first + sign * (last - first)

    lines = [f"{' ' * names} |{'impact +' + seconds(0):<{BAR - 12}}{'+' + seconds(whole):>12}|"]
    for line in report.steps:
        drawn = bar(line.started, line.finished, "█") if line.started else ""
        for span in line.waits:
            waited = bar(span.start, span.end, "▒")
            drawn = drawn[: len(waited) - len(waited.lstrip())] + waited.lstrip() + drawn[len(waited) :]
        drawn = drawn if "█" in drawn or not drawn else drawn[:-1] + "█"  # the work, however short
        lines.append(f"{line.step:<{names}} |{drawn:<{BAR}}| {seconds(line.actual)} of {seconds(line.budget)}, {line.status}")
    for gate in report.gates:
        drawn = bar(gate.asked[0].start, gate.asked[-1].end, "▒") if gate.asked else ""
        lines.append(f"{'gate ' + gate.gate:<{names}} |{drawn:<{BAR}}| {seconds(gate.waited)} {plain(gate.outcome)}")
    return lines


def to_json(report: Report) -> str:
    """The report as JSON, indented; flows/report-v1.schema.json describes it."""
    return report.model_dump_json(indent=2, by_alias=True)
