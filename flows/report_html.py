"""A report as one HTML file: no script, nothing loaded, readable at night, on paper, and by a screen reader.

Must never happen: that something journaled (a title, a reason, an answer of a server) becomes markup. Every text goes
through `e`, and the page's own policy forbids scripts and requests besides.
"""

from __future__ import annotations

from collections.abc import Sequence
from html import escape as e

from flows.report_gantt import BAD, IDLE, forecast_chart, gantt, late
from flows.report_parts import Report, StepLine
from flows.report_style import STYLE
from flows.report_svg import svg
from flows.report_text import (
    LOST_COMMITS,
    LOST_ROWS,
    clock,
    loss_text,
    lost_commits,
    lost_rows,
    lost_text,
    parts,
    seconds,
)

POLICY = "default-src 'none'; style-src 'unsafe-inline'"
LONG = 30
"""Steps from which on the chart may be broken over pages of paper."""
GOOD, NOT_YET = {"recovered", "no-action", "would"}, {"running", "interrupted"}

Cell = str
"""HTML; made by the functions below only."""


def html(report: Report) -> str:
    """The whole page."""
    body = [
        _head(report), _figures(report), _parts(report), _timeline(report), _forecast(report), _gates(report), _fences(report),
        _preflight(report), _answers(report), _loss(report), _lost(report), _lasting(report), _run(report), _seal(report),
    ]  # fmt: skip
    return (
        '<!doctype html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n'
        f'<meta http-equiv="Content-Security-Policy" content="{POLICY}">\n'
        '<meta name="viewport" content="width=device-width, initial-scale=1">\n<meta name="referrer" content="no-referrer">\n'
        f"<title>{e(report.title)}: {e(report.verdict)} ({e(report.execution)})</title>\n<style>{STYLE}</style>\n</head>\n"
        f"<body>\n<main>\n{''.join(body)}</main>\n</body>\n</html>\n"
    )


def _tone(verdict: str) -> str:
    return "good" if verdict in GOOD else "info" if verdict in NOT_YET else "bad"


def _head(report: Report) -> str:
    why = f" Reason: {e(report.reason)}." if report.reason else ""
    said = f'<p class="say {_tone(report.verdict)}">{e(report.detail)}</p>' if report.detail not in {"", report.verdict} else ""
    until = "still going on at" if report.verdict in NOT_YET else "until"
    bad = [*(f"The journal is not intact: {one}" for one in report.seal.problems), *report.unleased, *report.overridden]
    broken = "".join(f'<p class="say bad">{e(one)}</p>' for one in bad)
    return (
        f'<header><span class="badge {_tone(report.verdict)}">{e(report.verdict)}</span><span class="mode">{e(report.mode)}</span>'
        f"<h1>{e(report.title)}</h1>"
        f'<p class="sub">Service <b>{e(report.service)}</b>, runbook {e(report.runbook)}, execution <code>{e(report.execution)}</code>. '
        f"Started {report.started:%Y-%m-%d %H:%M:%S} UTC by <b>{e(report.initiator)}</b> ({e(report.channel)}), "
        f"{until} {report.ended:%H:%M:%S} UTC.{why}</p>{said}{broken}</header>\n"
    )


def _figures(report: Report) -> str:
    dry = report.mode == "dry-run"
    rta = seconds(report.rta.total) if report.rta is not None else "none" if not dry else "dry run"
    word = {True: "within the RTO", False: "RTO missed", None: "not decided yet" if not dry else "nothing was changed"}[report.rto_met]
    tone = {True: "ok", False: "no", None: ""}[report.rto_met]
    loss = next((one for one in reversed(report.losses) if one.promoted), None)
    most = "not measured" if loss is None else "not bounded" if loss.at_most is None else f"≤ {seconds(loss.at_most)}"
    rpo = f"RPO {seconds(report.rpo)}" if report.rpo is not None else "no RPO is set"
    over = loss is not None and loss.at_most is not None and report.rpo is not None and loss.at_most > report.rpo
    finished = sum(line.status in {"done", "already"} for line in report.steps)
    figures = [
        ("Recovery time (RTA)", rta, word, tone),
        ("Objective (RTO)", seconds(report.rto), f"from the impact at {clock(report.impact)} UTC", ""),
        ("Lost writes", most, rpo, "no" if over else ""),
        ("Steps done", f"{finished} of {len(report.steps)}", f"people were waited for {seconds(report.people)}", ""),
    ]
    drawn = (
        f'<div class="figure {tone}"><span class="name">{name}</span><b>{e(value)}</b><span>{e(about)}</span></div>'
        for name, value, about, tone in figures
    )
    return f'<div class="figures">{"".join(drawn)}</div>\n'


def _section(title: str, body: str) -> str:
    return f"<section><h2>{e(title)}</h2>{body}</section>\n"


def _parts(report: Report) -> str:
    if report.rta is None:
        return ""
    whole = max(report.rta.total, 1e-9)
    known = parts(report)
    bar = "".join(f'<i class="{name}" style="flex:{max(0.0, part / whole):.4f}"></i>' for name, part in known)
    meaning = {
        "detection": "impact until the outage was certain", "decision": "waiting for people",
        "automation": "the steps' own work", "verification": "proof that it works",
    }  # fmt: skip
    key = "".join(
        f'<li><i class="{name}"></i>{name} <b>{seconds(part)}</b> ({meaning[name]})</li>' for name, part in known
    )
    total = f"{' + '.join(seconds(part) for _, part in known)} = {seconds(report.rta.total)} from impact to recovery"
    return _section("What the recovery time was made of",
                    f'<div class="parts" aria-hidden="true">{bar}</div><ul class="key">{key}</ul><p class="sub">{e(total)}</p>')  # fmt: skip


def _timeline(report: Report) -> str:
    key = [
        ("bar-done", "work, within its budget"), ("bar-late", "work, over its budget"), ("bar-bad", "failed or refused"),
        ("bar-run", "running"), ("bar-people", "waiting for people"), ("bar-budget", "budget (open: longer than shown)"), ("bar-rto", "RTO"),
    ]  # fmt: skip
    legend = "".join(f'<li><i class="{name}"></i>{text}</li>' for name, text in key)
    long = " long" if len(report.steps) > LONG else ""
    rows = [_step_row(line) for line in report.steps]
    table = _table(("step", "status", "started", "#budget", "#expected", "#actual", "#people", "#tries", "what"), rows,
                   "Times are UTC. Actual is the work without people's time; expected is the median of earlier runs, else the budget.")  # fmt: skip
    return _section("Timeline: budget against actual",
                    f'<ul class="key">{legend}</ul><div class="chart{long}">{svg(gantt(report))}</div>{table}')  # fmt: skip


def _step_row(line: StepLine) -> Sequence[Cell]:
    tone = "bad" if line.status in BAD else "warn" if late(line) else "" if line.status in IDLE else "good"
    tone = "info" if line.status == "running" else tone
    title = f'<br><span class="sub">{e(line.title)}</span>' if line.title != line.step else ""
    what = "<br>".join(e(text) for text in dict.fromkeys((line.change, line.detail)) if text)
    expected = f"{seconds(line.expected)}<br><span class='sub'>{e(line.expected_from)}</span>"
    return (
        f"{e(line.step)}{title}", f'<span class="tag {tone}">{e(line.status)}</span>', clock(line.started), seconds(line.budget),
        expected, seconds(line.actual), seconds(line.waited or None), str(line.attempts or "-"), what,
    )  # fmt: skip


def _forecast(report: Report) -> str:
    chart = forecast_chart(report)
    if chart is None:
        return ""
    said = "".join(
        f'<p class="say {"bad" if one.verdict == "missed" else "warn"}">{clock(one.at)} UTC, '
        f"{'the RTO has passed' if one.verdict == 'missed' else 'the RTO is at risk'}: recovery is expected at {clock(one.recovery)} UTC</p>"
        for one in report.warnings
    )
    rows = [(clock(one.at), clock(one.recovery), _since(report, one.recovery)) for one in report.expectations]
    table = _table(("at (UTC)", "recovery expected at", "#after the impact"), rows, "")
    about = f'<p class="sub">Made from {e(report.history)}; a step without three earlier runs counts with its budget.</p>'
    return _section("Forecast over time", f'{about}<div class="chart">{svg(chart)}</div>{said}<details><summary>as a table</summary>{table}</details>')


def _since(report: Report, at: object) -> str:
    return seconds((at - report.impact).total_seconds()) if isinstance(at, type(report.impact)) else "not known: a step has failed"


def _gates(report: Report) -> str:
    if not report.gates:
        return ""
    drawn = []
    for gate in report.gates:
        tone = {"approved": "good", "refused": "bad", "waiting": "info"}[gate.state]
        spans = ", ".join(f"{clock(one.start)} to {clock(one.end) if one.end else 'now'}" for one in gate.asked)
        evidence = "".join(f"<li>{e(one)}</li>" for one in gate.evidence) or '<li class="none">none was shown</li>'
        covers = f"covers {', '.join(gate.covers)}" if gate.covers else "a step for a person"
        drawn.append(
            f'<h3><span class="tag {tone}">{gate.state}</span> {e(gate.gate)}: {e(gate.question)}</h3>'
            f'<p class="sub">{e(gate.outcome)}; {e(covers)}; asked {spans} UTC, people took {seconds(gate.waited)}</p>'
            f"<p>What was known when it was asked:</p><ul>{evidence}</ul>"
        )
    return _section("Gates and their evidence", "".join(drawn))


def _fences(report: Report) -> str:
    if not report.fences:
        return ""
    drawn = []
    for one in report.fences:
        facts = "".join(f"<dt>{e(fact.name.replace('_', ' '))}</dt><dd>{e(fact.value)}</dd>" for fact in one.facts if fact.value != one.evidence)
        tone = "bad" if one.status in BAD else "good" if one.status in {"done", "already"} else "info"
        drawn.append(
            f'<h3><span class="tag {tone}">{e(one.status)}</span> {e(one.step)}: {e(one.title)}</h3>'
            f"<p><b>Evidence:</b> {e(one.evidence) or 'none yet'}</p><dl>{facts}</dl>"
        )
    return _section("Fences: why there are not two writers", "".join(drawn))


def _answers(report: Report) -> str:
    if not report.answers:
        return ""
    rows = [
        (clock(one.at), e(one.gate), f'<span class="tag {"bad" if one.answer in {"deny", "abort"} else "good"}">{e(one.answer)}</span>',
         f"<b>{e(one.by)}</b>", e(one.how) or "-", e(one.reason) or '<span class="none">no reason given</span>')
        for one in report.answers
    ]  # fmt: skip
    return _section("Approvals and decisions", _table(("at (UTC)", "about", "answer", "by", "how we know", "why"), rows, ""))


def _loss(report: Report) -> str:
    if not report.losses and not report.facts:
        return ""
    rows = [(e(loss.step), clock(loss.at), e(loss_text(loss))) for loss in report.losses]
    rows += [("measured from outside", "-", f"{e(fact.name)}: <b>{e(fact.value)}</b>") for fact in report.facts]
    return _section("Lost writes, and what was measured from outside", _table(("seen by", "at (UTC)", "what"), rows, ""))


def _lost(report: Report) -> str:
    body = []
    for told in report.lost_transactions:
        body.append(f"<p>Listed by <b>{e(told.step)}</b> at {clock(told.at)} UTC: {e(lost_text(told))}.</p>")
        rows, commits = ([[e(cell) for cell in row] for row in found] for found in (lost_rows(told), lost_commits(told)))
        body.append(_table(LOST_ROWS, rows, "Rows by their key; no other column of them.") if rows else "")
        body.append(f"<details><summary>by transaction</summary>{_table(LOST_COMMITS, commits, '')}</details>" if commits else "")
    return _section("Lost transactions", "".join(body)) if body else ""


def _lasting(report: Report) -> str:
    lines = [f"<li><b>{e(one.step)}</b>: {e(one.why)}</li>" for one in report.lasting]
    refused = [f"<li>{e(one)}</li>" for one in report.refusals]
    body = f"<ul>{''.join(lines)}</ul>" if lines else ""
    body += f"<h3>Calls that were refused</h3><ul>{''.join(refused)}</ul>" if refused else ""
    return _section("What could not be undone" if lines else "Refused calls", body) if body else ""


def _run(report: Report) -> str:
    if not report.interventions:
        return ""
    rows = [(clock(one.at), e(one.what), e(one.by) or "-", e(one.reason)) for one in report.interventions]
    return _section("Stops, takeovers and notes", _table(("at (UTC)", "what", "by", "why"), rows, ""))


def _preflight(report: Report) -> str:
    lines = "".join(f"<li>{e(one)}</li>" for one in report.preflight)
    return _section("Found before the first change", f"<ul>{lines}</ul>") if lines else ""


def _seal(report: Report) -> str:
    seal = report.seal
    wrong = "NOT INTACT: " + "; ".join(seal.problems) if seal.problems else ""
    unknown = "not all checked: " + "; ".join(seal.unchecked) if seal.unchecked else ""
    intact = "; ".join(filter(None, (wrong, unknown))) or "intact"
    against = f" --anchor {e(seal.anchor)}" if seal.anchor else ""
    facts = [
        ("journal", e(seal.journal)), ("events", f"{seal.events}, chain {e(intact)}"), ("hash of the last event", f"<code>{e(seal.hash)}</code>"),
        ("anchor", f"<code>{e(seal.anchor)}</code>, its last event as the key sealed it"),
        ("plan", f"<code>{e(report.plan_hash)}</code>"), ("made by", f"failover {e(report.version)}"),
        ("to check", f"<code>failover verify-journal {e(report.execution)}{against}</code>"),
    ]  # fmt: skip
    return _section("The record", f"<dl>{''.join(f'<dt>{name}</dt><dd>{value}</dd>' for name, value in facts)}</dl>")


def _table(heads: Sequence[str], rows: Sequence[Sequence[Cell]], caption: str) -> str:
    """A table whose first column names the row; a head with # in front stands over numbers."""
    kinds = ["n" if head.startswith("#") else "t" if head.endswith("(UTC)") or head == "started" else "" for head in heads]
    top = "".join(f'<th scope="col"{_class(kind)}>{e(head.lstrip("#"))}</th>' for head, kind in zip(heads, kinds, strict=True))
    lines = []
    for row in rows:
        first, *rest = zip(row, kinds, strict=True)
        cells = "".join(f"<td{_class(kind)}>{cell}</td>" for cell, kind in rest)
        lines.append(f'<tr><th scope="row"{_class(first[1])}>{first[0]}</th>{cells}</tr>')
    named = f"<caption>{e(caption)}</caption>" if caption else ""
    return f'<div class="wide"><table>{named}<thead><tr>{top}</tr></thead><tbody>{"".join(lines)}</tbody></table></div>'


def _class(kind: str) -> str:
    return f' class="{kind}"' if kind else ""
