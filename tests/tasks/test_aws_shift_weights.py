"""Shifting weights against moto's server, made as strict as the lab's, and a web server that fails when told to.

Time is the test's own: each look is a second later, so a soak of seconds costs none. The requests are real.
"""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from moto.backends import get_backend
from moto.core import DEFAULT_ACCOUNT_ID
from moto.route53.responses import Route53

from deployments.lab import route53 as strict
from tasks.aws.route53 import PointDns
from tasks.aws.route53_weights import ShiftWeights
from tasks.aws.weighted_sets import Shift
from tasks.clients import Clients
from tasks.contract import ActionFailed, Seen
from tests.tasks.conftest import real
from tests.tasks.parties import Call, Names, Web, names, web

NAME = "checkout.shop.example"
EAST, WEST = "127.0.0.1", "127.0.0.2"  # east is where the web server of a test listens
START = datetime(2026, 1, 2, 3, 0, tzinfo=UTC)
Set = dict[str, Any]


def simple(value: str, ttl: int = 2) -> Set:
    return {"Name": f"{NAME}.", "Type": "A", "TTL": ttl, "ResourceRecords": [{"Value": value}]}


def weighted(name: str, value: str, weight: int, **more: Any) -> Set:
    return {**simple(value), "SetIdentifier": name, "Weight": weight, **more}


@dataclass
class Zone:
    """A hosted zone as a test sees and changes it, with what it held after every batch."""

    endpoint: str
    history: list[dict[str | None, int | None]] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.api = real("route53", "us-east-1", self.endpoint)
        made = self.api.create_hosted_zone(Name="shop.example", CallerReference="test")
        self.id = made["HostedZone"]["Id"].removeprefix("/hostedzone/")

    def put(self, *sets: Set) -> None:
        """Make these the record sets of the name, whatever was there."""
        changes = [{"Action": "DELETE", "ResourceRecordSet": one} for one in self.sets()]
        changes += [{"Action": "CREATE", "ResourceRecordSet": one} for one in sets]
        if changes:
            self.api.change_resource_record_sets(HostedZoneId=self.id, ChangeBatch={"Changes": changes})
        self.history.clear()

    def sets(self) -> list[Set]:
        found = self.api.list_resource_record_sets(HostedZoneId=self.id)["ResourceRecordSets"]
        return [one for one in found if one["Name"] == f"{NAME}."]

    def weights(self) -> dict[str | None, int | None]:
        return {one.get("SetIdentifier"): one.get("Weight") for one in self.sets()}


@pytest.fixture
def zone(aws: str, monkeypatch: pytest.MonkeyPatch) -> Zone:
    """A zone whose batches are checked as Route 53 does: all or nothing, exact deletes, simple or weighted."""
    lab = strict.Propagation()
    monkeypatch.setattr(strict, "PROPAGATION", 0.0)
    made = Zone(aws)

    def change(self: Any) -> Any:
        zone = self.backend.get_hosted_zone(self._get_param("HostedZoneId"))
        answer = lab.change(zone, self._get_param("ChangeBatch.Changes"))
        mine = [one for one in zone.rrsets if one.name == f"{NAME}."]
        made.history.append({one.set_identifier: None if one.weight is None else int(one.weight) for one in mine})
        return answer

    monkeypatch.setattr(Route53, "change_resource_record_sets", change)
    monkeypatch.setattr(Route53, "get_change", lambda self: lab.info(self._get_param("Id").rpartition("/")[2]))
    made.put(simple(WEST))
    return made


@pytest.fixture
def east() -> Iterator[Web]:
    with web() as server:
        yield server


@pytest.fixture
def dns_names() -> Iterator[Names]:
    with names() as found:
        yield found


def shift(server: Web | None = None, **more: object) -> ShiftWeights:
    port = server.port if server is not None else 9
    fields = {
        "zone": "shop.example", "record": NAME, "soak": "4s", "minimum": 5, "latest": 20,
        "old": {"id": "west", "values": [WEST]}, "new": {"id": "east", "values": [EAST]},
        "base": f"http://{NAME}:{port}", "requests": [{"name": "health", "url": "/health", "timeout": "5s"}],
        "limits": {"max_p95": "4s"},  # a loaded machine is no failing side
    }  # fmt: skip
    return ShiftWeights.model_validate({**fields, **more})


@dataclass
class Run:
    """Looks and acts as the engine does, with a clock of its own."""

    step: ShiftWeights
    clients: Clients
    now: datetime = START
    seen: Seen[Shift] | None = None
    said: list[str] = field(default_factory=list)
    before: list[Shift] = field(default_factory=list)

    def look(self, after: float = 1.0) -> Shift:
        self.now += timedelta(seconds=after)
        state = self.step.fold(self.seen, Seen(self.step.observe(self.clients), self.now))
        self.seen = Seen(state, self.now)
        return state

    def on(self, until: int | None = None, looks: int = 200) -> Shift:
        """Go on until a share is reached, or the step is done or refuses."""
        for _ in range(looks):
            state = self.look()
            if self.step.done(state) or self.step.refuse(state) or (until is not None and state.share == until):
                return state
            if not self.step.underway(state):
                self.said.append(self.step.describe(state))
                self.before.append(state)
                self.step.act(state, self.clients)
        raise AssertionError(self.step.explain(state))


def shares(zone: Zone) -> list[int | None]:
    return [one.get("east") for one in zone.history]


def test_a_simple_record_becomes_a_pair_and_moves_phase_by_phase(zone: Zone, east: Web, clients: Clients) -> None:
    run = Run(shift(east), clients)
    assert run.step.done(run.on())
    assert shares(zone) == [5, 25, 50, 100]
    assert all(sum(weight or 0 for weight in one.values()) == 100 for one in zone.history)
    assert run.said == [
        f"{NAME}: east 0 -> 5 of 100, west 100 -> 95; one simple record ({WEST}) becomes two weighted ones",
        f"{NAME}: east 5 -> 25 of 100, west 95 -> 75",
        f"{NAME}: east 25 -> 50 of 100, west 75 -> 50",
        f"{NAME}: east 50 -> 100 of 100, west 50 -> 0",
    ]
    assert run.now - START >= 4 * timedelta(seconds=4)
    assert {one["TTL"] for one in zone.sets()} == {2}


def test_the_new_side_is_asked_at_its_address_whatever_dns_says(
    zone: Zone, east: Web, clients: Clients, dns_names: Names
) -> None:
    dns_names.records[NAME] = [WEST]
    run = Run(shift(east, name_servers=[dns_names.place]), clients)
    state = run.look()
    assert (len(state.sent), state.sent[0].good) == (5, True)
    assert {call.headers["Host"] for call in east.calls} == {f"{NAME}:{east.port}"}
    assert {call.path for call in east.calls} == {"/health"}


def test_at_the_end_one_simple_record_can_be_left_for_point(zone: Zone, east: Web, clients: Clients) -> None:
    run = Run(shift(east, then="simple"), clients)
    assert run.step.done(run.on())
    assert zone.sets() == [simple(EAST)]
    assert shares(zone) == [5, 25, 50, 100, None]
    point = PointDns.model_validate({"zone": "shop.example", "record": NAME, "values": [WEST]})
    before = point.observe(clients)
    assert point.refuse(before) is None
    point.act(before, clients)
    assert zone.sets() == [simple(WEST)]


@pytest.mark.parametrize("how", ["errors", "latency", "wrong"])
def test_a_side_that_fails_under_customers_is_taken_back_one_phase(
    zone: Zone, east: Web, clients: Clients, how: str
) -> None:
    def answer(_: Call) -> tuple[int, object]:
        if shares(zone) != [5, 25, 50]:
            return 200, {}
        if how == "latency":
            time.sleep(1.2)
        return {"errors": 500, "latency": 200, "wrong": 404}[how], {}

    east.answer = answer
    run = Run(shift(east, limits={"max_p95": "1s"}), clients)
    assert run.step.done(state := run.on())
    assert shares(zone) == [5, 25, 50, 25, 50, 100]
    assert state.trips == 1
    back = next(line for line in run.said if line.startswith(f"{NAME}: east 50 -> 25 of 100, west 50 -> 75; back"))
    assert {"errors": "error rate 100.0%", "latency": "p95 1", "wrong": "0.0% of"}[how] in back


def test_after_the_declared_trips_it_refuses_with_the_reason(zone: Zone, east: Web, clients: Clients) -> None:
    east.answer = lambda _: (503 if (zone.weights().get("east") or 0) >= 25 else 200, {})
    run = Run(shift(east, max_trips=2), clients)
    state = run.on()
    said = run.step.refuse(state) or ""
    assert "tripped 2 times" in said
    assert "error rate 100.0%" in said
    assert shares(zone) == [5, 25, 5, 25, 5]


def test_nobody_is_moved_to_a_side_that_does_not_answer(zone: Zone, clients: Clients) -> None:
    run = Run(shift(None), clients)
    for _ in range(5):
        state = run.look()
        assert run.step.underway(state)
        assert run.step.refuse(state) is None
    assert zone.history == []
    assert "0 of 20 good" in run.step.explain(state)


def test_a_crash_goes_on_from_the_journaled_state(zone: Zone, east: Web, clients: Clients) -> None:
    run = Run(shift(east), clients)
    run.on(until=25)
    announced = Shift.model_validate(json.loads(json.dumps(run.before[-1].model_dump(mode="json"))))
    after = Run(shift(east), Clients(), run.now, Seen(announced, run.now))
    assert after.look().share == 25
    assert after.step.done(after.on())
    assert shares(zone) == [5, 25, 50, 100]


def test_a_phase_that_nobody_watched_is_soaked_again(zone: Zone, east: Web, clients: Clients) -> None:
    run = Run(shift(east), clients)
    run.on(until=5)
    while run.look().verdict != "held":
        pass
    state = run.look(after=3600.0)
    assert (state.verdict, state.soaked) == ("soaking", timedelta(0))
    assert shares(zone) == [5]


def test_a_soak_is_never_shorter_than_resolvers_keep_the_old_answer(zone: Zone, east: Web, clients: Clients) -> None:
    zone.put(simple(WEST, ttl=30))
    run = Run(shift(east, phases=[100]), clients)
    assert run.step.done(run.on())
    assert run.now - START >= timedelta(seconds=30)


def test_a_record_that_changed_meanwhile_is_not_overwritten(zone: Zone, east: Web, clients: Clients) -> None:
    run = Run(shift(east), clients)
    while run.step.underway(state := run.look()):
        pass
    zone.put(simple("127.0.0.3"))
    with pytest.raises(ActionFailed, match="look again") as failed:
        run.step.act(state, clients)
    assert failed.value.retry
    assert zone.sets() == [simple("127.0.0.3")]
    assert "simple 127.0.0.3" in (run.step.refuse(run.look()) or "")


def test_a_phase_that_did_not_hold_is_never_acted_on(zone: Zone, east: Web, clients: Clients) -> None:
    run = Run(shift(east), clients)
    state = run.on(until=5)
    with pytest.raises(ActionFailed, match="has not held"):
        run.step.act(state, clients)
    assert shares(zone) == [5]


def test_a_lost_answer_is_found_done_by_looking_again(
    zone: Zone, east: Web, clients: Clients, monkeypatch: pytest.MonkeyPatch
) -> None:
    change = Route53.change_resource_record_sets

    def lose(self: Any) -> Any:
        change(self)
        raise OSError("the connection is gone")

    run = Run(shift(east), clients)
    while run.step.underway(state := run.look()):
        pass
    with monkeypatch.context() as patch:
        patch.setattr(Route53, "change_resource_record_sets", lose)
        with pytest.raises(ActionFailed) as failed:
            run.step.act(state, clients)
    assert failed.value.retry
    assert run.look().share == 5
    assert shares(zone) == [5]


def test_a_soak_begins_when_route_53_is_in_sync(
    zone: Zone, east: Web, clients: Clients, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = Run(shift(east), clients)
    while run.step.underway(state := run.look()):
        pass
    monkeypatch.setattr(strict, "PROPAGATION", 3600.0)
    run.step.act(state, clients)
    for _ in range(8):
        state = run.look()
        assert (state.share, state.in_sync, state.since, run.step.underway(state)) == (5, False, None, True)
    monkeypatch.setattr(strict, "PROPAGATION", 0.0)
    assert run.look().since == run.now


def test_a_side_that_fails_while_a_change_is_pending_is_taken_back_at_once(
    zone: Zone, east: Web, clients: Clients, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = Run(shift(east), clients)
    run.on(until=25)
    monkeypatch.setattr(strict, "PROPAGATION", 3600.0)
    east.answer = lambda _: (500, {})
    state = run.look()
    assert state.in_sync is False
    assert not run.step.underway(state)
    run.step.act(state, clients)
    assert shares(zone) == [5, 25, 5]


def test_name_servers_must_answer_one_of_the_sides_that_are_left(
    zone: Zone, east: Web, clients: Clients, dns_names: Names
) -> None:
    dns_names.records[NAME] = [WEST]
    step = shift(east, name_servers=[dns_names.place], phases=[50, 100], patience="300ms")
    run = Run(step, clients)
    run.on(until=50)
    assert run.look().answers[0].agrees  # either side is right at 50
    run.on(until=100)
    assert [one.agrees for one in run.look().answers] == [False]  # the old side is not, at 100
    for _ in range(6):
        assert not step.done(run.look())
    dns_names.records[NAME] = [EAST]
    assert step.done(run.on())


@pytest.mark.parametrize(
    "sets",
    [
        [],
        [simple("127.0.0.9")],
        [weighted("east", EAST, 7), weighted("west", WEST, 93)],
        [weighted("east", EAST, 0), weighted("west", WEST, 10)],
        [weighted("east", EAST, 0), weighted("west", WEST, 0)],
        [weighted("west", WEST, 100)],
        [weighted("blue", EAST, 5), weighted("west", WEST, 95)],
        [weighted("east", "127.0.0.9", 5), weighted("west", WEST, 95)],
        [weighted("east", EAST, 5), weighted("west", WEST, 95), weighted("south", "127.0.0.9", 5)],
    ],
)
def test_record_sets_that_this_step_does_not_make_are_refused_and_left_alone(
    zone: Zone, east: Web, clients: Clients, sets: list[Set]
) -> None:
    zone.put(*sets)
    run = Run(shift(east), clients)
    state = run.look()
    said = run.step.refuse(state) or ""
    assert all(str(one.get("Weight", one["ResourceRecords"][0]["Value"])) in said for one in sets)
    assert east.calls == []
    with pytest.raises(ActionFailed):
        run.step.act(state, clients)
    assert zone.weights() == {one.get("SetIdentifier"): one.get("Weight") for one in sets}


def test_other_routing_policies_are_refused(zone: Zone, clients: Clients) -> None:
    zone.put()
    there = get_backend("route53")[DEFAULT_ACCOUNT_ID]["aws"].get_hosted_zone(zone.id)
    for name, value, where in (("east", EAST, "us-east-1"), ("west", WEST, "us-west-2")):
        latency = {**simple(value), "ResourceRecords": [value], "SetIdentifier": name, "Region": where}
        there.upsert_rrset(latency)  # behind the strict zone, which knows weights only
    run = Run(shift(None), clients)
    assert "Region" in (run.step.refuse(run.look()) or "")


def test_a_simple_record_of_the_new_side_is_the_end_where_everyone_is_to_go_there_and_else_somebody_elses(
    zone: Zone, east: Web, clients: Clients
) -> None:
    zone.put(simple(EAST))
    run = Run(shift(east), clients)
    assert run.step.describe(run.look()) == f"{NAME}: simple {EAST}, to be held for 4s"
    assert run.step.done(run.on())
    assert zone.history == []
    canary = Run(shift(east, phases=[5, 25]), clients)
    assert f"simple {EAST}" in (canary.step.refuse(canary.look()) or "")


def test_phases_that_are_there_already_are_gone_on_from(zone: Zone, east: Web, clients: Clients) -> None:
    zone.put(weighted("east", EAST, 50), weighted("west", WEST, 50))
    run = Run(shift(east), clients)
    assert run.step.done(run.on())
    assert shares(zone) == [100]


def test_health_checks_of_the_record_sets_are_kept(zone: Zone, east: Web, clients: Clients) -> None:
    check = {"Type": "HTTP", "IPAddress": "192.0.2.1", "Port": 80, "ResourcePath": "/"}
    made = zone.api.create_health_check(CallerReference="east", HealthCheckConfig=check)["HealthCheck"]["Id"]
    zone.put(weighted("east", EAST, 0, HealthCheckId=made), weighted("west", WEST, 100))
    run = Run(shift(east), clients)
    assert run.step.done(run.on())
    assert {one["SetIdentifier"]: one.get("HealthCheckId") for one in zone.sets()} == {"east": made, "west": None}


@pytest.mark.parametrize("start", [[simple(WEST)], [weighted("east", EAST, 5), weighted("west", WEST, 95)]])
def test_undo_puts_the_first_record_sets_back_and_may_be_repeated(
    zone: Zone, east: Web, clients: Clients, start: list[Set]
) -> None:
    zone.put(*start)
    run = Run(shift(east, then="simple"), clients)
    run.on()
    for _ in range(2):
        run.step.undo(run.before[0], Clients())
        assert zone.sets() == start


def test_undo_leaves_alone_what_someone_else_changed(zone: Zone, east: Web, clients: Clients) -> None:
    run = Run(shift(east), clients)
    run.on(until=25)
    foreign = [weighted("east", EAST, 40), weighted("west", WEST, 60)]
    zone.put(*foreign)
    with pytest.raises(ActionFailed, match="someone else changed it"):
        run.step.undo(run.before[0], Clients())
    assert zone.sets() == foreign


def test_point_refuses_a_weighted_record_and_its_undo_does_not_take_one_for_its_own(
    zone: Zone, clients: Clients
) -> None:
    point = PointDns.model_validate({"zone": "shop.example", "record": NAME, "values": [EAST]})
    before = point.observe(clients)
    zone.put(weighted("a-west", WEST, 95), weighted("east", EAST, 5))
    said = point.refuse(point.observe(clients)) or ""
    assert "a-west 95, east 5" in said
    assert "shift_weights" in said
    with pytest.raises(ActionFailed, match="is weighted"):
        point.undo(before, clients)
    assert zone.weights() == {"a-west": 95, "east": 5}


@pytest.mark.parametrize(
    "bad",
    [
        {"phases": []}, {"phases": [0, 100]}, {"phases": [5, 101]}, {"phases": [25, 5, 100]}, {"phases": [5, 5]},
        {"phases": [5, 25], "then": "simple"},
        {"new": {"id": "west", "values": [EAST]}}, {"new": {"id": "east", "values": [WEST]}},
        {"new": {"id": "east", "values": ["300.1.1.1"]}}, {"new": {"id": "", "values": [EAST]}},
        {"new": {"id": "x" * 129, "values": [EAST]}}, {"type": "AAAA"}, {"ttl": "1500ms"},
        {"minimum": 50, "latest": 20}, {"base": f"ftp://{NAME}"}, {"name_servers": ["127.0.0.1"]},
        {"requests": [{"name": "order", "method": "POST", "url": "/orders"}]},
    ],
)  # fmt: skip
def test_what_cannot_be_shifted_is_refused_by_the_plan(bad: dict[str, object]) -> None:
    with pytest.raises(ValueError, match=r"\w"):
        shift(None, **bad)
