"""The lab: a small two-region world of real servers, to fail over in.

`Lab` brings one up, breaks it and measures it; `failover lab` is the same for people.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from .addresses import Addresses as Addresses
    from .client import Lab as Lab
    from .errors import LabError as LabError
    from .errors import Refused as Refused
    from .report import TrafficReport as TrafficReport
    from .status import GroupState as GroupState
    from .status import LabStatus as LabStatus
    from .status import NodeState as NodeState

_HOMES = {
    "Addresses": "addresses",
    "GroupState": "status",
    "Lab": "client",
    "LabError": "errors",
    "LabStatus": "status",
    "NodeState": "status",
    "Refused": "errors",
    "TrafficReport": "report",
}


def __getattr__(name: str) -> Any:
    """Import on first use: `failover --help` passes through here and must not pay for any of it."""
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from importlib import import_module

    return getattr(import_module(f"{__name__}.{_HOMES[name]}"), name)
