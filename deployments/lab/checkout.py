"""The checkout service: takes orders over HTTP and writes them to its region's PostgreSQL.

It never waits longer for its database than a customer would: every use of a connection has an end, also where the
database is frozen or its network silent. A promotion of the database needs no restart: broken connections are replaced,
and a database that was read-only is asked again with the next order. An order that its region's database does not take,
because it is a standby or refuses, goes on to the other region's, as with two hosts in a connection string and
`target_session_attrs=read-write`: so customers can be moved before the database, and the database before customers.
"""

from __future__ import annotations

import argparse
import json
import os
import threading
import time
import uuid
from typing import Any

import psycopg
from psycopg import errors

from .addresses import DATABASE, Addresses, Endpoint, NodeName, node_name, other
from .pool import Pool, Unavailable
from .serving import JsonRequests, Server

_ORDER_SECONDS = 1.8
_HEALTH_SECONDS = 0.9
_HEARTBEAT = 0.2
_MAX_BODY = 65536

# In one statement, so that an order sent again is written once; two at the very same time can both be written, and
# the lab's traffic reports that as duplicates.
_INSERT = """
insert into orders (ref, region, instance, item, amount)
select %(ref)s, %(region)s, %(instance)s, %(item)s, %(amount)s
where not exists (select from orders where ref = %(ref)s)
returning node
"""


class Checkout:
    """What the service does, without HTTP."""

    def __init__(self, region: NodeName, instance: str, conninfo: str, elsewhere: str) -> None:
        self.region = region
        self.instance = instance
        self._pool = Pool(conninfo, size=4)
        self._elsewhere = Pool(elsewhere, size=4)

    def order(self, content: dict[str, Any]) -> tuple[int, dict[str, Any]]:
        """Write an order once. 201 written, 200 was there, 503 not known to be written."""
        try:
            ref = uuid.UUID(str(content["ref"]))
            values = {
                "ref": ref,
                "region": self.region,
                "instance": self.instance,
                "item": str(content.get("item", "book")),
                "amount": int(content.get("amount", 1)),
            }
        except (KeyError, ValueError, TypeError) as error:
            return 400, {"error": f"not an order: {error}"}
        end = time.monotonic() + _ORDER_SECONDS
        try:
            return self._write(self._pool, end, values)
        except (psycopg.Error, Unavailable):  # the primary may be elsewhere; where it is not, that one's answer counts
            return self._write(self._elsewhere, end, values)

    def _write(self, pool: Pool, end: float, values: dict[str, Any]) -> tuple[int, dict[str, Any]]:
        ref = values["ref"]
        with pool.connection(end - time.monotonic()) as connection:
            if row := connection.execute(_INSERT, values).fetchone():
                return 201, {"ref": str(ref), "region": self.region, "node": row[0], "instance": self.instance}
            # Who has it, not who wrote it: a promoted standby has what the old primary wrote.
            row = connection.execute("select current_setting('cluster_name')").fetchone()
            return 200, {"ref": str(ref), "region": self.region, "node": row and row[0], "instance": self.instance}

    def health(self) -> tuple[int, dict[str, Any]]:
        """200 while the database answers, also when it is read-only; 503 when it does not within 1 s."""
        try:
            with self._pool.connection(_HEALTH_SECONDS) as connection:
                row = connection.execute("show transaction_read_only").fetchone()
        except (Unavailable, psycopg.Error):
            return 503, self._facts("unhealthy", "unreachable")
        return 200, self._facts("ok", "read-only" if row == ("on",) else "writable")

    def count(self) -> tuple[int, dict[str, Any]]:
        with self._pool.connection(_ORDER_SECONDS) as connection:
            row = connection.execute("select count(*), count(distinct ref) from orders").fetchone()
        total, distinct = row or (0, 0)
        return 200, {"orders": total, "refs": distinct, "region": self.region}

    def beat(self) -> None:
        """Keep the heartbeat row fresh for ever; of all instances whoever comes first writes."""
        statement = "update heartbeat set at = clock_timestamp() where at < clock_timestamp() - interval '150 ms'"
        while True:
            try:
                with self._pool.connection(_ORDER_SECONDS) as connection:
                    if connection.execute("show transaction_read_only").fetchone() == ("off",):
                        connection.execute(statement)
            except (Unavailable, psycopg.Error):
                pass  # no database, or it became read-only just now: nothing to keep alive
            time.sleep(_HEARTBEAT)

    def _facts(self, status: str, database: str) -> dict[str, Any]:
        return {"status": status, "database": database, "region": self.region, "instance": self.instance}


class Requests(JsonRequests):
    """The service's pages."""

    service: Checkout

    def get(self) -> None:
        match self.path:
            case "/alive":  # the service itself, whatever its database is
                self.answer(200, {"region": self.service.region, "instance": self.service.instance})
            case "/health":
                self.answer(*self.service.health())
            case "/orders/count":
                self._guarded(self.service.count)
            case _:
                self.answer(404, {"error": "no such page"})

    def post(self) -> None:
        body = self.body(_MAX_BODY)
        if self.path != "/orders":
            self.answer(404, {"error": "no such page"})
            return
        try:
            content = json.loads(body)
        except ValueError:
            content = {}
        self._guarded(lambda: self.service.order(content))

    def _guarded(self, act: Any) -> None:
        try:
            self.answer(*act())
        except errors.ReadOnlySqlTransaction:
            self.answer(503, {"error": "the database is read-only"})
        except (Unavailable, psycopg.Error) as error:
            self.answer(503, {"error": f"the database does not answer: {type(error).__name__}"})


def main() -> None:
    """Serve until killed."""
    parser = argparse.ArgumentParser(prog="python -m deployments.lab.checkout")
    parser.add_argument("--lab", type=int, required=True)
    parser.add_argument("--region", type=node_name, required=True)
    parser.add_argument("--instance", required=True)
    parser.add_argument("--slot", type=int, required=True)
    given = parser.parse_args()
    addresses = Addresses(given.lab)
    databases = [conninfo(addresses.way(region, "service")) for region in (given.region, other(given.region))]
    Requests.service = Checkout(given.region, given.instance, *databases)
    threading.Thread(target=Requests.service.beat, daemon=True).start()
    listen: Endpoint = addresses.instance(given.region, given.slot)
    Server((listen.host, listen.port), Requests).serve_forever()


def conninfo(database: Endpoint) -> str:
    """The service's way to its database; the password comes from the environment."""
    return psycopg.conninfo.make_conninfo(
        host=database.host,
        port=database.port,
        dbname=DATABASE,
        user="checkout",
        password=os.environ["FAILOVER_LAB_PASSWORD"],
        connect_timeout=2,
        application_name="checkout",
        sslmode="disable",
        gssencmode="disable",
    )


if __name__ == "__main__":
    main()
