"""Over the RPO the shipped runbook fails over only when a person accepts the stated loss by name: real servers, real commands."""

from __future__ import annotations

import pytest

from deployments.exits import Exit
from flows.events import Acting, ApprovalGiven, GateOpened
from tests.failover.conftest import Scene

pytestmark = [pytest.mark.lab, pytest.mark.timeout(240)]

STRICT = ("  tier: business/critical\n", "  tier: business/critical\n  rpo: 500ms\n")


def test_a_yes_that_names_no_loss_opens_nothing_and_one_that_does_is_in_the_report(scene: Scene) -> None:
    scene.lab.break_node("primary", "kill")
    run = scene.start("run", str(scene.runbook(replace=(STRICT,))), "--live", "--approve", "go", "--as", "kim")
    opened = scene.wait_for_event("gate-opened", "go")
    assert isinstance(opened, GateOpened)
    assert opened.loss is not None
    assert opened.loss.at_most is not None
    assert opened.loss.at_most > 0.5
    assert any(line.startswith("loss: 0 s to") and "--accept-loss" in line for line in opened.evidence)
    execution = scene.report()["execution"]
    said = scene.failover("approve", execution, "go", "--as", "bo", "--accept-loss", "600ms")
    assert "it will not count" in said
    assert {event.step for event in scene.events() if isinstance(event, Acting)} <= {"scale"}
    assert scene.lab.status().nodes["west"].role == "standby"
    assert "it will not count" not in scene.failover("approve", execution, "go", "--as", "ada", "--accept-loss", "5m")
    out, _ = run.communicate(timeout=90)
    assert run.returncode == Exit.met, out
    assert "ada accepted 5m" in out
    (loss,) = [one for one in scene.report()["losses"] if one["promoted"]]
    assert (loss["step"], loss["within_rpo"], loss["accepted_by"]) == ("promote", False, ["ada"])
    assert 0.5 < loss["at_most"] < 300
    assert sum(isinstance(event, ApprovalGiven) for event in scene.events()) == 3
