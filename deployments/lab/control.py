"""The lab's control API: what a provider's control plane and an operator's console can do, as JSON over HTTP.

GET  /status  /events  /traffic  /nodes/{name}  /slack
GET  /nodes/{name}/rebuild   /nodes/{name}/divergence?timeline=&fork=&tables=TABLE:KEY,…
POST /nodes/{name}/stop|start|release|shutdown
POST /nodes/{name}/rebuild {"from", "timeline", "fork", "end"}
POST /links/{node}/{way} {"state", "direction"}
GET  /paths/{node}    POST /paths/{node}/close|open     the service's way to the node
GET  /leases/{node}   POST /leases/{node}/renew|close|release
POST /break {"node", "how"}   /heal   /reset   /traffic {"running"}
POST /slack {"fault", "seconds", "times"}: fault is none, slow, rate-limit, drop or down
400 not understood, 404 no such thing, 409 refused in the present state, 500 the lab could not.
"""

from __future__ import annotations

import asyncio
import json
import logging
import threading
from collections.abc import Awaitable
from typing import Any
from urllib.parse import parse_qsl, urlsplit

from .addresses import WAYS, Endpoint, node_name
from .database import HOWS, Cut
from .errors import LabError, Refused
from .link import DIRECTIONS, LINK_STATES
from .serving import JsonRequests, Server
from .slack_server import FAULTS, Fault
from .world import World

_log = logging.getLogger(__name__)


class NoSuchThing(Exception):
    """There is nothing at that path."""


def serve(world: World, listen: Endpoint, loop: asyncio.AbstractEventLoop) -> Server:
    """Serve the API from threads of its own; everything it does happens on `loop`."""

    class Requests(_Requests):
        def ask(self, method: str, path: str, content: dict[str, Any]) -> Any:
            return asyncio.run_coroutine_threadsafe(handle(world, method, path, content), loop).result()

    server = Server((listen.host, listen.port), Requests)
    threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.1}, daemon=True).start()
    return server


async def handle(world: World, method: str, path: str, content: dict[str, Any]) -> Any:
    """Do one request and return what to answer."""
    match method, *path.strip("/").split("/"):
        case "GET", "status":
            return world.status()
        case "GET", "events":
            return world.events.read()
        case "GET", "traffic":
            return world.traffic()
        case "POST", "traffic":
            await world.set_traffic(running=_choice(content, "running", (True, False)))
            return world.traffic()
        case "POST", "break":
            node = _choice(content | {"node": content.get("node", "primary")}, "node", ("primary", "east", "west"))
            name, at = await world.break_node(node, _choice(content, "how", HOWS))
            return {"node": name, "how": content["how"], "at": at.isoformat()}
        case "POST", "heal":
            return {"done": await world.heal()}
        case "POST", "reset":
            await world.reset()
            return world.status()
        case _, "slack":
            return await _slack(world, method, content)
        case _, "leases", name, *verb:
            if (told := world.watchdogs.ask(method, _name(name), verb)) is not None:
                return told
        case _, "paths", name, *verb:
            if verb:
                await world.database.close_way(_name(name), closed=_choice({"verb": verb[0]}, "verb", ("close", "open")) == "close")
            closed = _name(name) in world.database.closed_ways
            return {"closed": closed, "stays_closed": closed}
        case _, "nodes", name, *verb:
            return await _node(world, method, name, verb, content)
        case "POST", "links", name, way:
            cut = Cut(
                _choice(content, "state", LINK_STATES),
                _choice({"direction": "both"} | content, "direction", DIRECTIONS),
            )
            ways = {known: known for known in WAYS}
            if way not in ways:
                raise NoSuchThing(f"no way {way!r}; ways are {', '.join(WAYS)}")
            await world.database.cut(_name(name), ways[way], cut)
            return world.status()["nodes"][name]
    raise NoSuchThing(f"{method} {path}: no such thing")


async def _slack(world: World, method: str, content: dict[str, Any]) -> Any:
    if method == "POST":
        seconds, times = content.get("seconds", 10), content.get("times")
        if not isinstance(seconds, int | float) or not 0 <= seconds <= 600:
            raise ValueError(f"seconds must be 0 to 600, not {json.dumps(seconds)}")
        if times is not None and (not isinstance(times, int) or times < 1):
            raise ValueError(f"times must be 1 or more, not {json.dumps(times)}")
        fault = Fault(_choice(content, "fault", FAULTS), float(seconds), times)
        await asyncio.to_thread(world.slack.suffer, fault)
    return world.slack.seen()


async def _node(world: World, method: str, name: str, verb: list[str], content: dict[str, Any]) -> Any:
    database, node = world.database, _name(name)
    match method, verb:
        case "GET", []:
            pass
        case "POST", ["stop"]:
            await database.power_off(node)
        case "POST", ["shutdown"]:
            return await database.hosts[node].shut_down()
        case "GET", ["divergence"]:
            return await database.hosts[node].divergence(content)
        case "GET", ["rebuild"]:
            return await database.hosts[node].look()
        case "POST", ["rebuild"]:
            return await database.hosts[node].rebuild(content)
        case "POST", ["start"]:
            await database.start(node)
        case "POST", ["release"]:
            database.release(node)
            world.watchdogs.leases[node].release()
        case _:
            raise NoSuchThing(f"{method} /nodes/{name}/{'/'.join(verb)}: no such thing")
    return world.status()["nodes"][node]


def _name(text: str) -> Any:
    try:
        return node_name(text)
    except ValueError as error:
        raise NoSuchThing(str(error)) from None


def _choice(content: dict[str, Any], key: str, allowed: tuple[Any, ...]) -> Any:
    if key not in content or content[key] not in allowed:
        raise ValueError(f"{key} must be one of {json.dumps(allowed)}, not {json.dumps(content.get(key))}")
    return content[key]


class _Requests(JsonRequests):
    def ask(self, method: str, path: str, content: dict[str, Any]) -> Awaitable[Any]:
        raise NotImplementedError

    def get(self) -> None:
        self._handle(dict(parse_qsl(urlsplit(self.path).query)))

    def post(self) -> None:
        body = self.body()
        try:
            content = json.loads(body or b"{}")
        except ValueError:
            content = None
        if isinstance(content, dict):
            self._handle(content)
        else:
            self.answer(400, {"error": "the body is not a JSON object"})

    def _handle(self, content: dict[str, Any]) -> None:
        try:
            self.answer(200, self.ask(self.command, urlsplit(self.path).path, content))
        except NoSuchThing as error:
            self.answer(404, {"error": str(error)})
        except ValueError as error:
            self.answer(400, {"error": str(error)})
        except Refused as error:
            self.answer(409, {"error": str(error)})
        except (LabError, OSError) as error:
            _log.exception("%s %s", self.command, self.path)
            self.answer(500, {"error": str(error)})


