"""Who may become the primary, and who does: pure."""

from __future__ import annotations

from dataclasses import replace

from hypothesis import given
from hypothesis import strategies as st

from tasks.postgres_candidates import Candidate, Wanted, elect, reasons, to_bytes, usual_system, why_not

GOOD = Candidate(
    name="a", endpoint="10.0.0.1:5432", system_id="7", timeline=2, in_recovery=True, received_lsn="0/3000000",
    replayed_lsn="0/2FFFFF0",
)  # fmt: skip
WANTED = Wanted("7", 2)


def test_a_replica_that_streamed_and_would_replay_all_of_it_is_eligible() -> None:
    assert why_not(GOOD, WANTED, [GOOD]) is None


def test_each_reason_against_a_replica_is_told() -> None:
    above = GOOD.model_copy(update={"name": "above", "endpoint": "10.0.0.9:5432"})
    against = {
        "may have received more": {"trouble": "connection refused"},
        "no standby": {"in_recovery": False},
        "system 8": {"system_id": "8"},
        "timeline 1": {"timeline": 1},
        "timeline 3": {"timeline": 3},
        "streamed nothing": {"received_lsn": None},
        "paused": {"replay_paused": True},
        "3600s behind on purpose": {"delay_seconds": 3600.0},
        "Lock relation": {"blocked_by": "Lock relation"},
        "follows above": {"sender": "10.0.0.9:5432"},
    }
    for said, fields in against.items():
        one = GOOD.model_copy(update=fields)
        assert said in (why_not(one, WANTED, [one, above]) or ""), said


def test_a_replica_below_one_that_cannot_be_asked_may_be_chosen() -> None:
    below = GOOD.model_copy(update={"sender": "10.0.0.9:5432"})
    above = GOOD.model_copy(update={"name": "above", "endpoint": "10.0.0.9:5432", "trouble": "no answer"})
    assert elect([above, below], WANTED) == "a"


def test_the_timeline_counts_before_the_position() -> None:
    ahead = GOOD.model_copy(update={"name": "b", "timeline": 1, "received_lsn": "9/0"})
    assert elect([ahead, GOOD], Wanted("7")) == "a"


def test_among_equals_the_preferred_one_is_chosen_then_the_first_named() -> None:
    b, c = (GOOD.model_copy(update={"name": name}) for name in "bc")
    assert elect([GOOD, b, c], WANTED) == "a"
    assert elect([GOOD, b, c], replace(WANTED, prefer=("c", "b"))) == "c"
    behind = c.model_copy(update={"received_lsn": "0/1000000"})
    assert elect([GOOD, b, behind], replace(WANTED, prefer=("c", "b"))) == "b"


def test_what_was_replayed_counts_where_more_was_replayed_than_streamed() -> None:
    from_archive = GOOD.model_copy(update={"name": "b", "received_lsn": "0/1000000", "replayed_lsn": "0/4000000"})
    assert elect([GOOD, from_archive], WANTED) == "b"


def test_the_odd_one_out_is_not_the_system() -> None:
    stranger = GOOD.model_copy(update={"name": "x", "system_id": "8"})
    assert usual_system([stranger, GOOD, GOOD]) == "7"
    assert usual_system([]) is None


LSN = st.none() | st.builds("{:X}/{:X}".format, st.integers(0, 2), st.integers(0, 2**32 - 1))
CANDIDATES = st.lists(
    st.builds(
        Candidate, name=st.sampled_from("abcdef"), endpoint=st.sampled_from(["e1", "e2", "e3"]), system_id=st.sampled_from(["7", "7", "8"]),
        timeline=st.integers(1, 3), in_recovery=st.sampled_from([True, True, True, False]), received_lsn=LSN, replayed_lsn=LSN,
        replay_paused=st.sampled_from([False, False, True]), delay_seconds=st.sampled_from([0.0, 0.0, 60.0]),
        trouble=st.sampled_from(["", "", "gone"]), sender=st.sampled_from([None, None, "e1", "e2"]),
        blocked_by=st.sampled_from([None, None, "Lock relation"]),
    ),
    max_size=6, unique_by=lambda one: one.name,
)  # fmt: skip
WANTS = st.builds(Wanted, st.sampled_from([None, "7"]), st.sampled_from([None, 2]), st.permutations("abcdef"))


@given(CANDIDATES, WANTS)
def test_nobody_eligible_has_more_than_the_chosen_one(candidates: list[Candidate], wanted: Wanted) -> None:
    chosen = elect(candidates, wanted)
    against = reasons(candidates, wanted)
    eligible = [one for one in candidates if one.name not in against]
    assert (chosen is None) == (not eligible)
    if chosen is None:
        return
    winner = next(one for one in eligible if one.name == chosen)
    assert all(one.position <= winner.position for one in eligible)
    assert winner.received_lsn is not None
    assert winner.in_recovery
    assert winner.answers
    assert wanted.system_id in (None, winner.system_id)


@given(CANDIDATES, WANTS, st.randoms(use_true_random=False))
def test_with_a_full_preference_the_order_of_the_file_decides_nothing(candidates, wanted: Wanted, random) -> None:
    shuffled = list(candidates)
    random.shuffle(shuffled)
    assert elect(shuffled, wanted) == elect(candidates, wanted)


@given(st.integers(0, 2**64 - 1))
def test_positions_compare_as_numbers_and_not_as_text(position: int) -> None:
    assert to_bytes(f"{position >> 32:X}/{position & 0xFFFFFFFF:X}") == position
