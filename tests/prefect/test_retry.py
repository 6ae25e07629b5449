"""Prefect's Retry asks the same questions as `failover resume` before it takes an execution over."""

from __future__ import annotations

from contextlib import closing
from pathlib import Path
from uuid import uuid4

import pytest

from deployments.copies import demand_no_more_here
from flows.clock import SystemClock
from flows.events import Noted
from flows.journal_copy import CopyFile
from flows.journal_sqlite import SqliteJournal
from flows.runs import CannotResume, Request, start
from runbooks.loader import load_text
from runbooks.model import Mode
from runbooks.planner import plan

pytestmark = pytest.mark.prefect

TEXT = """schema: failover/v1
name: by-hand
title: Move it by hand
service: shop
owner: me
objectives: {rto: 30m}
recovered_when: move
steps: [{id: move, manual: Move the cables}]
"""


def test_it_does_not_go_on_while_this_machines_copy_knows_more(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """After break-glass the copy went on, the journal is back, and Retry would do what the copy has done."""
    from flows.prefect_flow import Call, Compiled, _open_engine, execution_of

    loaded, flow_run = load_text(TEXT, "by-hand.yaml"), uuid4()
    execution, at = execution_of(flow_run), SystemClock().now()
    monkeypatch.setattr("deployments.copies.copy_file", lambda _execution: tmp_path / "copy.db")
    with closing(SqliteJournal(tmp_path / "journal.db")) as journal, closing(CopyFile(tmp_path / "copy.db")) as copy:
        request = Request(plan(loaded, mode=Mode.live, inputs={}), "ines", f"prefect:{flow_run}", execution=execution)
        start(journal, request, SystemClock())
        rows = journal.stored(execution)
        copy.begin(journal.place, None)
        copy.mirror(rows, [], at)
        call = Call(Compiled(loaded, (), lambda: journal, lambda *_: None, demand_no_more_here), {"your_name": "ines"}, flow_run)
        copy.append(execution, rows[-1].number, [Noted(at=at, text="a step that only the copy knows")])
        with pytest.raises(CannotResume, match="failover import"):
            _open_engine(call, journal)
        assert journal.stored(execution) == rows
