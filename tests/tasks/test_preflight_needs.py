"""What each change says it needs, against real PostgreSQL, moto, and an IAM that answers as told."""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime
from urllib.parse import parse_qs

import pytest

from tasks.aws.autoscaling import Scale
from tasks.aws.permissions import rights
from tasks.aws.route53 import PointDns
from tasks.clients import Clients
from tasks.contract import Need
from tasks.postgres_fence import ByCommand, Fence, Method
from tasks.postgres_promote import Promote
from tests.tasks.conftest import Pair, real
from tests.tasks.parties import Call, web
from tests.tasks.postgres_nodes import caught_up, until

MakePair = Callable[..., Pair]
REGION = "us-west-2"


def by_what(needs: tuple[Need, ...]) -> dict[str, Need]:
    return {need.what: need for need in needs}


def test_a_group_that_is_too_small_is_a_problem_before_anything_is_scaled(aws: str, clients: Clients) -> None:
    api = real("autoscaling", REGION, aws)
    api.create_launch_configuration(LaunchConfigurationName="web", ImageId="ami-12c6146b", InstanceType="t3.micro")
    api.create_auto_scaling_group(AutoScalingGroupName="web", LaunchConfigurationName="web", MinSize=0, MaxSize=2,
                                  DesiredCapacity=1, AvailabilityZones=[f"{REGION}a"])  # fmt: skip
    needs = by_what(Scale(region=REGION, group="web", desired=3).preflight(clients))
    assert needs["max size of 'web'"].problem
    assert not needs["process Launch of 'web'"].problem
    api.update_auto_scaling_group(AutoScalingGroupName="web", MaxSize=4)
    api.suspend_processes(AutoScalingGroupName="web", ScalingProcesses=["Launch"])
    needs = by_what(Scale(region=REGION, group="web", desired=3).preflight(clients))
    assert not needs["max size of 'web'"].problem
    assert needs["process Launch of 'web'"].problem
    assert api.describe_auto_scaling_groups()["AutoScalingGroups"][0]["DesiredCapacity"] == 1


def test_a_long_time_to_live_is_said_and_an_alias_is_a_problem(aws: str, clients: Clients) -> None:
    api = real("route53", "us-east-1", aws)
    zone = api.create_hosted_zone(Name="shop.test", CallerReference="1")["HostedZone"]["Id"]

    def put(record: dict) -> None:
        api.change_resource_record_sets(HostedZoneId=zone, ChangeBatch={"Changes": [{"Action": "UPSERT", "ResourceRecordSet": record}]})

    put({"Name": "www.shop.test", "Type": "A", "TTL": 300, "ResourceRecords": [{"Value": "203.0.113.7"}]})
    put({"Name": "alias.shop.test", "Type": "A", "AliasTarget": {
        "HostedZoneId": "Z2FDTNDATAQYW2", "DNSName": "d1.cloudfront.net", "EvaluateTargetHealth": False}})  # fmt: skip

    def needs(record: str) -> Need:
        return by_what(PointDns(zone="shop.test", record=record, values=("203.0.113.9",)).preflight(clients))[f"record {record}. A"]

    assert not needs("www.shop.test").problem
    assert "300 s" in needs("www.shop.test").found
    assert needs("www.shop.test").advice
    assert needs("alias.shop.test").problem


def iam(decision: str, asked: list[dict]) -> Callable[[Call], tuple[int, object]]:
    """STS and IAM, as they speak: form in, XML out."""

    def answer(call: Call) -> tuple[int, object]:
        form = {key: values[0] for key, values in parse_qs(call.body.decode()).items()}
        asked.append(form)
        if form["Action"] == "GetCallerIdentity":
            body = (
                '<GetCallerIdentityResponse xmlns="https://sts.amazonaws.com/doc/2011-06-15/"><GetCallerIdentityResult>'
                "<Arn>arn:aws:sts::123456789012:assumed-role/engine/session</Arn><UserId>x</UserId>"
                "<Account>123456789012</Account></GetCallerIdentityResult></GetCallerIdentityResponse>"
            )
            return 200, body.encode()
        if decision == "AccessDenied":
            body = (
                "<ErrorResponse><Error><Type>Sender</Type><Code>AccessDenied</Code><Message>not you</Message></Error>"
                "<RequestId>1</RequestId></ErrorResponse>"
            )
            return 403, body.encode()
        body = (
            '<SimulatePrincipalPolicyResponse xmlns="https://iam.amazonaws.com/doc/2010-05-08/">'
            "<SimulatePrincipalPolicyResult><IsTruncated>false</IsTruncated><EvaluationResults><member>"
            f"<EvalActionName>{form['ActionNames.member.1']}</EvalActionName><EvalDecision>{decision}</EvalDecision>"
            "</member></EvaluationResults></SimulatePrincipalPolicyResult></SimulatePrincipalPolicyResponse>"
        )
        return 200, body.encode()

    return answer


@pytest.mark.parametrize(("decision", "problem"), [("allowed", False), ("implicitDeny", True), ("explicitDeny", True)])
def test_iam_says_whether_the_role_behind_the_session_may(
    decision: str, problem: bool, aws: str, clients: Clients
) -> None:
    asked: list[dict] = []
    with web(iam(decision, asked)) as party:
        found = rights(("route53:ChangeResourceRecordSets",), "us-east-1", f"http://127.0.0.1:{party.port}", clients)
    assert found.problem is problem
    assert asked[-1]["PolicySourceArn"] == "arn:aws:iam::123456789012:role/engine"


def test_where_iam_may_not_be_asked_that_is_no_problem(aws: str, clients: Clients) -> None:
    with web(iam("AccessDenied", [])) as party:
        found = rights(("route53:ChangeResourceRecordSets",), "us-east-1", f"http://127.0.0.1:{party.port}", clients)
    assert not found.problem
    assert "not known" in found.found


def test_rights_that_a_promotion_lacks_are_named_and_with_them_nothing_is_missing(pair: MakePair, clients: Clients) -> None:
    primary, standby = pair()
    primary.do("CREATE ROLE engine LOGIN")
    until(lambda: caught_up(primary, standby))
    step = Promote(standby=standby.server(user="engine"))
    lacking = by_what(step.preflight(clients))[f"rights of 'engine' on {step.standby.name}"]
    assert lacking.problem
    assert all(word in lacking.found for word in ("pg_promote", "pg_monitor", "pg_reload_conf", "synchronous_standby_names"))
    primary.do(
        "GRANT pg_monitor TO engine",
        "GRANT EXECUTE ON FUNCTION pg_promote(boolean, integer), pg_reload_conf() TO engine",
        "GRANT ALTER SYSTEM ON PARAMETER synchronous_standby_names TO engine",
    )
    until(lambda: caught_up(primary, standby))
    needs = step.preflight(clients)
    assert not any(need.problem for need in needs)
    (clock,) = [need.clock for need in needs if need.clock]
    assert abs((clock - datetime.now(UTC)).total_seconds()) < 5


def test_a_primary_named_as_standby_and_a_paused_replay_are_problems(pair: MakePair, clients: Clients) -> None:
    primary, standby = pair()
    name = primary.server().name
    assert by_what(Promote(standby=primary.server()).preflight(clients))[f"role of {name}"].problem
    standby.do("SELECT pg_wal_replay_pause()")
    until(lambda: standby.ask("SELECT pg_get_wal_replay_pause_state()") == "paused")
    assert by_what(Promote(standby=standby.server()).preflight(clients))[f"replay on {standby.server().name}"].problem


def test_a_stop_command_that_is_not_there_is_a_problem(pair: MakePair, clients: Clients) -> None:
    primary, _ = pair()
    method = Method(command=ByCommand(stop=("no-such-program-of-ours",), status=("false",)))
    needs = by_what(Fence(node=primary.server(), method=method).preflight(clients))
    assert needs["command 'no-such-program-of-ours'"].problem
