"""A region's load balancer: TCP, round robin over the instances that are in service."""

from __future__ import annotations

import itertools
import socket
from collections.abc import Callable, Sequence

from .addresses import Endpoint
from .link import Link, dial


class Balancer:
    """Listens at the region's address and passes each connection to the next target.

    `targets` is asked at each connection, best first in turn. A target that refuses is passed over; with none left the
    client gets a reset. Like the real ones it fails open: where every target is unhealthy, all of them are targets.
    """

    def __init__(self, listen: Endpoint, targets: Callable[[], Sequence[Endpoint]]) -> None:
        self._targets = targets
        self._turn = itertools.count()
        self._link = Link(listen, self._dial)

    async def open(self) -> None:
        await self._link.become("open")

    async def close(self) -> None:
        await self._link.close()

    async def _dial(self) -> socket.socket:
        targets = list(self._targets())
        first = next(self._turn)
        for offset in range(len(targets)):
            try:
                return await dial(targets[(first + offset) % len(targets)])
            except OSError:
                continue
        raise ConnectionRefusedError("no instance is in service")
