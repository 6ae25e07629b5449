"""Timeouts are real: whatever hangs costs its own step's timeout, holds no other branch up, and keeps no process.

Real actions and the real engine. What hangs would do so for at least 15 s; the bound says what the timeout cost on a
machine that does other things as well. A name that never resolves is `socket.getaddrinfo` blocking, as with a resolver
behind a dead line: that one function is replaced, because a test cannot break the machine's own resolver.
"""

from __future__ import annotations

import os
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from textwrap import indent

import pytest

from flows.clock import SystemClock
from flows.engine import Engine
from flows.events import Status
from flows.journal_sqlite import SqliteJournal
from flows.runs import Request, start
from runbooks.loader import load_text
from runbooks.model import Mode
from runbooks.planner import plan
from tests.tasks.parties import Web, blackhole, names, web

ROOT = Path(__file__).parents[2]
TIMEOUT = timedelta(seconds=1)
SPARE = timedelta(seconds=3)
"""What the machine may add on a bad day."""
NEVER = "never.resolves.test"
HEAD = """\
schema: failover/v1
name: hanging
title: Something hangs
service: shop
owner: me
objectives: {rto: 30m}
recovered_when: later
steps:
"""


def smoke(base: str, *, more: str = "") -> str:
    return f"""\
uses: http.smoke_test
with: {{base: '{base}', rounds: 1, times: 1, requests: [{{name: health, url: /health, timeout: 30s}}]{more}}}
"""


def step(name: str, body: str, *, after: str = "[]", timeout: str = "1s") -> str:
    whole = f"{body}budget: 500ms\ntimeout: {timeout}\non_failure: halt\nafter: {after}\n"
    return indent(f"- id: {name}\n" + indent(whole, "  "), "  ")


@dataclass
class Parties:
    """What hangs, by the name of its step, and the service that answers meanwhile."""

    service: Web
    hanging: dict[str, str]

    def runbook(self, *which: str) -> str:
        """A runbook of one branch for each that hangs, and one of two steps that works."""
        good = smoke(self.service.url).replace("rounds: 1, times: 1", "rounds: 1, times: 2")
        hanging = "".join(step(name, self.hanging[name]) for name in which)
        return HEAD + hanging + step("works", good, timeout="30s") + step("later", good, after="works", timeout="30s")


@pytest.fixture
def parties(monkeypatch: pytest.MonkeyPatch) -> Iterator[Parties]:
    for name, value in (("ACCESS_KEY_ID", "x"), ("SECRET_ACCESS_KEY", "x"), ("EC2_METADATA_DISABLED", "true")):
        monkeypatch.setenv(f"AWS_{name}", value)
    with ExitStack() as stack:
        service, hole, silent = stack.enter_context(web()), stack.enter_context(blackhole()), stack.enter_context(names())
        silent.silent = True
        aws = "uses: aws.autoscaling.scale\nwith: {{region: eu-west-1, group: web, desired: 3, endpoint: 'http://{}'}}\n"
        replication = "uses: postgres.replication\nwith: {{standby: {{host: 127.0.0.1, port: {}, database: shop, user: failover}}, patience: 30s}}\n"
        yield Parties(service, {
            "http": smoke(f"http://127.0.0.1:{hole}"),
            "aws": aws.format(f"127.0.0.1:{hole}"),
            "postgres": replication.format(hole),
            "dns": smoke("http://shop.test", more=f", name_servers: ['{silent.place}']"),
            "command": "uses: detect.outage\nwith: {agree: 1, patience: 30s, signals: {host: {control: {command: [sleep, '15']}}}}\n",
            "name": smoke(f"http://{NEVER}:{service.port}"),
            "aws_name": aws.format(f"{NEVER}:{service.port}"),
        })  # fmt: skip


class Resolver:
    """getaddrinfo that hangs for one name until it is released; then it says where the service is."""

    def __init__(self) -> None:
        self.asked, self.release, self._real = 0, threading.Event(), socket.getaddrinfo

    def __call__(self, host: object, *rest: object, **more: object) -> object:
        if host in {NEVER, NEVER.encode()}:
            self.asked += 1
            self.release.wait(30)
            host = "127.0.0.1"
        return self._real(host, *rest, **more)  # type: ignore[arg-type]


@pytest.fixture
def resolver(monkeypatch: pytest.MonkeyPatch) -> Iterator[Resolver]:
    made = Resolver()
    monkeypatch.setattr(socket, "getaddrinfo", made)
    yield made
    made.release.set()


def engine_of(text: str, folder: Path) -> Engine:
    planned = plan(load_text(text, "hanging.yaml"), mode=Mode.live, inputs={})
    return start(SqliteJournal(folder / "journal.db"), Request(planned, "ines", "test"), SystemClock())


@pytest.mark.parametrize("name", ["http", "aws", "postgres", "dns", "command", "name", "aws_name"])
def test_what_hangs_costs_its_timeout_and_the_other_branch_is_done_meanwhile(
    parties: Parties, resolver: Resolver, tmp_path: Path, name: str
) -> None:
    engine = engine_of(parties.runbook(name), tmp_path)
    begun = time.monotonic()
    state = engine.run()
    took = timedelta(seconds=time.monotonic() - begun)
    hung = state.step(name)
    assert hung.status in {Status.timed_out, Status.failed}, hung.detail
    assert hung.finished is not None
    assert hung.started is not None
    assert hung.finished - hung.started <= TIMEOUT + SPARE
    assert took <= TIMEOUT + SPARE + SPARE
    assert [state.step(other).status for other in ("works", "later")] == [Status.done, Status.done]
    works, later = state.step("works"), state.step("later")
    assert works.started is not None
    assert later.finished is not None
    assert abs(works.started - hung.started) < TIMEOUT, "it began beside it"
    assert later.finished - later.started < TIMEOUT + SPARE
    if name.endswith("name"):
        assert resolver.asked


def test_seven_that_hang_at_once_cost_one_timeout(parties: Parties, resolver: Resolver, tmp_path: Path) -> None:
    engine = engine_of(parties.runbook(*parties.hanging), tmp_path)
    begun = time.monotonic()
    state = engine.run()
    assert time.monotonic() - begun <= (TIMEOUT + SPARE + SPARE).total_seconds()
    told = {name: state.step(name).status for name in parties.hanging}
    assert set(told.values()) <= {Status.timed_out, Status.failed}, told
    assert state.step("later").status is Status.done


@pytest.mark.parametrize("name", ["name", "aws_name"])
def test_a_call_whose_name_resolves_too_late_does_not_leave(
    parties: Parties, resolver: Resolver, tmp_path: Path, name: str
) -> None:
    engine = engine_of(parties.runbook(name), tmp_path)
    engine.run()
    asked = resolver.asked
    assert asked
    before = len(parties.service.calls)
    resolver.release.set()  # the late thread goes on now
    time.sleep(1)
    assert len(parties.service.calls) == before


PLUGIN = f"""\
import socket, time
real = socket.getaddrinfo
def hang(host, *rest, **more):
    if host in ("{NEVER}", b"{NEVER}"):
        time.sleep(60)
    return real(host, *rest, **more)
socket.getaddrinfo = hang
"""


def test_the_process_ends_with_its_verdict_although_threads_hang(parties: Parties, tmp_path: Path) -> None:
    (tmp_path / "site").mkdir()
    (tmp_path / "site" / "sitecustomize.py").write_text(PLUGIN)
    (tmp_path / "hanging.yaml").write_text(parties.runbook(*parties.hanging))
    known = {key: value for key, value in os.environ.items() if not key.startswith(("PREFECT", "FAILOVER", "SLACK"))}
    environ = {**known, "FAILOVER_JOURNAL": str(tmp_path / "journal.db"), "PYTHONPATH": f"{tmp_path / 'site'}:{ROOT}"}
    child = subprocess.Popen(
        [sys.executable, "-m", "deployments", "run", "hanging.yaml", "--live", "--plain"], cwd=tmp_path, text=True,
        stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, env=environ,
    )  # fmt: skip
    said, verdict = [], 0.0
    with child:
        assert child.stdout is not None
        try:
            for line in child.stdout:
                said.append(line)
                if not verdict and "recovered" in line:
                    verdict = time.monotonic()
            code = child.wait(30)
        finally:
            child.kill()
    ended = time.monotonic()
    whole = "".join(said)
    assert code == 0, whole
    assert verdict, whole
    assert ended - verdict < 6, whole
    assert "RECOVERED" in whole
