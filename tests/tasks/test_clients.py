"""The way out: revoked, kept, parallel."""

from __future__ import annotations

import threading
import time
from datetime import timedelta

import httpx
import pytest

from tasks.clients import Clients, Late
from tasks.contract import ActionFailed
from tasks.errors import Revoked
from tests.tasks.parties import web

SHORT = timedelta(milliseconds=150)


def test_every_http_request_checks_right_before_it_leaves() -> None:
    allowed = True

    def guard() -> None:
        if not allowed:
            raise Revoked("lease lost")

    attempt = Clients(guard)
    with web() as server:
        attempt.http().get(server.url)
        allowed = False
        with pytest.raises(Revoked):
            attempt.http().get(server.url)
        assert len(server.calls) == 1
    attempt.close()


def test_a_request_goes_where_it_says_not_through_a_proxy_of_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("http_proxy", "http://127.0.0.1:1")
    attempt = Clients()
    with web() as server:
        assert attempt.http().get(server.url).status_code == 200
    attempt.close()


def test_revoke_gives_its_reason_to_every_later_call() -> None:
    attempt = Clients()
    attempt.revoke("the step timed out")
    attempt.revoke("again")
    for call in (attempt.check, lambda: attempt.command(["true"]), lambda: attempt.parallel({"a": int}, SHORT)):
        with pytest.raises(Revoked, match="timed out"):
            call()


def test_what_is_kept_is_made_once_and_closed_with_the_attempt() -> None:
    attempt, closed = Clients(), list[str]()
    assert attempt.keep("key", lambda: "one", closed.append) == "one"
    assert attempt.keep("key", lambda: "two", closed.append) == "one"
    assert attempt.kept("key") == "one"
    attempt.forget("key")
    assert closed == ["one"]
    assert attempt.kept("key") is None
    attempt.keep("key", lambda: "three", closed.append)
    attempt.close()
    attempt.close()
    assert closed == ["one", "three"]


def test_what_is_made_while_the_attempt_is_revoked_is_closed() -> None:
    attempt, closed = Clients(), list[str]()

    def make() -> str:
        attempt.revoke("halted")
        return "late"

    with pytest.raises(Revoked):
        attempt.keep("key", make, closed.append)
    assert closed == ["late"]


def test_two_threads_that_make_the_same_keep_one_and_close_the_other() -> None:
    attempt, closed, barrier = Clients(), list[int](), threading.Barrier(2)
    made: list[int] = []

    def make() -> int:
        barrier.wait(2)
        made.append(len(made) + 1)
        return made[-1]

    threads = [threading.Thread(target=lambda: attempt.keep("key", make, closed.append)) for _ in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    attempt.close()
    assert sorted(closed) == [1, 2]


def test_one_silent_party_costs_the_patience_once_and_is_not_asked_again() -> None:
    attempt, release, asked = Clients(), threading.Event(), list[int]()

    def hang() -> str:
        asked.append(1)
        release.wait(5)
        return "late"

    began = time.monotonic()
    for _ in range(5):
        answers = attempt.parallel({"silent": hang, "quick": lambda: "here"}, SHORT)
        assert isinstance(answers["silent"], Late)
        assert answers["quick"] == "here"
    assert time.monotonic() - began < 0.5
    assert asked == [1]
    release.set()


def test_a_belated_answer_is_given_once_to_who_wants_it_and_never_to_others() -> None:
    for belated, expected in ((True, "first"), (False, "second")):
        attempt, release, words = Clients(), threading.Event(), iter(("first", "second", "third"))

        def ask(release: threading.Event = release, words: object = words) -> str:
            word = next(words)  # type: ignore[call-overload]
            release.wait(5)
            return str(word)

        assert isinstance(attempt.parallel({"a": ask}, SHORT, belated=belated)["a"], Late)
        release.set()
        time.sleep(0.05)
        assert attempt.parallel({"a": ask}, SHORT, belated=belated)["a"] == expected


def test_errors_of_parallel_calls_are_carried() -> None:
    def fail() -> str:
        raise ActionFailed("no")

    answers = Clients().parallel({"a": fail, "b": lambda: "yes"}, SHORT)
    assert isinstance(answers["a"], ActionFailed)
    assert answers["b"] == "yes"


def test_a_command_that_hangs_or_is_not_there_is_a_failure() -> None:
    attempt = Clients(timeout=SHORT)
    assert attempt.command(["sh", "-c", "echo out; exit 3"]).returncode == 3
    with pytest.raises(ActionFailed, match=r"did not end within 0\.15s") as failed:
        attempt.command(["sleep", "5"])
    assert failed.value.retry
    with pytest.raises(ActionFailed, match="did not start"):
        attempt.command(["/no/such/command"])


def test_http_clients_close_with_the_attempt() -> None:
    attempt = Clients()
    client = attempt.http()
    attempt.close()
    assert client.is_closed
    with pytest.raises(RuntimeError), web() as server:
        client.get(server.url)
    assert isinstance(client, httpx.Client)
