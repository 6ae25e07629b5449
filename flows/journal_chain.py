"""The journal's seals: what makes a changed, removed, inserted or reordered row show. Pure; no file, no database.

Each row carries two chains over the same text (execution, number, body):
- `hash`, SHA-256 without a key: whoever may rewrite the whole table can rewrite it, but nobody needs anything to check it
- `mac`, HMAC-SHA256 with a key that lies outside the database: only a holder of the key can make a row that fits

Rows of schema 1 have no mac. The first keyed row behind them is sealed over the last plain hash, and what was plain when
the journal was migrated is vouched for (`Vouch`), so that stripping the macs from a row does not make it an old one.
What no chain shows is the removal of the last rows: that needs an anchor, written down elsewhere (flows/anchors.py).
"""

from __future__ import annotations

import hashlib
import hmac
import json
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

GENESIS = "0" * 64
SHORT = 16
"""Hex digits of a seal in an anchor: 64 bits, which nobody finds a second text for without the key."""


@dataclass(frozen=True)
class Key:
    """A secret that seals rows. Its id is in every row and gives nothing away; the secret is never shown."""

    secret: bytes = field(repr=False)

    @property
    def id(self) -> str:
        """Fingerprint, 8 hex digits: which key, for rotation and for people."""
        return hashlib.sha256(b"failover journal key\n" + self.secret).hexdigest()[:8]

    def mac(self, text: str) -> str:
        """HMAC-SHA256 of a text, in hex."""
        return hmac.new(self.secret, text.encode(), hashlib.sha256).hexdigest()

    def sealed(self, text: str, mac: str) -> bool:
        """Whether this key made that mac of the text; the mac may be anything that somebody wrote."""
        return hmac.compare_digest(self.mac(text).encode(), mac.encode())


FindKey = Callable[[str], Key | None]
"""A key by its id; None when it is not here."""


@dataclass(frozen=True)
class Row:
    """An event as it is stored. `key` and `mac` are empty in rows of schema 1."""

    execution: str
    number: int
    at: datetime
    kind: str
    body: str
    hash: str
    key: str = ""
    mac: str = ""

    @property
    def seal(self) -> str:
        """What the next row is sealed over, and what an anchor names."""
        return self.mac or self.hash


@dataclass(frozen=True)
class Vouch:
    """Says that an execution's rows up to `number` were there, without macs, when the journal was migrated."""

    execution: str
    number: int
    hash: str
    key: str
    mac: str


@dataclass(frozen=True)
class Finding:
    """What is wrong with an execution, or (`unchecked`) what cannot be told because a key is not here."""

    execution: str
    text: str
    unchecked: bool = False

    def __str__(self) -> str:
        """One line for people."""
        return f"{self.execution}: {self.text}"


def canonical(body: Mapping[str, Any]) -> str:
    """JSON with one spelling per value, for hashing."""
    return json.dumps(body, sort_keys=True, separators=(",", ":"), ensure_ascii=False)


def link(previous: str, execution: str, number: int, body: str) -> str:
    """What a row's hash and mac are made over; the row before it comes first."""
    return f"{previous}\n{execution}\n{number}\n{body}"


def chain(previous: str, execution: str, number: int, body: str) -> str:
    """Hash of a row, over the row before it: change, removal or reordering of any row breaks every later one."""
    return hashlib.sha256(link(previous, execution, number, body).encode()).hexdigest()


def extend(execution: str, last: Row | None, events: Iterable[tuple[datetime, str, str]], key: Key) -> list[Row]:
    """Rows for events, given as (at, kind, body), behind the last row. The same in every process that has the key."""
    rows = []
    for at, kind, body in events:
        number = last.number + 1 if last else 1
        plain = chain(last.hash if last else GENESIS, execution, number, body)
        sealed = key.mac(link(last.seal if last else GENESIS, execution, number, body))
        last = Row(execution, number, at, kind, body, plain, key.id, sealed)
        rows.append(last)
    return rows


def vouch(execution: str, number: int, plain: str, key: Key) -> Vouch:
    """Seal what an execution was when its rows had no macs."""
    return Vouch(execution, number, plain, key.id, key.mac(_vouched(execution, number, plain)))


def _vouched(execution: str, number: int, plain: str) -> str:
    return f"plain until\n{execution}\n{number}\n{plain}"


def examine(execution: str, rows: Sequence[Row], vouched: Vouch | None, find: FindKey) -> list[Finding]:
    """Everything that is wrong with an execution's rows, in order; empty when they are what was written."""
    found = [*_links(execution, rows), *_plain_part(execution, rows, vouched, find), *_macs(execution, rows, find)]
    return [Finding(execution, text, unchecked) for text, unchecked in dict.fromkeys(found)]


Told = tuple[str, bool]


def _links(execution: str, rows: Sequence[Row]) -> list[Told]:
    wrong, previous, expected = [], GENESIS, 1
    for row in rows:
        if row.number != expected:
            missing = f"event {expected} is" if row.number == expected + 1 else f"events {expected} to {row.number - 1} are"
            wrong.append((f"{missing} missing", False))
        if chain(previous, execution, row.number, row.body) != row.hash or row.execution != execution:
            wrong.append((f"event {row.number} does not fit the events before it", False))
        elif not _same_columns(row):
            wrong.append((f"event {row.number}: its time or kind is not what the event says", False))
        previous, expected = row.hash, row.number + 1
    return wrong


def _same_columns(row: Row) -> bool:
    """The columns beside the body are for searching; they must not say something else."""
    try:
        body = json.loads(row.body)
        return bool(body["kind"] == row.kind and datetime.fromisoformat(body["at"]) == row.at)
    except (ValueError, KeyError, TypeError):
        return False


def _macs(execution: str, rows: Sequence[Row], find: FindKey) -> list[Told]:
    wrong, previous, keyed = [], GENESIS, False
    for row in rows:
        if row.key or row.mac:
            keyed, key = True, find(row.key)
            if key is None:
                wrong.append((f"its key '{row.key}' is not here, so its macs were not checked", True))
            elif not key.sealed(link(previous, execution, row.number, row.body), row.mac):
                wrong.append((f"event {row.number} was not written by a holder of the key, or not behind these events", False))
        elif keyed:
            wrong.append((f"event {row.number} has no mac, the one before it has", False))
        previous = row.seal
    return wrong


def _plain_part(execution: str, rows: Sequence[Row], vouched: Vouch | None, find: FindKey) -> list[Told]:
    """Rows without macs must be the ones that were there when the journal was migrated, all of them and no more."""
    plain = next((index for index, row in enumerate(rows) if row.key or row.mac), len(rows))
    if vouched is None:
        return [(f"event {rows[0].number} has no mac, and nothing vouches for it", False)] if plain else []
    wrong: list[Told] = []
    key = find(vouched.key)
    if key is None:
        wrong.append((f"the key '{vouched.key}' that vouches for its first events is not here", True))
    elif not key.sealed(_vouched(execution, vouched.number, vouched.hash), vouched.mac):
        wrong.append(("what vouches for its first events was not written by a holder of the key", False))
    if plain < vouched.number:
        wrong.append((f"events up to {vouched.number} are vouched for, and only {plain} of them are there", False))
    elif plain > vouched.number:
        wrong.append((f"event {vouched.number + 1} has no mac, and nothing vouches for it", False))
    elif plain and rows[plain - 1].hash != vouched.hash:
        wrong.append((f"event {vouched.number} is not the one that was vouched for", False))
    return wrong
