"""Whom a runbook may name as a name server; the asking itself is proven where it is used."""

from __future__ import annotations

import pytest
from pydantic import TypeAdapter, ValidationError

from tasks.dns_questions import NameServers

SERVERS: TypeAdapter[NameServers] = TypeAdapter(NameServers)


@pytest.mark.parametrize("good", ["127.0.0.1:53", "ns.shop.example:5300", "[2001:db8::1]:53", "[::ffff:192.0.2.1]:65535"])
def test_a_host_and_a_port_are_a_name_server(good: str) -> None:
    assert SERVERS.validate_python([good]) == (good,)


@pytest.mark.parametrize("bad", ["127.0.0.1", "ns:", ":53", "2001:db8::1:53", "ns:0", "ns:65536", "ns .example:53", "ns:５３"])
def test_anything_else_is_refused_with_an_example(bad: str) -> None:
    with pytest.raises(ValidationError, match="write host:port"):
        SERVERS.validate_python(["127.0.0.1:53", bad])
