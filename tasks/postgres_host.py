"""The host of a PostgreSQL node, as far as a runbook needs it: what is declared, what it tells, what it can be asked.

A rebuild needs programs on the node's own host (pg_rewind, pg_basebackup, start, stop). Who runs them is declared like a
fence's method: a control endpoint (an agent, a provider's run command behind HTTP) or commands (ssh, kubectl exec).
Both speak the same JSON. The action decides and verifies; the host carries out.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any, Literal
from urllib.parse import urlencode

from pydantic import Field, ValidationError, model_validator

from tasks.clients import Clients, Late
from tasks.contract import Frozen
from tasks.errors import ActionFailed
from tasks.postgres_knock import knock
from tasks.postgres_server import Server


class HostControl(Frozen):
    """A control endpoint of the node's host."""

    url: str = Field(
        description="GET url/rebuild and url/divergence tell; POST to url/shutdown and url/rebuild start. See docs/failback.md.",
        examples=["http://127.0.0.1:7000/nodes/east"],
        pattern="^https?://",
    )


class HostCommands(Frozen):
    """Commands, run without a shell, that do and print what the endpoint would."""

    state: tuple[str, ...] = Field(description="Prints the host's state as JSON.", min_length=1)
    shutdown: tuple[str, ...] = Field(description="Begins a clean shutdown that stays off.", min_length=1)
    divergence: tuple[str, ...] = Field(
        description="Prints what diverged as JSON; gets timeline=, fork= and tables= as further words.", min_length=1
    )
    rebuild: tuple[str, ...] = Field(
        description="Begins the rebuild; gets from=, timeline=, fork= and end= as further words.", min_length=1
    )


class Host(Frozen):
    """How the node's host is reached: exactly one of control, command."""

    control: HostControl | None = Field(None, description="Through a control endpoint.")
    command: HostCommands | None = Field(None, description="By commands.")

    @model_validator(mode="after")
    def _one_way(self) -> Host:
        if (self.control is None) is (self.command is None):
            raise ValueError("host names neither or both of control and command; write one of them")
        return self


class Stopped(Frozen):
    """What the control file of a stopped node says."""

    system_id: str = Field(description="System identifier of its cluster.")
    timeline: int = Field(description="Its timeline.")
    clean: bool = Field(description="Whether it was shut down in good order.")
    checkpoint: str = Field(description="Where its last checkpoint's record begins; after a clean shutdown its last one.")


class Job(Frozen):
    """The last rebuild of the node, as its host tells it."""

    number: int = Field(0, description="Counts the rebuilds.")
    state: Literal["idle", "running", "done", "failed"] = Field("idle", description="How far it is.")
    phase: str = Field("", description="What it does or did last, such as keep, rewind, base-backup, start.")
    method: str = Field("", description="How the data was brought in line: start, rewind or base-backup.")
    kept: str = Field("", description="Where the host keeps what diverged; empty: nothing did.")
    error: str = Field("", description="Why it failed.")


class HostState(Frozen):
    """A node as its host sees it."""

    state: Literal["running", "frozen", "stopping", "stopped"] = Field(description="Of its PostgreSQL.")
    stays_off: bool = Field(description="Whether a restart of the host leaves it off.")
    control: Stopped | None = Field(None, description="Its control file; null while it runs.")
    job: Job = Field(Job(), description="Its last rebuild.")

    @property
    def off(self) -> bool:
        """Stopped for good."""
        return self.state == "stopped" and self.stays_off


_EXTRA = frozenset({"touched"})


def ask_state(host: Host, clients: Clients) -> HostState:
    """Ask the host how its node is."""
    answer = _call(host, "state", {}, clients)
    try:
        job = {key: value for key, value in answer.get("job", {}).items() if key not in _EXTRA}
        return HostState.model_validate({**answer, "job": job})
    except (ValidationError, AttributeError, TypeError):
        raise ActionFailed(f"{name_of(host)} gave no state; see docs/failback.md for what it should tell") from None


def ask_divergence(host: Host, facts: Mapping[str, Any], clients: Clients) -> dict[str, Any]:
    """Ask the host what its node has beyond the fork; raises ActionFailed when it refuses."""
    return _call(host, "divergence", facts, clients)


def shut_down(host: Host, clients: Clients) -> None:
    """Let the host begin a clean shutdown that stays off."""
    _call(host, "shutdown", {}, clients)


def rebuild(host: Host, facts: Mapping[str, Any], clients: Clients) -> None:
    """Let the host begin to make its node a standby; raises ActionFailed when it refuses."""
    _call(host, "rebuild", facts, clients)


def still_answers(server: Server, clients: Clients) -> bool:
    """Tell whether any PostgreSQL answers at the node's address, with a session or not; silence is no answer."""

    def ask() -> bool:
        clients.check()
        try:
            return not knock(server.host, server.port, server.user, server.database, clients.timeout).closed
        except OSError:
            return False

    key = f"knock {server.name}"
    answer = clients.parallel({key: ask}, clients.timeout)[key]
    return answer is True or (isinstance(answer, Exception) and not isinstance(answer, ActionFailed | Late))


def name_of(host: Host) -> str:
    """What errors call the host."""
    return host.control.url if host.control is not None else f"'{host.command.state[0]}'" if host.command else ""


_PAGES = {"state": ("GET", "rebuild"), "divergence": ("GET", "divergence"),
          "shutdown": ("POST", "shutdown"), "rebuild": ("POST", "rebuild")}  # fmt: skip


def _call(host: Host, what: str, facts: Mapping[str, Any], clients: Clients) -> dict[str, Any]:
    given = {key: value for key, value in facts.items() if value not in (None, "")}
    if host.command is not None:
        argv: tuple[str, ...] = getattr(host.command, what)
        return _run((*argv, *(f"{key}={value}" for key, value in given.items())), clients)
    assert host.control is not None  # noqa: S101 - Host has exactly one way
    method, page = _PAGES[what]
    return _ask(method, f"{host.control.url.rstrip('/')}/{page}", given, clients)


def _ask(method: str, url: str, given: Mapping[str, Any], clients: Clients) -> dict[str, Any]:
    import httpx

    more: dict[str, Any] = {"json": dict(given)} if method == "POST" else {}
    whole = f"{url}?{urlencode(given)}" if method == "GET" and given else url
    try:
        answer = clients.http().request(method, whole, headers={"Connection": "close"}, **more)
    except httpx.HTTPError as error:  # perhaps it was done and only the answer is lost: looking again tells
        said = str(error) or type(error).__name__
        raise ActionFailed(f"{method} {url} got no answer: {said}", attempted=f"{method} {url}", retry=True) from None
    if not answer.is_success:
        raise ActionFailed(
            f"{method} {url} was answered HTTP {answer.status_code}: {_reason(answer.text)}", attempted=f"{method} {url}",
            code=str(answer.status_code), retry=answer.status_code == 429 or answer.status_code >= 500,
        )  # fmt: skip
    return _parsed(answer.text, url)


def _run(argv: tuple[str, ...], clients: Clients) -> dict[str, Any]:
    ended = clients.command(argv)
    if ended.returncode != 0:
        last = (ended.stderr.strip().splitlines() or ["it said nothing"])[-1][:300]
        raise ActionFailed(f"'{argv[0]}' failed: exit status {ended.returncode}, {last}", attempted=argv[0],
                           code=str(ended.returncode), retry=True)  # fmt: skip
    return _parsed(ended.stdout, f"'{argv[0]}'")


def _parsed(text: str, who: str) -> dict[str, Any]:
    try:
        found = json.loads(text or "{}")
    except ValueError:
        found = None
    if not isinstance(found, dict):
        raise ActionFailed(f"{who} answered no JSON object", attempted=who)
    return found


def _reason(text: str) -> str:
    try:
        return str(json.loads(text)["error"])[:400]
    except (ValueError, KeyError, TypeError):
        return text[:200]
