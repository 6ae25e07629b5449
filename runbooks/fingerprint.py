"""The hash that pins a plan: whatever decides what happens is in it, and nothing else."""

from __future__ import annotations

import hashlib
import json
from dataclasses import fields
from typing import Any

from runbooks.plan import Plan, PlannedStep

_NOT_DECIDING = ("place", "action_type")


def fingerprint(plan: Plan) -> str:
    """SHA-256 over the runbook's text, the mode, the inputs, and the steps and gates as planned, in hex.

    The file's name is not part of it: the same runbook may lie elsewhere on another machine.
    """
    decides = {
        "text": plan.text,
        "mode": plan.mode.value,
        "inputs": plan.inputs,
        "rto": str(plan.rto),
        "rpo": str(plan.rpo),
        "steps": [_step(step) for step in plan.steps],
        "gates": [[gate.name, gate.step, gate.covers, gate.rule.model_dump(mode="json")] for gate in plan.gates],
    }
    text = json.dumps(decides, sort_keys=True, separators=(",", ":"), default=str)
    return hashlib.sha256(text.encode()).hexdigest()


def _step(step: PlannedStep) -> dict[str, Any]:
    told = {one.name: getattr(step, one.name) for one in fields(step) if one.name not in _NOT_DECIDING}
    when = [[str(one.subject), one.values] for one in step.when]
    return {**told, "when": when, "retry": step.retry.model_dump(mode="json")}
