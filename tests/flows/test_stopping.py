"""A stop is heard whatever the main thread is doing."""

from __future__ import annotations

import queue
import signal
import threading
import time

from flows.stopping import heard


def test_a_signal_that_does_not_wake_the_main_thread_is_heard() -> None:
    """It arrives at another thread while the main one waits for a lock: no handler of Python runs until that is over."""
    said: queue.SimpleQueue[signal.Signals] = queue.SimpleQueue()

    def send() -> None:
        time.sleep(0.1)
        signal.pthread_kill(threading.get_ident(), signal.SIGTERM)

    with heard(said.put):
        sender = threading.Thread(target=send)
        sender.start()
        assert said.get(timeout=5) is signal.SIGTERM
        sender.join()


def test_every_one_of_several_is_heard() -> None:
    said: queue.SimpleQueue[signal.Signals] = queue.SimpleQueue()
    with heard(said.put):
        for number in (signal.SIGINT, signal.SIGINT, signal.SIGTERM):
            signal.raise_signal(number)
        assert [said.get(timeout=5) for _ in range(3)] == [signal.SIGINT, signal.SIGINT, signal.SIGTERM]


def test_what_was_there_before_is_back_afterwards() -> None:
    before = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}
    threads = threading.active_count()
    with heard(lambda _: None):
        assert signal.getsignal(signal.SIGTERM) != before[signal.SIGTERM]
    assert {number: signal.getsignal(number) for number in before} == before
    assert threading.active_count() == threads
    assert signal.set_wakeup_fd(-1) == -1


def test_beside_the_main_thread_it_changes_nothing() -> None:
    seen: list[object] = []

    def elsewhere() -> None:
        with heard(lambda _: None):
            seen.append(signal.getsignal(signal.SIGTERM))

    before = signal.getsignal(signal.SIGTERM)
    thread = threading.Thread(target=elsewhere)
    thread.start()
    thread.join()
    assert seen == [before]
