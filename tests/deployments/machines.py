"""A machine as the command knows it: a folder, a user's state, and the address of a journal that others may share."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path


class Machine:
    """One machine. never: what no command may print."""

    def __init__(self, folder: Path, journal: str, runbook: str, never: str = "") -> None:
        self.folder, self.state, self._never = folder, folder / "state" / "failover", never
        self.folder.mkdir(parents=True)
        (folder / "by-hand.yaml").write_text(runbook)
        known = {key: value for key, value in os.environ.items() if not key.startswith(("PREFECT", "FAILOVER"))}
        self.environ = {**known, "FAILOVER_JOURNAL": journal, "XDG_STATE_HOME": str(folder / "state"), "PYTHONSAFEPATH": "1",
                        "FAILOVER_JOURNAL_TIMEOUT": "1s"}  # fmt: skip

    def start(self, *arguments: str) -> subprocess.Popen[str]:
        return subprocess.Popen(
            [sys.executable, "-m", "deployments", *arguments], cwd=self.folder, env=self.environ, text=True,
            stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
        )  # fmt: skip

    def failover(self, *arguments: str, expect: int = 0) -> str:
        with self.start(*arguments) as child:
            out = child.communicate(timeout=90)[0]
        assert child.returncode == expect, out
        assert not self._never or self._never not in out
        return out

    def copy(self, execution: str) -> Path:
        return self.state / "copies" / f"{execution}.db"
