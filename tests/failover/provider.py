"""The provider that can stop the old primary, as it is on a bad day: it refuses, is away, says nothing, or half does it."""

from __future__ import annotations

import contextlib
import json
import socket
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from types import TracebackType
from typing import Any, Self

from deployments.lab import Lab


class Provider:
    """A control endpoint for east of the given manners; `url` is what a runbook names."""

    def __init__(self, lab: Lab, manners: str) -> None:
        self.lab = lab
        self.manners = manners
        self._server: ThreadingHTTPServer | None = None
        self._silent: socket.socket | None = None

    @property
    def url(self) -> str:
        if self.manners in {"obeys", "lost by sql"}:
            return f"{self.lab.addresses.control_url}/nodes/east"
        return f"http://{self._at[0]}:{self._at[1]}/nodes/east"

    @property
    def _at(self) -> tuple[str, int]:
        endpoint = self.lab.addresses.at(0, 9, 17070)
        return endpoint.host, endpoint.port

    def __enter__(self) -> Self:
        if self.manners in {"says no", "not for good"}:
            self._server = ThreadingHTTPServer(self._at, self._requests())
            threading.Thread(target=self._server.serve_forever, kwargs={"poll_interval": 0.1}, daemon=True).start()
        elif self.manners == "silent":
            self._silent = socket.create_server(self._at, backlog=16)  # connects are taken, nothing answers
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        if self._server is not None:
            self._server.shutdown()
            self._server.server_close()
        if self._silent is not None:
            self._silent.close()

    def _requests(self) -> type[BaseHTTPRequestHandler]:
        provider = self

        class Requests(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                stopped = provider.manners == "not for good" and provider.lab.status().nodes["east"].state == "stopped"
                self._answer(200, {"state": "stopped" if stopped else "running", "stays_off": False})

            def do_POST(self) -> None:
                if provider.manners == "says no":
                    self._answer(409, {"error": "not authorised"})
                    return
                with contextlib.suppress(Exception):  # already dead
                    provider.lab.break_node("east", "kill")
                self._answer(200, {})

            def _answer(self, status: int, content: Any) -> None:
                body = json.dumps(content).encode()
                self.send_response(status)
                self.send_header("Content-Length", str(len(body)))
                self.end_headers()
                self.wfile.write(body)

            def log_message(self, *_args: object) -> None:
                pass

        return Requests
