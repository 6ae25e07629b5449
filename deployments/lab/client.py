"""A lab, from outside: bring it up, break it, measure it, end it. Everything goes over its control API."""

from __future__ import annotations

import contextlib
import fcntl
import http.client
import json
import os
import select
import signal
import subprocess
import sys
import time
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from types import TracebackType
from typing import Any, Literal

from .addresses import AWS_REGIONS, DATABASE, DEFAULT_NUMBER, NODES, Addresses, NodeName, base_folder, node_name
from .cleanup import sweep
from .errors import LabError, Refused
from .processes import Identity
from .programs import package_path
from .report import TRAFFIC_FILE, TrafficReport, read, report
from .supervisor import PASSWORD_FILE

_UP = 90.0  # seconds; 4 on an idle machine of 2 cores
_CALL = 120.0  # seconds; a reset on a loaded machine
_END = 10.0  # seconds from SIGTERM to SIGKILL of a supervisor


@dataclass(frozen=True)
class NodeState:
    """A node as the provider's control plane and the proxies see it. `links` maps each way to its state."""

    node: NodeName
    state: Literal["running", "frozen", "stopped"]
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
    """The whole lab at one moment. `serving` is the region that the DNS record names, if it names one."""

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


class Lab:
    """One lab. As a context manager it is up inside and gone afterwards."""

    def __init__(self, number: int = DEFAULT_NUMBER) -> None:
        self.addresses = Addresses(number)

    def __enter__(self) -> Lab:
        if not self.running:
            self.up()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self.down()

    @property
    def number(self) -> int:
        return self.addresses.number

    @property
    def running(self) -> bool:
        """Whether its supervisor lives."""
        return _is_locked(self.addresses.lock)

    @property
    def password(self) -> str:
        """The lab's one password, of roles failover, checkout and replicator."""
        try:
            return (self.addresses.folder / PASSWORD_FILE).read_text()
        except FileNotFoundError:
            raise LabError(f"lab {self.number}: is not up; `failover lab up` starts it") from None

    def up(self, *, sync: bool = False, traffic: bool = True, rate: float = 20.0, supervise: bool = False) -> None:
        """Bring it up from nothing and return when all of it works; about 4 s. Fails if it is up already.

        An interrupt on the way leaves nothing behind.
        """
        _prepare(base_folder())
        if self.running:
            raise Refused(f"lab {self.number}: is up already; `failover lab down` ends it")
        options = {"sync": sync, "traffic": traffic, "rate": rate, "supervise": supervise}
        try:
            answer = self._start_supervisor(json.dumps(options))
        except BaseException:
            self.down()
            raise
        if "error" in answer:
            raise LabError(f"lab {self.number}: {answer['error']}; {self._log} may tell more")

    def down(self) -> list[str]:
        """End it and remove every trace, also of one that crashed or was half up. Return what had been left over."""
        if self.running:
            self._end_supervisor()
        left = sweep(self.addresses)
        self._log.unlink(missing_ok=True)
        return left

    def reset(self) -> None:
        """Bring the lab back to its first day; about 3 s."""
        self._call("POST", "/reset")

    def break_node(
        self, node: str = "primary", how: Literal["kill", "freeze", "disconnect"] = "kill"
    ) -> datetime:
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
        return _node(self._call("POST", f"/nodes/{node}/stop"))

    def release_node(self, node: NodeName) -> NodeState:
        """Allow a powered-off node to be started again."""
        return _node(self._call("POST", f"/nodes/{node}/release"))

    def start_node(self, node: NodeName) -> NodeState:
        """Start a stopped node. Refused (Refused) while it is powered off and not released."""
        return _node(self._call("POST", f"/nodes/{node}/start"))

    def status(self) -> LabStatus:
        """Look at everything."""
        return _status(self._call("GET", "/status"), self.addresses)

    def events(self) -> list[dict[str, Any]]:
        """List what was done to the lab, oldest first, each with its time."""
        events: list[dict[str, Any]] = self._call("GET", "/events")
        return events

    def set_traffic(self, *, running: bool) -> None:
        """Let customers order, or send them away."""
        self._call("POST", "/traffic", {"running": running})

    def environment(self) -> dict[str, str]:
        """Return what a program needs in its environment to act on this lab."""
        return {
            "AWS_ENDPOINT_URL": self.addresses.cloud_url,
            "AWS_ACCESS_KEY_ID": "lab",
            "AWS_SECRET_ACCESS_KEY": "lab",
            "AWS_DEFAULT_REGION": AWS_REGIONS["east"],
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
        orders = read(self.addresses.folder / TRAFFIC_FILE)  # before the database is read: what was told is there, or lost
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
        import psycopg  # noqa: PLC0415 - heavy, and only measured labs need it

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

    @property
    def _log(self) -> Path:
        return base_folder() / f"{self.number}.log"

    def _start_supervisor(self, options: str) -> dict[str, Any]:
        """Start the daemon and wait for its first line. Interrupted or not, it is never left without an owner."""
        ours, theirs = os.pipe()
        argv = [sys.executable, "-m", "deployments.lab.supervisor", "--lab", str(self.number), "--options", options]
        with self._log.open("wb") as log:
            popen = subprocess.Popen(  # noqa: S603 - our own program
                [*argv, "--report", str(theirs)],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                pass_fds=[theirs],
                start_new_session=True,
                cwd=base_folder(),
                env=os.environ | {"PYTHONPATH": package_path(), "PYTHONSAFEPATH": "1"},
            )
        try:
            os.close(theirs)
            with os.fdopen(ours, "rb") as report_pipe:
                answered = select.select([report_pipe], [], [], _UP)[0]
                line = report_pipe.readline() if answered else b""
        except BaseException:
            popen.kill()
            popen.wait()
            raise
        if not line:
            popen.kill()
            popen.wait()
            lines = self._log.read_text(errors="replace").strip().splitlines()[-3:]
            return {"error": f"its supervisor did not come up: {' / '.join(lines) or 'it said nothing'}"}
        popen.returncode = 0  # it lives on as a daemon; whoever waits for children need not be warned
        answer: dict[str, Any] = json.loads(line)
        return answer

    def _end_supervisor(self) -> None:
        identity = _supervisor(self.addresses.folder / "state.json")
        until = time.monotonic() + _END
        number = signal.SIGTERM
        while self.running and identity is not None and identity.alive:
            with contextlib.suppress(ProcessLookupError):
                os.kill(identity.pid, number)
            time.sleep(0.05)
            number = signal.SIGTERM if time.monotonic() < until else signal.SIGKILL


def _supervisor(state: Path) -> Identity | None:
    try:
        row = json.loads(state.read_text())[0]
        return Identity(row["pid"], row["started"])
    except (OSError, ValueError, KeyError, IndexError):
        return None


def _is_locked(lock: Path) -> bool:
    try:
        with lock.open() as file:
            fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except FileNotFoundError:
        return False
    except BlockingIOError:
        return True
    return False


def _prepare(base: Path) -> None:
    """Make the folder of all labs; refuse one that somebody else could have made in a folder open to all."""
    base.mkdir(mode=0o711, exist_ok=True)
    info = base.lstat()
    if info.st_uid != os.getuid() or info.st_mode & 0o022 or not base.is_dir() or base.is_symlink():
        raise LabError(f"{base}: is not a folder of yours alone; remove it, or set TMPDIR to another place")
    base.chmod(0o711)


def _node(answer: dict[str, Any]) -> NodeState:
    links = {way: cut["state"] for way, cut in answer["links"].items()}
    return NodeState(**{**answer, "links": links})


def _status(answer: dict[str, Any], addresses: Addresses) -> LabStatus:
    values = tuple(answer["record"]["values"]) if answer["record"] else ()
    regions = {addresses.balancer(region).host: region for region in NODES}
    return LabStatus(
        number=answer["lab"],
        ready=answer["ready"],
        sync=answer["options"]["sync"],
        nodes={node_name(name): _node(node) for name, node in answer["nodes"].items()},
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
