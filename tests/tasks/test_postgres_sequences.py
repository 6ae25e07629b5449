"""After a lossy promotion no sequence hands a lost number out again."""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tasks.clients import Clients
from tasks.contract import Seen
from tasks.postgres_sequences import AdvanceSequences, Sequence, Sequences
from tests.tasks.conftest import Pair
from tests.tasks.postgres_nodes import Installation, Node, caught_up, until

NOW = datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC)
MakePair = Callable[..., Pair]


def look(step: AdvanceSequences, clients: Clients, earlier: Sequences | None = None) -> Sequences:
    return step.fold(Seen(earlier, NOW) if earlier else None, Seen(step.observe(clients), NOW))


def carry_out(step: AdvanceSequences, clients: Clients) -> Sequences:
    before = look(step, clients)
    assert step.refuse(before) is None
    step.act(before, clients)
    after = look(step, clients, before)
    assert step.done(after), step.explain(after)
    return after


@pytest.fixture
def node(postgres: Installation) -> Node:
    return postgres.node("east").start()


def test_values_that_a_lost_transaction_took_are_not_given_out_again(pair: MakePair, clients: Clients) -> None:
    primary, standby = pair()
    primary.do("CREATE TABLE tickets (id bigint GENERATED ALWAYS AS IDENTITY, note text)", "CREATE SEQUENCE orders_seq CACHE 10")
    primary.do("INSERT INTO tickets (note) SELECT 'x' FROM generate_series(1, 40)", "SELECT nextval('orders_seq')")
    until(lambda: caught_up(primary, standby))
    standby.freeze_receiver()
    with primary.session() as customer:  # these never reach the standby, and somebody wrote them down
        handed = [customer.execute("INSERT INTO tickets (note) VALUES ('y') RETURNING id").fetchone()[0] for _ in range(200)]
        handed_too = [customer.execute("SELECT nextval('orders_seq')").fetchone()[0] for _ in range(200)]
    primary.kill()
    standby.do("SELECT pg_promote(false)")
    standby.thaw()
    until(lambda: standby.ask("SELECT pg_is_in_recovery()") is False)
    carry_out(AdvanceSequences(server=standby.server(), by=300), clients)
    new = standby.ask("INSERT INTO tickets (note) VALUES ('z') RETURNING id")
    assert new > max(handed)
    assert standby.ask("SELECT nextval('orders_seq')") > max(handed_too)


def test_each_kind_of_sequence_goes_its_own_way(node: Node, clients: Clients) -> None:
    node.do(
        "CREATE SEQUENCE up", "SELECT setval('up', 50)", "CREATE SEQUENCE never_used START 5",
        "CREATE SEQUENCE down INCREMENT -2 START 1000 MINVALUE 1 MAXVALUE 1000", "SELECT nextval('down')",
        "CREATE SEQUENCE round MINVALUE 1 MAXVALUE 10 CYCLE", "SELECT setval('round', 8)",
        'CREATE SCHEMA "My Shop"', 'CREATE SEQUENCE "My Shop"."Nr"', "CREATE SEQUENCE left_alone",
        "CREATE TEMP SEQUENCE mine",
    )  # fmt: skip
    step = AdvanceSequences(server=node.server(), by=5, each={"public.left_alone": 0, "public.up": 20})
    state = carry_out(step, clients)
    assert {one.name: one.target for one in state.sequences} == {
        "public.up": 70, "public.never_used": 9, "public.down": 990, "public.round": 3, '"My Shop"."Nr"': 5, "public.left_alone": None,
    }  # fmt: skip
    names = ("up", "never_used", "down", "round", '"My Shop"."Nr"', "left_alone")
    assert [node.ask(f"SELECT nextval('{name}')") for name in names] == [71, 10, 988, 4, 6, 1]


def test_done_again_from_what_was_journaled_it_skips_nothing_more(node: Node, clients: Clients) -> None:
    node.do("CREATE SEQUENCE one", "CREATE SEQUENCE two")
    step = AdvanceSequences(server=node.server(), by=100)
    before = look(step, clients)
    node.do("SELECT setval('one', 100)")  # killed half-way: one is set, two is not
    journaled = Sequences.model_validate(before.model_dump(mode="json"))
    state = look(step, clients, journaled)
    assert state.behind == ("public.two",)
    step.act(state, clients)
    step.act(state, clients)
    assert step.done(look(step, clients, journaled))
    assert [node.ask(f"SELECT nextval('{name}')") for name in ("one", "two")] == [101, 101]


def test_customers_who_came_early_are_not_set_back(node: Node, clients: Clients) -> None:
    node.do("CREATE SEQUENCE one")
    step = AdvanceSequences(server=node.server(), by=100)
    before = look(step, clients)
    node.do("SELECT setval('one', 5000)")
    step.act(before, clients)
    assert node.ask("SELECT nextval('one')") == 5001
    assert step.done(look(step, clients, before))


def test_what_would_break_is_refused_with_its_name(pair: MakePair, clients: Clients) -> None:
    primary, standby = pair()
    primary.do("CREATE SEQUENCE small AS smallint", "SELECT setval('small', 32700)", "CREATE ROLE engine LOGIN IN ROLE pg_monitor")
    too_far = AdvanceSequences(server=primary.server(), by=100)
    assert "public.small" in (too_far.refuse(look(too_far, clients)) or "")
    enough = AdvanceSequences(server=primary.server(), by=100, each={"public.small": 50})
    assert enough.refuse(look(enough, clients)) is None
    nobody = AdvanceSequences(server=primary.server(user="engine"), by=10)
    assert "may not move public.small" in (nobody.refuse(look(nobody, clients)) or "")
    misspelt = AdvanceSequences(server=primary.server(), by=10, each={"public.smal": 5})
    assert "no such sequence" in (misspelt.refuse(look(misspelt, clients)) or "")
    on_standby = AdvanceSequences(server=standby.server(), by=10)
    assert "is a standby" in (on_standby.refuse(look(on_standby, clients)) or "")


def test_a_database_without_sequences_is_done_at_once(node: Node, clients: Clients) -> None:
    step = AdvanceSequences(server=node.server(), by=100)
    assert step.done(look(step, clients))


@st.composite
def moving(draw: st.DrawFn) -> tuple[Sequence, int]:
    increment = draw(st.integers(-5, 5).filter(bool))
    least, size = draw(st.integers(-50, 50)), draw(st.integers(1, 200))
    places = (size // abs(increment)) + 1
    first = least if increment > 0 else least + size
    last = first + increment * draw(st.integers(0, places - 1))
    cycles = draw(st.booleans())
    one = Sequence(name="s", increment=increment, least=least, most=least + size, cycles=cycles, last=last)
    return one, draw(st.integers(1, places - 1 if cycles else 300)) if places > 1 else 1


def following(one: Sequence, value: int) -> int:
    """What PostgreSQL's nextval gives after a value."""
    new = value + one.increment
    if one.cycles and not one.least <= new <= one.most:
        return one.least if one.increment > 0 else one.most
    return new


@given(moving())
def test_the_target_is_where_so_many_values_lead_and_none_before_it_counts_as_there(given_: tuple[Sequence, int]) -> None:
    one, count = given_
    if one.cycles and (one.most - one.least) // abs(one.increment) == 0:
        return
    aimed = one.model_copy(update={"target": one.after(count)})
    value = one.last
    for _ in range(count):
        assert not aimed.passed(value)
        value = following(one, value)
    assert value == aimed.target
    assert aimed.passed(value)
