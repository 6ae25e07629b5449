from __future__ import annotations

import json
from datetime import UTC, datetime, timedelta

import dns.flags
import dns.message
import dns.rcode
import pytest
from hypothesis import given
from hypothesis import strategies as st

from deployments.lab import addresses, cleanup, report, shm
from deployments.lab.addresses import NODES, WAYS, Addresses
from deployments.lab.names import Record, answer
from deployments.lab.report import Order

T0 = datetime(2026, 1, 1, tzinfo=UTC)


def at(seconds: float) -> datetime:
    return T0 + timedelta(seconds=seconds)


def order(ref: str, acked: float | None, node: str = "east", failed: float | None = None) -> Order:
    done = None if acked is None else at(acked)
    return Order(ref, T0, done, node, node, 1, None if failed is None else at(failed))


@given(st.integers(1, 255))
def test_no_two_things_of_a_lab_share_an_address(number: int) -> None:
    a = Addresses(number)
    everything = [a.control, a.cloud, a.dns, a.slack]
    for node in NODES:
        everything += [a.balancer(node), a.own_side(node), *(a.way(node, way) for way in WAYS)]
        everything += [a.instance(node, slot) for slot in range(6)]
    assert len({str(endpoint) for endpoint in everything}) == len(everything)
    assert all(endpoint.host.startswith(f"127.{number}.") and endpoint.port > 1024 for endpoint in everything)


@pytest.mark.parametrize("number", [-1, 0, 256, 1000])
def test_a_lab_number_outside_the_second_byte_is_refused(number: int) -> None:
    with pytest.raises(ValueError, match="1 to 255"):
        Addresses(number)


def test_a_wrong_number_in_the_environment_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FAILOVER_LAB", "seven")
    with pytest.raises(ValueError, match="FAILOVER_LAB='seven'"):
        addresses.number_from_environment()


def test_an_acknowledged_order_that_the_primary_does_not_hold_is_missing() -> None:
    facts = report.report([order("a", 1), order("b", 2), order("c", None)], {"a": 1, "d": 1})
    assert (facts.acknowledged, facts.given_up, facts.missing, facts.duplicated) == (2, 1, ("b",), ())


def test_a_ref_that_is_there_twice_is_duplicated_even_if_nobody_was_told() -> None:
    assert report.report([order("a", 1)], {"a": 1, "b": 2}).duplicated == ("b",)


def test_downtime_is_the_longest_gap_that_ends_after_the_fault() -> None:
    # An answer already on its way arrives just after the fault: it is not the recovery.
    orders = [order("a", 9.9), order("b", 10.02), order("c", 13, "west"), order("d", 13.1, "west")]
    facts = report.report(orders, {}, fault=at(10))
    assert (facts.last_ack_before, facts.first_ack_after) == (at(10.02), at(13))
    assert facts.downtime == timedelta(seconds=2.98)
    assert facts.fault_to_new_primary == timedelta(seconds=3)
    assert facts.new_primary == "west"
    assert not facts.two_writers


def test_without_an_acknowledgement_after_the_fault_the_downtime_is_not_known() -> None:
    facts = report.report([order("a", 1)], {}, fault=at(2))
    assert facts.last_ack_before == at(1)
    assert facts.downtime is None


def test_an_old_primary_that_acknowledges_again_shows_as_two_writers() -> None:
    orders = [order("a", 1), order("b", 2, "west"), order("c", 3, "east")]
    assert report.report(orders, {}).two_writers


def test_the_first_failure_is_the_first_after_the_fault() -> None:
    orders = [order("a", 5, failed=1), order("b", 6, failed=4.5), order("c", None, failed=4.2)]
    assert report.report(orders, {}, fault=at(4)).first_failure == at(4.2)


@given(st.lists(st.tuples(st.floats(0, 1000), st.sampled_from(["east", "west"])), max_size=30), st.floats(0, 1000))
def test_every_acknowledgement_is_either_found_or_missing(acks: list[tuple[float, str]], fault: float) -> None:
    orders = [order(str(number), acked, node) for number, (acked, node) in enumerate(acks)]
    found = {str(number): 1 for number in range(0, len(acks), 2)}
    facts = report.report(orders, found, at(fault))
    assert facts.acknowledged == len(facts.missing) + len(found) == sum(facts.by_node.values())
    assert facts.downtime is None or facts.downtime >= timedelta(0)


def test_a_line_still_being_written_is_left_out(tmp_path) -> None:
    line = json.dumps({"ref": "a", "sent": T0.isoformat(), "attempts": 1, "acked": at(1).isoformat(), "node": "east"})
    file = tmp_path / "traffic.jsonl"
    file.write_text(f"{line}\n{line[:20]}")
    assert [one.ref for one in report.read(file)] == ["a"]


ZONE = {
    ("lab.test.", "SOA"): Record("lab.test.", "SOA", 900, ("ns.lab.test. me.lab.test. 1 7200 900 1209600 86400",)),
    ("checkout.lab.test.", "A"): Record("checkout.lab.test.", "A", 2, ("127.77.1.1",)),
}


def ask(name: str, kind: str = "A", zone=ZONE) -> dns.message.Message:
    reply = answer(dns.message.make_query(name, kind).to_wire(), zone)
    assert reply is not None
    return dns.message.from_wire(reply)


def test_dns_answers_with_authority_and_the_records_ttl() -> None:
    reply = ask("Checkout.LAB.test")
    assert reply.flags & dns.flags.AA
    assert reply.answer[0].ttl == 2
    assert [str(value) for value in reply.answer[0]] == ["127.77.1.1"]


@pytest.mark.parametrize(
    ("name", "kind", "zone", "code"),
    [
        ("nope.lab.test", "A", ZONE, dns.rcode.NXDOMAIN),
        ("checkout.lab.test", "AAAA", ZONE, dns.rcode.NOERROR),
        ("lab.test", "A", ZONE, dns.rcode.NOERROR),
        ("example.com", "A", ZONE, dns.rcode.REFUSED),
        ("checkout.lab.test", "A", None, dns.rcode.SERVFAIL),
    ],
)
def test_dns_says_honestly_why_there_is_no_answer(name, kind, zone, code) -> None:
    reply = ask(name, kind, zone)
    assert reply.rcode() == code
    assert not reply.answer


@given(st.binary(max_size=200))
def test_no_datagram_breaks_the_responder(wire: bytes) -> None:
    answer(wire, ZONE)


def test_a_shared_memory_key_is_the_same_signed_or_not() -> None:
    table = "key shmid perms size cpid lpid nattch\n-2 7 600 56 1 1 0\n5 8 600 56 1 1 3\n"
    assert shm.unattached(table) == {shm.Segment(0xFFFFFFFE, 7)}


@pytest.mark.parametrize("text", ["", "1\n2\n", "1\n/data\n3\n4\n\n*\nx y\n"])
def test_an_unfinished_pid_file_names_no_segment(tmp_path, text: str) -> None:
    file = tmp_path / "postmaster.pid"
    file.write_text(text)
    assert shm.named_by(file) is None


def test_a_broken_state_file_does_not_stop_a_sweep(tmp_path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(addresses, "base_folder", lambda: tmp_path)
    folder = Addresses(255).folder
    folder.mkdir()
    (folder / "state.json").write_text("{")
    cleanup.sweep(Addresses(255))
    assert not folder.exists()
