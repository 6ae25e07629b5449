"""Small real servers: HTTP that answers as told, a port that never answers, a port that drops, DNS."""

from __future__ import annotations

import contextlib
import json
import socket
import struct
import threading
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import dns.message
import dns.rcode
import dns.rrset

Answer = Callable[["Call"], "tuple[int, object]"]


class Call:
    """One request as the server saw it."""

    def __init__(self, method: str, path: str, headers: dict[str, str], body: bytes) -> None:
        self.method, self.path, self.headers, self.body = method, path, headers, body

    def json(self) -> Any:
        return json.loads(self.body)


class Web:
    """An HTTP server whose answers a test decides; `calls` is what reached it."""

    def __init__(self, answer: Answer) -> None:
        self.answer, self.calls = answer, list[Call]()
        self.drop_answers = False
        outer = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def handle_any(self) -> None:
                body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
                call = Call(self.command, self.path, dict(self.headers), body)
                outer.calls.append(call)
                status, content = outer.answer(call)
                if outer.drop_answers:
                    self.close_connection = True
                    self.connection.shutdown(socket.SHUT_RDWR)
                    return
                payload = content if isinstance(content, bytes) else json.dumps(content).encode()
                self.send_response(status)
                self.send_header("Content-Length", str(len(payload)))
                self.end_headers()
                self.wfile.write(payload)

            do_GET = do_POST = do_PUT = do_DELETE = handle_any  # noqa: N815

            def log_message(self, *_: object) -> None:
                """Say nothing."""

        class Server(ThreadingHTTPServer):
            def handle_error(self, *_: object) -> None:
                """A client that went away is no error here."""

        self.server = Server(("127.0.0.1", 0), Handler)
        self.server.daemon_threads = True
        self.port = self.server.server_port
        self.url = f"http://127.0.0.1:{self.port}"
        threading.Thread(target=self.server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True).start()

    def close(self) -> None:
        self.server.shutdown()
        self.server.server_close()


@contextlib.contextmanager
def web(answer: Answer = lambda _: (200, {"ok": True})) -> Iterator[Web]:
    made = Web(answer)
    try:
        yield made
    finally:
        made.close()


@contextlib.contextmanager
def blackhole() -> Iterator[int]:
    """A port that accepts and never answers, as a proxy does whose other side is gone."""
    with socket.create_server(("127.0.0.1", 0), backlog=128) as line:
        yield line.getsockname()[1]


@contextlib.contextmanager
def dropper() -> Iterator[int]:
    """A port that accepts and resets at once."""
    line = socket.create_server(("127.0.0.1", 0))

    def drop() -> None:
        with contextlib.suppress(OSError):
            while True:
                accepted, _ = line.accept()
                accepted.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
                accepted.close()

    threading.Thread(target=drop, daemon=True).start()
    try:
        yield line.getsockname()[1]
    finally:
        line.shutdown(socket.SHUT_RDWR)
        line.close()


def closed_port() -> int:
    with socket.socket() as line:
        line.bind(("127.0.0.1", 0))
        return int(line.getsockname()[1])


class Names:
    """A name server that answers A questions from `records`."""

    def __init__(self) -> None:
        self.records: dict[str, list[str]] = {}
        self.silent = False
        self.line = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        self.line.bind(("127.0.0.1", 0))
        self.place = f"127.0.0.1:{self.line.getsockname()[1]}"
        threading.Thread(target=self._serve, daemon=True).start()

    def _serve(self) -> None:
        with contextlib.suppress(OSError):
            while True:
                wire, sender = self.line.recvfrom(4096)
                if not wire:
                    return
                question = dns.message.from_wire(wire)
                asked = question.question[0]
                answer = dns.message.make_response(question)
                found = self.records.get(asked.name.to_text(omit_final_dot=True))
                if found is None:
                    answer.set_rcode(dns.rcode.NXDOMAIN)
                elif asked.rdtype == 1:
                    answer.answer.append(dns.rrset.from_text(asked.name, 5, "IN", "A", *found))
                if not self.silent:
                    self.line.sendto(answer.to_wire(), sender)

    def close(self) -> None:
        host, port = self.line.getsockname()
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as last:
            last.sendto(b"", (host, port))
        self.line.close()


@contextlib.contextmanager
def names() -> Iterator[Names]:
    made = Names()
    try:
        yield made
    finally:
        made.close()
