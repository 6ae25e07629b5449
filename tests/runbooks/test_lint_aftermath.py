"""After a promotion: the loss is known before it is asked for, connections are led over, consumers start last."""

import pytest

from tests.runbooks.making import only, plan_problems, planned

SERVER = "{host: db.west.example, database: shop, user: failover}"
LOOK = "  - {id: last, uses: test.look}\n"
STATE = f"  - {{id: state, uses: postgres.replication, with: {{standby: {SERVER}, heartbeat: {{}}}}}}\n"
FENCE = "  - {id: fence, uses: test.fence, with: {where: east}, gate: {covers: [promote], budget: 1m}}\n"
PROMOTE = f"  - {{id: promote, uses: postgres.promote, with: {{standby: {SERVER}, system_id: '7'}}}}\n"
ADVANCE = f"  - {{id: advance, uses: postgres.advance_sequences, with: {{server: {SERVER}, by: 1000}}%s}}\n"
DNS = "  - {id: dns, uses: aws.route53.point, with: {zone: a.example, record: b.a.example, values: [192.0.2.7]}%s}\n"
POOLS = "  - {id: pools, manual: reload the poolers, does: repoint%s}\n"
JOBS = "  - {id: jobs, manual: start the jobs, does: start-consumers%s}\n"
SAFE = STATE + FENCE + PROMOTE


def warnings_of(body: str) -> list[str]:
    return [f"{one.path}: {one.message}" for one in planned("steps:\n" + body).warnings]


def test_a_promotion_without_a_step_that_leads_connections_to_it_is_told_how_to():
    said = only([one for one in warnings_of(SAFE + LOOK) if "connection" in one])
    assert said.startswith("steps[2] (promote).uses")
    assert "does: repoint" in said


@pytest.mark.parametrize("step", [DNS % "", POOLS % ""])
def test_dns_or_a_step_that_says_so_leads_connections_over(step):
    assert not [one for one in warnings_of(SAFE + step + LOOK) if "connection" in one]


def test_leading_them_over_beside_or_before_the_promotion_is_not_after_it():
    early = DNS % "" + SAFE.replace("id: state", "id: state, after: []") + LOOK
    assert [one for one in warnings_of(early) if "connection" in one]


def test_sequences_are_advanced_before_customers_come():
    late = SAFE + DNS % "" + ADVANCE % "" + LOOK
    assert "let 'dns' wait for it" in only([one for one in warnings_of(late) if "customers" in one])
    assert not [one for one in warnings_of(SAFE + ADVANCE % "" + DNS % "" + LOOK) if "customers" in one]


def test_consumers_and_jobs_start_last():
    problem = only(plan_problems("steps:\n" + SAFE + JOBS % "" + POOLS % "" + LOOK))
    assert "'pools' comes after it" in problem
    problem = only(plan_problems("steps:\n" + SAFE + POOLS % "" + JOBS % ", after: promote" + LOOK.replace("last,", "last, after: [pools, jobs],")))
    assert "add 'pools' to its `after`" in problem
    assert plan_problems("steps:\n" + SAFE + POOLS % "" + JOBS % "" + LOOK) == []
    two = JOBS % "" + (JOBS % "").replace("id: jobs", "id: more-jobs")
    assert plan_problems("steps:\n" + SAFE + POOLS % "" + two + LOOK) == []


def test_without_a_promotion_jobs_may_start_whenever():
    assert plan_problems("steps:\n" + JOBS % "" + POOLS % "" + LOOK) == []


def test_a_gate_that_asks_before_anything_told_the_loss_is_told_so():
    said = only([one for one in warnings_of(FENCE + PROMOTE + DNS % "" + LOOK) if "may lose" in one])
    assert said.startswith("steps[0] (fence).gate")
    assert not [one for one in warnings_of(SAFE + DNS % "" + LOOK) if "may lose" in one]


def test_the_gate_that_guards_a_loss_is_known_to_the_plan():
    plan = planned("steps:\n" + SAFE + DNS % "" + LOOK)
    assert plan.guards_loss == {"fence": ("promote",)}


def test_replication_is_stopped_only_behind_a_fence():
    elect = f"  - {{id: elect, uses: postgres.elect, with: {{standbys: {{a: {SERVER}}}}}}}\n"
    assert "put a fence before it" in only([one for one in warnings_of(STATE + elect + FENCE + PROMOTE + DNS % "" + LOOK) if "(elect)" in one])
    assert not [one for one in warnings_of(STATE + FENCE + elect + PROMOTE + DNS % "" + LOOK) if "(elect)" in one]


def test_a_probe_does_nothing_that_does_names():
    problem = only(plan_problems("steps:\n" + LOOK.replace("test.look", "test.look, does: repoint")))
    assert "is a probe" in problem


SEVERAL = f"{{west-a: {SERVER}, west-b: {SERVER.replace('west', 'north')}}}"


def test_several_replicas_are_elected_promoted_and_followed():
    body = f"""\
  - {{id: state, uses: postgres.replication, with: {{standbys: {SEVERAL}, heartbeat: {{}}}}}}
  - {{id: fence, uses: test.fence, with: {{where: east}}, gate: {{covers: [promote], budget: 1m}}}}
  - {{id: elect, uses: postgres.elect, with: {{standbys: {SEVERAL}, system_id: "${{steps.state.system_id}}"}}}}
  - id: promote
    uses: postgres.promote
    with:
      standbys: {SEVERAL}
      chosen: ${{steps.elect.chosen}}
      logical_slots: ${{steps.state.logical_slots}}
      system_id: ${{steps.elect.system_id}}
      timeline: ${{steps.elect.timeline}}
"""
    follow = f"  - {{id: follow, uses: postgres.follow, with: {{standbys: {SEVERAL}, leader: '${{steps.elect.chosen}}'}}}}\n"
    assert plan_problems("steps:\n" + body + DNS % "" + follow + LOOK) == []
    without = body.replace("      chosen: ${steps.elect.chosen}\n", "")
    assert "`standbys` and `chosen` go together" in only(plan_problems("steps:\n" + without + DNS % "" + LOOK))
    neither = without.replace(f"      standbys: {SEVERAL}\n", "")
    assert "either `standby`" in only(plan_problems("steps:\n" + neither + DNS % "" + LOOK))
