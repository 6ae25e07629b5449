"""Each rule has a runbook that breaks it, and one beside it that keeps it."""

from datetime import timedelta

import pytest

from runbooks.planner import check, examine
from tests.runbooks.making import Mode, loaded, only, plan_problems, planned

LOOK = "  - {id: last, uses: test.look}\n"
FENCE = "  - {id: fence, uses: test.fence, with: {where: east}%s}\n"
WRITE = "  - {id: promote, uses: test.write, with: {where: west}%s}\n"
GRADE = "  - {id: grade, uses: assess.severity, with: {rules: []}}\n"


def steps(*lines: str) -> str:
    return "steps:\n" + "".join(lines)


def warnings_of(body: str, **options) -> list[str]:
    return [f"{one.path}: {one.message}" for one in planned(body, **options).warnings]


def test_an_irreversible_change_needs_a_gate():
    smash = "  - {id: smash, uses: test.smash, with: {where: a}%s}\n"
    problem = only(plan_problems(steps(smash % "", LOOK)))
    assert problem.startswith("2:23: steps[0] (smash).uses: test.smash cannot be undone and has no gate")
    assert plan_problems(steps(smash % ", gate: {}", LOOK)) == []


def test_a_gate_before_it_covers_an_irreversible_change():
    gate = "  - {id: ready, manual: ready?, gate: {name: go, covers: %s}}\n"
    smash = "  - {id: smash, uses: test.smash, with: {where: a}}\n"
    assert plan_problems(steps(gate % "[smash]", smash, LOOK)) == []
    assert "no gate" in only(plan_problems(steps(gate % "[]", smash, LOOK)))
    plan = planned(steps(gate % "[smash]", smash, LOOK))
    assert plan.by_id["smash"].gates == ("go",)
    assert plan.gate_by_name["go"].covers == ("ready", "smash")


def test_a_steps_own_gate_is_named_first():
    body = steps("  - {id: a, manual: x, gate: {covers: b, budget: 1m}}\n", "  - {id: b, manual: x, gate: {name: own, budget: 1m}}\n", LOOK)
    assert planned(body).by_id["b"].gates == ("own", "a")


def test_a_second_writer_needs_a_fence_before_it():
    problem = only(plan_problems(steps(WRITE % "", LOOK)))
    assert problem.startswith("2:25: steps[0] (promote).uses: test.write makes a second writer possible and no fence")
    assert plan_problems(steps(FENCE % "", WRITE % "", LOOK)) == []
    assert planned(steps(FENCE % "", WRITE % "", LOOK)).by_id["promote"].fenced_by == ("fence",)


def test_a_fence_beside_it_is_no_fence_before_it():
    assert "no fence holds" in only(plan_problems(steps(FENCE % "", WRITE % ", after: []", LOOK)))


@pytest.mark.parametrize(
    ("fence", "write", "safe"),
    [
        (", when: {severity: P1}", "", False),
        (", when: {severity: P1}", ", when: {severity: [P1, P2]}", False),
        (", when: {severity: [P1, P2]}", ", when: {severity: P1}", True),
        (", when: {severity: P1}", ", when: {severity: P1}", True),
        ("", ", when: {severity: P1}", True),
        (", when: {mode: drill}", "", False),
        (", when: {mode: [live, dry-run]}", "", True),
        (", when: {mode: drill}", ", when: {mode: drill}", True),
        (", on_failure: continue", "", False),
        (", on_failure: ask", "", True),
        (", on_failure: promote", "", False),
    ],
)
def test_a_fence_must_hold_on_every_run_on_which_there_is_a_second_writer(fence, write, safe):
    problems = plan_problems(steps(GRADE, FENCE % fence, WRITE % write, LOOK))
    assert bool([one for one in problems if "no fence holds" in one]) is not safe


@pytest.mark.parametrize(
    ("fence", "write", "safe"),
    [
        (", drill: skip", "", False),
        (", drill: simulate", "", False),
        (", drill: simulate", ", drill: simulate", True),
        (", drill: skip", ", drill: skip", True),
        ("", ", drill: simulate", True),
        (", when: {mode: live}", "", False),
    ],
)
def test_a_drill_is_fenced_as_a_live_run_is(fence, write, safe):
    places = "targets: {live: {east: a, west: b}, drill: {east: c, west: d}}\n"
    body = places + steps(FENCE % fence, WRITE % write, LOOK)
    body = body.replace("where: east", "where: '${target.east}'").replace("where: west", "where: '${target.west}'")
    problems = plan_problems(body, Mode.drill)
    assert bool([one for one in problems if "no fence holds" in one]) is not safe


def test_a_fence_that_runs_only_after_a_failure_is_none():
    body = steps("  - {id: look, uses: test.look, on_failure: fence}\n", FENCE % "", WRITE % "", LOOK)
    assert "runs only when 'look' fails" in only(plan_problems(body))


def test_budgets_over_the_rto_are_told_with_their_parts():
    body = steps("  - {id: a, uses: test.look, budget: 20m}\n", "  - {id: last, manual: look, budget: 9m, gate: {budget: 5m}}\n")
    problem = only(plan_problems(body))
    assert problem == "budgets and gates on the critical path add up to 34m, over the rto of 30m: a 20m, gate last 5m, last 9m"
    assert plan_problems(body.replace("20m", "16m")) == []


def test_a_gate_counts_with_its_timeout_when_it_has_no_budget():
    assert "add up to 35m" in only(plan_problems(steps("  - {id: last, manual: x, budget: 20m, gate: {}}\n")))


def test_only_the_longest_way_to_recovery_counts():
    body = steps(
        "  - {id: a, uses: test.look, budget: 10m}\n",
        "  - {id: b, uses: test.look, budget: 20m, after: a}\n",
        "  - {id: c, uses: test.look, budget: 5m, after: a}\n",
        "  - {id: last, uses: test.look, budget: 1s, after: c}\n",
        "  - {id: later, uses: test.look, budget: 60m}\n",
    )
    path = planned(body).critical_path
    assert path.total == timedelta(minutes=15, seconds=1)
    assert [name for name, _ in path.parts] == ["a", "c", "last"]
    assert [name for name, _ in planned(body, recovered_when="[last, b]").critical_path.parts] == ["a", "b"]


def test_steps_left_out_and_handlers_of_failures_take_no_time():
    body = steps(
        "  - {id: a, uses: test.look, budget: 1m, when: {mode: drill}}\n",
        "  - {id: b, uses: test.look, budget: 2m, drill: skip, on_failure: c}\n",
        "  - {id: c, uses: test.look, budget: 4m}\n",
        "  - {id: last, uses: test.look, budget: 8m}\n",
    )
    assert planned(body).critical_path.total == timedelta(minutes=10)
    assert planned(body, Mode.drill).critical_path.total == timedelta(minutes=9)


def test_a_gate_on_a_step_left_out_is_waited_for_at_the_next_one_it_covers():
    body = steps(
        "  - {id: a, manual: x, budget: 1m, when: {mode: drill}, gate: {covers: last, budget: 4m}}\n",
        "  - {id: last, manual: x, budget: 2m}\n",
    )
    parts = planned(body).critical_path.parts
    assert parts == (("gate a", timedelta(minutes=4)), ("last", timedelta(minutes=2)))


def test_a_gate_that_opens_by_itself_in_a_drill_takes_no_time_there():
    body = steps("  - {id: last, manual: x, budget: 1m, gate: {budget: 2m, preapprove: drill}}\n")
    assert planned(body).critical_path.total == timedelta(minutes=3)
    assert planned(body, Mode.drill).critical_path.total == timedelta(minutes=1)


@pytest.mark.parametrize(
    ("gate", "path", "word"),
    [
        ("covers: [frst]", "covers[0]", "no step 'frst'"),
        ("covers: [first]", "covers[0]", "does not come after"),
        ("covers: [last]", "covers[0]", "a probe"),
        ("on_timeout: proceed", "on_timeout", "a person does"),
        ("on_timeout: proceed, covers: [smash]", "on_timeout", "cannot be undone"),
        ("approvers: [ann], quorum: 2", "quorum", "only 1 may"),
        ("timeout: 0s", "timeout", "longer than 0s"),
    ],
)
def test_a_gate_that_cannot_work_is_refused(gate, path, word):
    body = steps(
        "  - {id: first, uses: test.look}\n",
        f"  - {{id: ask, manual: x, gate: {{budget: 1m, {gate}}}}}\n",
        "  - {id: smash, uses: test.smash, with: {where: a}, gate: {budget: 1m}}\n",
        LOOK,
    )
    assert any(f"steps[1] (ask).gate.{path}: " in one and word in one for one in plan_problems(body))


def test_silence_may_let_reversible_changes_proceed():
    assert plan_problems(steps("  - {id: a, uses: test.alter, with: {where: a}, gate: {on_timeout: proceed}}\n", LOOK)) == []


def test_a_gate_on_a_probe_that_covers_nothing_is_refused():
    assert "covers no change" in only(plan_problems(steps("  - {id: last, uses: test.look, gate: {}}\n")))


def test_two_gates_of_one_name_are_refused():
    body = steps("  - {id: a, manual: x, gate: {name: go}}\n", "  - {id: last, manual: x, gate: {name: go, budget: 1m}}\n")
    assert "stands on step 'a' already" in only(plan_problems(body.replace("go}", "go, budget: 1m}")))


@pytest.mark.parametrize(
    ("goal", "word"),
    [("contniue", "did you mean 'continue'"), ("first", "does not come after"), ("last", None), ("roll-back", None)],
)
def test_a_failure_leads_to_a_word_or_to_a_later_step(goal, word):
    body = steps("  - {id: first, uses: test.look}\n", f"  - {{id: a, uses: test.look, on_failure: {goal}}}\n", LOOK)
    problems = plan_problems(body)
    assert (word is None and problems == []) or word in only(problems)


def test_a_step_knows_whose_failure_leads_to_it():
    body = steps("  - {id: a, uses: test.look, on_failure: last}\n", "  - {id: b, uses: test.look, on_failure: last}\n", LOOK)
    assert planned(body).by_id["last"].handles == ("a", "b")


def test_how_long_people_are_asked_is_15_minutes_or_what_the_step_says():
    body = "  - {id: a, uses: test.alter, with: {where: a}%s}\n"
    assert planned(steps(body % "", LOOK)).by_id["a"].ask_timeout == timedelta(minutes=15)
    assert planned(steps(body % ", ask_timeout: 90s", LOOK)).by_id["a"].ask_timeout == timedelta(seconds=90)
    assert "must be longer than 0s" in only(plan_problems(steps(body % ", ask_timeout: 0s", LOOK)))
    nobody = "steps[0] (a).ask_timeout: nobody is asked, because on_failure is halt"
    assert nobody in warnings_of(steps(body % ", ask_timeout: 90s, on_failure: halt", LOOK))


def test_an_approval_counts_for_some_time():
    body = "  - {id: a, uses: test.alter, with: {where: a}, gate: {valid_for: %s, budget: 1m}}\n"
    assert planned(steps(body % "90s", LOOK)).gate_by_name["a"].rule.valid_for == timedelta(seconds=90)
    assert "valid_for: must be longer than 0s" in only(plan_problems(steps(body % "0s", LOOK)))


def test_a_step_cannot_be_called_as_a_word_of_on_failure():
    assert "is a word of on_failure" in plan_problems("steps: [{id: halt, manual: x}]", recovered_when="halt")[0]


def test_fences_halt_and_everything_else_asks_unless_told():
    plan = planned(steps(FENCE % "", WRITE % "", "  - {id: x, manual: do it}\n", "  - {id: z, uses: test.look, on_failure: continue}\n", LOOK))
    assert [step.on_failure for step in plan.steps] == ["halt", "ask", "ask", "continue", "ask"]


def test_what_a_step_leaves_open_comes_from_its_action():
    plan = planned(steps("  - {id: a, uses: test.alter, with: {where: x}}\n", "  - {id: b, manual: do it}\n", LOOK))
    alter, manual, look = plan.steps
    assert (alter.title, alter.budget, alter.timeout, alter.kind) == (
        "Alter something, and back", timedelta(seconds=40), timedelta(seconds=40), "change"
    )
    assert (manual.title, manual.budget, manual.kind, manual.action_type) == ("do it", timedelta(minutes=5), "manual", None)
    assert (look.retry.attempts, look.kind) == (3, "probe")


@pytest.mark.parametrize(
    ("step", "path", "word"),
    [
        ("{id: last}", "steps[0] (last)", "neither `uses`"),
        ("{id: last, uses: test.look, manual: x}", "steps[0] (last).manual", "not both"),
        ("{id: last, manual: x, with: {a: 1}}", "steps[0] (last).with", "only an action"),
        ("{id: last, manual: x, retry: {}}", "steps[0] (last).retry", "only an action"),
        ("{id: last, uses: test.lok}", "steps[0] (last).uses", "did you mean 'test.look'"),
        ("{id: last, uses: test.broken}", "steps[0] (last).uses", "cannot be loaded"),
        ("{id: last, uses: test.nothing}", "steps[0] (last).uses", "cannot be loaded"),
        ("{id: last, uses: test.clumsy}", "steps[0] (last).with", "a defect of the action"),
        ("{id: last, uses: test.look, budget: 0s}", "steps[0] (last).budget", "longer than 0s"),
        ("{id: last, uses: test.look, timeout: 0s}", "steps[0] (last).timeout", "longer than 0s"),
        ("{id: last, uses: test.look, when: {mode: drll}}", "steps[0] (last).when.mode", "no mode"),
        ("{id: last, uses: test.look, when: {mode: []}}", "steps[0] (last).when.mode", "never runs"),
        ("{id: last, uses: test.look, when: {mode: [[live]]}}", "steps[0] (last).when.mode", "no value to compare"),
        ("{id: last, uses: test.look, when: {severity: P1}}", "steps[0] (last).when.severity", "no step before"),
        ("{id: last, uses: test.look, when: {weather: bad}}", "steps[0] (last).when.weather", "no condition"),
        ("{id: last, uses: test.look, when: {'${inputs.x}': 1}}", "steps[0] (last).when.${inputs.x}", "no condition"),
        ("{id: last, uses: test.look, when: {'${steps.x.y}': 1}}", "steps[0] (last).when.${steps.x.y}", "no step 'x'"),
    ],
)
def test_a_step_that_makes_no_sense_is_refused(step, path, word):
    problems = plan_problems(f"steps:\n  - {step}\n")
    assert any(f": {path}: " in problem and word in problem for problem in problems), problems


@pytest.mark.parametrize(
    ("condition", "word"),
    [
        ("severity: P1", None),
        ("severity: [P1, P5]", "'P5' never holds"),
        ("disposition: evacuate", None),
        ("disposition: flee", "never holds"),
        ("'${steps.look.well}': true", None),
        ("'${steps.look.well}': 'true'", "never holds"),
        ("'${steps.look.well}': 1", "never holds"),
        ("'${steps.look.count}': [1, 2]", None),
        ("'${steps.look.ratio}': 1", None),
        ("'${steps.look.colour}': red", None),
        ("'${steps.look.colour}': blue", "one of red, green"),
        ("'${steps.look.place}': x", "a condition compares"),
        ("'${steps.look.nme}': x", "did you mean 'name'"),
        ("'${steps.last.name}': x", "does not come before"),
    ],
)
def test_a_condition_must_be_able_to_hold(condition, word):
    body = steps(GRADE, "  - {id: look, uses: test.look}\n", f"  - {{id: last, uses: test.look, when: {{{condition}}}}}\n")
    problems = plan_problems(body)
    assert (word is None and problems == []) or word in only(problems)


def test_severity_is_that_of_the_nearest_assessment_before():
    body = steps(GRADE, GRADE.replace("grade", "again"), "  - {id: last, uses: test.look, when: {severity: P1, mode: live}}\n")
    first, second = planned(body).by_id["last"].when
    assert {str(first.subject), str(second.subject)} == {"mode", "${steps.again.severity}"}


@pytest.mark.parametrize(
    ("objectives", "word"),
    [
        ("{}", "names no rto"),
        ("{rto: 0s}", "longer than 0s"),
        ("{tier: clients/premum}", "did you mean 'clients/premium'"),
        ("{tier: standby/hot}", "gives no rto (RTO seconds-minutes"),
        ("{tier: clients/premium}", None),
        ("{tier: standby/hot, rto: 5m}", None),
    ],
)
def test_recovery_is_measured_against_an_rto(objectives, word):
    from runbooks.loader import load_text
    from runbooks.planner import plan
    from tests.runbooks.making import problems_of, runbook

    text = runbook("").replace("{rto: 30m}", objectives)
    problems = [str(one) for one in problems_of(lambda: plan(load_text(text, "r"), mode=Mode.live, inputs={}))]
    assert (word is None and problems == []) or word in only(problems)


def test_what_the_runbook_states_wins_over_its_tier():
    from runbooks.loader import load_text
    from runbooks.planner import plan
    from tests.runbooks.making import runbook

    text = runbook("").replace("{rto: 30m}", "{tier: business/high, rto: 10m}")
    made = plan(load_text(text, "r"), mode=Mode.live, inputs={})
    assert (made.rto, made.rpo) == (timedelta(minutes=10), timedelta(minutes=15))


def test_recovery_is_to_be_seen_after_the_last_change():
    alter = "  - {id: a, uses: test.alter, with: {where: x}}\n"
    drills = "targets: {live: {b: c}, drill: {b: d}}\n"
    assert "nothing looks at the service after 'a'" in str(warnings_of(steps(LOOK, alter), recovered_when="[last, a]"))
    assert "nothing looks" not in str(warnings_of(drills + steps(alter, LOOK)))
    assert "nothing looks" not in str(warnings_of(steps(LOOK, alter)))


@pytest.mark.parametrize(
    ("body", "warning"),
    [
        (steps("  - {id: last, uses: test.look, budget: 1m, timeout: 30s}\n"), "steps[0] (last).timeout: is shorter"),
        ("inputs: {x: {type: text, default: a}}", "inputs.x: nothing refers to it"),
        ("targets: {live: {x: a}, drill: {x: b}}", "targets.live.x: nothing refers to it"),
        ("targets: {live: {x: a}}", "targets: there are no drill targets"),
        (steps("  - {id: last, uses: test.look, when: {mode: drill}}\n"), "recovered_when[0]: 'last' is left out"),
        (steps("  - {id: last, manual: x, gate: {budget: 2m, timeout: 1m}}\n"), "steps[0] (last).gate.budget: is longer"),
        (steps("  - {id: last, manual: x, gate: {approvers: [a], exclude_initiator: true}}\n"), "too few are left"),
    ],
)
def test_what_is_probably_not_meant_is_a_warning(body, warning):
    assert any(warning in one for one in warnings_of(body)), warnings_of(body)


def test_all_problems_of_all_kinds_are_told_at_once():
    body = steps(
        "  - {id: a, uses: test.lok}\n",
        "  - {id: b, uses: test.look, with: {cout: 1, text: '${steps.z.name}'}, budget: 60m}\n",
        "  - {id: c, uses: test.smash, with: {}, after: [nowhere, b]}\n",
        LOOK,
    )
    found = plan_problems(body)
    for word in ("test.look", "'count'", "no step 'z'", "is missing", "no gate", "nowhere", "over the rto"):
        assert any(word in problem for problem in found), (word, found)


def test_a_missing_field_says_what_it_is_for():
    body = "steps:\n  - {id: last, uses: aws.autoscaling.scale, with: {region: r, desired: 2}}"
    assert "steps[0] (last).with.group: is missing; aws.autoscaling.scale needs it: Name of" in only(plan_problems(body))


def test_an_actions_own_rules_are_told_at_the_step():
    assert "green needs a text" in only(plan_problems("steps: [{id: last, uses: test.look, with: {colour: green}}]"))


def test_a_check_needs_no_inputs_and_judges_every_mode():
    body = """
    inputs: {size: {type: integer}, name: {type: text}, since: {type: time}, wait: {type: duration}, tags: {type: list}}
    steps:
      - id: last
        uses: test.look
        with:
          count: ${inputs.size}
          text: ${inputs.name}
          at: ${inputs.since}
          patience: ${inputs.wait}
          tags: ${inputs.tags}
          url: http://${inputs.name}/
        %s
    """
    assert check(loaded(body % "")) == ()
    assert "a whole number" in str(check(loaded((body % "").replace("count: ${inputs.size}", "count: ${inputs.name}"))))
    assert "left out" in str(check(loaded("steps:\n  - {id: a, uses: test.look, drill: skip}\n  - {id: last, uses: test.look, with: {text: '${steps.a.name}'}}")))


def test_warnings_of_all_modes_come_together():
    assert [one.path for one in examine(loaded("inputs: {x: {type: text}}")).warnings] == ["inputs.x"]


SHIFT = """  - id: shift
    uses: aws.route53.shift_weights
    with:
      {zone: shop.example, record: www.shop.example, base: "http://www.shop.example", soak: %s, phases: [5, 50, 100],
       old: {id: west, values: [192.0.2.2]}, new: {id: east, values: [192.0.2.1]}, requests: [{name: up, url: /}]}
%s"""


@pytest.mark.parametrize(
    ("soak", "times", "where"),
    [
        ("10m", "    budget: 1m\n    timeout: 29m\n", "timeout"),
        ("10m", "    budget: 29m\n", "budget"),
        ("11m", "", "uses"),
        ("10m", "    budget: 1m\n    timeout: 30m\n", None),
        ("9m", "    timeout: 27m\n", None),
        ('"${inputs.soak}"', "    budget: 1s\n    timeout: 20m\n", None),
    ],
)
def test_a_step_needs_a_timeout_within_which_it_can_be_done(soak: str, times: str, where: str | None):
    inputs = "inputs:\n  soak: {type: duration}\n" if "inputs" in soak else ""
    found = [one.path for one in check(loaded(inputs + steps(SHIFT % (soak, times), LOOK))) if "at least" in one.message]
    assert found == ([f"steps[0] (shift).{where}"] if where else [])
