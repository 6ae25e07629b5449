"""What was done to the lab, and when: an append-only log, so that the time of a fault is a fact."""

from __future__ import annotations

import json
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any


@dataclass(frozen=True)
class EventLog:
    """One JSON line an event, in a file."""

    file: Path

    def add(self, event: str, **details: object) -> datetime:
        """Record that `event` happens now; return that moment (UTC)."""
        now = datetime.now(UTC)
        with self.file.open("a", encoding="utf-8") as lines:
            lines.write(json.dumps({"at": now.isoformat(), "event": event, **details}) + "\n")
        return now

    def read(self) -> list[dict[str, Any]]:
        if not self.file.exists():
            return []
        return [json.loads(line) for line in self.file.read_text(encoding="utf-8").splitlines()]
