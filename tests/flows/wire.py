"""A wire between a client and a server that loses what passes, once, where a test says."""

from __future__ import annotations

import socket
import threading
from contextlib import suppress
from typing import Literal

Lost = Literal["question", "answer"]


class Wire:
    """Listens on a port of its own and passes everything on to the server."""

    def __init__(self, host: str, port: int) -> None:
        self._server = host, port
        self._lose: tuple[Lost, bytes] | None = None
        self._ends: list[socket.socket] = []
        self._listening = socket.create_server(("127.0.0.1", 0))
        self.port = int(self._listening.getsockname()[1])
        threading.Thread(target=self._accept, daemon=True).start()

    def lose(self, what: Lost, word: bytes) -> None:
        """Break the connection at the next message with this word: before the server reads it, or after it answered."""
        self._lose = what, word

    @property
    def lost(self) -> bool:
        return self._lose is None

    def close(self) -> None:
        for end in (self._listening, *self._ends):
            _close(end)

    def _accept(self) -> None:
        with suppress(OSError):
            while True:
                client, _ = self._listening.accept()
                server = socket.create_connection(self._server)
                self._ends += [client, server]
                threading.Thread(target=self._pass, args=(client, server), daemon=True).start()

    def _pass(self, client: socket.socket, server: socket.socket) -> None:
        swallow = threading.Event()
        threading.Thread(target=self._back, args=(client, server, swallow), daemon=True).start()
        with suppress(OSError):
            while data := client.recv(1 << 20):
                if self._lose is not None and self._lose[1] in data:
                    (what, _), self._lose = self._lose, None
                    if what == "question":
                        break
                    swallow.set()
                server.sendall(data)
            _close(client)
            _close(server)

    @staticmethod
    def _back(client: socket.socket, server: socket.socket, swallow: threading.Event) -> None:
        with suppress(OSError):
            while data := server.recv(1 << 20):
                if swallow.is_set():
                    break
                client.sendall(data)
        _close(client)
        _close(server)


def _close(end: socket.socket) -> None:
    with suppress(OSError):
        end.shutdown(socket.SHUT_RDWR)
    end.close()
