"""SysV shared memory that a killed PostgreSQL leaves behind: find it by its pid file and remove it."""

from __future__ import annotations

import ctypes
from dataclasses import dataclass
from pathlib import Path

_IPC_RMID = 0
_SHMEM_LINE = 6  # of postmaster.pid: "key id"
_libc = ctypes.CDLL(None, use_errno=True)


@dataclass(frozen=True)
class Segment:
    """A SysV shared-memory segment."""

    key: int
    id: int


def named_by(pid_file: Path) -> Segment | None:
    """Read which segment a postmaster.pid names; None if there is no file or it was not finished."""
    try:
        lines = pid_file.read_text(encoding="ascii", errors="replace").splitlines()
        key, number = lines[_SHMEM_LINE].split()
        return Segment(int(key), int(number))
    except (OSError, ValueError, IndexError):
        return None


def unattached(table: str) -> set[Segment]:
    """Parse /proc/sysvipc/shm: the segments that no process has mapped."""
    rows = [line.split() for line in table.splitlines()[1:]]
    # The key is printed signed there and unsigned in postmaster.pid.
    return {Segment(int(row[0]) & 0xFFFFFFFF, int(row[1])) for row in rows if int(row[6]) == 0}


def remove(pid_file: Path) -> bool:
    """Remove the segment that `pid_file` names, if it is still that one and nobody uses it."""
    segment = named_by(pid_file)
    if segment is None or segment not in unattached(Path("/proc/sysvipc/shm").read_text(encoding="ascii")):
        return False
    return bool(_libc.shmctl(segment.id, _IPC_RMID, None) == 0)
