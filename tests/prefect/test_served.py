"""Runs that somebody starts in Prefect, through a real server and `failover serve`."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Callable
from datetime import UTC, datetime, timedelta

import pytest

from flows.anchors import anchor
from flows.events import Answer, GateClosed, Resumed, StepStarted
from flows.journal import SaidAboutGate
from tests.prefect.conftest import Form, Prefect, Run, Serve, eventually

pytestmark = pytest.mark.prefect
Ask = Callable[..., Run]


def test_a_run_asked_for_in_prefect_does_the_whole_runbook_and_shows_its_graph(ask: Ask) -> None:
    run = ask("gated")
    form = run.form()
    assert form.resume(decision="approve", name="ada", reason="it is dead") == "ACCEPT"
    assert run.ended() == ("COMPLETED", "Recovered")
    eventually(lambda: set(run.steps().values()) == {("COMPLETED", "Done")})
    assert run.edges() == {
        "look": set(), "scale": {"look"}, "fence": {"look"}, "promote": {"fence"}, "smoke": {"scale", "promote"},
    }  # fmt: skip
    assert sorted(run.effects()) == ["fence", "look", "promote", "scale", "smoke"]
    closed = next(event for event in run.events() if isinstance(event, GateClosed))
    assert (closed.approved, closed.by) == (True, ("ada",))
    assert form.now() == ("COMPLETED", "Approved")
    assert run.execution in run.now()["name"]


def test_only_the_branch_behind_the_gate_waits(at_gate: tuple[Run, Form]) -> None:
    run, _ = at_gate
    eventually(lambda: run.steps().get("scale") == ("COMPLETED", "Done"))
    eventually(lambda: run.steps().get("fence") == ("PAUSED", "AtGate"))
    eventually(lambda: run.steps().get("promote") == ("PENDING", "Pending"))
    assert run.state() == ("RUNNING", "Running")
    assert "fence" not in run.effects()


def test_the_form_asks_for_a_decision_and_a_name_and_shows_the_evidence(at_gate: tuple[Run, Form]) -> None:
    _, form = at_gate
    schema = form.schema()
    assert schema["properties"]["decision"]["enum"] == ["no answer", "approve", "deny"]
    assert schema["properties"]["decision"]["default"] == "no answer"
    assert schema["required"] == ["name"]
    assert "write fence: None -> done" in form.text()


def test_a_resume_without_a_name_or_a_decision_is_no_approval_and_is_asked_again(ask: Ask) -> None:
    run = ask("gated")
    form = run.form()
    assert form.resume() == "REJECT"
    assert form.resume(name="ada") == "ACCEPT"
    second = run.form(old={form.key})
    assert second.id == form.id
    assert "nothing was decided" in second.text()
    second.resume(decision="approve", name="  ")
    third = run.form(old={form.key, second.key})
    assert "without a name" in third.text()
    assert "fence" not in run.effects()
    assert not run.journaled().gate("go").answers


def test_a_denied_gate_is_never_completed_and_touches_nothing(ask: Ask) -> None:
    run = ask("gated")
    run.form().resume(decision="deny", name="ada", reason="not now")
    assert run.ended() == ("FAILED", "Refused")
    assert "not now" in run.message()
    eventually(lambda: run.steps().get("promote") == ("CANCELLED", "NotRun"))
    eventually(lambda: run.steps().get("fence") == ("FAILED", "Refused"))
    assert sorted(run.effects()) == ["look", "scale"]


def test_an_approval_by_another_channel_closes_the_form(ask: Ask) -> None:
    run = ask("gated")
    form = run.form()
    said = SaidAboutGate(gate="go", answer=Answer.approve, by="ben", reason="on the phone")
    run.journal.put(run.execution, said, datetime.now(UTC))
    assert run.ended() == ("COMPLETED", "Recovered")
    assert eventually(lambda: form.now() == ("COMPLETED", "Approved"))
    assert form.resume(decision="deny", name="late") != "ACCEPT"


def test_a_gate_for_two_people_asks_again_after_the_first_and_does_not_count_the_initiator(ask: Ask) -> None:
    run = ask("two-people")
    form = run.form()
    form.resume(decision="approve", name="Ines")
    second = run.form(old={form.key})
    assert "does not count" in second.text()
    second.resume(decision="approve", name="ada")
    third = run.form(old={form.key, second.key})
    assert run.effects() == []
    third.resume(decision="approve", name="ben")
    assert run.ended() == ("COMPLETED", "Recovered")
    assert next(event for event in run.events() if isinstance(event, GateClosed)).by == ("ada", "ben")


def test_a_second_run_on_the_same_targets_is_busy_and_says_who_holds_them(ask: Ask, at_gate: tuple[Run, Form]) -> None:
    first, _ = at_gate
    second = ask("gated", world=str(first.world))
    assert second.ended() == ("FAILED", "Busy")
    assert first.execution in second.message()
    assert second.events() == []


def test_a_failed_step_asks_and_a_manual_step_is_confirmed_in_forms(ask: Ask) -> None:
    run = ask("failing")
    form = run.form()
    assert form.schema()["properties"]["decision"]["enum"] == ["no answer", "retry", "skip", "roll-back", "abort"]
    eventually(lambda: run.steps().get("balky") == ("FAILED", "Failed"))
    (run.world / "balky-mended").touch()
    form.resume(decision="retry", name="ada")
    by_hand = run.form(old={form.key})
    assert eventually(lambda: form.now() == ("COMPLETED", "Decided"))
    eventually(lambda: run.steps().get("balky") == ("COMPLETED", "Done"))
    assert "Call the customer" in by_hand.text()
    by_hand.resume(decision="done", name="ada")
    assert run.ended() == ("COMPLETED", "Recovered")


def test_a_failed_step_that_is_given_up_is_never_completed(ask: Ask) -> None:
    run = ask("failing")
    run.form().resume(decision="abort", name="ada")
    assert run.ended() == ("FAILED", "Failed")
    assert "does not want to" in run.message()
    eventually(lambda: run.steps().get("call") == ("CANCELLED", "NotRun"))


def test_a_dry_run_changes_nothing_and_says_what_it_would_do(ask: Ask) -> None:
    run = ask("gated", mode="dry-run")
    assert run.ended() == ("COMPLETED", "Would")
    assert run.effects() == []


@pytest.mark.parametrize("force", [False, True])
def test_retry_of_a_run_that_crashed_before_its_gate_resumes_it_and_passes_no_gate(ask: Ask, force: bool) -> None:
    run = ask("gated", takes=50)
    look = run.world / "look"
    eventually(lambda: run.journaled().step("look").acting and look.exists() and look.read_text())
    os.kill(run.pid(), signal.SIGKILL)
    run.settle("look")
    assert run.ended() == ("CRASHED", "Crashed")
    assert run.children() == []
    run.retry(force=force)
    form = run.form()
    run.settle("scale")
    eventually(lambda: run.journaled().step("scale").status)
    assert run.effects() == ["look", "scale"]
    assert not run.journaled().gate("go").answers
    form.resume(decision="approve", name="ada")
    assert run.ended() == ("COMPLETED", "Recovered")
    assert sorted(run.effects()) == ["fence", "look", "promote", "scale", "smoke"]
    assert sum(isinstance(event, Resumed) for event in run.events()) == 1


@pytest.mark.parametrize("force", [False, True])
def test_retry_of_a_run_that_crashed_at_a_gate_resumes_it_and_passes_no_gate(ask: Ask, force: bool) -> None:
    run = ask("gated")
    form = run.form()
    eventually(lambda: sorted(run.effects()) == ["look", "scale"])
    eventually(lambda: run.journaled().step("scale").status)
    os.kill(run.pid(), signal.SIGKILL)
    assert run.ended() == ("CRASHED", "Crashed")
    assert "failover resume" in run.message()
    form.resume(decision="approve", name="mallory")  # nobody reads it any more
    run.retry(force=force)
    fresh = run.form(old={form.key})
    assert fresh.id != form.id
    time.sleep(1)
    assert "fence" not in run.effects()
    assert not run.journaled().gate("go").answers
    fresh.resume(decision="approve", name="ada")
    assert run.ended() == ("COMPLETED", "Recovered")
    assert sorted(run.effects()) == ["fence", "look", "promote", "scale", "smoke"]
    assert sum(isinstance(event, Resumed) for event in run.events()) == 1
    assert [event.attempt for event in run.events() if isinstance(event, StepStarted) and event.step == "look"] == [1]
    eventually(lambda: len(run.steps()) == 5 and set(run.steps().values()) == {("COMPLETED", "Done")})


def test_retry_of_a_run_that_was_refused_asks_again(ask: Ask) -> None:
    run = ask("gated")
    form = run.form()
    form.resume(decision="deny", name="ada")
    assert run.ended() == ("FAILED", "Refused")
    run.retry()
    run.form(old={form.key}).resume(decision="deny", name="ada", reason="still not")
    eventually(lambda: "still not" in (run.message() or ""))
    assert run.state() == ("FAILED", "Refused")
    assert sorted(run.effects()) == ["look", "scale"]


def test_retry_of_a_run_that_recovered_does_nothing_again(ask: Ask) -> None:
    run = ask("slow")
    run.ended()
    before = run.effects()
    run.retry()
    eventually(lambda: run.now()["run_count"] == 2)
    assert run.ended() == ("COMPLETED", "Recovered")
    assert run.effects() == before


def test_cancel_in_the_ui_stops_in_good_order_and_retry_goes_on(ask: Ask) -> None:
    run = ask("gated")
    form = run.form()
    run.cancel()
    assert run.ended() == ("CANCELLED", "Interrupted")
    assert run.journaled().interrupted is not None
    assert eventually(lambda: form.now()[0] == "CANCELLED")
    run.retry()
    run.form(old={form.key}).resume(decision="approve", name="ada")
    assert run.ended() == ("COMPLETED", "Recovered")
    assert sorted(run.effects()) == ["fence", "look", "promote", "scale", "smoke"]


def test_a_wrong_parameter_is_refused_before_anything_starts(prefect: Prefect, served: Serve) -> None:
    found = prefect.http.post("/deployments/filter", json={"deployments": {"name": {"any_": ["gated"]}}}).json()[0]
    place = f"/deployments/{found['id']}/create_flow_run"
    for wrong in ({"your_name": "ines", "world": "x"}, {"mode": "live", "world": "x"},
                  {"mode": "live", "your_name": "ines", "world": "x", "region": "north"},
                  {"mode": "live", "your_name": "ines", "world": "x", "copies": 10}):  # fmt: skip
        assert prefect.http.post(place, json={"parameters": wrong}).status_code == 409, wrong


def test_a_run_that_nobody_served_in_time_is_not_started_later(prefect: Prefect, served: Serve) -> None:
    found = prefect.http.post("/deployments/filter", json={"deployments": {"name": {"any_": ["slow"]}}}).json()[0]
    long_ago = (datetime.now(UTC) - timedelta(hours=2)).isoformat()
    state = {"type": "SCHEDULED", "state_details": {"scheduled_time": long_ago}}
    parameters = {"mode": "live", "your_name": "ines", "world": "/nowhere"}
    run = prefect.http.post(f"/deployments/{found['id']}/create_flow_run", json={"parameters": parameters, "state": state}).json()
    eventually(lambda: prefect.http.get(f"/flow_runs/{run['id']}").json()["state_name"] == "Stale")


def test_an_invalid_runbook_is_told_and_the_others_are_served(prefect: Prefect, served: Serve) -> None:
    assert "broken.yaml" in served.said()
    names = {found["name"] for found in prefect.http.post("/deployments/filter", json={}).json()}
    assert names >= {"gated", "failing", "slow", "two-people"}
    assert "broken" not in names


def test_the_page_of_a_run_that_ended_has_its_timeline_and_its_report(ask: Ask, prefect: Prefect, served: Serve) -> None:
    run = ask("gated")
    run.form().resume(decision="approve", name="ada", reason="<script>alert(1)</script>")
    assert run.ended() == ("COMPLETED", "Recovered")
    found = prefect.http.post("/artifacts/filter", json={"artifacts": {"flow_run_id": {"any_": [run.id]}}}).json()
    pages = {one["key"]: one["data"] for one in found}
    assert len(found) == len(pages)
    bars = pages["failover-timeline"].partition("```text")[2].partition("```")[0].strip().splitlines()
    assert len(bars) == 1 + len(run.journaled().steps) + 1  # a ruler, the steps, the gate
    assert sum("█" in line for line in bars) == len(run.journaled().steps)
    assert bars[-1].startswith("gate ")
    assert "▒" in bars[-1]
    assert anchor(run.journal, run.execution) in pages["failover-report"]
    assert "<script" not in "".join(pages.values())
    files = served.journal.parent / "reports"
    eventually(lambda: {path.suffix for path in files.glob(f"{run.execution}.*")} == {".md", ".json", ".html", ".png"})
