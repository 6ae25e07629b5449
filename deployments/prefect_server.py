"""A Prefect server of our own on this machine: its own home folder, SQLite, the V1 UI, 127.0.0.1 only.

For `failover serve` without PREFECT_API_URL and for the demo. What runs is written into the home folder, so that another
process can find it and stop it, also after its starter was killed.
"""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from contextlib import closing, suppress
from dataclasses import asdict, dataclass, replace
from datetime import timedelta
from pathlib import Path

PORT = 4200
"""Prefect's usual port; another free one is taken when it is in use."""
PATIENCE = timedelta(seconds=180)
"""A fresh database is migrated at the first start: 20 s on a quiet machine with 2 cores, several times that under load."""
KEEP_ALIVE = 75
"""Seconds; Prefect's usual 5 is also when its client drops an idle connection, and who is first breaks a request."""
_RECORD = "server.json"
_LOG = "server.log"


class ServerError(Exception):
    """The Prefect server did not start; says why, with the end of its log."""


@dataclass(frozen=True)
class Server:
    """A Prefect server: where it answers, its process, and who is to stop it; when both were born, in clock ticks."""

    home: str
    port: int
    pid: int
    born: str
    owner: int = 0
    owner_born: str = ""

    @property
    def ui(self) -> str:
        """Address for a browser."""
        return f"http://127.0.0.1:{self.port}"

    @property
    def api(self) -> str:
        """What PREFECT_API_URL is to be."""
        return f"{self.ui}/api"

    @property
    def alive(self) -> bool:
        """Whether its process runs."""
        return bool(self.born) and born(self.pid) == self.born

    @property
    def ours(self) -> bool:
        """Whether this process is to stop it."""
        return self.owner == os.getpid()

    @property
    def answers(self) -> bool:
        """Whether its API says that it is healthy."""
        try:
            with urllib.request.urlopen(f"{self.api}/health", timeout=2) as answer:  # noqa: S310 - http on loopback
                return bool(answer.status == 200)
        except (OSError, urllib.error.URLError):
            return False

    def stop(self, grace: timedelta = timedelta(seconds=10)) -> None:
        """End it: SIGTERM, and SIGKILL after `grace`; return when it is gone."""
        _end(self, grace)
        with suppress(OSError):
            (Path(self.home) / _RECORD).unlink()


def start(home: Path, port: int | None = None) -> Server:
    """Start a server and wait until it answers; one that runs already for this home is given back instead.

    It becomes ours unless the process that started it still lives. port: where it must listen; when None, 4200 or else
    any free one. Raises ServerError.
    """
    known = running(home)
    if known is not None and known.answers and port in {None, known.port}:
        return known if _owned_by_another(known) else _record(replace(known, owner=os.getpid(), owner_born=born(os.getpid())))
    if known is not None and _owned_by_another(known):
        raise ServerError(f"process {known.owner} runs a Prefect server in {home} on port {known.port}; use that, or another --home")
    if known is not None:
        known.stop()
    home.mkdir(parents=True, exist_ok=True, mode=0o700)
    chosen = port if port is not None else _free_port()
    with (home / _LOG).open("ab") as log:
        process = subprocess.Popen(  # noqa: S603 - our own interpreter
            [sys.executable, "-m", "uvicorn", "--factory", "deployments.prefect_app:create_app", "--host", "127.0.0.1",
             "--port", str(chosen), "--log-level", "warning", "--timeout-keep-alive", str(KEEP_ALIVE)],
            env=_environment(home, chosen), stdin=subprocess.DEVNULL, stdout=log, stderr=log, start_new_session=True,
        )  # fmt: skip
    me = os.getpid()
    server = _record(Server(str(home), chosen, process.pid, born(process.pid), me, born(me)))
    try:
        _await_health(server, process)
    except BaseException:  # Ctrl-C too: nobody else knows of it
        server.stop()
        raise
    return server


def running(home: Path) -> Server | None:
    """The server that was started for this home, when its process still lives."""
    try:
        server = Server(**json.loads((home / _RECORD).read_text(encoding="utf-8")))
    except (OSError, ValueError, TypeError):
        return None
    return server if server.alive else None


def _record(server: Server) -> Server:
    (Path(server.home) / _RECORD).write_text(json.dumps(asdict(server)), encoding="utf-8")
    return server


def _owned_by_another(server: Server) -> bool:
    return not server.ours and bool(server.owner_born) and born(server.owner) == server.owner_born


def child_environment(**more: str) -> dict[str, str]:
    """Our environment for a child: modules come from where ours come from, and are compiled once."""
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONDONTWRITEBYTECODE"}
    return {**environment, "PYTHONSAFEPATH": "1", **more}


def born(pid: int) -> str:
    """When a process was started, in clock ticks since boot; '' when it is gone. Where there is no /proc: 'alive'."""
    if not Path("/proc/self/stat").exists():
        try:
            os.kill(pid, 0)
        except OSError:
            return ""
        return "alive"
    try:
        fields = Path(f"/proc/{pid}/stat").read_text(encoding="ascii", errors="replace").rpartition(")")[2].split()
    except OSError:
        return ""
    return "" if fields[0] in "ZX" else fields[19]


def _environment(home: Path, port: int) -> dict[str, str]:
    """What the server sees: nothing of the Prefect settings of a client, whose API is another one."""
    ours = {name: value for name, value in child_environment().items() if not name.startswith("PREFECT_")}
    return ours | {
        "PREFECT_HOME": str(home),
        "PREFECT_UI_API_URL": f"http://127.0.0.1:{port}/api",
        "PREFECT_UI_STATIC_DIRECTORY": str(home / "ui"),  # the default lies within the installed package
        "PREFECT_SERVER_UI_V2_ENABLED": "false",  # V2 asks an analytics host at every load
        "PREFECT_SERVER_UI_SHOW_PROMOTIONAL_CONTENT": "false",
        "PREFECT_SERVER_ANALYTICS_ENABLED": "false",
        "DO_NOT_TRACK": "1",
    }


def _free_port() -> int:
    for port in (PORT, 0):
        with closing(socket.socket()) as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            try:
                probe.bind(("127.0.0.1", port))
            except OSError:
                continue
            return int(probe.getsockname()[1])
    raise ServerError("no free port on 127.0.0.1")


def _await_health(server: Server, process: subprocess.Popen[bytes]) -> None:
    give_up = time.monotonic() + PATIENCE.total_seconds()
    while not server.answers:
        if process.poll() is not None:
            raise ServerError(f"the Prefect server ended with code {process.returncode}:\n{_tail(Path(server.home) / _LOG)}")
        if time.monotonic() > give_up:
            raise ServerError(f"the Prefect server did not answer on {server.api} within {PATIENCE.seconds} s; see {_LOG}")
        time.sleep(0.1)
    process.returncode = 0  # the record holds it from here on; without a code, Popen warns when it is collected


def _end(server: Server, grace: timedelta) -> None:
    if not server.alive:
        return
    for number, patience in ((signal.SIGTERM, grace.total_seconds()), (signal.SIGKILL, 5.0)):
        with suppress(ProcessLookupError):
            os.kill(server.pid, number)
        give_up = time.monotonic() + patience
        while server.alive and time.monotonic() < give_up:
            with suppress(ChildProcessError):
                os.waitpid(server.pid, os.WNOHANG)
            time.sleep(0.05)
        if not server.alive:
            return


def _tail(path: Path, lines: int = 12) -> str:
    with suppress(OSError):
        return "\n".join(path.read_text(encoding="utf-8", errors="replace").splitlines()[-lines:])
    return ""
