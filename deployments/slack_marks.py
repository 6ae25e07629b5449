"""Which executions are not told to the end yet, and who tells each now: one empty file each, locked by its teller.

A lock ends with its process, however that ends. It excludes processes of one machine; the file does not decide what is
told (that is in the journal and in Slack), so losing the folder loses only the reminder.
"""

from __future__ import annotations

import fcntl
import os
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

OLDEST = 7 * 86400.0
"""Seconds after which a reminder is let go of."""


@dataclass(frozen=True)
class Hold:
    """The sole right on this machine to tell an execution."""

    path: Path

    def done(self) -> None:
        """All of it is told."""
        with suppress(OSError):
            self.path.unlink(missing_ok=True)


@dataclass(frozen=True)
class Marks:
    """The folder with the files."""

    folder: Path

    def left(self) -> list[str]:
        """Executions that are not told to the end, as far as this machine knows."""
        found: list[str] = []
        paths: list[Path] = []
        with suppress(OSError):  # it is not there, or not ours to read: then nothing is known to be left
            paths = sorted(self.folder.iterdir())
        for path in paths:
            with suppress(OSError):
                if time.time() - path.stat().st_mtime > OLDEST:
                    path.unlink()
                else:
                    found.append(path.name)
        return found

    @contextmanager
    def hold(self, execution: str, *, wait: bool) -> Iterator[Hold | None]:
        """Be the only one who tells an execution; None where somebody does so now and we do not wait.

        Where the folder cannot be written, there is nobody to exclude and nothing to remember: it is told all the same.
        """
        path = self.folder / execution
        try:
            lock = self._lock(path, wait=wait)
        except BlockingIOError:
            yield None
            return
        except OSError:
            yield Hold(path)
            return
        try:
            yield Hold(path)
        finally:
            os.close(lock)

    def _lock(self, path: Path, *, wait: bool) -> int:
        self.folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        while True:
            lock = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
            try:
                fcntl.flock(lock, fcntl.LOCK_EX if wait else fcntl.LOCK_EX | fcntl.LOCK_NB)
                if path.stat().st_ino == os.fstat(lock).st_ino:
                    return lock
            except FileNotFoundError:
                pass  # it was told and let go of while we waited
            except OSError:
                os.close(lock)
                raise
            os.close(lock)
