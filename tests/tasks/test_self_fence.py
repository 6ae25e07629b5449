"""A node that fences itself: only a closed lease that ran out counts, by the lease service's clock, against a silent node."""

from __future__ import annotations

from dataclasses import dataclass

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from deployments.lab.leases import Lease
from tasks.clients import Clients
from tasks.contract import ActionFailed
from tasks.postgres_fence import Fence, Fencing
from tasks.self_fence import LeaseSeen, SelfFence, expired
from tests.tasks.conftest import Pair
from tests.tasks.parties import Call, Web, closed_port, web

TTL, SKEW = 5.0, 1.0


@dataclass
class Clock:
    """A monotonic clock that a test moves."""

    now: float = 1000.0

    def __call__(self) -> float:
        return self.now


@dataclass
class Service:
    """A lease service over HTTP on a simulated clock; its node renews when told."""

    clock: Clock
    lease: Lease

    def answer(self, call: Call) -> tuple[int, object]:
        if call.method == "POST" and call.path.endswith("/close"):
            self.lease.close()
        return 200, self.lease.status()


@pytest.fixture
def service() -> Service:
    clock = Clock()
    return Service(clock, Lease(clock, TTL))


def declared(url: str, **more: object) -> dict[str, object]:
    return {"lease": url, "ttl": f"{TTL}s", "skew": f"{SKEW}s", "reset_by": "hardware-timer", **more}


def fence(server: Web, *, port: int | None = None, control: str = "", **more: object) -> Fence:
    node = {"host": "127.0.0.1", "port": port or closed_port(), "database": "shop", "user": "failover"}
    method = {"control": {"url": control or f"http://127.0.0.1:{closed_port()}"}}  # a provider that is away
    return Fence.model_validate(
        {"node": node, "method": method, "if_unreachable": "self-fence", "self_fence": declared(server.url, **more)}
    )


def test_promotion_waits_until_the_last_grant_has_run_out_and_the_skew_has_passed(service: Service, clients: Clients) -> None:
    with web(service.answer) as server:
        step = fence(server)
        assert service.lease.renew()
        step.act(step.observe(clients), clients)
        for passed, holds in ((0.0, False), (TTL, False), (TTL + SKEW - 0.01, False), (TTL + SKEW, True)):
            service.clock.now = 1000.0 + passed
            state = step.observe(clients)
            assert step.done(state) is holds, passed
            assert step.underway(state) is not holds
        assert (state.state, state.stays_off, state.lease_closed) == ("self-fenced", True, True)
        assert state.lease_silent_for == pytest.approx(TTL + SKEW)


def test_silence_counts_for_nothing_while_the_lease_can_still_be_renewed(service: Service, clients: Clients) -> None:
    with web(service.answer) as server:
        step = fence(server)
        service.clock.now += 3600
        assert not step.done(step.observe(clients))
        service.lease.renew()  # the way to the service was cut, and came back just now
        step.act(step.observe(clients), clients)
        assert not step.done(step.observe(clients))


def test_a_renewal_after_the_lease_was_closed_is_refused(service: Service) -> None:
    service.lease.close()
    granted = service.lease.status()["silent_for"]
    service.clock.now += 1
    assert not service.lease.renew()
    assert service.lease.status()["silent_for"] == granted + 1


def test_a_lease_that_was_opened_again_is_no_fence_any_more(service: Service, clients: Clients) -> None:
    with web(service.answer) as server:
        step = fence(server)
        step.act(step.observe(clients), clients)
        service.clock.now += TTL + SKEW
        assert step.done(step.observe(clients))
        service.lease.release()
        assert not step.done(step.observe(clients))  # what the engine finds when it looks again before a promotion


def test_a_service_that_forgot_counts_from_its_own_start(service: Service, clients: Clients) -> None:
    forgetful = Lease(service.clock, TTL)
    forgetful.close()
    assert forgetful.status()["silent_for"] == 0


def test_a_node_that_answers_is_not_fenced_by_any_lease(service: Service, clients: Clients, pair: Pair) -> None:
    primary, _ = pair()
    service.lease.close()
    service.clock.now += 3600
    with web(service.answer) as server:
        step = Fence.model_validate({
            "node": primary.server(), "method": {"control": {"url": f"http://127.0.0.1:{closed_port()}"}},
            "if_unreachable": "self-fence", "self_fence": declared(server.url),
        })  # fmt: skip
        state = step.observe(clients)
    assert (state.reachable, state.state) == (True, "unknown")
    assert not step.done(state)


def test_a_lease_that_lasts_longer_than_declared_proves_nothing(service: Service, clients: Clients) -> None:
    service.lease.ttl = 60
    service.lease.close()
    service.clock.now += 30
    with web(service.answer) as server:
        state = fence(server).observe(clients)
    assert not state.holds
    assert "60s" in state.evidence


def test_a_provider_that_stopped_the_host_is_enough_without_the_lease(service: Service, clients: Clients) -> None:
    with web(lambda _: (200, {"state": "stopped", "stays_off": True})) as provider, web(service.answer) as server:
        step = fence(server, control=provider.url)
        assert step.done(step.observe(clients))
        assert server.calls == []


def test_neither_provider_nor_lease_service_is_no_evidence(clients: Clients) -> None:
    with web(lambda _: (200, {})) as server:
        url = server.url
    step = fence(Away(url))
    with pytest.raises(ActionFailed):
        step.observe(clients)


@dataclass
class Away:
    url: str


@pytest.mark.parametrize(
    "answer",
    [
        {},
        [],
        {"closed": True},
        {"closed": "true", "silent_for": 99, "ttl": 5},
        {"closed": True, "silent_for": float("inf"), "ttl": 5},
        {"closed": True, "silent_for": float("nan"), "ttl": 5},
        {"closed": True, "silent_for": "99", "ttl": 5},
        {"closed": True, "silent_for": 99, "ttl": -5},
    ],
)
def test_a_service_that_talks_nonsense_is_no_evidence(answer: object, clients: Clients) -> None:
    with web(lambda _: (200, answer)) as server, pytest.raises(ActionFailed):
        fence(server).observe(clients)


@pytest.mark.parametrize("missing", ["lease", "ttl", "skew", "reset_by"])
def test_every_input_must_be_declared(missing: str) -> None:
    given = declared("http://127.0.0.1:1/leases/east")
    del given[missing]
    with pytest.raises(ValidationError):
        SelfFence.model_validate(given)


@pytest.mark.parametrize("wrong", [{"reset_by": "agent"}, {"reset_by": "nothing"}, {"skew": "0s"}, {"ttl": "0s"}])
def test_an_agent_alone_and_exact_clocks_are_not_believed(wrong: dict[str, str]) -> None:
    with pytest.raises(ValidationError):
        SelfFence.model_validate(declared("http://127.0.0.1:1/leases/east", **wrong))


@pytest.mark.parametrize("given", [{"if_unreachable": "self-fence"}, {"self_fence": declared("http://127.0.0.1:1")}])
def test_the_option_and_its_inputs_need_each_other(given: dict[str, object]) -> None:
    node = {"host": "127.0.0.1", "port": 1, "database": "shop", "user": "failover"}
    with pytest.raises(ValidationError):
        Fence.model_validate({"node": node, "method": {"sql": {}}, **given})


@given(
    st.lists(st.tuples(st.floats(0, 20), st.sampled_from(["renew", "close", "look"])), max_size=30), st.floats(0.98, 1.02)
)
def test_no_order_of_events_lets_a_node_write_while_its_fence_holds(events, rate) -> None:
    """The node's own clock may run 2 % fast or slow; it stops at its own TTL. Simulated, so thousands of histories."""
    clock = Clock()
    lease = Lease(clock, TTL)
    writes_until, fenced = -1.0, False
    option = SelfFence.model_validate(declared("http://127.0.0.1:1/leases/east"))
    for pause, what in events:
        clock.now += pause
        if what == "renew":
            asked = clock.now
            clock.now += pause / 100  # the answer takes its time; the node counts from before it asked
            if lease.renew():
                assert not fenced  # a fence that held is not ended by the node
                writes_until = asked + TTL / rate
        elif what == "close":
            lease.close()
        elif expired(option, LeaseSeen.model_validate({k: v for k, v in lease.status().items() if k != "grants"})):
            assert clock.now > writes_until
            fenced = True


def test_a_lease_that_ran_out_and_can_still_be_renewed_has_not_expired() -> None:
    option = SelfFence.model_validate(declared("http://127.0.0.1:1/leases/east"))
    assert not expired(option, LeaseSeen(closed=False, silent_for=3600.0, ttl=TTL))
    assert expired(option, LeaseSeen(closed=True, silent_for=3600.0, ttl=TTL))


def test_evidence_is_data(service: Service, clients: Clients) -> None:
    with web(service.answer) as server:
        state = fence(server).observe(clients)
    assert Fencing.model_validate_json(state.model_dump_json()) == state
