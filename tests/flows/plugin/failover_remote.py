"""An action for tests, found through the entry-point group: it sets a fact on an HTTP server that counts the calls."""

from __future__ import annotations

import os
from datetime import timedelta
from typing import ClassVar

from pydantic import BaseModel

from tasks.clients import Clients
from tasks.contract import Change


class Seen(BaseModel):
    """What the server says: unset, under way or set."""

    value: str


class Set(Change[Seen]):
    """Set a fact on a server, which tells by process who asked."""

    name: ClassVar[str] = "remote.set"
    interval: ClassVar[timedelta] = timedelta(milliseconds=100)
    reversible: ClassVar[bool] = True
    url: str
    fact: str

    @property
    def target(self) -> str:
        return f"remote:{self.url}"

    def observe(self, clients: Clients) -> Seen:
        return Seen(value=self._ask(clients, "GET"))

    def done(self, state: Seen) -> bool:
        return state.value == "set"

    def underway(self, state: Seen) -> bool:
        return state.value == "under way"

    def describe(self, before: Seen) -> str:
        return f"set {self.fact}"

    def act(self, before: Seen, clients: Clients) -> None:
        self._ask(clients, "PUT")

    def _ask(self, clients: Clients, method: str) -> str:
        return clients.http().request(method, f"{self.url}/{self.fact}", headers={"x-process": str(os.getpid())}).text
