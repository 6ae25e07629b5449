"""Advance sequences past what the lost part of the old primary may have handed out."""

from __future__ import annotations

from datetime import timedelta
from typing import ClassVar

from pydantic import Field

from tasks.clients import Clients
from tasks.contract import Change, Frozen, Plane, Seen
from tasks.postgres_server import Server

NAMED = 5  # so many sequences are named in one line for people


class Sequence(Frozen):
    """One sequence and where it is to go."""

    name: str = Field(description="schema.name, quoted where SQL needs it.")
    increment: int = Field(description="What it adds; negative: it counts down.")
    least: int = Field(description="Its MINVALUE.")
    most: int = Field(description="Its MAXVALUE.")
    cycles: bool = Field(description="Whether it begins anew at its end.")
    last: int = Field(description="Last value handed out; one step before its start when none was.")
    may_set: bool = Field(True, description="Whether the role may move it.")
    target: int | None = Field(None, description="Last value that may have been handed out; null: left alone.")

    @property
    def left(self) -> int:
        """How many more values it can give before its end."""
        end = self.most if self.increment > 0 else self.least
        return (end - self.last) // self.increment

    def after(self, count: int) -> int:
        """Where it stands after so many more values; one that cycles begins anew at its end."""
        if not self.cycles:
            return self.last + self.increment * count
        return self._first + self.increment * ((self._place(self.last) + count) % self._whole)

    def passed(self, now: int) -> bool:
        """Whether a last value of `now` lies at the target or past it."""
        if self.target is None:
            return True
        if not self.cycles:
            return (now - self.target) * self.increment >= 0
        begun = self._place(self.last)
        return (self._place(now) - begun) % self._whole >= (self._place(self.target) - begun) % self._whole

    @property
    def _first(self) -> int:
        return self.least if self.increment > 0 else self.most

    @property
    def _whole(self) -> int:
        return (self.most - self.least) // abs(self.increment) + 1

    def _place(self, value: int) -> int:
        return (value - self._first) // self.increment


class Sequences(Frozen):
    """Every sequence of the database."""

    in_recovery: bool = Field(description="Whether the server is a standby.")
    sequences: tuple[Sequence, ...] = Field(description="All of them, with their targets as first computed.")
    behind: tuple[str, ...] = Field((), description="Those that are not at their target yet.")


class AdvanceSequences(Change[Sequences]):
    """Advance every sequence of a database past what may have been handed out.

    A lost transaction's sequence values are handed out again, though customers may hold them (order numbers, ids in
    other systems). So each sequence skips `by` values: name at least the busiest one's rate times the accepted loss,
    plus its CACHE times its sessions. For after the promotion and before customers come. Targets are journaled before
    the first is set: a resumed run does not skip twice. Counts down where a sequence does, begins anew where it cycles,
    and refuses where too few values are left. Undo: nothing, because numbers that were skipped are missed by nobody
    and going back would hand some out twice. Needs UPDATE on the sequences.
    """

    name: ClassVar[str] = "postgres.advance_sequences"
    budget: ClassVar[timedelta] = timedelta(seconds=10)
    libraries: ClassVar[tuple[str, ...]] = ("psycopg",)
    reversible: ClassVar[bool] = True
    plane: ClassVar[Plane] = Plane.data
    before_customers: ClassVar[bool] = True

    server: Server = Field(description="The new primary; its `database` is the one whose sequences are advanced.")
    by: int = Field(description="Values to skip per sequence.", ge=0, le=10**15, examples=[10000])
    each: dict[str, int] = Field(
        default_factory=dict,
        description="Other numbers by schema.name; 0 leaves one alone.",
        examples=[{"public.tickets": 100}],
    )

    @property
    def target(self) -> str:
        """The server."""
        return f"postgres:{self.server.name}"

    def by_hand(self) -> tuple[str, ...]:
        """Write the statements, then run them."""
        value = f"coalesce(last_value, start_value) + increment_by * {self.by}"
        name = "format('%I.%I', schemaname, sequencename)"
        statement = f"SELECT format('SELECT setval(%L, %s);', {name}, {value}) FROM pg_sequences"  # noqa: S608 - to be read
        return (f'{self.server.psql} -At -c "{statement}"   # read them, then run them once',)

    def observe(self, clients: Clients) -> Sequences:
        """Read every sequence."""
        from tasks.postgres_sequence_facts import sequences

        return sequences(self.server, clients)

    def fold(self, earlier: Seen[Sequences] | None, now: Seen[Sequences]) -> Sequences:
        """Compute the targets once, from the first look; keep them and where each began from then on."""
        seen = now.state
        if earlier is None or not earlier.state.sequences:
            planned = tuple(self._aimed(one) for one in seen.sequences)
        else:  # one that came later was never handed out on the old primary
            known = {one.name: one for one in earlier.state.sequences}
            planned = tuple(known.get(one.name, one) for one in seen.sequences)
        at = {one.name: one.last for one in seen.sequences}
        behind = tuple(one.name for one in planned if not one.passed(at[one.name]))
        return Sequences(in_recovery=seen.in_recovery, sequences=planned, behind=behind)

    def _aimed(self, one: Sequence) -> Sequence:
        count = self.each.get(one.name, self.by)
        return one.model_copy(update={"target": one.after(count)}) if count else one

    def done(self, state: Sequences) -> bool:
        """None is behind its target."""
        return not state.in_recovery and not state.behind

    def refuse(self, before: Sequences) -> str | None:
        """Refuse a standby, a name that is none, a sequence that would run out, and one that may not be moved."""
        if before.in_recovery:
            return f"{self.server.name} is a standby; advance its sequences once it is promoted"
        known = {one.name: one for one in before.sequences}
        unknown = [name for name in self.each if name not in known]
        if unknown:
            return f"each names '{unknown[0]}', and {self.server.name} has no such sequence"
        denied = [name for name in before.behind if not known[name].may_set]
        if denied:
            return f"role '{self.server.user}' may not move {_some(denied)}; grant UPDATE on them"
        over = [name for name in before.behind if self._runs_out(known[name])]
        if over:
            return f"{_some(over)} would run out; widen them (ALTER SEQUENCE) or name smaller numbers in `each`"
        return None

    def _runs_out(self, one: Sequence) -> bool:
        return not one.cycles and one.target is not None and one.left <= (one.target - one.last) // one.increment  # one is left at least

    def explain(self, state: Sequences) -> str:
        """Say how many are where."""
        aimed = sum(1 for one in state.sequences if one.target is not None)
        told = f"{aimed - len(state.behind)} of {aimed} sequences advanced"
        return f"{told}; behind: {_some(state.behind)}" if state.behind else told

    def describe(self, before: Sequences) -> str:
        """Say which go where."""
        moved = [one for one in before.sequences if one.name in before.behind]
        shown = ", ".join(f"{one.name} {one.last} -> {one.target}" for one in moved[:NAMED])
        more = f" and {len(moved) - NAMED} more" if len(moved) > NAMED else ""
        return f"advance {len(moved)} sequences of {self.server.name}: {shown}{more}"

    def act(self, before: Sequences, clients: Clients) -> None:
        """Set those that are behind."""
        from tasks.postgres_sequence_facts import advance

        advance(self.server, [one for one in before.sequences if one.name in before.behind], clients)

    def undo(self, before: Sequences, clients: Clients) -> None:
        """Leave them: skipped numbers are missed by nobody, and going back would hand some out twice."""

    def undo_by_hand(self, before: Sequences) -> tuple[str, ...]:
        """Nothing, for the same reason."""
        return (f"# leave the sequences of {self.server.name}: going back would hand numbers out twice",)


def _some(names: tuple[str, ...] | list[str]) -> str:
    more = f" and {len(names) - NAMED} more" if len(names) > NAMED else ""
    return ", ".join(names[:NAMED]) + more
