"""`failover serve`: every runbook of a folder as a deployment in Prefect, carried out by processes of this machine."""

from __future__ import annotations

import argparse
import os
import signal
import subprocess
import sys
import time
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from runbooks.loader import Loaded

READY, ADDRESS = "serving ", "Prefect UI: "
"""How the lines begin that say that runs can be asked for, and where."""
_LOG = "serve.log"


def add_commands(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Add serve."""
    serve = commands.add_parser("serve", help="every runbook of a folder as a deployment in the Prefect UI")
    serve.add_argument("folder", type=Path, help="the folder of the runbooks (*.yaml)")
    serve.add_argument("--journal", help="the journal: a file or postgresql://… (default: FAILOVER_JOURNAL, else in your state folder)")
    serve.add_argument("--port", type=int, help="of the Prefect server that is started when PREFECT_API_URL is unset (4200)")
    serve.add_argument("--home", type=Path, help="where that server keeps its files (default: in your state folder)")
    serve.set_defaults(run=run_serve)


def run_serve(options: argparse.Namespace) -> int:
    """Serve until SIGTERM or Ctrl-C; 2 when no runbook of the folder can be served, 1 when Prefect cannot be reached."""
    from deployments.journal_location import journal_location, state_folder
    from deployments.origins import check_origins

    check_origins()
    folder = options.folder.resolve()
    if not folder.is_dir():
        print(f"{options.folder}: is not a folder; name the folder of your runbooks", file=sys.stderr)
        return 2
    valid, broken = read_folder(folder)
    for text in broken:
        print(text, file=sys.stderr)
    if not valid:
        print(f"{options.folder}: holds no runbook that can be served", file=sys.stderr)
        return 2
    os.environ["FAILOVER_RUNBOOKS"] = str(folder)
    os.environ["FAILOVER_JOURNAL"] = journal_location(options.journal)
    return _with_server(options.home or state_folder() / "prefect", options.port, valid, broken=len(broken))


def read_folder(folder: Path) -> tuple[list[Loaded], list[str]]:
    """The runbooks that can be served, and a text for each that cannot."""
    from deployments.prefect_served import files
    from runbooks.loader import load
    from runbooks.planner import check
    from runbooks.problems import RunbookError

    valid: dict[str, Loaded] = {}
    broken = []
    for path in files(folder):
        try:
            loaded = load(path)
        except RunbookError as error:
            broken.append(f"not served:\n{error}")
            continue
        name, problems = loaded.runbook.name, check(loaded)
        if problems:
            broken.append(f"not served:\n{RunbookError(problems)}")
        elif name in valid:
            broken.append(f"not served:\n{path}: is named '{name}' as {valid[name].file} is; give it another name")
        else:
            valid[name] = loaded
    return list(valid.values()), broken


def _with_server(home: Path, port: int | None, valid: list[Loaded], *, broken: int) -> int:
    """Serve with the Prefect that is configured, else with a server of our own that ends with us."""
    from prefect.context import refresh_global_settings_context
    from prefect.settings import get_current_settings

    from deployments.prefect_server import Server, ServerError, start

    server: Server | None = None
    signal.signal(signal.SIGTERM, _as_ctrl_c)
    try:
        if not get_current_settings().api.url:
            print("PREFECT_API_URL is unset: starting a Prefect server (about 20 s the first time)", flush=True)
            server = start(home, port)
            os.environ["PREFECT_API_URL"] = server.api
            refresh_global_settings_context()
        from deployments.prefect_deploying import serve_until_told

        if broken:
            print(f"{broken} runbook(s) are not served; the exit code will be 2", file=sys.stderr)
        import asyncio

        asyncio.run(serve_until_told(valid))
    except ServerError as error:
        print(error, file=sys.stderr)
        return 1
    except ConnectionError as error:
        print(error, file=sys.stderr)
        return 1
    finally:
        if server is not None and server.ours:
            server.stop()
    return 2 if broken else 0


def _as_ctrl_c(_number: int, _frame: object) -> None:
    raise KeyboardInterrupt


def serve_detached(folder: Path, home: Path) -> str:
    """Start `failover serve` in the background with a Prefect server of its own; give the UI's address when it serves.

    home: for the server's files and the log; `stop_detached` ends what was started for it. Raises RuntimeError.
    """
    from deployments.prefect_server import PATIENCE, child_environment

    home.mkdir(parents=True, exist_ok=True, mode=0o700)
    environment = {name: value for name, value in child_environment().items() if name != "PREFECT_API_URL"}
    log = home / _LOG
    with log.open("wb") as output:
        process = subprocess.Popen(  # noqa: S603 - our own command
            [sys.executable, "-m", "deployments", "serve", str(folder), "--home", str(home / "prefect")],
            env=environment, stdin=subprocess.DEVNULL, stdout=output, stderr=output, start_new_session=True,
        )  # fmt: skip
    _remember(home, process.pid)
    give_up = time.monotonic() + PATIENCE.total_seconds()
    while time.monotonic() < give_up:
        lines = log.read_text(encoding="utf-8", errors="replace").splitlines()
        if any(line.startswith(READY) for line in lines):
            process.returncode = 0  # the record holds it from here on; without a code, Popen warns when it is collected
            return next(line.removeprefix(ADDRESS) for line in lines if line.startswith(ADDRESS))
        if process.poll() is not None:
            break
        time.sleep(0.1)
    stop_detached(home)
    raise RuntimeError(f"`failover serve` did not start; its log is {log}")


def stop_detached(home: Path) -> None:
    """End what `serve_detached` started for this home, in good order: runs under way finish recording first."""
    from deployments.prefect_server import Server, running

    record = home / "serve.pid"
    with suppress(OSError, ValueError):
        pid, when = record.read_text(encoding="utf-8").split()
        served = Server(str(home), 0, int(pid), when)
        while served.alive:
            with suppress(ProcessLookupError):
                os.kill(served.pid, signal.SIGTERM)
            with suppress(ChildProcessError):
                os.waitpid(served.pid, os.WNOHANG)
            time.sleep(0.2)
        record.unlink()
    server = running(home / "prefect")
    if server is not None:
        server.stop()


def _remember(home: Path, pid: int) -> None:
    from deployments.prefect_server import born

    (home / "serve.pid").write_text(f"{pid} {born(pid)}", encoding="utf-8")
