"""No drill touches what a live run touches."""

import pytest

from runbooks.planner import check
from tests.runbooks.making import Mode, loaded, only, plan_problems, planned

ALTER = """
targets: {%s}
steps:
  - {id: look, uses: test.look}
  - {id: alter, uses: test.alter, with: {%s}}
  - {id: last, uses: test.look}
"""


@pytest.mark.parametrize(
    ("targets", "with_", "touches"),
    [
        ("live: {a: x}, drill: {a: q}", "where: '${target.a}'", False),
        ("live: {a: x}, drill: {a: x}", "where: '${target.a}'", True),
        ("live: {a: x}, drill: {a: q}", "where: fixed, note: '${target.a}'", True),
        ("live: {a: x}, drill: {a: q}", "where: '${target.a}', note: '${env.X}'", None),
        ("live: {a: x, b: p}, drill: {a: q, b: p}", "where: '${target.a}', note: '${target.b}'", False),
        ("live: {a: x}, drill: {a: q}", "where: fixed, note: '${target.a}', login: {host: h, password: '${env.X}'}", True),
        ("live: {a: x}, drill: {a: q}", "where: '${target.a}', note: '${steps.look.name}'", False),
        ("live: {a: x}, drill: {a: q}", "where: fixed, note: '${target.a} ${steps.look.name}'", True),
        ("live: {a: x}, drill: {a: q}", "where: '${steps.look.name}', note: '${target.a}'", False),
        ("live: {a: x}, drill: {a: q}", "where: fixed, endpoint: '${target.a}'", False),
        ("live: {a: }, drill: {a: q}", "where: fixed, endpoint: '${target.a}'", False),
        ("live: {a: x}, drill: {a: q}", "where: '${inputs.i}', note: '${target.a}'", True),
    ],
)
def test_a_change_that_a_drill_shares_with_a_live_run_is_refused(targets, with_, touches):
    body = ALTER % (targets, with_) + "inputs: {i: {type: text, default: d}}\n"
    problems = plan_problems(body, Mode.drill)
    if touches is None:
        assert "kept secret" in only(problems)
    elif touches:
        assert only(problems).startswith("4:23: steps[1] (alter).uses: a drill would touch what a live run touches (thing:")
    else:
        assert problems == []
    assert plan_problems(body) == ([] if touches is not None else problems)


def test_a_drill_does_not_touch_what_another_live_step_touches():
    body = """
    targets: {live: {a: x, b: q}, drill: {a: q, b: z}}
    steps:
      - {id: one, uses: test.alter, with: {where: '${target.a}'}}
      - {id: two, uses: test.alter, with: {where: '${target.b}'}}
      - {id: last, uses: test.look}
    """
    assert "steps[0] (one).uses" in only(plan_problems(body, Mode.drill))


def test_what_a_drill_leaves_out_or_only_simulates_may_be_fixed():
    for drill in ("skip", "simulate"):
        body = f"steps:\n  - {{id: a, uses: test.alter, with: {{where: fixed}}, drill: {drill}}}\n  - {{id: last, uses: test.look}}"
        assert check(loaded(body)) == ()


def test_live_and_drill_targets_have_the_same_names():
    body = "targets: {live: {a: x, b: q}, drill: {a: z, c: w}}"
    missing, more = plan_problems(body, Mode.drill)
    assert missing.startswith("1:31: targets.drill: has no 'b'")
    assert more.startswith("1:45: targets.drill.c: is not in targets.live")
    assert plan_problems(body) == []
    assert len(check(loaded(body))) == 2


def test_a_runbook_without_drill_targets_runs_live_and_cannot_be_drilled():
    body = ALTER % ("live: {a: x}", "where: '${target.a}'")
    assert check(loaded(body)) == ()
    assert "cannot be rehearsed" in str(planned(body).warnings)
    assert any("targets.drill has no 'a'" in problem for problem in plan_problems(body, Mode.drill))


def test_a_dry_run_looks_at_what_a_live_run_touches():
    body = ALTER % ("live: {a: x}, drill: {a: q}", "where: '${target.a}'")
    found = {mode: planned(body, mode).by_id["alter"].arguments["where"] for mode in Mode}
    assert found == {Mode.live: "x", Mode.dry_run: "x", Mode.drill: "q"}
