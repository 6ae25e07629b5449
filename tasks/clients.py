"""The way out: every call of an attempt to the world leaves through its `Clients`, which the engine can revoke.

What must never happen: a call that leaves after its attempt was given up (timed out, halted, lease lost). `check` runs
right before each call and raises `Revoked`; `revoke` also closes what is open, so that a call that hangs ends.
"""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import threading
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import timedelta
from typing import TYPE_CHECKING, Any, TypeVar, cast

from tasks.errors import ActionFailed, Revoked

if TYPE_CHECKING:
    import httpx

    from tasks.postgres_server import Server
    from tasks.postgres_session import Session

Kept = TypeVar("Kept")
Answer = TypeVar("Answer")


@dataclass(frozen=True)
class Late:
    """A call that gave no answer within its patience; it goes on and is not asked again until it ends."""

    after: timedelta


class Clients:
    """One attempt's connections, made on demand and closed together.

    guard: called right before each call, raises Revoked when the attempt may not act any more. timeout: longest wait
    for one call, below the step's timeout.
    """

    def __init__(self, guard: Callable[[], None] = lambda: None, timeout: timedelta = timedelta(seconds=5)) -> None:
        self.timeout = timeout
        self._guard = guard
        self._revoked: str | None = None
        self._kept: dict[object, tuple[Any, Callable[[], object]]] = {}
        self._asking: dict[str, _Ask] = {}
        self._lock = threading.RLock()

    def check(self) -> None:
        """Raise Revoked when no call may leave any more. Every client here calls it by itself."""
        if self._revoked is not None:
            raise Revoked(self._revoked)
        self._guard()

    def revoke(self, reason: str) -> None:
        """Let no further call out and end the calls that are under way."""
        with self._lock:
            self._revoked = self._revoked or reason
        self.close()

    def close(self) -> None:
        """Close every connection of this attempt; safe from any thread and more than once."""
        with self._lock:
            kept, self._kept = list(self._kept.values()), {}
        for _, close in reversed(kept):
            with contextlib.suppress(Exception):  # closing what the network already closed
                close()

    def keep(self, key: object, make: Callable[[], Kept], close: Callable[[Kept], object] = lambda _: None) -> Kept:
        """Give the object kept under `key`, made on first use and closed with this attempt."""
        with self._lock:
            if key in self._kept:
                return cast("Kept", self._kept[key][0])
        made = make()  # not under the lock: it may take as long as a connection
        with self._lock:
            revoked, kept = self._revoked, self._kept.get(key)
            if revoked is None and kept is None:
                self._kept[key] = (made, lambda: close(made))
                return made
        close(made)  # somebody was faster, or the attempt is over
        if revoked is not None:
            raise Revoked(revoked)
        return cast("Kept", kept[0] if kept else made)

    def kept(self, key: object) -> object | None:
        """Give what is kept under `key`, or None."""
        with self._lock:
            found = self._kept.get(key)
        return found[0] if found else None

    def forget(self, key: object) -> None:
        """Close and drop what is kept under `key`, as after a broken connection."""
        with self._lock:
            found = self._kept.pop(key, None)
        if found:
            with contextlib.suppress(Exception):
                found[1]()

    def parallel(
        self, calls: Mapping[str, Callable[[], Answer]], patience: timedelta, *, belated: bool = False
    ) -> dict[str, Answer | Exception | Late]:
        """Make several calls at the same time and give what each said within `patience`.

        A call that is late goes on, on its daemon thread; while it hangs, the same name is not asked again and is late
        at once. So one silent party costs `patience` once and no thread piles up. belated: give an answer that came
        after an earlier call's patience now, instead of asking anew; only for those who ask again and again.
        """
        self.check()
        asked: list[_Ask] = []
        for name, call in calls.items():
            earlier = self._asking.get(name)
            if earlier is not None and (earlier.hangs() or (belated and earlier.answer is not None)):
                continue
            self._asking[name] = _Ask(name, call)
            asked.append(self._asking[name])
        _wait_for(asked, patience)
        answers: dict[str, Answer | Exception | Late] = {}
        for name in calls:
            ask = self._asking[name]
            answer, ask.answer = ask.answer, None
            answers[name] = Late(patience) if answer is None or (ask not in asked and not belated) else answer[0]
        return answers

    def http(self) -> httpx.Client:
        """Give an httpx client that checks before each request; no redirects, no proxies from the environment."""
        import httpx

        def make() -> httpx.Client:
            return httpx.Client(
                timeout=self.timeout.total_seconds(),
                trust_env=False,
                event_hooks={"request": [self._check_request]},
            )

        return self.keep("http", make, lambda client: client.close())

    def _check_request(self, request: httpx.Request) -> None:
        """Check now, and once more when it is connected: no timeout bounds how long a name takes to resolve."""
        self.check()

        def trace(event: str, _: object) -> None:
            if event.endswith("send_request_headers.started"):
                self.check()

        request.extensions = {**request.extensions, "trace": trace}

    def postgres(self, server: Server) -> Session:
        """Give a session (autocommit) on a PostgreSQL server, kept for this attempt; every statement checks first."""
        from tasks.postgres_server import connect

        def session() -> Session:
            return self.keep(server, lambda: connect(server, self.check, self.timeout), lambda kept: kept.hang_up())

        if session().closed:  # by the server, or by us after a statement that was not answered
            self.forget(server)
        return session()

    def aws(self, service: str, region: str, endpoint: str | None = None) -> Any:
        """Give a boto3 client whose every call checks first; no retries of its own (the engine looks again first)."""
        from tasks.aws.session import client

        return client(service, region, endpoint, self.check, self.timeout)

    def command(self, argv: Sequence[str], patience: timedelta | None = None) -> subprocess.CompletedProcess[str]:
        """Run a command without a shell; raises ActionFailed when it does not start or does not end in time."""
        self.check()
        seconds = (patience or self.timeout).total_seconds()
        try:
            # A session of its own: Ctrl-C at our terminal must not end a fence half-way.
            process = subprocess.Popen(  # noqa: S603 - the runbook's author declares the command
                list(argv), stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
                errors="replace", start_new_session=True,
            )  # fmt: skip
        except OSError as error:
            raise ActionFailed(f"'{argv[0]}' did not start: {error.strerror}", attempted=argv[0]) from None
        try:
            output, errors = process.communicate(timeout=seconds)
        except subprocess.TimeoutExpired:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)  # its children too, who may hold the pipes
            process.communicate()
            raise ActionFailed(f"'{argv[0]}' did not end within {seconds:g}s", attempted=argv[0], retry=True) from None
        return subprocess.CompletedProcess(list(argv), process.returncode, output, errors)


class _Ask:
    """One call on a daemon thread of its own, which nobody has to wait for."""

    def __init__(self, name: str, call: Callable[[], Any]) -> None:
        self.answer: tuple[Any] | None = None
        self.ended = threading.Event()
        self._call = call
        threading.Thread(target=self._run, name=f"ask-{name}", daemon=True).start()

    def hangs(self) -> bool:
        return not self.ended.is_set()

    def _run(self) -> None:
        try:
            self.answer = (self._call(),)
        except Exception as error:  # noqa: BLE001 - carried to the caller, who decides
            self.answer = (error,)
        self.ended.set()


def _wait_for(asked: Sequence[_Ask], patience: timedelta) -> None:
    """Wait until all have answered, `patience` at most: an event's wait keeps the time, tasks do not."""
    if not asked:
        return
    all_ended = threading.Event()

    def watch() -> None:
        for ask in asked:
            ask.ended.wait()
        all_ended.set()

    threading.Thread(target=watch, name="ask-all", daemon=True).start()
    all_ended.wait(patience.total_seconds())
