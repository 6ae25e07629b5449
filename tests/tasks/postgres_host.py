"""The host of a test's PostgreSQL node: the contract of docs/failback.md over HTTP, carried out on real servers."""

from __future__ import annotations

import contextlib
import json
import threading
import time
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any
from urllib.parse import parse_qsl, urlsplit

from deployments.lab.binaries import Binaries
from deployments.lab.diverged import Table, control_data, rows, tail
from deployments.lab.diverged import keep as keep_aside
from deployments.lab.processes import User
from tasks.clients import Clients
from tasks.contract import Change, Seen
from tests.tasks.parties import Call, Web, web
from tests.tasks.postgres_nodes import NOBODY, Node


class HostOf:
    """What can be done on a node's host; a rebuild waits for `go_on` before it begins, and for `tell` before it says its end."""

    def __init__(self, node: Node, source: Node) -> None:
        self.node, self.source = node, source
        self.stays_off = False
        self.kept: Path | None = None
        self.before: Path | None = None
        self.job: dict[str, Any] = {"number": 0, "state": "idle"}
        self.go_on = threading.Event()
        self.tell = threading.Event()
        self.go_on.set()
        self.tell.set()
        user = User(NOBODY, NOBODY) if node.installation.as_user else None
        self.binaries = Binaries(node.installation.binaries.parent, user, {})

    @property
    def running(self) -> bool:
        return self.node.process is not None and self.node.process.poll() is None

    def answer(self, call: Call) -> tuple[int, object]:
        place = urlsplit(call.path)
        page, given = place.path.rsplit("/", 1)[-1], dict(parse_qsl(place.query))
        try:
            if call.method == "POST" and page == "shutdown":
                self.stays_off = True
                if self.running:
                    threading.Thread(target=self.node.stop).start()
            elif call.method == "POST" and page == "rebuild":
                return self.begin(json.loads(call.body))
            elif page == "divergence":
                return 200, self.divergence(given)
            return 200, self.state()
        except RuntimeError as refusal:
            return 409, {"error": str(refusal)}

    def state(self) -> dict[str, Any]:
        control = None
        if not self.running and self.job["state"] != "running":
            found = control_data(self.binaries, self.node.data)
            control = {"system_id": found.system_id, "timeline": found.timeline, "clean": found.clean, "checkpoint": found.checkpoint}
        return {"state": "running" if self.running else "stopped", "stays_off": self.stays_off, "control": control, "job": self.job}

    def off(self) -> None:
        """Kill it, and let nothing start it again."""
        self.node.kill()
        self.stays_off = True

    def divergence(self, given: dict[str, str]) -> dict[str, Any]:
        found = tail(self.binaries, self.node.data, int(given["timeline"]), given["fork"])
        tables = [Table(*one.split(":")) for one in given.get("tables", "").split(",") if one]
        listed = rows(self.binaries, self.node.data, found, tables, "postgres")
        commits = [{"xid": xid, "lsn": lsn, "at": at} for xid, lsn, at in found.transactions]
        return {"state": "read", "end": found.end, "count": len(commits), "transactions": commits, "tables": listed, "detail": found.detail}

    def begin(self, given: dict[str, Any]) -> tuple[int, object]:
        if self.job["state"] != "running":
            if self.running or not self.stays_off:
                raise RuntimeError("it runs")
            found = tail(self.binaries, self.node.data, given["timeline"], given["fork"])
            if found.end != given.get("end"):
                raise RuntimeError(f"it ends at {found.end}, signed off was {given.get('end')}")
            self.job = {"number": self.job["number"] + 1, "state": "running"}
            threading.Thread(target=self.rebuild, args=(found,)).start()
        return 200, self.state()

    def rebuild(self, found: Any) -> None:
        self.go_on.wait(20)
        data, source = self.node.data, f"host={self.source.host} port={self.source.port} user=failover dbname=postgres"
        conf = (data / "postgresql.conf").read_text().splitlines()
        method = "start"
        if found.diverged:
            self.kept = data.with_name(f"{data.name}-kept-{time.time_ns()}")
            keep_aside(self.binaries, data, self.kept, found, {})
            self.source.do("CHECKPOINT")
            method = self.in_line(data, source)
        lines = [line for line in conf if not line.startswith(("primary_", "cluster_name"))]
        lines += [f"cluster_name = '{self.node.name}'", f"primary_slot_name = '{self.node.name}'",
                  f"primary_conninfo = '{source} application_name={self.node.name}'"]  # fmt: skip
        (data / "postgresql.conf").write_text("\n".join(lines) + "\n")
        (data / "standby.signal").touch()
        self.node.installation.own(data / "standby.signal")
        self.stays_off = False
        self.node.start()
        self.tell.wait(20)
        self.job = {**self.job, "state": "done", "method": method, "kept": str(self.kept or "")}

    def in_line(self, data: Path, source: str) -> str:
        run = self.node.installation.run
        (data / "log").unlink()  # the test's own user wrote it into the data folder
        try:  # pg_rewind would recover it in template1, which these clusters do without
            run("postgres", "--single", "-F", "-D", str(data), "postgres", give="\n")
            run("pg_rewind", "--no-ensure-shutdown", "-D", str(data), "--source-server", source)
        except AssertionError:
            self.before = data.with_name(f"{data.name}-before-{time.time_ns()}")
            data.rename(self.before)
            self.node.installation.run("pg_basebackup", "-D", str(data), "-d", source, "--checkpoint=fast")
            return "base-backup"
        return "rewind"


@contextlib.contextmanager
def host_of(node: Node, source: Node) -> Iterator[tuple[HostOf, Web]]:
    host = HostOf(node, source)
    with web(host.answer) as server:
        yield host, server


def as_command(server: Web, folder: Path) -> dict[str, list[str]]:
    """The same host by commands: a script that turns its words into a request."""
    script = folder / "host.py"
    script.write_text(
        "import json, sys, urllib.parse, urllib.request\n"
        "page, words = sys.argv[1], dict(word.split('=', 1) for word in sys.argv[2:])\n"
        "words |= {'timeline': int(words['timeline'])} if 'timeline' in words else {}\n"
        f"url = '{server.url}/' + page.split('-')[-1]\n"
        "post = page.startswith('post-')\n"
        "url += '' if post or not words else '?' + urllib.parse.urlencode(words)\n"
        "with urllib.request.urlopen(urllib.request.Request(url, json.dumps(words).encode() if post else None)) as answer:\n"
        "    print(answer.read().decode())\n"
    )
    import sys

    pages = {"state": "rebuild", "divergence": "divergence", "shutdown": "post-shutdown", "rebuild": "post-rebuild"}
    return {name: [sys.executable, str(script), page] for name, page in pages.items()}


def carry_out(step: Change[Any], clients: Clients, limit: float = 30.0) -> Any:
    """Observe, act, and act again every `resend` while it is neither done nor underway, as the engine does."""
    seen: Seen[Any] | None = None
    end, acted = time.monotonic() + limit, 0.0
    while True:
        state, at = step.observe(clients), datetime.now(UTC)
        state = step.fold(seen, Seen(state, at))
        seen = Seen(state, at)
        if step.done(state):
            return state
        assert time.monotonic() < end, step.explain(state)
        if not acted:
            assert step.refuse(state) is None
        assert step.resend is not None
        if not step.underway(state) and time.monotonic() - acted >= step.resend.total_seconds():
            step.act(state, clients)
            acted = time.monotonic()
        time.sleep(step.interval.total_seconds())


def promote(node: Node) -> None:
    node.do("SELECT pg_promote()")


__all__ = ["HostOf", "as_command", "carry_out", "host_of", "promote"]
