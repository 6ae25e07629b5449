"""What others say to a run while it is under way: its inbox and the kill switch, read on a thread with its own connection.

The scheduler never waits for that: an approval may be seen a moment later, a step is not. The switch is asked again in
the transaction of every announcement, and whatever was read here by then holds calls back (`Engine._permit`).
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Collection
from contextlib import ExitStack
from dataclasses import dataclass
from datetime import datetime, timedelta

from flows.clock import Clock, uptime
from flows.journal import EVERYTHING, Halt, Journal, JournalError, Received

POLL = timedelta(milliseconds=100)
"""How often they are read: the longest that an approval waits to be seen, but for the journal's own time."""
PATIENCE = timedelta(seconds=5)
"""How long it is tried to open another connection; a look has the journal's own patience."""


@dataclass(frozen=True)
class Ears:
    """Where what was heard goes; called on the listener's thread."""

    letter: Callable[[Received], None]
    halt: Callable[[Halt], None]
    trouble: Callable[[BaseException], None]
    """The journal cannot be read, or we have a defect; nothing is heard any more."""


class Listener:
    """Of one engine. targets: what it holds, and so what the switch must not be on for."""

    def __init__(
        self, journal: Journal, execution: str, targets: Callable[[], Collection[str]], clock: Clock, ears: Ears
    ) -> None:
        self._journal = journal
        self._execution = execution
        self._targets = targets
        self._clock = clock
        self._ears = ears
        self.heard = clock.now()
        """All that was said until then was handed on, and the switch was off; safe to read from any thread."""
        self._last = 0
        self._over = threading.Event()

    def start(self, adopted: int) -> datetime:
        """Begin to listen; give the time. adopted: the number of the last letter that is known."""
        self._last, self.heard = adopted, self._clock.now()
        threading.Thread(target=self._listen, name="listener", daemon=True).start()
        return self.heard

    def end(self) -> None:
        """Listen no more."""
        self._over.set()

    def _listen(self) -> None:
        try:
            with ExitStack() as stack:
                journal = self._open(stack)
                while not self._over.is_set():
                    self.look(journal)
                    self._over.wait(POLL.total_seconds())
        except BaseException as error:  # noqa: BLE001 - carried to the scheduler: it must not go on deaf
            self._ears.trouble(error)

    def _open(self, stack: ExitStack) -> Journal:
        """Another connection, tried for a while: nobody but us needs it at once."""
        end = uptime() + PATIENCE.total_seconds()
        while True:
            try:
                return stack.enter_context(self._journal.reading())
            except JournalError:
                if uptime() > end or self._over.wait(POLL.total_seconds()):
                    raise

    def look(self, journal: Journal) -> None:
        """Read both once. The switch first: an approval read with it must not be obeyed before it."""
        targets, began = self._targets(), self._clock.now()
        if targets:
            on = next((halt for halt in journal.halts() if halt.target in {EVERYTHING, *targets}), None)
            if on is not None:
                self._ears.halt(on)
        for received in journal.inbox(self._execution, self._last):
            self._last = received.number
            self._ears.letter(received)
        self.heard = began
