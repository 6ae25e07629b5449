"""Decide that an outage is real: fast on proof of death, slowly on silence, never on one's own blindness."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime, timedelta
from typing import ClassVar

from pydantic import AwareDatetime, Field, model_validator

from tasks.clients import Clients
from tasks.contract import Duration, Frozen, Mark, Probe, Seen
from tasks.signals import Reading, Signal


class Outage(Frozen):
    """What the signals say together."""

    outage: bool | None = Field(description="True: an outage is confirmed; false: there is none; null: not known yet.")
    impact: datetime | None = Field(description="When it began: the first look at which a signal that agrees was down.")
    signals: tuple[Reading, ...] = Field(description="What each signal says, since when.")
    reason: str = Field(description="Why it is or is not an outage, in one line.")


class DetectOutage(Probe[Outage]):
    """Confirm that the primary side is gone, or that it is well, from several signals.

    A signal says up, dead (refused by a host that answers, session reset, provider says stopped), silent (no answer, or
    one that proves nothing) or unknown (could not ask). An outage needs `agree` signals down past their hold-downs.
    Silence counts only while some other party answers, and never while the standby still receives from the primary.
    """

    name: ClassVar[str] = "detect.outage"
    budget: ClassVar[timedelta] = timedelta(seconds=60)
    interval: ClassVar[timedelta] = timedelta(milliseconds=50)
    libraries: ClassVar[tuple[str, ...]] = ("httpx", "psycopg")

    signals: Mapping[str, Signal] = Field(description="Whom to ask, by a name of your choice.", min_length=1)
    agree: int = Field(2, description="How many signals must be down past their hold-down.", ge=1)
    dead_for: Duration = Field(
        timedelta(seconds=1.5),
        description="Hold-down for proof of death; rides out supervised restarts.",
        examples=["1500ms"],
    )
    silent_for: Duration = Field(
        timedelta(seconds=20), description="Hold-down for silence; rides out gaps and freezes.", examples=["20s"]
    )
    up_for: Duration = Field(
        timedelta(seconds=10), description="All signals up for so long: there is no outage.", examples=["10s"]
    )
    patience: Duration = Field(timedelta(seconds=1), description="Longest wait for one answer.", examples=["1s"])
    partial_for: Duration | None = Field(
        None,
        description="Some signals down past their hold-down, fewer than `agree`, for so long: done without an outage, "
        "for assess.severity to grade. Unset: keep looking.",
    )
    impact_at: AwareDatetime | None = Field(None, description="When the impact began, if a person or an alarm knows.")

    @model_validator(mode="after")
    def _enough_signals(self) -> DetectOutage:
        if self.agree > len(self.signals):
            raise ValueError(f"agree is {self.agree}, but there are only {len(self.signals)} signals")
        return self

    def by_hand(self) -> tuple[str, ...]:
        """Ask each party once, as far as a command can."""
        lines = []
        for name, signal in self.signals.items():
            if signal.http is not None:
                lines.append(f"curl --max-time 2 -o /dev/null -w '%{{http_code}}' {signal.http.url}   # {name}")
            elif signal.postgres is not None:
                lines.append(f'{signal.postgres.psql} -c "SELECT pg_is_in_recovery()"   # {name}')
            elif signal.standby is not None:
                lines.append(f'{signal.standby.psql} -c "TABLE pg_stat_wal_receiver"   # {name}')
            elif signal.tcp is not None:
                lines.append(f"nc -z -w 2 {signal.tcp.host} {signal.tcp.port}   # {name}")
        return tuple(lines)

    def observe(self, clients: Clients) -> Outage:
        """Ask every signal at the same time."""
        from tasks.signal_asking import ask_all

        return Outage(
            outage=None, impact=None, signals=ask_all(self.signals, clients, self.patience), reason="first look"
        )

    def done(self, state: Outage) -> bool:
        """It is known, either way."""
        return state.outage is not None

    def fold(self, earlier: Seen[Outage] | None, now: Seen[Outage]) -> Outage:
        """Carry 'since when' over from the look before."""
        from tasks.signal_history import judge

        return judge(self, earlier, now)

    def ends(self, state: Outage) -> str | None:
        """End the run when every signal is up: there is nothing to recover from."""
        if state.outage is False and not any(reading.down for reading in state.signals):
            return state.reason
        return None

    def explain(self, state: Outage) -> str:
        """Say what each signal says."""
        return f"{state.reason}; " + ", ".join(f"{one.name} {one.says} ({one.detail})" for one in state.signals)

    def marks(self, state: Outage) -> Mapping[Mark, datetime | None]:
        """Set impact and detected when an outage is confirmed."""
        return {Mark.impact: state.impact, Mark.detected: None} if state.outage else {}
