"""Whoever owns the old primary's host: a control endpoint, or commands, that stop it and tell whether it stays off."""

from __future__ import annotations

import shlex
from dataclasses import dataclass
from typing import Literal

from pydantic import Field

from tasks.clients import Clients
from tasks.contract import Frozen
from tasks.errors import ActionFailed
from tasks.fence_calls import call

ProviderState = Literal["running", "frozen", "stopping", "stopped"]
_STATES: dict[str, ProviderState] = {
    "running": "running",
    "frozen": "frozen",
    "stopping": "stopping",
    "stopped": "stopped",
}


@dataclass(frozen=True)
class HostSeen:
    """What the provider says of the host."""

    state: ProviderState
    stays_off: bool
    told: str


class ByControl(Frozen):
    """A control endpoint that stops the host and keeps it off."""

    url: str = Field(
        description="GET gives JSON with `state` and `stays_off`; POST to it + '/stop' stops the host for good.",
        examples=["http://127.0.0.1:7000/nodes/east"],
        pattern="^https?://",
    )

    def ask(self, clients: Clients) -> HostSeen:
        """Ask how the host is; raises ActionFailed where that could not be asked."""
        answer = call(self.url, "GET", clients)
        try:
            body = answer.json()
            state = _STATES[body["state"]]
            stays_off = body.get("stays_off", False) is True
        except (ValueError, KeyError, TypeError, AttributeError):
            raise ActionFailed(
                f"{self.url} gave no state; expected JSON with `stays_off` and `state`: {', '.join(_STATES)}",
                attempted=f"GET {self.url}",
            ) from None
        return HostSeen(state, stays_off, f"its provider says {state}" + (" and stays off" if stays_off else ""))

    def stop(self, clients: Clients) -> None:
        """Stop the host for good."""
        call(self.url.rstrip("/") + "/stop", "POST", clients)

    def by_hand(self) -> tuple[str, ...]:
        """Stop it, and see that it stays off."""
        return (f"curl --fail -X POST {self.url}/stop", f"curl --fail {self.url}   # must say stopped, and that it stays off")


class ByCommand(Frozen):
    """Commands, run without a shell, that stop the host and tell whether it is stopped."""

    stop: tuple[str, ...] = Field(description="Stops the host so that it stays off.", min_length=1)
    status: tuple[str, ...] = Field(
        description="Exit 0: stopped for good; 1: not; anything else: could not ask.", min_length=1
    )

    def ask(self, clients: Clients) -> HostSeen:
        """Ask whether the host is stopped; raises ActionFailed where that could not be asked."""
        ended = clients.command(self.status)
        if ended.returncode == 0:
            return HostSeen("stopped", stays_off=True, told=f"'{self.status[0]}' says stopped for good")
        if ended.returncode == 1:
            return HostSeen("running", stays_off=False, told=f"'{self.status[0]}' says not stopped")
        raise _ended_badly(self.status[0], "could not tell", ended.returncode, ended.stderr)

    def carry_out(self, clients: Clients) -> None:
        """Stop the host for good."""
        ended = clients.command(self.stop)
        if ended.returncode != 0:
            raise _ended_badly(self.stop[0], "failed", ended.returncode, ended.stderr)

    def by_hand(self) -> tuple[str, ...]:
        """Stop it, and see that it stays off."""
        return (shlex.join(self.stop), f"{shlex.join(self.status)}   # must exit 0: stopped for good")


def _ended_badly(command: str, what: str, code: int, errors: str) -> ActionFailed:
    lines = errors.strip().splitlines()
    said = f", {lines[-1][:200]}" if lines else ""
    return ActionFailed(f"'{command}' {what}: exit status {code}{said}", attempted=command, code=str(code), retry=True)
