"""A replica that was chosen stays the chosen one: a resumed run never promotes another."""

from __future__ import annotations

from pathlib import Path

from flows.clock import SystemClock
from flows.events import Answer, Status, Verdict
from flows.journal import SaidAboutGate
from flows.journal_sqlite import SqliteJournal
from flows.runs import Request, resume, start
from runbooks.loader import load_text
from runbooks.model import Mode
from runbooks.planner import plan
from tasks.postgres_facts import LOCK
from tests.tasks.postgres_nodes import Installation, Node, caught_up, until

RUNBOOK = """\
schema: failover/v1
name: several
title: Promote one of several
service: shop
owner: me
objectives: {{rto: 10m, rpo: 1h}}
targets:
  live:
    east: {{host: {east.host}, port: {east.port}, database: postgres, user: failover}}
    west:
      a: {{host: {a.host}, port: {a.port}, database: postgres, user: failover}}
      b: {{host: {b.host}, port: {b.port}, database: postgres, user: failover}}
steps:
  - {{id: look, uses: postgres.replication, with: {{standbys: "${{target.west}}", primary: "${{target.east}}", heartbeat: {{}}}}}}
  - id: fence
    uses: postgres.fence
    with: {{node: "${{target.east}}", method: {{command: {{stop: ["true"], status: ["true"]}}}}}}
    gate: {{name: go, covers: promote, budget: 1m}}
  - {{id: elect, uses: postgres.elect, with: {{standbys: "${{target.west}}", system_id: "${{steps.look.system_id}}"}}}}
  - id: promote
    uses: postgres.promote
    with:
      standbys: ${{target.west}}
      chosen: ${{steps.elect.chosen}}
      heartbeat: {{}}
      system_id: ${{steps.elect.system_id}}
      timeline: ${{steps.elect.timeline}}
      acknowledged_until: ${{steps.fence.held_since}}
    retry: {{attempts: 1}}
    on_failure: halt
  - {{id: follow, uses: postgres.follow, with: {{standbys: "${{target.west}}", leader: "${{steps.elect.chosen}}"}}, budget: 20s}}
recovered_when: follow
"""


def test_a_resume_promotes_who_was_chosen_though_it_would_choose_another_now(postgres: Installation, tmp_path: Path) -> None:
    east = postgres.node("east").start()
    east.do("CREATE TABLE heartbeat (at timestamptz)", "INSERT INTO heartbeat VALUES (now())")
    a, b = (postgres.node(name, follows=east).start() for name in "ab")
    until(lambda: caught_up(east, a) and caught_up(east, b))
    east.kill()
    text = RUNBOOK.format(east=east, a=a, b=b)
    made = plan(load_text(text, "several.yaml"), mode=Mode.live, inputs={})
    journal, clock = SqliteJournal(tmp_path / "journal.db"), SystemClock()
    said = SaidAboutGate(gate="go", answer=Answer.approve, by="kim")
    with a.session() as rival:
        rival.execute(f"SELECT pg_advisory_lock({LOCK})")
        engine = start(journal, Request(made, "ines", "test", said=(said,)), clock)
        state = engine.run()
    assert state.step("elect").output["chosen"] == "a"
    assert state.step("promote").status is Status.failed
    a.do("SELECT pg_wal_replay_pause()")  # asked now, an election would choose b
    until(lambda: a.ask("SELECT pg_get_wal_replay_pause_state() = 'paused'") is True)
    assert resume(journal, engine.execution, "bo", clock).run().step("promote").status is Status.refused
    assert standbys(a, b) == [True, True]
    a.do("SELECT pg_wal_replay_resume()")
    state = resume(journal, engine.execution, "bo", clock).run()
    journal.close()
    assert (state.verdict, state.step("elect").attempt) == (Verdict.recovered, 1)
    assert standbys(a, b) == [False, True]
    assert b.ask("SELECT received_tli FROM pg_stat_wal_receiver") == 2


def standbys(*nodes: Node) -> list[object]:
    return [node.ask("SELECT pg_is_in_recovery()") for node in nodes]
