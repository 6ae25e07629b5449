"""Scaling against moto's server with the real client; what moto hides is set in its backend."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

import pytest
from moto.backends import get_backend
from moto.core import DEFAULT_ACCOUNT_ID

from tasks.aws.autoscaling import Scale
from tasks.clients import Clients
from tasks.contract import ActionFailed
from tasks.errors import Revoked
from tests.tasks.conftest import real
from tests.tasks.parties import blackhole, closed_port

REGION = "us-west-2"


@pytest.fixture
def group(aws: str) -> str:
    api = real("autoscaling", REGION, aws)
    api.create_launch_configuration(LaunchConfigurationName="web", ImageId="ami-12c6146b", InstanceType="t3.micro")
    api.create_auto_scaling_group(
        AutoScalingGroupName="web",
        LaunchConfigurationName="web",
        MinSize=0,
        MaxSize=4,
        DesiredCapacity=1,
        AvailabilityZones=[f"{REGION}a"],
    )
    return "web"


def backend() -> Any:
    return get_backend("autoscaling")[DEFAULT_ACCOUNT_ID][REGION].autoscaling_groups["web"]


def scale(desired: int = 3, **more: object) -> Scale:
    return Scale.model_validate({"region": REGION, "group": "web", "desired": desired, **more})


def test_it_scales_out_and_is_done_when_all_are_in_service(group: str, clients: Clients) -> None:
    step = scale()
    before = step.observe(clients)
    assert (before.desired, step.done(before), step.underway(before), step.refuse(before)) == (1, False, False, None)
    assert step.describe(before) == "scale web: 1 -> 3 instances"
    step.act(before, clients)
    for state in backend().instance_states[1:]:
        state.lifecycle_state = "Pending"
    waiting = step.observe(clients)
    assert (waiting.desired, waiting.in_service, step.done(waiting), step.underway(waiting)) == (3, 1, False, True)
    assert "Pending" in step.explain(waiting)
    for state in backend().instance_states:
        state.lifecycle_state = "InService"
    assert step.done(step.observe(clients))


def test_an_instance_that_is_unhealthy_does_not_count(group: str, clients: Clients) -> None:
    step = scale()
    step.act(step.observe(clients), clients)
    backend().instance_states[0].health_status = "Unhealthy"
    state = step.observe(clients)
    assert (state.in_service, step.done(state)) == (2, False)


def test_it_never_scales_in(group: str, clients: Clients) -> None:
    step = scale(1)
    scale(4).act(scale(4).observe(clients), clients)
    state = step.observe(clients)
    assert step.done(state)
    assert step.describe(state) == "scale web: 4 -> 4 instances"
    stale = state.model_copy(update={"desired": 0})
    step.act(stale, clients)
    assert backend().desired_capacity == 4


def test_a_max_size_below_what_is_wanted_is_refused_before_acting(group: str, clients: Clients) -> None:
    step = scale(10)
    assert step.refuse(step.observe(clients)) == "max size of 'web' is 4, wanted 10; raise the group's MaxSize"


def test_a_group_that_may_not_launch_is_refused(group: str, clients: Clients) -> None:
    backend().suspended_processes = ["Launch"]
    assert "Launch is suspended" in (scale().refuse(scale().observe(clients)) or "")


def test_a_group_that_is_not_there_is_said_by_name(aws: str, clients: Clients) -> None:
    with pytest.raises(ActionFailed, match="no Auto Scaling group 'web' in us-west-2"):
        scale().observe(clients)


def test_undo_brings_the_former_size_back(group: str, clients: Clients) -> None:
    step = scale()
    before = step.observe(clients)
    step.act(before, clients)
    step.undo(before, Clients())
    assert backend().desired_capacity == 1
    step.undo(before, Clients())
    assert backend().desired_capacity == 1


def test_undo_leaves_alone_what_someone_else_changed(group: str, clients: Clients) -> None:
    step = scale()
    before = step.observe(clients)
    step.act(before, clients)
    backend().set_desired_capacity(4)
    with pytest.raises(ActionFailed, match="someone else changed it"):
        step.undo(before, clients)
    assert backend().desired_capacity == 4


def test_a_revoked_attempt_changes_nothing(group: str, clients: Clients) -> None:
    step = scale()
    before = step.observe(clients)
    clients.revoke("lease lost")
    with pytest.raises(Revoked):
        step.act(before, clients)
    assert backend().desired_capacity == 1


def test_what_aws_refuses_carries_its_code_and_no_retry(aws: str, clients: Clients) -> None:
    with pytest.raises(ActionFailed) as failed:
        clients.aws("route53", REGION).get_hosted_zone(Id="Z00000000000000")
    assert (failed.value.code, failed.value.retry) == ("NoSuchHostedZone", False)
    assert failed.value.attempted == "GetHostedZone for 'Z00000000000000'"


def test_an_endpoint_that_is_away_or_silent_is_worth_a_retry(aws: str) -> None:
    attempt = Clients(timeout=timedelta(milliseconds=300))
    with blackhole() as hole:
        for port in (closed_port(), hole):
            with pytest.raises(ActionFailed) as failed:
                scale(endpoint=f"http://127.0.0.1:{port}").observe(attempt)
            assert failed.value.retry, failed.value


def test_calls_that_no_check_would_precede_are_not_offered(aws: str, clients: Clients) -> None:
    client = clients.aws("autoscaling", REGION)
    for name in ("get_paginator", "get_waiter", "meta"):
        with pytest.raises(AttributeError):
            getattr(client, name)


def test_clients_are_made_once_a_process(aws: str) -> None:
    one, other = Clients().aws("autoscaling", REGION), Clients().aws("autoscaling", REGION)
    assert one._wrapped is other._wrapped
