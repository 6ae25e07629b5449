"""Move customers between two weighted record sets of one name, in phases, with a stop rule.

What must never happen, and where it is prevented:
- a moment without an answer, or with weights 0 and 0, which Route 53 answers as if they were equal: one batch replaces
  every record set, and `Side` weights are `share` and `100 - share`
- a phase that was not held: `next_step` gives none while it is soaked, `act` refuses then, and the engine waits
- a phase held in front of closed eyes: `fold` begins the soak anew after a span in which nobody looked
- somebody else's weights: `share_of` knows only what this step itself may have made; anything else is refused
"""

from __future__ import annotations

from datetime import timedelta
from typing import Annotated, Any, ClassVar, Literal

from pydantic import Field, field_validator, model_validator

from tasks.aws.route53_zone import RecordChange, check_ttl, check_values, same
from tasks.aws.weighted_sets import WHOLE, Next, Shift, Side, is_simple, show
from tasks.clients import Clients
from tasks.contract import Duration, Need, Plane, Seen
from tasks.errors import ActionFailed
from tasks.http import READING, Limits, Request
from tasks.soaking import Judgement, Rule, Sample, judge

SLACK = timedelta(seconds=10)  # what a look may take beyond its requests, on a loaded machine


class ShiftWeights(RecordChange[Shift]):
    """Move customers to a new side in phases, going back a phase when it fails.

    Two weighted record sets of one name, `old` and `new`, whose weights add up to 100. At every phase real requests go
    straight to the new side; the next phase comes when it has kept the limits for `soak`, the one before when it has
    not. Nobody is moved before the new side has kept them once. A simple record that says what `old` says becomes the
    pair in the first change. Undo: the former record sets, at once.
    Source: Route 53 API, ChangeResourceRecordSets and GetChange; Route 53 developer guide, weighted routing.
    """

    name: ClassVar[str] = "aws.route53.shift_weights"
    budget: ClassVar[timedelta] = timedelta(minutes=30)
    interval: ClassVar[timedelta] = timedelta(seconds=1)
    libraries: ClassVar[tuple[str, ...]] = ("boto3", "dns.query", "httpx")
    reversible: ClassVar[bool] = True
    repoints: ClassVar[bool] = True
    plane: ClassVar[Plane] = Plane.control
    phased: ClassVar[bool] = True

    old: Side = Field(description="Where customers are.", examples=[{"id": "west", "values": ["203.0.113.9"]}])
    new: Side = Field(description="Where they are to go.", examples=[{"id": "east", "values": ["203.0.113.7"]}])
    phases: tuple[Annotated[int, Field(ge=1, le=WHOLE)], ...] = Field(
        (5, 25, 50, 100), description="Of 100 customers so many go to the new side, phase by phase.", min_length=1
    )
    soak: Duration = Field(
        timedelta(minutes=5),
        description="How long each phase must hold, the last one too; at least the record's ttl.",
        examples=["5m"],
    )
    base: str = Field(
        description="Address that paths are below; its host is asked at the new side's address.",
        examples=["http://checkout.shop.example:8080"],
        pattern="^https?://",
    )
    requests: tuple[Request, ...] = Field(
        description="What to ask the new side; only GET, HEAD and OPTIONS.", min_length=1
    )
    rounds: int = Field(5, description="How often the requests are sent in one look, all at once.", ge=1, le=50)
    minimum: int = Field(20, description="Requests at a phase before anything is judged.", ge=1, le=1000)
    latest: int = Field(100, description="Only the latest so many requests are judged.", ge=1, le=1000)
    limits: Limits = Field(Limits(), description="When the new side counts as working; else the phase is taken back.")
    max_trips: int = Field(2, description="After so many phases taken back the step fails.", ge=1, le=20)
    ttl: Duration | None = Field(
        None, description="For how long resolvers may keep the record sets; unset: as it is now."
    )
    then: Literal["weighted", "simple"] = Field(
        "weighted", description="What is left at the end; simple: one record of the new side, as aws.route53.point needs."
    )

    _whole_seconds = field_validator("ttl")(check_ttl)

    @field_validator("phases")
    @classmethod
    def _growing(cls, value: tuple[int, ...]) -> tuple[int, ...]:
        if list(value) != sorted(set(value)):
            raise ValueError("phases grow from one to the next, such as [5, 25, 50, 100]")
        return value

    @field_validator("requests")
    @classmethod
    def _only_read(cls, value: tuple[Request, ...]) -> tuple[Request, ...]:
        for request in value:
            if request.method not in READING:
                raise ValueError(f"'{request.name}' is a {request.method}; a look leaves nothing behind, so ask with GET")
        return value

    @model_validator(mode="after")
    def _fits_together(self) -> ShiftWeights:
        check_values(self.type, self.old.values)
        check_values(self.type, self.new.values)
        if self.old.id == self.new.id or same(self.old.values, self.new.values):
            raise ValueError("old and new are the same side; give each its own id and values")
        if self.latest < self.minimum:
            raise ValueError(f"only the latest {self.latest} requests are judged, so {self.minimum} are never reached")
        if self.then == "simple" and self.phases[-1] != WHOLE:
            raise ValueError(f"a simple record sends everyone to the new side; end the phases with {WHOLE}")
        return self

    @property
    def shortest(self) -> timedelta:
        """Every phase is held for `soak`."""
        return self.soak * len(self.phases)

    def observe(self, clients: Clients) -> Shift:
        """Read the record sets, ask for our change and the name servers, and send the requests to the new side."""
        from tasks.aws.route53_weights_calls import look

        return look(self, clients)

    def preflight(self, clients: Clients) -> tuple[Need, ...]:
        """The record sets as they are, and the right to change them; whether the new side is fit is seen at its time."""
        from tasks.aws.route53_weights_calls import needs

        return needs(self, clients)

    def share_of(self, state: Shift) -> int | None:
        """Of 100 customers so many go to the new side; None where the record sets are none that this step makes."""
        sets = {one.id: one for one in state.sets}
        if any(one.foreign for one in state.sets) or len(sets) != len(state.sets):
            return None
        share: int | None = None
        if set(sets) == {None}:
            (values,) = (one.values for one in state.sets)
            share = 0 if same(values, self.old.values) else WHOLE if same(values, self.new.values) else None
        elif set(sets) == {self.old.id, self.new.id}:
            old, new = sets[self.old.id], sets[self.new.id]
            ours = same(old.values, self.old.values) and same(new.values, self.new.values)
            share = new.weight if ours and (old.weight or 0) + (new.weight or 0) == WHOLE else None
        return share if share in {0, *self.phases} else None

    def arrived(self, state: Shift) -> bool:
        """Route 53 is in sync and every name server answers one of what it may."""
        return state.in_sync is not False and all(answer.agrees for answer in state.answers)

    def done(self, state: Shift) -> bool:
        """The last phase has held, and the record is left as declared."""
        if self.share_of(state) != self.phases[-1] or state.verdict != "held" or not self.arrived(state):
            return False
        return self.then != "simple" or is_simple(state)

    def next_step(self, state: Shift) -> Next | None:
        """What comes next: the next phase once this one held, the one before once it tripped; None: nothing yet."""
        share = self.share_of(state)
        if share is None:
            return None
        steps = (0, *self.phases)
        at = steps.index(share)
        if state.verdict == "tripped" and at:
            return Next(share=steps[at - 1])
        if state.verdict != "held" or self._spent(state) or self.done(state) or not self.arrived(state):
            return None
        return Next(share=share, simple=True) if share == self.phases[-1] else Next(share=steps[at + 1])

    def _spent(self, state: Shift) -> bool:
        return state.trips >= self.max_trips and state.verdict != "tripped"

    def _gives_up(self, state: Shift) -> bool:
        """Only where nobody is hurt while people think: at home, or where the new side is seen to be well."""
        return self._spent(state) and (state.share == 0 or (self.arrived(state) and self.judged(state.recent).fit))

    def retreats(self, state: Shift) -> bool:
        """A phase that tripped is taken back."""
        return state.verdict == "tripped"

    def underway(self, state: Shift) -> bool:
        """A change is on its way or a phase is soaked: the engine waits."""
        return self.next_step(state) is None

    def refuse(self, before: Shift) -> str | None:
        """Refuse record sets that this step does not make, and to go on after too many trips."""
        if self.share_of(before) is None:
            return (
                f"{before.record} {before.type} is {show(before.sets)}; expected '{self.old.id}' and '{self.new.id}' with "
                f"their own values and weights that add up to {WHOLE} at one of 0, {', '.join(map(str, self.phases))}, or "
                f"one simple record of '{self.old.id}'; bring it there and resume"
            )
        if self._gives_up(before):
            return (
                f"the stop rule tripped {before.trips} times, the last time by {before.because}; "
                f"{self.new.id} is left at {self.share_of(before)} of {WHOLE}"
            )
        return None

    def fold(self, earlier: Seen[Shift] | None, now: Seen[Shift]) -> Shift:
        """Carry the soak at this share on, or begin it, and judge the new side."""
        state, share = now.state, self.share_of(now.state)
        known = earlier.state if earlier is not None else state
        here: dict[str, Any] = {"share": share, "trips": known.trips, "because": known.because}
        if share is None:
            return state.model_copy(update=here)
        same_phase = earlier is not None and known.share == share
        if same_phase and known.verdict == "tripped":  # outlives a crash: the way back is the safe one
            return state.model_copy(update={**here, "verdict": "tripped", "recent": known.recent})
        watched = same_phase and earlier is not None and now.at - earlier.at <= self._longest_look + SLACK
        since, recent = (known.since, known.recent) if watched else (None, ())
        recent = (*recent, *state.sent)[-self.latest :]
        said = self.judged(recent)
        here["recent"] = recent
        if said.unfit and share:
            told = f"{said.unfit} at {share} of {WHOLE}"
            return state.model_copy(update={**here, "verdict": "tripped", "trips": known.trips + 1, "because": told})
        if said.unfit:
            since = None  # nobody is there yet, so it waits until the new side is well
        elif since is None and self.arrived(state):
            since = now.at
        soaked = max(now.at - since, timedelta(0)) if since is not None else timedelta(0)
        held = said.fit and since is not None and self.arrived(state) and soaked >= self._soak_at(state, share, known.trips)
        return state.model_copy(
            update={**here, "since": since, "soaked": soaked, "verdict": "held" if held else "soaking"}
        )

    def judged(self, recent: tuple[Sample, ...]) -> Judgement:
        """What the stop rule says about these requests."""
        return judge(recent, Rule(self.limits, self.minimum, self.latest))

    def _soak_at(self, state: Shift, share: int, trips: int) -> timedelta:
        """Before anybody was moved it is enough that the new side is well; else customers must have come, or gone."""
        if share == 0 and not trips:
            return timedelta(0)
        return max(self.soak, *(one.ttl or timedelta(0) for one in state.sets))

    @property
    def _longest_look(self) -> timedelta:
        """The requests of a look leave together, so the slowest counts; the pause before it, and the name servers."""
        return self.interval + max(request.timeout for request in self.requests) + self.patience

    def describe(self, before: Shift) -> str:
        """Say where customers are sent, before and after: 'east 0 -> 5 of 100, west 100 -> 95'."""
        share, name = self.share_of(before), self.record.rstrip(".")
        if share is None:
            return f"{name}: {show(before.sets)}"
        going = self.next_step(before) or self._would(share)
        if going.simple:
            return f"{name}: {show(before.sets)} -> simple {', '.join(self.new.values)}"
        if going.share == share:
            return f"{name}: {show(before.sets)}, to be held for {self.soak.total_seconds():g}s"
        moved = f"{self.new.id} {share} -> {going.share} of {WHOLE}, {self.old.id} {WHOLE - share} -> {WHOLE - going.share}"
        shape = f"; one simple record ({', '.join(before.sets[0].values)}) becomes two weighted ones" if is_simple(before) else ""
        back = f"; back, because of {before.because}" if before.verdict == "tripped" else ""
        return f"{name}: {moved}{shape}{back}"

    def _would(self, share: int) -> Next:
        """What comes next if the phase holds: for dry runs and for a gate that asks early."""
        rest = [phase for phase in self.phases if phase > share]
        return Next(share=rest[0]) if rest else Next(share=share, simple=self.then == "simple")

    def explain(self, state: Shift) -> str:
        """Say the weights, whether they have arrived, and how the new side does."""
        said = [f"{state.record} {state.type} is {show(state.sets)}"]
        if state.in_sync is False:
            said.append("change pending")
        said += [f"{one.server} answers {', '.join(one.values) or one.detail or 'nothing'}" for one in state.answers if not one.agrees]
        said.append(f"{state.verdict} {state.soaked.total_seconds():.0f}s of {self.soak.total_seconds():g}s")
        said.append(f"{self.new.id}: {self.judged(state.recent or state.sent).told}")
        if state.trips:
            said.append(f"tripped {state.trips} of {self.max_trips} times ({state.because})")
        return ", ".join([*said, *([state.wrong] if state.wrong else [])])

    def by_hand(self) -> tuple[str, ...]:
        """One batch a phase, for two weighted record sets that are there; between them look at the new side."""
        from tasks.aws.route53_weights_calls import by_hand

        return by_hand(self)

    def undo_by_hand(self, before: Shift) -> tuple[str, ...]:
        """Look, then bring the former record sets back in one batch."""
        from tasks.aws.route53_weights_calls import back_by_hand

        return back_by_hand(self, before)

    def act(self, before: Shift, clients: Clients) -> None:
        """Replace exactly the record sets that were seen by those of the next phase, all of them or none."""
        from tasks.aws.route53_weights_calls import change

        going = self.next_step(before)
        if going is None:
            raise ActionFailed("the phase has not held yet, so nobody is moved", attempted="ChangeResourceRecordSets")
        change(self, before, going, clients)

    def undo(self, before: Shift, clients: Clients) -> None:
        """Replace exactly our record sets by the former ones."""
        from tasks.aws.route53_weights_calls import restore

        restore(self, before, clients)
