"""Runbooks for tests: a head that is always the same, and what a test is about."""

from __future__ import annotations

from textwrap import dedent

from runbooks.loader import Loaded, load_text
from runbooks.model import Mode
from runbooks.plan import Plan
from runbooks.planner import plan
from runbooks.problems import Problem, RunbookError

HEAD = """\
schema: failover/v1
name: example
title: An example
service: checkout
owner: team
objectives: {rto: 30m}
"""
HEAD_LINES = HEAD.count("\n")


def runbook(body: str, *, recovered_when: str = "last") -> str:
    """A whole runbook; without steps of its own one harmless probe named `last` stands in it."""
    text = dedent(body).strip("\n") + "\n"
    if not text.startswith("steps:") and "\nsteps:" not in text:
        text += "steps:\n  - id: last\n    uses: test.look\n"
    return f"{HEAD}{text}recovered_when: {recovered_when}\n"


def loaded(body: str, **options: str) -> Loaded:
    return load_text(runbook(body, **options), "r.yaml")


def planned(body: str, mode: Mode = Mode.live, inputs: dict | None = None, environ=None, **options: str) -> Plan:
    return plan(loaded(body, **options), mode=mode, inputs=inputs or {}, environ=environ)


def problems_of(call, *arguments, **options) -> tuple[Problem, ...]:
    """What the call refuses; nothing when it does not."""
    try:
        call(*arguments, **options)
    except RunbookError as error:
        return error.problems
    return ()


def load_problems(text: str | bytes) -> list[str]:
    return [str(problem) for problem in problems_of(load_text, text, "r.yaml")]


def plan_problems(body: str, mode: Mode = Mode.live, inputs: dict | None = None, **options) -> list[str]:
    """Problems of a runbook's body, each as 'line:column: path: message' with lines counted from the body's first."""
    found = problems_of(planned, body, mode, inputs, **options)
    return [
        f"{problem.place.line - HEAD_LINES}:{problem.place.column}: {problem.path}: {problem.message}"
        if problem.place.line
        else problem.message
        for problem in found
    ]


def only(problems: list[str]) -> str:
    assert len(problems) == 1, problems
    return problems[0]
