"""The smoke test against a real web server."""

from __future__ import annotations

import uuid
from collections.abc import Callable
from datetime import timedelta

import pytest

from tasks.clients import Clients
from tasks.contract import Steady
from tasks.http import SmokeTest, percentile
from tasks.http_requests import holds
from tests.tasks.parties import Call, Web, blackhole, closed_port, names, web


def smoke(server: Web, *requests: dict[str, object], **more: object) -> SmokeTest:
    found = requests or ({"name": "health", "url": "/health"},)
    return SmokeTest.model_validate({"base": server.url, "requests": found, "rounds": 4, **more})


def answering(status: int = 200, body: object = None) -> Callable[[Call], tuple[int, object]]:
    return lambda _: (status, body if body is not None else {"ok": True})


def test_good_answers_within_limits_are_done_after_n_looks(clients: Clients) -> None:
    with web(answering()) as server:
        step = smoke(server, times=3)
        state = step.observe(clients)
    assert step.done(state)
    assert step.steady == Steady(times=3)
    assert (state.requests, state.failures, state.error_rate, state.success_rate) == (4, 0, 0.0, 1.0)
    assert state.p95_ms is not None


def test_a_soak_must_be_good_for_as_long_as_it_says(clients: Clients) -> None:
    with web(answering()) as server:
        assert smoke(server, times=3, lasting="1h").steady == Steady(times=3, lasting=timedelta(hours=1))


def test_each_request_has_a_connection_and_a_uuid_of_its_own(clients: Clients) -> None:
    order = {"name": "order", "method": "POST", "url": "/orders", "body": {"id": "{uuid}", "lines": ["{uuid}"]}}
    with web(answering(201)) as server:
        step = smoke(server, order)
        assert step.done(step.observe(clients))
        sent = [call.json() for call in server.calls]
    assert len({one["id"] for one in sent}) == 4
    assert all(one["lines"] == [one["id"]] and uuid.UUID(one["id"]) for one in sent)
    assert {call.headers["Connection"] for call in server.calls} == {"close"}
    assert not step.harmless


def test_errors_and_wrong_answers_are_counted_apart(clients: Clients) -> None:
    answers = iter([200, 503, 404, 200])
    with web(lambda _: (next(answers), {})) as server:
        step = smoke(server)
        state = step.observe(clients)
    assert (state.failures, state.errors, state.error_rate, state.success_rate) == (2, 1, 0.25, 0.5)
    assert not step.done(state)
    assert "HTTP 404, expected 200-299" in step.explain(state)


def test_an_answer_must_hold_what_is_expected(clients: Clients) -> None:
    with web(answering(body={"status": "ok", "region": "west"})) as server:
        for expect, good in (
            ({"text": "west"}, True),
            ({"text": "east"}, False),
            ({"body": {"status": "ok"}}, True),
            ({"body": {"status": "down"}}, False),
            ({"status": [201]}, False),
        ):
            step = smoke(server, {"name": "health", "url": "/", "expect": expect})
            assert step.done(step.observe(clients)) is good


def test_limits_decide(clients: Clients) -> None:
    with web(answering()) as server:
        state = smoke(server).observe(clients)
    slow = state.model_copy(update={"p95_ms": 501.0})
    assert not smoke(server).done(slow)
    assert smoke(server, limits={"max_p95": "1s"}).done(slow)
    some = state.model_copy(update={"errors": 1, "error_rate": 0.25, "failures": 1, "success_rate": 0.75})
    assert smoke(server, limits={"max_error_rate": 0.3, "min_success_rate": 0.7}).done(some)


def test_a_service_that_is_away_or_silent_is_an_error_not_a_crash(clients: Clients) -> None:
    with blackhole() as hole:
        for port in (closed_port(), hole):
            request = {"name": "health", "url": f"http://127.0.0.1:{port}/", "timeout": "200ms"}
            step = SmokeTest.model_validate({"requests": [request], "rounds": 1})
            state = step.observe(clients)
            assert (state.errors, state.p95_ms, step.done(state)) == (1, None, False)


def test_names_are_asked_of_the_given_name_servers(clients: Clients) -> None:
    with web(answering()) as server, names() as dns:
        dns.records["checkout.shop.example"] = ["127.0.0.1"]
        base = f"http://checkout.shop.example:{server.port}"
        step = smoke(server, base=base, name_servers=[dns.place])
        state = step.observe(clients)
        assert step.done(state)
        assert state.address == "127.0.0.1"
        assert {call.headers["Host"] for call in server.calls} == {f"checkout.shop.example:{server.port}"}


def test_secret_headers_are_sent_and_not_shown(clients: Clients) -> None:
    request = {"name": "health", "url": "/", "headers": {"Authorization": "Bearer hunter2"}}
    with web(answering()) as server:
        step = smoke(server, request)
        state = step.observe(clients)
        assert server.calls[0].headers["Authorization"] == "Bearer hunter2"
    assert "hunter2" not in repr(step) + str(step.model_dump(mode="json")) + repr(state)


def test_a_path_needs_a_base() -> None:
    with pytest.raises(ValueError, match="give `base`"):
        SmokeTest.model_validate({"requests": [{"name": "health", "url": "/health"}]})


@pytest.mark.parametrize(
    ("found", "wanted", "good"),
    [
        ({"a": 1, "b": 2}, {"a": 1}, True),
        ({"a": {"b": 1, "c": 2}}, {"a": {"b": 1}}, True),
        ({"a": 1}, {"b": 1}, False),
        ([1, 2], [1], False),
        (1, True, False),
        (None, None, True),
    ],
)
def test_json_holds_what_is_wanted(found: object, wanted: object, good: bool) -> None:
    assert holds(found, wanted) is good  # type: ignore[arg-type]


def test_the_95th_percentile_is_the_nearest_rank() -> None:
    assert percentile([float(n) for n in range(1, 101)], 0.95) == 95.0
    assert percentile([7.0], 0.95) == 7.0
    assert percentile([], 0.95) is None
