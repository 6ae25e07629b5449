"""Real processes: a runner stopped for longer than its lease, which another takes over; a drill stopped by a live run."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from deployments.exits import Exit
from flows.journal_sqlite import SqliteJournal
from flows.lease_keeper import LEASE
from flows.state import fold

PLUGIN = Path(__file__).parent / "plugin"
RUNBOOK = """schema: failover/v1
name: remote
title: Three facts, one after the other
service: shop
owner: me
objectives: {rto: 5m}
recovered_when: three
steps:
  - {id: one, uses: remote.set, with: {url: URL, fact: one}, budget: 5s, timeout: 2m, on_failure: halt}
  - {id: two, uses: remote.set, with: {url: URL, fact: two}, budget: 5s, timeout: 2m, on_failure: halt, after: one}
  - {id: three, uses: remote.set, with: {url: URL, fact: three}, budget: 5s, timeout: 2m, on_failure: halt, after: two}
"""

REHEARSAL = """schema: failover/v1
name: rehearsal
title: Two facts of a drill
service: shop
owner: me
objectives: {rto: 5m}
recovered_when: five
targets: {live: {url: "http://127.0.0.1:1"}, drill: {url: URL}}
steps:
  - {id: four, uses: remote.set, with: {url: "${target.url}", fact: four}, budget: 5s, timeout: 2m, on_failure: halt}
  - {id: five, uses: remote.set, with: {url: "${target.url}", fact: five}, budget: 5s, timeout: 2m, on_failure: halt, after: four}
"""


@dataclass
class Remote:
    """A server that remembers who asked what and when; a fact is set `takes` seconds after it was asked for."""

    takes: float = 1.5
    answers_after: float = 0.0
    calls: list[tuple[float, int, str, str]] = field(default_factory=list)
    set_at: dict[str, float] = field(default_factory=dict)
    url: str = ""

    def answer(self, method: str, fact: str, process: int) -> str:
        now = time.monotonic()
        self.calls.append((now, process, method, fact))
        if method == "PUT":
            self.set_at[fact] = now + self.takes
            time.sleep(self.answers_after)
        at = self.set_at.get(fact)
        return "unset" if at is None else "set" if time.monotonic() >= at else "under way"

    def wait_for(self, method: str, fact: str) -> None:
        end = time.monotonic() + 30
        while not any(call[2:] == (method, fact) for call in list(self.calls)):
            assert time.monotonic() < end, f"no {method} of {fact}"
            time.sleep(0.005)


@pytest.fixture
def remote() -> Iterator[Remote]:
    kept = Remote()

    class Answering(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            said = kept.answer(self.command, self.path.strip("/"), int(self.headers["x-process"])).encode()
            self.send_response(200)
            self.send_header("content-length", str(len(said)))
            self.end_headers()
            self.wfile.write(said)

        do_PUT = do_GET

        def log_message(self, *_: object) -> None:
            pass

        def handle(self) -> None:
            with suppress(ConnectionError):  # whoever asked is gone
                super().handle()

    server = ThreadingHTTPServer(("127.0.0.1", 0), Answering)
    server.daemon_threads = True
    kept.url = f"http://127.0.0.1:{server.server_port}"
    thread = threading.Thread(target=server.serve_forever, args=(0.05,), daemon=True)
    thread.start()
    yield kept
    server.shutdown()
    server.server_close()
    thread.join(5)


@dataclass
class Runners:
    """Processes of the command, each in a folder of its own, with one journal and one server."""

    folder: Path
    remote: Remote
    started: list[subprocess.Popen[str]] = field(default_factory=list)

    def start(self, where: str, *arguments: str) -> subprocess.Popen[str]:
        folder = self.folder / where
        folder.mkdir()
        (folder / "remote.yaml").write_text(RUNBOOK.replace("URL", self.remote.url))
        (folder / "rehearsal.yaml").write_text(REHEARSAL.replace("URL", self.remote.url))
        known = {key: value for key, value in os.environ.items() if not key.startswith(("PREFECT", "FAILOVER"))}
        path = os.pathsep.join(filter(None, [str(PLUGIN), os.environ.get("PYTHONPATH")]))
        environ = {**known, "FAILOVER_JOURNAL": str(self.folder / "journal.db"), "PYTHONSAFEPATH": "1", "PYTHONPATH": path}
        child = subprocess.Popen(
            [sys.executable, "-m", "deployments", *arguments], cwd=folder, env=environ, text=True,
            stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
        )  # fmt: skip
        self.started.append(child)
        return child

    def execution(self) -> str:
        journal = SqliteJournal(self.folder / "journal.db")
        try:
            return journal.executions(1)[0].execution
        finally:
            journal.close()


@pytest.fixture
def runners(tmp_path: Path, remote: Remote) -> Iterator[Runners]:
    made = Runners(tmp_path, remote)
    yield made
    for child in made.started:
        if child.poll() is None:
            child.kill()
        child.communicate()


@pytest.mark.timeout(120)
@pytest.mark.parametrize("answers_after", [0.0, 1.0], ids=["between calls", "in a call"])
def test_a_runner_stopped_for_longer_than_its_lease_makes_no_further_call(
    runners: Runners, remote: Remote, answers_after: float
) -> None:
    remote.answers_after = answers_after
    first = runners.start("east", "run", "remote.yaml", "--live", "--plain", "--as", "ines")
    remote.wait_for("PUT", "one")
    time.sleep(0.3)
    first.send_signal(signal.SIGSTOP)
    stopped = time.monotonic()
    second = runners.start("west", "resume", runners.execution(), "--plain", "--as", "bo")
    out, _ = second.communicate(timeout=60)
    assert second.returncode == Exit.met, out
    continued = time.monotonic()
    first.send_signal(signal.SIGCONT)
    said, _ = first.communicate(timeout=30)
    assert first.returncode in {Exit.not_met, Exit.interrupted}, said
    assert "Traceback" not in said
    assert runners.execution() in said.splitlines()[-1]
    assert "resume" in said or "somebody else" in said
    calls = list(remote.calls)
    assert [call for call in calls if call[1] == first.pid and call[0] >= continued] == []
    assert sorted(fact for _, _, method, fact in calls if method == "PUT") == ["one", "three", "two"]
    took_over = min(at for at, process, _, _ in calls if process == second.pid)
    assert took_over - stopped > LEASE.total_seconds() * 2 / 3 - 1
    journal = SqliteJournal(runners.folder / "journal.db")
    assert journal.verify(runners.execution()) == []
    assert fold(event for _, event in journal.read(runners.execution())).finished is not None
    journal.close()


@pytest.mark.timeout(120)
def test_a_live_run_does_not_wait_for_a_drill(runners: Runners, remote: Remote) -> None:
    remote.answers_after = 2.0
    drill = runners.start("east", "run", "rehearsal.yaml", "--drill", "--plain", "--as", "ines")
    remote.wait_for("PUT", "four")
    remote.answers_after = 0.0
    live = runners.start("west", "run", "remote.yaml", "--live", "--plain", "--as", "bo")
    out, _ = live.communicate(timeout=60)
    assert live.returncode == Exit.met, out
    said, _ = drill.communicate(timeout=30)
    assert drill.returncode == Exit.interrupted, said
    assert f"live execution {runners.execution()} needs remote:" in said
    calls = [(at, fact) for at, _, method, fact in remote.calls if method == "PUT"]
    assert [fact for _, fact in calls] == ["four", "one", "two", "three"]
    assert 1.9 < calls[1][0] - calls[0][0] < LEASE.total_seconds()  # behind the call that was out, and not behind its lease
