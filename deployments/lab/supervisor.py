"""The daemon behind a lab: owns everything, and leaves nothing when it ends."""

from __future__ import annotations

import argparse
import asyncio
import json
import logging
import os
import secrets
import signal
import sys
from pathlib import Path
from typing import TextIO

from .addresses import Addresses
from .cleanup import sweep
from .control import serve
from .errors import LabError
from .programs import Programs, environment
from .serving import Server
from .world import Options, World

_log = logging.getLogger(__name__)
PASSWORD_FILE = "password"  # noqa: S105 - a file's name


def main() -> None:
    """Bring a lab up, say so on --report, and keep it until SIGTERM."""
    parser = argparse.ArgumentParser(prog="python -m deployments.lab.supervisor")
    parser.add_argument("--lab", type=int, required=True)
    parser.add_argument("--options", type=json.loads, required=True)
    parser.add_argument("--lock", type=int, required=True, help="file descriptor that holds the lab's lock")
    parser.add_argument("--report", type=int, required=True, help="file descriptor for one line of JSON")
    given = parser.parse_args()
    if os.fork():  # an orphan from here on: nobody has to wait for it, and no terminal reaches it
        os._exit(0)
    addresses = Addresses(given.lab)
    logging.basicConfig(stream=sys.stderr, format="%(asctime)s %(levelname)s %(message)s")
    for inherited in (given.report, given.lock):  # ours alone; the lock is held as long as we live
        os.set_inheritable(inherited, False)
    with os.fdopen(given.report, "w") as report:
        error = asyncio.run(_live(addresses, Options(**given.options), report))
        if error:
            print(json.dumps({"error": error}), file=report)
    sys.exit(1 if error else 0)


async def _live(addresses: Addresses, options: Options, report: TextIO) -> str | None:
    """Run the lab until asked to stop; return what went wrong on the way up."""
    loop = asyncio.get_running_loop()
    stopped = asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
        loop.add_signal_handler(number, stopped.set)
    sweep(addresses)  # what a crashed one left; its cloud lived in memory, so nothing of it can go on
    programs = Programs(addresses, environment(addresses, _make_folder(addresses.folder)))
    world = World(addresses, options, programs.environment["FAILOVER_LAB_PASSWORD"], programs)
    error = None
    try:
        server = _serve(world, addresses, loop)
        up = asyncio.create_task(world.up())
        stop = asyncio.create_task(stopped.wait())
        await asyncio.wait({up, stop}, return_when=asyncio.FIRST_COMPLETED)
        if up.done():
            up.result()
            print(json.dumps({"ready": True}), file=report, flush=True)
            await stop
        up.cancel()
        await asyncio.gather(up, return_exceptions=True)
        server.shutdown()
    except (LabError, OSError) as problem:
        _log.exception("lab %d", addresses.number)
        _keep_last_words(addresses.folder / "logs")
        error = str(problem)
    finally:
        try:
            await world.close()
        finally:
            sweep(addresses)
    return error


def _serve(world: World, addresses: Addresses, loop: asyncio.AbstractEventLoop) -> Server:
    try:
        return serve(world, addresses.control, loop)
    except OSError as error:
        raise LabError(
            f"{addresses.control}: {error.strerror}; is it another user's lab? `--lab` takes another number"
        ) from None


def _keep_last_words(logs: Path) -> None:
    """Copy the ends of the logs, which go with the folder, into the supervisor's own, which stays."""
    for log in sorted(logs.glob("*.log")):
        end = log.read_text(errors="replace").splitlines()[-15:]
        _log.error("%s ended with\n%s", log.name, "\n".join(end))


def _make_folder(folder: Path) -> str:
    """Make the lab's folder; return the password in it. PostgreSQL's user passes through, and reads nothing."""
    folder.mkdir(mode=0o711)
    folder.chmod(0o711)
    (folder / "logs").mkdir(mode=0o700)
    password = secrets.token_urlsafe(18)
    file = folder / PASSWORD_FILE
    file.touch(mode=0o600)
    file.write_text(password)
    return password


if __name__ == "__main__":
    main()
