"""A lab, from outside: bring it up, break it, measure it, end it. Everything goes over its control API."""

from __future__ import annotations

import http.client
import json
from datetime import datetime
from types import TracebackType
from typing import Any, Literal, Self

from . import daemon
from .addresses import AWS_REGIONS, DATABASE, DEFAULT_NUMBER, Addresses, NodeName
from .errors import LabError, Refused
from .report import TRAFFIC_FILE, TrafficReport, read, report
from .slack import TOKEN
from .status import LabStatus, NodeState, parse_node, parse_status
from .supervisor import PASSWORD_FILE

_CALL = 120.0  # seconds; a reset takes 1 to 3, on a loaded machine many more


class Lab:
    """One lab. As a context manager it is up inside and gone afterwards."""

    def __init__(self, number: int = DEFAULT_NUMBER) -> None:
        self.addresses = Addresses(number)

    def __enter__(self) -> Self:
        self.up()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.down()

    @property
    def number(self) -> int:
        return self.addresses.number

    @property
    def running(self) -> bool:
        """Whether its supervisor lives."""
        return daemon.lives(self.addresses)

    @property
    def password(self) -> str:
        """The lab's one password, of roles failover, checkout and replicator."""
        try:
            return (self.addresses.folder / PASSWORD_FILE).read_text()
        except FileNotFoundError:
            raise LabError(f"lab {self.number}: is not up; `failover lab up` starts it") from None

    def up(self, *, sync: bool = False, traffic: bool = True, rate: float = 20.0, supervise: bool = False, watchdog: bool = False) -> None:
        """Bring it up from nothing and return when all of it works; about 4 s. Fails if it is up already.

        An interrupt on the way leaves nothing behind.
        """
        daemon.start(self.addresses, {"sync": sync, "traffic": traffic, "rate": rate, "supervise": supervise, "watchdog": watchdog})

    def down(self) -> list[str]:
        """End it and remove every trace, also of one that crashed or was half up. Return what had been left over."""
        left = daemon.end(self.addresses)
        daemon.log(self.addresses).unlink(missing_ok=True)
        return left

    def reset(self) -> None:
        """Bring the lab back to its first day; about 3 s."""
        self._call("POST", "/reset")

    def break_node(self, node: str = "primary", how: Literal["kill", "freeze", "disconnect"] = "kill") -> datetime:
        """Break a node and return the moment of the fault (UTC). Refused when there is no one primary."""
        return datetime.fromisoformat(self._call("POST", "/break", {"node": node, "how": how})["at"])

    def heal(self) -> list[str]:
        """End every fault; what was powered off stays off. Return what was done."""
        done: list[str] = self._call("POST", "/heal")["done"]
        return done

    def cut(self, node: NodeName, way: str, state: str, direction: str = "both") -> None:
        """Set one link: open, blackhole, reset or refuse; direction both, to or from the node (blackhole only)."""
        self._call("POST", f"/links/{node}/{way}", {"state": state, "direction": direction})

    def stop_node(self, node: NodeName) -> NodeState:
        """Power a node off, as its provider can; it stays off until released."""
        return parse_node(self._call("POST", f"/nodes/{node}/stop"))

    def release_node(self, node: NodeName) -> NodeState:
        """Allow a powered-off node to be started again."""
        return parse_node(self._call("POST", f"/nodes/{node}/release"))

    def start_node(self, node: NodeName) -> NodeState:
        """Start a stopped node. Refused (Refused) while it is powered off and not released."""
        return parse_node(self._call("POST", f"/nodes/{node}/start"))

    def status(self) -> LabStatus:
        """Look at everything."""
        return parse_status(self._call("GET", "/status"), self.addresses)

    def events(self) -> list[dict[str, Any]]:
        """List what was done to the lab, oldest first, each with its time."""
        events: list[dict[str, Any]] = self._call("GET", "/events")
        return events

    def set_traffic(self, *, running: bool) -> None:
        """Let customers order, or send them away."""
        self._call("POST", "/traffic", {"running": running})

    def slack(self) -> dict[str, list[dict[str, Any]]]:
        """What its Slack's channels hold: name to messages, oldest first, threads under `replies`."""
        channels: dict[str, list[dict[str, Any]]] = self._call("GET", "/slack")["channels"]
        return channels

    def break_slack(self, fault: str, seconds: float = 10.0, times: int | None = None) -> None:
        """Make its Slack slow, rate-limit, drop or down, or none again; see slack_server.Fault."""
        self._call("POST", "/slack", {"fault": fault, "seconds": seconds, "times": times})

    def environment(self) -> dict[str, str]:
        """Return what a program needs in its environment to act on this lab."""
        return {
            "AWS_ENDPOINT_URL": self.addresses.cloud_url,
            "AWS_ACCESS_KEY_ID": "lab",
            "AWS_SECRET_ACCESS_KEY": "lab",
            "AWS_DEFAULT_REGION": AWS_REGIONS["east"],
            "SLACK_API_URL": f"http://{self.addresses.slack}/api/",
            "SLACK_BOT_TOKEN": TOKEN,
            "FAILOVER_LAB": str(self.number),
            "FAILOVER_LAB_PASSWORD": self.password,
        }

    def conninfo(self, node: NodeName, user: str = "failover", *, own_side: bool = True) -> str:
        """Return how to connect to a node's database: from its own side, or the engine's way."""
        endpoint = self.addresses.own_side(node) if own_side else self.addresses.way(node, "engine")
        return (
            f"host={endpoint.host} port={endpoint.port} dbname={DATABASE} user={user} password={self.password}"
            " connect_timeout=2 sslmode=disable gssencmode=disable"
        )

    def traffic_report(self, fault: datetime | None = None, primary: NodeName | None = None) -> TrafficReport:
        """Compare what customers were told with what the current primary holds.

        The current primary is `primary`, or the one running primary, or of two the one in the region that DNS names.
        """
        # Before the database is read: what was told by then is there by now, or it is lost.
        orders = read(self.addresses.folder / TRAFFIC_FILE)
        return report(orders, self._refs(primary or self._primary()), fault)

    def _primary(self) -> NodeName:
        status = self.status()
        primaries = [node.node for node in status.nodes.values() if node.role == "primary" and node.state == "running"]
        if len(primaries) > 1 and status.serving in primaries:
            return status.serving
        if len(primaries) != 1:
            raise LabError(f"lab {self.number}: {len(primaries)} running primaries; say which one counts")
        return primaries[0]

    def _refs(self, node: NodeName) -> dict[str, int]:
        import psycopg

        with psycopg.connect(self.conninfo(node)) as connection:
            return dict(connection.execute("select ref::text, count(*) from orders group by ref").fetchall())

    def _call(self, method: str, path: str, content: dict[str, Any] | None = None) -> Any:
        endpoint = self.addresses.control
        connection = http.client.HTTPConnection(endpoint.host, endpoint.port, timeout=_CALL)
        try:
            connection.request(method, path, json.dumps(content or {}))
            reply = connection.getresponse()
            answer = json.loads(reply.read())
        except (OSError, http.client.HTTPException) as error:
            raise LabError(f"lab {self.number}: does not answer at {endpoint} ({error}); is it up?") from None
        finally:
            connection.close()
        if reply.status == http.client.CONFLICT:
            raise Refused(answer["error"])
        if reply.status != http.client.OK:
            raise LabError(answer["error"])
        return answer
