"""A lab's state as its control API tells it, in types."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal

from .addresses import NODES, Addresses, NodeName, node_name


@dataclass(frozen=True)
class NodeState:
    """A node as the provider's control plane and the proxies see it. `links` maps each way to its state."""

    node: NodeName
    state: Literal["running", "frozen", "stopping", "stopped"]
    stays_off: bool
    pid: int | None
    role: Literal["primary", "standby"]
    links: dict[str, str]


@dataclass(frozen=True)
class GroupState:
    """A region's fleet: how many instances are wanted, are in service, and are healthy now."""

    desired: int | None
    in_service: int
    healthy: int


@dataclass(frozen=True)
class LabStatus:
    """The whole lab at one moment. `serving` is the region that the DNS record names, if it names one.

    `record` is every address that a query may get; those of weight 0 are not among them.
    """

    number: int
    ready: bool
    sync: bool
    nodes: dict[NodeName, NodeState]
    groups: dict[NodeName, GroupState]
    record: tuple[str, ...]
    serving: NodeName | None
    traffic_running: bool
    traffic_rate: float
    traffic_records: int


def parse_node(answer: dict[str, Any]) -> NodeState:
    """Read one node from the control API's JSON."""
    links = {way: cut["state"] for way, cut in answer["links"].items()}
    return NodeState(**{**answer, "links": links})


def parse_status(answer: dict[str, Any], addresses: Addresses) -> LabStatus:
    """Read the whole lab from the control API's JSON."""
    values = tuple(answer["record"]["values"]) if answer["record"] else ()
    regions = {addresses.balancer(region).host: region for region in NODES}
    return LabStatus(
        number=answer["lab"],
        ready=answer["ready"],
        sync=answer["options"]["sync"],
        nodes={node_name(name): parse_node(node) for name, node in answer["nodes"].items()},
        groups={node_name(region): _group(group) for region, group in answer["groups"].items()},
        record=values,
        serving=regions.get(values[0]) if len(values) == 1 else None,
        traffic_running=answer["traffic"]["running"],
        traffic_rate=answer["traffic"]["rate"],
        traffic_records=answer["traffic"]["records"],
    )


def _group(answer: dict[str, Any]) -> GroupState:
    serving = [one for one in answer["instances"] if one["in_service"]]
    return GroupState(answer["desired"], len(serving), sum(one["healthy"] for one in serving))
