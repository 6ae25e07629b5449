"""Answers typed under a live view: lines are read key by key, so that the screen goes on meanwhile."""

from __future__ import annotations

import os
import select
import sys
import termios
import tty
from types import TracebackType
from typing import Self

ENTER, ERASE, KILL = {"\r", "\n"}, {"\x7f", "\x08"}, "\x15"


class Keyboard:
    """The terminal in cbreak mode; put back as it was at the end."""

    def __init__(self, descriptor: int | None = None) -> None:
        self._descriptor = sys.stdin.fileno() if descriptor is None else descriptor
        self.typed = ""
        """The unfinished line."""

    def __enter__(self) -> Self:
        self._before = termios.tcgetattr(self._descriptor)
        tty.setcbreak(self._descriptor)  # Ctrl-C stays a signal
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        termios.tcsetattr(self._descriptor, termios.TCSADRAIN, self._before)

    def line(self) -> str | None:
        """The next finished line, if one is there; never waits."""
        while select.select([self._descriptor], [], [], 0)[0]:
            data = os.read(self._descriptor, 1).decode("utf-8", "ignore")
            if data in ENTER:
                typed, self.typed = self.typed, ""
                return typed
            if data in ERASE:
                self.typed = self.typed[:-1]
            elif data == KILL:
                self.typed = ""
            elif data.isprintable():
                self.typed += data
            else:
                return None
        return None
