"""The lab's Slack over HTTP, with faults on demand: slow, rate-limiting, dropping after it accepted, down."""

from __future__ import annotations

import json
import threading
import time
from contextlib import suppress
from dataclasses import dataclass
from typing import Any, Final, Literal, get_args
from urllib.parse import parse_qsl, urlsplit

from .addresses import Endpoint
from .serving import JsonRequests, Server
from .slack import Reply, Workspace

FaultKind = Literal["none", "slow", "rate-limit", "drop", "down"]
FAULTS: Final[tuple[FaultKind, ...]] = get_args(FaultKind)


@dataclass(frozen=True)
class Fault:
    """What ails it. seconds: how late it answers (slow), or what Retry-After says (rate-limit).

    times: how many calls suffer; None means every one until the fault is changed. `drop` does what was asked and closes
    the connection without an answer; `down` refuses connections.
    """

    kind: FaultKind = "none"
    seconds: float = 10.0
    times: int | None = None


class SlackServer:
    """Serves one workspace at an address."""

    def __init__(self, listen: Endpoint, workspace: Workspace | None = None) -> None:
        self.listen = listen
        self.workspace = workspace or Workspace()
        self._fault = Fault()
        self._left: int | None = None
        self._lock = threading.Lock()
        self._server: Server | None = None

    @property
    def fault(self) -> Fault:
        return self._fault

    @property
    def url(self) -> str:
        """What slack_sdk takes as base_url."""
        return f"http://{self.listen}/api/"

    def open(self) -> None:
        """Listen, on threads of its own; port 0 takes a free one."""
        if self._server is not None:
            return
        answering = self

        class Requests(_Requests):
            slack = answering

        self._server = Server((self.listen.host, self.listen.port), Requests)
        self.listen = Endpoint(self.listen.host, int(self._server.server_address[1]))
        threading.Thread(target=self._server.serve_forever, kwargs={"poll_interval": 0.05}, daemon=True).start()

    def close(self) -> None:
        """Stop listening; what is being answered is still answered."""
        if self._server is not None:
            self._server.shutdown()
            self._server.server_close()
            self._server = None

    def suffer(self, fault: Fault) -> None:
        """Have this fault from now on, and no other."""
        with self._lock:
            self._fault, self._left = fault, fault.times
        if fault.kind == "down":
            self.close()
        else:
            self.open()

    def seen(self) -> dict[str, Any]:
        """Everything that can be seen, as JSON."""
        fault = self._fault
        return {"fault": {"kind": fault.kind, "seconds": fault.seconds}, "url": self.url, "channels": self.workspace.seen()}

    def answer(self, method: str, token: str, given: dict[str, Any]) -> Reply | None:
        """Answer a call as the fault has it; None: close the connection."""
        fault = self._take()
        match fault.kind:
            case "slow":
                time.sleep(fault.seconds)
            case "rate-limit":
                return Reply({"ok": False, "error": "ratelimited"}, 429, max(1, round(fault.seconds)))
            case "drop":
                self.workspace.call(method, token, given, time.time())
                return None
        return self.workspace.call(method, token, given, time.time())

    def _take(self) -> Fault:
        with self._lock:
            if self._left is None:
                return self._fault
            if self._left <= 0:
                return Fault()
            self._left -= 1
            return self._fault


class _Requests(JsonRequests):
    slack: SlackServer

    def get(self) -> None:
        self._handle(b"")

    def post(self) -> None:
        self._handle(self.body())

    def _handle(self, body: bytes) -> None:
        parts = urlsplit(self.path)
        try:
            given = dict(parse_qsl(parts.query)) | _content(body, self.headers.get("Content-Type", ""))
        except ValueError:
            given = {}
        token = self.headers.get("Authorization", "").removeprefix("Bearer ")
        reply = self.slack.answer(parts.path.rpartition("/")[2], token, given)
        if reply is None:
            self.close_connection = True
            with suppress(OSError):
                self.connection.shutdown(2)
            return
        self.answer(reply.status, reply.body, {} if reply.retry_after is None else {"Retry-After": str(reply.retry_after)})


def _content(body: bytes, kind: str) -> dict[str, Any]:
    """A call's arguments from JSON, or from a form, whose values may hold JSON."""
    if not body:
        return {}
    if "json" in kind:
        content = json.loads(body)
        return content if isinstance(content, dict) else {}
    form: dict[str, Any] = dict(parse_qsl(body.decode()))
    return form | {key: json.loads(form[key]) for key in ("blocks", "metadata") if key in form}


