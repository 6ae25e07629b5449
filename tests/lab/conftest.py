"""One lab for all lab tests of a worker, and what is left of one when it is gone."""

from __future__ import annotations

import os
import re
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from deployments.lab import Lab, processes, shm
from deployments.lab.addresses import Addresses
from deployments.lab.programs import MARK


def worker() -> int:
    """The number of this pytest-xdist worker; 0 without."""
    return int(re.sub(r"\D", "", os.environ.get("PYTEST_XDIST_WORKER", "gw0")))


@pytest.fixture(scope="package")
def lab() -> Iterator[Lab]:
    """A lab that is up. Whoever breaks it asks for `fresh`."""
    shared = Lab(int(os.environ.get("FAILOVER_TEST_LAB", "171")) + worker())
    shared.down()  # an interrupted test run may have left it up
    with shared:
        yield shared


@pytest.fixture
def fresh(lab: Lab) -> Lab:
    """The shared lab as on its first day."""
    lab.reset()
    return lab


@pytest.fixture
def spare() -> Iterator[Lab]:
    """A lab number for tests that bring labs up and down themselves."""
    own = Lab(191 + worker())
    own.down()
    yield own
    own.down()


def remains(addresses: Addresses) -> list[str]:
    """Everything of a lab that is still there: processes, ports, folder."""
    folder = addresses.folder
    pids = {*processes.with_environment(MARK, str(folder)), *processes.of_folder(folder, "postgres")}
    found = [f"process {pid}: {processes.title(pid)!r}" for pid in pids]
    found += [f"port {port}" for port in listening(addresses.number)]
    found += [str(folder)] if folder.exists() else []
    return found


def listening(number: int) -> list[str]:
    """Sockets that listen on any address of the lab, from the kernel's tables."""
    found = []
    for table, state in (("tcp", "0A"), ("udp", "07")):
        for line in Path(f"/proc/net/{table}").read_text().splitlines()[1:]:
            fields = line.split()
            address = bytes.fromhex(fields[1].partition(":")[0])[::-1]
            if address[:2] == bytes([127, number]) and fields[3] == state:
                found.append(f"{table} {'.'.join(map(str, address))}")
    return found


def segments(addresses: Addresses) -> set[shm.Segment]:
    """The shared-memory segments of the lab's servers."""
    named = (shm.named_by(file) for file in addresses.folder.glob("nodes/*/data/postmaster.pid"))
    return {segment for segment in named if segment}


def existing_segments() -> set[shm.Segment]:
    rows = [line.split() for line in Path("/proc/sysvipc/shm").read_text().splitlines()[1:]]
    return {shm.Segment(int(row[0]) & 0xFFFFFFFF, int(row[1])) for row in rows}


def eventually(holds: Callable[[], object], seconds: float = 15.0) -> object:
    """Wait until something is so; return it. Real processes, so real time."""
    until = time.monotonic() + seconds
    while not (value := holds()):
        assert time.monotonic() < until, f"not so after {seconds:g} s"
        time.sleep(0.02)
    return value
