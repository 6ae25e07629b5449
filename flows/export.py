"""An execution as one file for auditors: JSON lines that can be verified without the journal, and in part without its key.

    {"failover-export": 1, "execution": ..., "text": the runbook as pinned, "plan_hash": ..., "keys": [ids], "vouched": ...}
    {"event": {"number", "at", "kind", "body": the stored text itself, "hash", "key", "mac"}}      every event, in order
    {"inbox": {"number", "at", "body"}}                                       what people put there, adopted or not
    {"end": {"events", "inbox", "head": the anchor, "sha256": of all lines above, "key", "mac": of that sum}}

The same execution gives the same bytes. Secrets are not inside: the journal never held one (flows/secrets.py).
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from datetime import datetime
from typing import Any

from flows.anchors import anchor_of
from flows.events import ANY_EVENT, ExecutionStarted
from flows.journal import Journal, JournalError, Received
from flows.journal_chain import Finding, FindKey, Row, Vouch, canonical, examine

VERSION = 1


@dataclass(frozen=True)
class Exported:
    """What an export holds, and what is wrong with it."""

    execution: str
    rows: tuple[Row, ...]
    findings: tuple[Finding, ...]


def export(journal: Journal, execution: str, find: FindKey) -> str:
    """The file's text. Without the key of the last event its end is not keyed, and says so by an empty mac."""
    rows = journal.stored(execution)
    if not rows:
        raise JournalError(f"journal {journal.place}: there is no execution {execution} to export")
    lines = [*_lines(execution, rows, journal.vouched(execution), journal.inbox(execution))]
    total = _sum(lines)
    key = find(rows[-1].key)
    end = {
        "events": len(rows), "inbox": sum(line.startswith('{"inbox"') for line in lines), "head": str(anchor_of(rows[-1])),
        "sha256": total, "key": key.id if key else "", "mac": key.mac(_ending(total)) if key else "",
    }  # fmt: skip
    return "".join(f"{line}\n" for line in [*lines, canonical({"end": end})])


def _lines(execution: str, rows: Sequence[Row], vouched: Vouch | None, inbox: Sequence[Received]) -> Iterator[str]:
    first = ANY_EVENT.validate_json(rows[0].body)
    if not isinstance(first, ExecutionStarted):
        raise JournalError(f"execution {execution}: its first event is not its start; `failover verify-journal` says more")
    yield json.dumps({
        "failover-export": VERSION, "execution": execution, "runbook": first.runbook, "text": first.text,
        "plan_hash": first.plan_hash, "keys": sorted({row.key for row in rows if row.key}),
        "vouched": asdict(vouched) if vouched else None,
    }, separators=(",", ":"), ensure_ascii=False)  # fmt: skip
    for row in rows:
        yield canonical({"event": {**asdict(row), "at": row.at.isoformat(), "execution": execution}})
    for one in inbox:
        yield canonical({"inbox": {"number": one.number, "at": one.at.isoformat(), "body": one.said.model_dump(mode="json")}})


def _sum(lines: Sequence[str]) -> str:
    return hashlib.sha256("".join(f"{line}\n" for line in lines).encode()).hexdigest()


def _ending(total: str) -> str:
    return f"export\n{total}"


def read(text: str, find: FindKey) -> Exported:
    """Read and check an export; raises JournalError when it is none.

    With the key everything is checked; without it the plain chain and the sum, which show damage and clumsy changes,
    while somebody who writes the whole file anew can make them fit.
    """
    try:
        return _checked(text.removesuffix("\n").split("\n"), find)  # not splitlines: texts may hold other ends of lines
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        why = type(error).__name__
        raise JournalError(f"export: is not one, or a line of it is broken ({why}); expected what `failover export` wrote") from None


def _checked(lines: Sequence[str], find: FindKey) -> Exported:
    head, *middle = [json.loads(line) for line in lines]
    if head["failover-export"] != VERSION:
        raise JournalError(f"export: written in form {head['failover-export']}; this version reads form {VERSION}")
    end: dict[str, Any] | None = middle.pop()["end"] if middle and "end" in middle[-1] else None
    execution = str(head["execution"])
    rows = tuple(_row(one["event"]) for one in middle if "event" in one)
    vouched = Vouch(**head["vouched"]) if head["vouched"] else None
    findings = examine(execution, rows, vouched, find)
    findings += [Finding(execution, said) for said in _about_head(head, rows)]
    findings += _about_end(execution, lines, rows, end, find)
    return Exported(execution, rows, tuple(findings))


def _row(event: dict[str, Any]) -> Row:
    return Row(**{**event, "at": datetime.fromisoformat(event["at"])})


def _about_head(head: dict[str, Any], rows: Sequence[Row]) -> list[str]:
    started = json.loads(rows[0].body) if rows else {}
    same = all(head.get(name) == started.get(name) for name in ("text", "plan_hash", "runbook"))
    return [] if same else ["the runbook in the first line is not the one of the first event"]


def _about_end(execution: str, lines: Sequence[str], rows: Sequence[Row], end: dict[str, Any] | None, find: FindKey) -> list[Finding]:
    if end is None:
        return [Finding(execution, "the last line is missing, so what else is missing is not known")]
    found = []
    if end.get("events") != len(rows) or not rows or end.get("head") != str(anchor_of(rows[-1])):
        found.append(Finding(execution, f"ends with {end.get('head')} after {end.get('events')} event(s) by its last line, and holds {len(rows)}"))
    total = _sum(lines[:-1])
    if end.get("sha256") != total:
        found.append(Finding(execution, "the lines do not add up to the sum in the last one"))
    key = find(str(end.get("key")))
    if not end.get("mac") or key is None:
        found.append(Finding(execution, f"its end is keyed with '{end.get('key')}', which is not here; the inbox was not checked", unchecked=True))
    elif not key.sealed(_ending(total), str(end["mac"])):
        found.append(Finding(execution, "the last line was not written by a holder of the key"))
    return found
