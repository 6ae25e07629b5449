"""What a stopped node has that its new primary lacks: read from its WAL, and from a copy that nobody can reach.

Nothing here changes the data folder. The copy is opened in single-user mode: it recovers as the node itself would, and
has no socket and no port, so that no client can ever write to it.
"""

from __future__ import annotations

import hashlib
import json
import re
import shutil
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from .binaries import Binaries
from .errors import LabError
from .programs import write_atomically

ROWS = 1000
"""At most so many rows of a table, and transactions, go into an answer; all are counted, and all stand in the file."""
_COMMIT = re.compile(
    r"tx:\s+(?P<xid>\d+), lsn: (?P<lsn>[0-9A-F]+/[0-9A-F]+),.*desc: COMMIT(?:_PREPARED)? (?:\d+: )?"
    r"(?P<at>\d{4}-\d\d-\d\d \d\d:\d\d:\d\d\.\d+) UTC(?P<rest>.*)"
)
_SUBXACTS = re.compile(r"subxacts: ([\d ]+)")
_BETWEEN = re.compile(r"WAL statistics between \S+ and ([0-9A-F]+/[0-9A-F]+):")
_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_$]*(\.[A-Za-z_][A-Za-z0-9_$]*)?")
# As postgres_reject writes: bytes that no row holds, so that each line is the row's JSON as it is.
_COPY = "COPY ({query}) TO '{file}' (FORMAT csv, DELIMITER E'\\x01', QUOTE E'\\x02', NULL E'\\x03')"


@dataclass(frozen=True)
class ControlData:
    """What pg_controldata says of a stopped node. checkpoint: position where its last checkpoint's record begins."""

    system_id: str
    state: str
    checkpoint: str
    timeline: int
    segment: int

    @property
    def clean(self) -> bool:
        """Whether it was shut down, so that its last record is that checkpoint's."""
        return self.state in {"shut down", "shut down in recovery"}


@dataclass(frozen=True)
class Tail:
    """The WAL of one timeline from the fork on; `end` is None where there is none. detail: why it cannot be read."""

    timeline: int
    fork: str
    end: str | None
    transactions: tuple[tuple[int, str, str], ...]  # id, commit's position, commit's time (UTC)
    written_by: tuple[tuple[int, str], ...]  # every transaction id that left rows, subtransactions too, and its commit's time
    files: tuple[str, ...]
    detail: str = ""

    @property
    def diverged(self) -> bool:
        """Whether anything was written after the fork, or that cannot be told."""
        return self.end is not None or bool(self.detail)


@dataclass(frozen=True)
class Table:
    """A table whose lost rows are listed, and the column that tells them apart."""

    name: str
    key: str

    def __post_init__(self) -> None:
        for name in (self.name, self.key):
            if not _NAME.fullmatch(name):
                raise ValueError(f"'{name}' is no plain name; write table or schema.table, without quotes")

    @property
    def quoted(self) -> str:
        return ".".join(f'"{part}"' for part in self.name.split("."))


def control_data(binaries: Binaries, data: Path) -> ControlData:
    """Read the control file of a stopped node."""
    text = binaries.run(binaries.program("pg_controldata"), str(data))
    told = {name.strip(): value.strip() for name, _, value in (line.partition(":") for line in text.splitlines())}
    # A promoted node's checkpoint is on the old timeline until the first one on the new; the minimum tells already.
    timelines = (told["Latest checkpoint's TimeLineID"], told.get("Min recovery ending loc's timeline", "0"))
    return ControlData(
        told["Database system identifier"], told["Database cluster state"], told["Latest checkpoint location"],
        max(map(int, timelines)), int(told["Bytes per WAL segment"]),
    )  # fmt: skip


def tail(binaries: Binaries, data: Path, timeline: int, fork: str) -> Tail:
    """Read what the node wrote on `timeline` from `fork` on."""
    segment = control_data(binaries, data).segment
    first = segment_name(timeline, fork, segment)
    files = tuple(sorted(
        file.name for file in (data / "pg_wal").glob(f"{timeline:08X}????????????????") if file.name >= first
    ))  # fmt: skip
    if first not in files:
        beyond = bytes_of(fork) % segment == 0 and not files  # the fork is where the next segment would have begun
        detail = "" if beyond else f"WAL segment {first}, in which the fork lies, is not there any more"
        return Tail(timeline, fork, None, (), (), files, detail)
    where = ("--path", str(data / "pg_wal"), "--timeline", str(timeline), "--start", fork)
    statistics = binaries.run(binaries.program("pg_waldump"), *where, "--stats", may_fail=True)
    found = _BETWEEN.search(statistics)
    if found is None:
        none = "could not find a valid record after" in statistics
        return Tail(timeline, fork, None, (), (), files, "" if none else statistics.strip().splitlines()[-1][-300:])
    text = binaries.run(binaries.program("pg_waldump"), *where, "--rmgr", "Transaction", may_fail=True)
    commits = [match for match in map(_COMMIT.search, text.splitlines()) if match]
    xids = []
    for match in commits:
        subxacts = _SUBXACTS.search(match["rest"])
        below = subxacts[1].split() if subxacts else ()
        xids += [(int(one), f"{match['at']}+00:00") for one in (match["xid"], *below)]
    transactions = tuple((int(match["xid"]), _plain(match["lsn"]), f"{match['at']}+00:00") for match in commits)
    return Tail(timeline, fork, _plain(found[1]), transactions, tuple(xids), files)


def rows(binaries: Binaries, data: Path, tail: Tail, tables: Sequence[Table], database: str) -> list[dict[str, Any]]:
    """List the rows that diverged transactions inserted or changed, out of a copy that is removed again."""
    if not tail.written_by or not tables:
        return [{"table": table.name, "key": table.key, "count": 0, "rows": []} for table in tables]
    scratch = data.parent / "reading"
    binaries.run("rm", "-rf", str(scratch))
    binaries.run("mkdir", "-m", "700", str(scratch))
    try:
        binaries.run("cp", "-a", "--reflink=auto", str(data), str(scratch / "data"))
        statements = [text for table in tables for text in _statements(table, tail, scratch)]
        said = _single(binaries, scratch / "data", database, *statements)
        return [_listed(table, scratch, said, dict(tail.written_by)) for table in tables]
    finally:
        shutil.rmtree(scratch, ignore_errors=True)


def _statements(table: Table, tail: Tail, scratch: Path) -> tuple[str, str]:
    ids = ",".join(str(xid) for xid, _ in tail.written_by)
    those = f"from {table.quoted} t where t.xmin::text::bigint = any('{{{ids}}}'::bigint[])"
    xid = "t.xmin::text::bigint"
    one = f"select json_build_object('key', t.\"{table.key}\"::text, 'xid', {xid}, 'row', row_to_json(t)) {those} order by {xid}"
    return (
        _COPY.format(query=one, file=scratch / f"{table.name}.rows"),
        _COPY.format(query=f"select count(*) {those}", file=scratch / f"{table.name}.count"),
    )


def _listed(table: Table, scratch: Path, said: str, times: Mapping[int, str]) -> dict[str, Any]:
    counted = scratch / f"{table.name}.count"
    if not counted.exists():
        raise LabError(f"the copy of the old data could not be asked for {table.name}: {said[-500:]}")
    lines = (scratch / f"{table.name}.rows").read_text(encoding="utf-8").splitlines()
    read = [json.loads(line) for line in lines]
    found = [{"key": one["key"], "at": times.get(one["xid"]), "row": one["row"]} for one in read]
    return {"table": table.name, "key": table.key, "count": int(counted.read_text()), "rows": found}


def _single(binaries: Binaries, copy: Path, database: str, *statements: str) -> str:
    """Recover a copy and run statements in it, in the one process that ever has it open."""
    settings = ("archive_mode=off", "synchronous_standby_names=", "autovacuum=off")
    options = [word for setting in settings for word in ("-c", setting)]
    argv = (binaries.program("postgres"), "--single", "-F", "-D", str(copy), *options, database)
    output = binaries.run(*argv, stdin="\n".join(statements) + "\n", may_fail=True)
    return "\n".join(line for line in output.splitlines() if "ERROR" in line or "FATAL" in line)


def note(folder: Path, node: str, told: Mapping[str, Any]) -> dict[str, Any]:
    """Write the whole list into a file, named by what it says; give it back cut to what an answer holds, with the file."""
    text = json.dumps(told, indent=1)
    file = folder / f"{node}-{hashlib.sha256(text.encode()).hexdigest()[:12]}.json"
    folder.mkdir(parents=True, exist_ok=True)
    write_atomically(file, text)
    file.chmod(0o600)
    tables = [{**one, "rows": one["rows"][:ROWS]} for one in told["tables"]]
    return {**told, "transactions": told["transactions"][:ROWS], "tables": tables, "file": str(file)}


def keep(binaries: Binaries, data: Path, kept: Path, tail: Tail, told: dict[str, Any]) -> None:
    """Copy the diverged WAL, the control file and what was read of them aside. May be repeated; removes nothing."""
    kept.mkdir(parents=True, exist_ok=True)
    (kept / "pg_wal").mkdir(exist_ok=True)
    for name in tail.files:
        shutil.copy2(data / "pg_wal" / name, kept / "pg_wal" / name)
    shutil.copy2(data / "global" / "pg_control", kept / "pg_control")
    (kept / "controldata.txt").write_text(binaries.run(binaries.program("pg_controldata"), str(data)))
    where = ("--path", str(data / "pg_wal"), "--timeline", str(tail.timeline), "--start", tail.fork)
    (kept / "waldump.txt").write_text(binaries.run(binaries.program("pg_waldump"), *where, may_fail=True))
    (kept / "diverged.json").write_text(json.dumps({"tail": asdict(tail), "told": told}, indent=1))


def segment_name(timeline: int, lsn: str, segment: int) -> str:
    """Name the WAL file in which a position lies."""
    number, per_high = bytes_of(lsn) // segment, 0x1_0000_0000 // segment
    return f"{timeline:08X}{number // per_high:08X}{number % per_high:08X}"


def bytes_of(lsn: str) -> int:
    """Turn a position such as 0/3000A28 into a number."""
    high, _, low = lsn.partition("/")
    return (int(high, 16) << 32) + int(low, 16)


def _plain(lsn: str) -> str:
    high, _, low = lsn.partition("/")
    return f"{int(high, 16):X}/{int(low, 16):X}"
