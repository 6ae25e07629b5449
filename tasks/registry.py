"""Which actions there are: ours by name, others by the entry-point group `failover.actions`.

Names lead to modules without importing them: `failover check` plans a runbook without boto3 or psycopg.
"""

from __future__ import annotations

import importlib
import re
from functools import cache
from importlib.metadata import entry_points
from typing import Any

from tasks.contract import Action, ActionType

OURS: dict[str, str] = {
    "assess.severity": "tasks.assess:AssessSeverity",
    "aws.autoscaling.scale": "tasks.aws.autoscaling:Scale",
    "aws.route53.point": "tasks.aws.route53:PointDns",
    "aws.route53.shift_weights": "tasks.aws.route53_weights:ShiftWeights",
    "detect.outage": "tasks.detect:DetectOutage",
    "http.smoke_test": "tasks.http:SmokeTest",
    "postgres.advance_sequences": "tasks.postgres_sequences:AdvanceSequences",
    "postgres.divergence": "tasks.postgres_divergence:DivergenceProbe",
    "postgres.elect": "tasks.postgres_elect:Elect",
    "postgres.fence": "tasks.postgres_fence:Fence",
    "postgres.follow": "tasks.postgres_follow:Follow",
    "postgres.promote": "tasks.postgres_promote:Promote",
    "postgres.rebuild_standby": "tasks.postgres_rebuild:RebuildStandby",
    "postgres.replication": "tasks.postgres_replication:Replication",
    "postgres.switchover": "tasks.postgres_switchover:Switchover",
}
NAME = re.compile(r"[a-z][a-z0-9_]*(\.[a-z][a-z0-9_]*)+")


@cache
def _others() -> dict[str, str]:
    return {point.name: point.value for point in entry_points(group="failover.actions")}


def names() -> tuple[str, ...]:
    """Names of every action that can be used, sorted; ours win over others of the same name."""
    return tuple(sorted({*OURS, *_others()}))


@cache
def action_type(name: str) -> ActionType | None:
    """The action called `name`, or None when there is none; raises TypeError when what is registered is no action."""
    place = OURS.get(name) or _others().get(name)
    if place is None:
        return None
    module, _, attribute = place.partition(":")
    found: Any = getattr(importlib.import_module(module), attribute)
    if not (isinstance(found, type) and issubclass(found, Action)):
        raise TypeError(f"{place} (registered as '{name}') is not an action")
    return found
