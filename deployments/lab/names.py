"""The DNS responder: authoritative for the lab's zone, over UDP and TCP, from the records the cloud publishes."""

from __future__ import annotations

import asyncio
import contextlib
import random
import struct
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import cast

import dns.exception
import dns.flags
import dns.message
import dns.name
import dns.opcode
import dns.rcode
import dns.rdataclass
import dns.rdatatype
import dns.rrset

from .addresses import ZONE, Endpoint


@dataclass(frozen=True)
class Record:
    """A record set of the zone: what a name and a type answer."""

    name: str
    type: str
    ttl: int
    values: tuple[str, ...]


@dataclass(frozen=True)
class Weighted:
    """Record sets of one name and type, of which each query gets one, as often as its weight is of their sum."""

    sets: tuple[Record, ...]
    weights: tuple[int, ...]

    @property
    def answered(self) -> tuple[Record, ...]:
        """The sets that are answered at all: not those of weight 0, unless all are 0; then all, as Route 53 does."""
        return tuple(one for one, weight in zip(self.sets, self.weights, strict=True) if weight) or self.sets

    def choose(self) -> Record:
        """Draw one for a query."""
        weights = self.weights if any(self.weights) else None
        return random.choices(self.sets, weights)[0]  # noqa: S311 - as Route 53 spreads customers


Zone = Mapping[tuple[str, str], Record | Weighted]


def serving(found: Record | Weighted) -> tuple[Record, ...]:
    """The record sets that a query may get."""
    return found.answered if isinstance(found, Weighted) else (found,)
_APEX = dns.name.from_text(ZONE)


def answer(wire: bytes, zone: Zone | None) -> bytes | None:
    """Answer one query from the zone; None (not read yet) is SERVFAIL. None when it is no query at all."""
    try:
        query = dns.message.from_wire(wire, ignore_trailing=True)
    except dns.exception.DNSException:
        return None
    if query.flags & dns.flags.QR:
        return None
    reply = dns.message.make_response(query)
    if query.opcode() != dns.opcode.QUERY or len(query.question) != 1:
        reply.set_rcode(dns.rcode.NOTIMP)
        return reply.to_wire()
    question = query.question[0]
    if not question.name.is_subdomain(_APEX) or question.rdclass != dns.rdataclass.IN:
        reply.set_rcode(dns.rcode.REFUSED)
        return reply.to_wire()
    if zone is None:
        reply.set_rcode(dns.rcode.SERVFAIL)
        return reply.to_wire()
    reply.flags |= dns.flags.AA
    _fill(reply, question, zone)
    return reply.to_wire()


def _fill(reply: dns.message.Message, question: dns.rrset.RRset, zone: Zone) -> None:
    name = question.name.to_text().lower()
    kind = dns.rdatatype.to_text(question.rdtype)
    found = zone.get((name, kind))
    if found is not None:
        record = found.choose() if isinstance(found, Weighted) else found
        reply.answer.append(dns.rrset.from_text_list(question.name, record.ttl, "IN", record.type, record.values))
        return
    if not any(known == name or known.endswith(f".{name}") for known, _ in zone):
        reply.set_rcode(dns.rcode.NXDOMAIN)
    if isinstance(soa := zone.get((f"{ZONE}.", "SOA")), Record):  # tells resolvers how long to remember the no
        reply.authority.append(dns.rrset.from_text_list(_APEX, soa.ttl, "IN", "SOA", soa.values))


class Responder:
    """Serves `answer` at an address, over UDP and TCP."""

    def __init__(self, listen: Endpoint, zone: Callable[[], Zone | None]) -> None:
        self._listen = listen
        self._zone = zone
        self._udp: asyncio.DatagramTransport | None = None
        self._tcp: asyncio.Server | None = None

    async def open(self) -> None:
        address = (self._listen.host, self._listen.port)
        loop = asyncio.get_running_loop()
        self._udp, _ = await loop.create_datagram_endpoint(lambda: _Datagrams(self._zone), local_addr=address)
        self._tcp = await asyncio.start_server(self._serve, *address)

    def close(self) -> None:
        if self._udp is not None:
            self._udp.close()
        if self._tcp is not None:
            self._tcp.close()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.suppress(OSError, asyncio.IncompleteReadError, TimeoutError):
            while True:
                (length,) = struct.unpack("!H", await asyncio.wait_for(reader.readexactly(2), 5))
                reply = answer(await asyncio.wait_for(reader.readexactly(length), 5), self._zone())
                if reply is None:
                    break
                writer.write(struct.pack("!H", len(reply)) + reply)
                await writer.drain()
        writer.close()


class _Datagrams(asyncio.DatagramProtocol):
    def __init__(self, zone: Callable[[], Zone | None]) -> None:
        self._zone = zone
        self._transport: asyncio.DatagramTransport | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast("asyncio.DatagramTransport", transport)  # it is one, but 3.11's class does not say so

    def datagram_received(self, data: bytes, addr: tuple[str, int]) -> None:
        reply = answer(data, self._zone())
        if reply is not None and self._transport is not None:
            self._transport.sendto(reply, addr)
