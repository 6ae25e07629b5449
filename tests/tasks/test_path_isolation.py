"""The clients' way to a node as a fence: the owner's word, the clients' own view, and nobody on the node's side."""

from __future__ import annotations

import pytest
from pydantic import ValidationError

from tasks.clients import Clients
from tasks.contract import ActionFailed
from tasks.postgres_fence import Fence
from tests.tasks.conftest import Pair
from tests.tasks.parties import Call, Web, closed_port, web

WAY = {"host": "127.0.0.1", "database": "shop", "user": "shop"}


class Owner:
    """Owns the clients' way: says what it is told to say, closes when asked."""

    def __init__(self, *, closed: bool = False, stays: bool = True, closes: bool = True) -> None:
        self.closed, self.stays, self.closes = closed, stays, closes

    def answer(self, call: Call) -> tuple[int, object]:
        if call.method == "POST" and call.path.endswith("/close"):
            self.closed = self.closed or self.closes
        return 200, {"closed": self.closed, "stays_closed": self.closed and self.stays}


def fence(owner: Web, *, port: int | None = None, node: object = None, **more: object) -> Fence:
    declared = {"path": owner.url, "seen_by": [{**WAY, "port": port or closed_port()}], "own_side": "no-clients", **more}
    node = node or {"host": "127.0.0.1", "port": closed_port(), "database": "shop", "user": "failover"}
    return Fence.model_validate({
        "node": node, "method": {"control": {"url": f"http://127.0.0.1:{closed_port()}"}},
        "if_unreachable": "isolate-path", "isolate_path": declared,
    })  # fmt: skip


def test_a_way_closed_for_good_and_seen_closed_by_clients_is_a_fence(clients: Clients) -> None:
    with web(Owner().answer) as owner:
        step = fence(owner)
        assert not step.done(step.observe(clients))  # nothing answers, and that alone proves nothing
        step.act(step.observe(clients), clients)
        state = step.observe(clients)
    assert step.done(state)
    assert (state.state, state.stays_off) == ("isolated", True)


def test_a_way_that_a_restart_opens_again_is_no_fence(clients: Clients) -> None:
    with web(Owner(closed=True, stays=False).answer) as owner:
        step = fence(owner)
        assert not step.done(step.observe(clients))


def test_an_owner_that_does_not_close_is_no_fence(clients: Clients) -> None:
    with web(Owner(closes=False).answer) as owner:
        step = fence(owner)
        step.act(step.observe(clients), clients)
        assert not step.done(step.observe(clients))


def test_the_owners_word_does_not_count_against_a_client_who_gets_an_answer(pair: Pair, clients: Clients) -> None:
    primary, _ = pair()
    with web(Owner(closed=True).answer) as owner:
        way = primary.server(user="shop")
        step = fence(owner, seen_by=[way])
        state = step.observe(clients)
    assert not step.done(state)
    assert "and yet" in state.evidence


def test_a_way_that_was_opened_again_is_no_fence_any_more(clients: Clients) -> None:
    told = Owner(closed=True)
    with web(told.answer) as owner:
        step = fence(owner)
        assert step.done(step.observe(clients))
        told.closed = False
        assert not step.done(step.observe(clients))


def test_clients_on_the_nodes_own_side_are_not_seen_which_is_why_they_must_be_declared_away(
    pair: Pair, clients: Clients
) -> None:
    """The limit of this option, as a test: the fence holds, and a client beside the node still writes."""
    primary, _ = pair()
    with web(Owner(closed=True).answer) as owner:
        step = fence(owner, node=primary.server())
        assert step.done(step.observe(clients))
    with primary.session("shop") as own_side:
        own_side.execute("INSERT INTO orders VALUES (1)")


@pytest.mark.parametrize("answer", [{}, [], {"closed": True}, {"closed": "yes", "stays_closed": True}, {"closed": 1, "stays_closed": 1}])
def test_an_owner_that_talks_nonsense_is_no_evidence(answer: object, clients: Clients) -> None:
    with web(lambda _: (200, answer)) as owner, pytest.raises(ActionFailed):
        fence(owner).observe(clients)


@pytest.mark.parametrize("wrong", [{"own_side": "some"}, {"own_side": None}, {"seen_by": []}])
def test_own_side_clients_and_unseen_ways_are_refused_in_the_runbook(wrong: dict[str, object]) -> None:
    with pytest.raises(ValidationError):
        fence(Nobody(), **wrong)


class Nobody:
    url = "http://127.0.0.1:1/paths/east"
