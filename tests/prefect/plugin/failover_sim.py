"""Actions for tests, found through the entry-point group as a third party's are. Their world is a folder of files."""

from __future__ import annotations

import time
from datetime import timedelta
from pathlib import Path
from typing import ClassVar

from pydantic import BaseModel

from tasks.clients import Clients
from tasks.contract import Change, Probe
from tasks.errors import ActionFailed


class Seen(BaseModel):
    """What a file says."""

    value: str | None = None


def _read(path: Path) -> str | None:
    return path.read_text() if path.exists() else None


class Wait(Probe[Seen]):
    """Wait until a file is there."""

    name: ClassVar[str] = "sim.wait"
    interval: ClassVar[timedelta] = timedelta(milliseconds=50)
    world: str
    fact: str

    def observe(self, clients: Clients) -> Seen:
        return Seen(value=_read(Path(self.world) / self.fact))

    def done(self, state: Seen) -> bool:
        return state.value is not None


class Touch(Change[Seen]):
    """Write a file, which is believed after a while; every act leaves a line in `effects`."""

    name: ClassVar[str] = "sim.touch"
    interval: ClassVar[timedelta] = timedelta(milliseconds=50)
    reversible: ClassVar[bool] = True
    world: str
    fact: str
    takes: float = 0.0
    fails: bool = False

    @property
    def target(self) -> str:
        return f"sim:{self.world}/{self.fact}"

    def observe(self, clients: Clients) -> Seen:
        return Seen(value=_read(Path(self.world) / self.fact))

    def done(self, state: Seen) -> bool:
        return state.value is not None and time.time() >= float(state.value)

    def underway(self, state: Seen) -> bool:
        return state.value is not None

    def describe(self, before: Seen) -> str:
        return f"write {self.fact}: {before.value} -> done"

    def act(self, before: Seen, clients: Clients) -> None:
        clients.check()
        if self.fails and not (Path(self.world) / f"{self.fact}-mended").exists():
            raise ActionFailed(f"{self.fact} does not want to")
        with (Path(self.world) / "effects").open("a") as effects:
            effects.write(f"{self.fact} {time.time()}\n")
        (Path(self.world) / self.fact).write_text(str(time.time() + self.takes))

    def undo(self, before: Seen, clients: Clients) -> None:
        (Path(self.world) / self.fact).unlink()
