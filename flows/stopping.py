"""Ctrl-C and SIGTERM, heard whatever the main thread is doing.

Python runs a signal's handler on the main thread between two of its own instructions. A signal that arrives right
before that thread begins to wait for a lock or a queue therefore waits as well: at a gate for as long as the gate. What
must not happen is a stop that nobody hears; `heard` prevents it by reading, on a thread of its own, the byte that the
interpreter writes the moment the signal arrives (`signal.set_wakeup_fd`).
"""

from __future__ import annotations

import signal
import socket
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager

STOPS = (signal.SIGINT, signal.SIGTERM)


@contextmanager
def heard(say: Callable[[signal.Signals], None], numbers: tuple[signal.Signals, ...] = STOPS) -> Iterator[None]:
    """Call `say` on a thread for each of the signals that arrives meanwhile, instead of what they did before.

    Only the main thread can ask for signals; on any other one this does nothing. Two of one kind that arrive together
    are told apart.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    ours, interpreter = socket.socketpair()
    interpreter.setblocking(False)

    def listen() -> None:
        while arrived := ours.recv(64):
            for number in arrived:
                if number in numbers:
                    say(signal.Signals(number))

    listener = threading.Thread(target=listen, name="signals", daemon=True)
    listener.start()
    earlier = {number: signal.signal(number, _nothing) for number in numbers}
    fd = signal.set_wakeup_fd(interpreter.fileno(), warn_on_full_buffer=False)
    try:
        yield
    finally:
        signal.set_wakeup_fd(fd)  # before the handlers: one of theirs may raise, and nothing may write to a closed end
        interpreter.close()
        try:
            for number, handler in earlier.items():
                signal.signal(number, handler)
        finally:
            listener.join()
            ours.close()


def _nothing(_number: int, _frame: object) -> None:
    """Only a signal that has a handler is written to the interpreter's end."""
