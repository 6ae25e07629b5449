"""Ask a name server directly: no cache of ours or of the system in between."""

from __future__ import annotations

import contextlib
import re
import socket
from datetime import timedelta
from typing import Annotated

from pydantic import AfterValidator

from tasks.clients import Clients
from tasks.errors import ActionFailed

_SERVER = re.compile(r"(?:[^:\s]+|\[[0-9A-Fa-f:.]+\]):([0-9]{1,5})")


def _check_server(value: str) -> str:
    found = _SERVER.fullmatch(value)
    if found is None or not 1 <= int(found[1]) <= 65535:
        raise ValueError(f"'{value}' is no name server; write host:port, such as 127.0.0.1:5300")
    return value


NameServers = tuple[Annotated[str, AfterValidator(_check_server)], ...]
"""Whom to ask, each 'host:port'; an IPv6 address stands in brackets."""


def ask(name_server: str, name: str, kind: str, clients: Clients, patience: timedelta) -> tuple[str, ...]:
    """Give a name server's ('host:port') present answer, sorted; empty when it says there is none.

    Raises ActionFailed when it gives no answer or refuses.
    """
    import dns.exception
    import dns.message
    import dns.query
    import dns.rcode
    import dns.rdatatype

    host, _, port = name_server.rpartition(":")
    attempted = f"{kind} {name} at {name_server}"
    clients.check()
    try:
        address = socket.getaddrinfo(host.strip("[]"), int(port), type=socket.SOCK_DGRAM)[0][4][0]
        question = dns.message.make_query(name, kind)
        answer, _ = dns.query.udp_with_fallback(
            question, str(address), timeout=patience.total_seconds(), port=int(port), ignore_unexpected=True
        )
    except dns.exception.Timeout:
        raise ActionFailed(f"{name_server} gave no answer for {name}", attempted=attempted, retry=True) from None
    except (dns.exception.DNSException, OSError, ValueError) as error:
        reason = str(error) or type(error).__name__
        raise ActionFailed(f"{name_server} could not be asked: {reason}", attempted=attempted, retry=True) from None
    if answer.rcode() not in (dns.rcode.NOERROR, dns.rcode.NXDOMAIN):
        code = dns.rcode.to_text(answer.rcode())
        raise ActionFailed(f"{name_server} answered {code} for {name}", attempted=attempted, code=code, retry=True)
    wanted = dns.rdatatype.from_text(kind)
    return tuple(sorted(item.to_text() for found in answer.answer if found.rdtype == wanted for item in found))


def resolve(name_servers: tuple[str, ...], name: str, clients: Clients, patience: timedelta) -> str:
    """Give the first address that the first name server who knows gives for a name."""
    reasons = []
    for server in name_servers:
        for kind in ("A", "AAAA"):
            try:
                found = ask(server, name, kind, clients, patience)
            except ActionFailed as error:
                reasons.append(error.reason)
                break
            if found:
                return found[0]
        else:
            reasons.append(f"{server} knows no address")
    raise ActionFailed(f"{name}: {'; '.join(reasons)}", attempted=f"resolve {name}", retry=True)


def is_address(host: str) -> bool:
    """Tell whether a host is an address already."""
    for family in (socket.AF_INET, socket.AF_INET6):
        with contextlib.suppress(OSError):
            socket.inet_pton(family, host)
            return True
    return False
