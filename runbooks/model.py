"""The grammar `failover/v1`: what a runbook file may say. The plan checks it against actions; nothing here does."""

from __future__ import annotations

from datetime import timedelta
from enum import StrEnum
from typing import Annotated, Any, Literal

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, field_validator

from tasks.contract import Duration

SLUG = r"^[a-z][a-z0-9_-]{0,62}$"
FIELD = r"^[a-z][a-z0-9_]{0,62}$"
Slug = Annotated[str, Field(pattern=SLUG)]
FieldName = Annotated[str, Field(pattern=FIELD)]
Scalar = str | int | float | bool


class Mode(StrEnum):
    """What a run may touch: the live targets, the drill targets, or nothing."""

    live = "live"
    drill = "drill"
    dry_run = "dry-run"


class Part(BaseModel):
    """Base of every part of the grammar: immutable, unknown keys refused, YAML's types taken as they are."""

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True, populate_by_name=True)


def _as_list(value: Any) -> Any:
    return tuple(value) if isinstance(value, list) else (value,) if isinstance(value, str) else value


def _tuple(value: Any) -> Any:
    return tuple(value) if isinstance(value, list) else value


Slugs = Annotated[tuple[Slug, ...], BeforeValidator(_as_list, json_schema_input_type=Slug | tuple[Slug, ...])]
Texts = Annotated[tuple[str, ...], BeforeValidator(_as_list, json_schema_input_type=str | tuple[str, ...])]
Modes = Annotated[
    tuple[Literal["drill"], ...],
    BeforeValidator(_as_list, json_schema_input_type=Literal["drill"] | tuple[Literal["drill"], ...]),
]


class Objectives(Part):
    """What recovery is measured against: times of its own, or a tier of runbooks/tiers.yaml."""

    rto: Duration | None = Field(None, description="Longest time from impact to recovery, such as 15m.")
    rpo: Duration | None = Field(
        None, description="Longest span of acknowledged data that may be lost, such as 1m; 0s for none."
    )
    tier: str | None = Field(
        None, description="A tier as set/name, such as clients/premium; rto and rpo given beside it win."
    )


class InputType(StrEnum):
    """What a person may type into the form."""

    text = "text"
    integer = "integer"
    number = "number"
    boolean = "boolean"
    choice = "choice"
    duration = "duration"
    time = "time"
    list = "list"


class Input(Part):
    """One question that starting a run asks; it becomes a field of the form in the Prefect UI."""

    type: InputType = Field(
        strict=False, description="text, integer, number, boolean, choice, duration, time or list (of texts)."
    )
    title: str | None = Field(None, description="Label in the form; the name when missing.")
    description: str | None = Field(None, description="Help in the form.")
    default: Any = Field(
        None, description="Value when nobody gives one; without a default the input is required, unless optional."
    )
    optional: bool = Field(False, description="Whether it may stay empty.")
    min: Scalar | None = Field(None, description="Smallest value, shortest text or list.")
    max: Scalar | None = Field(None, description="Largest value, longest text or list.")
    choices: Texts = Field((), description="The answers that a choice allows.")


class Approval(Part):
    """A gate: people must approve before the steps it covers may act."""

    name: Slug | None = Field(
        None, description="What `failover approve EXECUTION NAME` calls it; the step's id when missing."
    )
    title: str | None = Field(None, description="The question that is put to people.")
    covers: Slugs = Field((), description="Further steps, all after this one, that this approval lets act.")
    approvers: Texts = Field((), description="Who may answer; anyone with a name when empty.")
    quorum: int = Field(1, ge=1, le=20, description="How many different people must approve; one deny refuses.")
    exclude_initiator: bool = Field(False, description="Whether the person who started the run may not approve.")
    timeout: Duration = Field(timedelta(minutes=15), description="How long to wait for an answer.")
    valid_for: Duration = Field(
        timedelta(hours=1),
        description="How long an approval counts until a covered step acts, or acts again; after that people are asked again.",
    )
    on_timeout: Literal["refuse", "proceed"] = Field(
        "refuse", description="What silence means; proceed only over reversible changes."
    )
    budget: Duration | None = Field(None, description="Share of the RTO for people's time; the timeout when missing.")
    escalate_to: Texts = Field((), description="Who may answer as well after half of the timeout.")
    preapprove: Modes = Field((), description="Modes in which the gate opens by itself: drill.")


class Retry(Part):
    """How often and how fast an act that the world refused for a passing reason is tried again."""

    attempts: int = Field(3, ge=1, le=100, description="Acts in all, the first included.")
    backoff: Duration = Field(timedelta(seconds=1), description="Pause before the second act.")
    factor: float = Field(2.0, ge=1.0, le=10.0, strict=False, description="What each further pause is multiplied by.")
    longest: Duration = Field(timedelta(seconds=30), description="Longest pause.")


ON_FAILURE = ("ask", "halt", "continue", "roll-back")


class Step(Part):
    """One line of work."""

    id: Slug = Field(description="Name within the runbook, for references, gates and the journal.")
    title: str | None = Field(None, description="What people read; the action's name when missing.")
    uses: str | None = Field(None, description="The action, such as postgres.promote; see the action reference.")
    manual: str | None = Field(None, description="What a person does and then confirms, instead of an action.")
    with_: dict[FieldName, Any] = Field(default_factory=dict, alias="with", description="The action's inputs.")
    after: Slugs | None = Field(
        None, description="Steps it waits for; the step before it when missing; [] starts at once."
    )
    when: dict[str, Any] = Field(
        default_factory=dict,
        description="Runs only when all hold: mode, severity, disposition or ${steps.id.field}, each a value or a list.",
    )
    does: Literal["repoint", "start-consumers"] | None = Field(
        None,
        description="What the step is for, where its action does not say: repoint (leads connection strings, pools or "
        "DNS to the new primary) or start-consumers (consumers and scheduled jobs, which start last).",
    )
    gate: Approval | None = Field(None, description="Who must approve before it (and what it covers) may act.")
    budget: Duration | None = Field(None, description="Share of the RTO; it informs. The action's own when missing.")
    timeout: Duration | None = Field(None, description="When the engine gives up; the budget when missing.")
    retry: Retry | None = Field(None, description="How acts are tried again; 3 acts, 1s, doubling, when missing.")
    on_failure: str | None = Field(
        None, description="ask, halt, continue, roll-back, or the id of a step to go to. Default: ask; fences halt."
    )
    ask_timeout: Duration | None = Field(
        None, description="With on_failure: ask: how long to wait for an answer, then it is abort. 15m when missing."
    )
    drill: Literal["run", "simulate", "skip"] = Field(
        "run", description="In a drill: run it on drill targets, only look and describe it, or leave it out."
    )


class Comms(Part):
    """Where progress is told."""

    slack: str | None = Field(None, description='Channel, in quotes: "#incidents", or its id, such as C0123ABCD.')

    @field_validator("slack", mode="before")
    @classmethod
    def _named(cls, value: Any) -> Any:
        """Refuse a line that YAML reads as nothing: a run would tell nobody, and nobody would notice."""
        if value is None or (isinstance(value, str) and not value.strip("# ")):
            raise ValueError('names no channel; write it in quotes, such as "#incidents": after a blank, # begins a comment')
        return value


Value = Any


class Targets(Part):
    """Named values per mode, so that a drill never touches what a live run touches."""

    live: dict[FieldName, Value] = Field(
        default_factory=dict, description="What a live run changes; a dry run looks at it."
    )
    drill: dict[FieldName, Value] = Field(
        default_factory=dict, description="What a drill changes, under the same names."
    )


class Runbook(Part):
    """A runbook exactly as written."""

    schema_: Literal["failover/v1"] = Field(alias="schema", description="The grammar's version.")
    name: Slug = Field(description="Name of the runbook, as `failover run NAME` and Prefect's deployment say it.")
    title: str = Field(description="What it does, for people.")
    service: Slug = Field(description="The service it recovers.")
    owner: str = Field(description="Who keeps it.")
    description: str | None = Field(None, description="When to use it, and when not.")
    objectives: Objectives = Field(description="RTO and RPO.")
    inputs: dict[FieldName, Input] = Field(default_factory=dict, description="What starting a run asks.")
    targets: Targets = Field(default_factory=Targets, description="What a run touches.")
    steps: Annotated[tuple[Step, ...], BeforeValidator(_tuple)] = Field(
        min_length=1, max_length=1000, description="The work."
    )
    recovered_when: Slugs = Field(min_length=1, description="Steps whose success means that the service is back.")
    failback: Slug | None = Field(None, description="The runbook that returns home: the name of a shipped one, or of one in this file's folder.")
    comms: Comms = Field(default_factory=Comms, description="Where progress is told.")
