"""Threads that act and may hang: daemons, so that an abandoned call never holds the process."""

from __future__ import annotations

import queue
import threading
from collections.abc import Callable


class Workers:
    """Runs calls on daemon threads; idle ones are used again, a hanging one is left behind."""

    def __init__(self) -> None:
        self._calls: queue.SimpleQueue[Callable[[], None] | None] = queue.SimpleQueue()
        self._idle = 0
        self._lock = threading.Lock()
        self._started = 0

    def submit(self, call: Callable[[], None]) -> None:
        """Run `call` at once on some thread; it reports for itself and must not raise."""
        with self._lock:
            if self._idle:
                self._idle -= 1
            else:
                self._started += 1
                threading.Thread(target=self._serve, name=f"worker-{self._started}", daemon=True).start()
        self._calls.put(call)

    def _serve(self) -> None:
        while (call := self._calls.get()) is not None:
            call()
            with self._lock:
                self._idle += 1

    def close(self) -> None:
        """Let idle threads end."""
        with self._lock:
            started = self._started
        for _ in range(started):
            self._calls.put(None)
