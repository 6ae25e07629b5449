"""Where everything in a lab lives: pure arithmetic from the lab's number, nothing is looked up."""

from __future__ import annotations

import os
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Final, Literal, TypeAlias

NodeName: TypeAlias = Literal["east", "west"]
Way: TypeAlias = Literal["engine", "service", "replication"]

NODES: Final[tuple[NodeName, NodeName]] = ("east", "west")
WAYS: Final[tuple[Way, ...]] = ("engine", "service", "replication")
AWS_REGIONS: Final[dict[NodeName, str]] = {"east": "us-east-1", "west": "us-west-2"}
DEFAULT_NUMBER: Final = 77

POSTGRES_PORT: Final = 15432
WEB_PORT: Final = 18080
ZONE: Final = "lab.test"
ZONE_ID: Final = "Z0LABTEST00000"
SERVICE_NAME: Final = "checkout.lab.test"
DATABASE: Final = "shop"
DNS_TTL: Final = 2  # seconds: what a team sets that means to fail over by DNS


@dataclass(frozen=True)
class Endpoint:
    """An address and a port."""

    host: str
    port: int

    def __str__(self) -> str:
        return f"{self.host}:{self.port}"


@dataclass(frozen=True)
class Addresses:
    """Every address of lab `number`, all in 127.<number>.0.0/16.

    Several labs run side by side because their numbers differ, and a runbook can hold literal addresses because the
    ports are fixed. Linux lets any user bind any address of 127.0.0.0/8.
    """

    number: int = DEFAULT_NUMBER

    def __post_init__(self) -> None:
        if not 1 <= self.number <= 255:
            raise ValueError(f"lab number {self.number}: must be 1 to 255; it is the second byte of 127.N.x.y")

    def at(self, third: int, fourth: int, port: int) -> Endpoint:
        return Endpoint(f"127.{self.number}.{third}.{fourth}", port)

    @property
    def control(self) -> Endpoint:
        return self.at(0, 1, 17070)

    @property
    def cloud(self) -> Endpoint:
        return self.at(0, 2, 15000)

    @property
    def slack(self) -> Endpoint:
        return self.at(0, 3, 15100)

    @property
    def dns(self) -> Endpoint:
        return self.at(0, 53, 15353)

    def balancer(self, region: NodeName) -> Endpoint:
        return self.at(_third(region), 1, WEB_PORT)

    def own_side(self, node: NodeName) -> Endpoint:
        """PostgreSQL itself: what a client in the node's own region sees, whatever is cut in front of it."""
        return self.at(_third(node), 4, POSTGRES_PORT)

    def way(self, node: NodeName, way: Way) -> Endpoint:
        """The proxy in front of `node` for one kind of caller."""
        return self.at(_third(node), 5 + WAYS.index(way), POSTGRES_PORT)

    def instance(self, region: NodeName, slot: int) -> Endpoint:
        """Where the service's instance number `slot` (from 0) of a region listens."""
        return self.at(_third(region), 20 + slot, WEB_PORT)

    @property
    def folder(self) -> Path:
        return base_folder() / str(self.number)

    @property
    def lock(self) -> Path:
        """Held by the supervisor as long as it lives; outside the folder, which `down` removes."""
        return base_folder() / f"{self.number}.lock"

    @property
    def control_url(self) -> str:
        return f"http://{self.control}"

    @property
    def cloud_url(self) -> str:
        return f"http://{self.cloud}"

    def group(self, region: NodeName) -> str:
        """The region's Auto Scaling group."""
        return f"checkout-{region}"


def other(node: NodeName) -> NodeName:
    """Return the node in the other region."""
    return "west" if node == "east" else "east"


def node_name(text: str) -> NodeName:
    """Check that `text` names a node."""
    for name in NODES:
        if text == name:
            return name
    raise ValueError(f"no node {text!r}; nodes are east, west")


def number_from_environment() -> int:
    """Read FAILOVER_LAB, the default of every `--lab`."""
    text = os.environ.get("FAILOVER_LAB", str(DEFAULT_NUMBER))
    try:
        return Addresses(int(text)).number
    except ValueError:
        raise ValueError(f"FAILOVER_LAB={text!r}: must be a number from 1 to 255") from None


def base_folder() -> Path:
    """Where all labs of this user are."""
    return Path(tempfile.gettempdir()) / f"failover-lab-{os.getuid()}"


def _third(region: NodeName) -> int:
    return 1 + NODES.index(region)
