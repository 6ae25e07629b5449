"""A node's watchdog: renews the node's lease, and kills PostgreSQL in time when it cannot.

It counts TTL from before it asked, so it never thinks longer of its lease than the service does. A standby needs no
lease, and neither does a node that is closed to clients. It kills every process of the node at once: a shutdown would let backends end their transactions first.
"""

from __future__ import annotations

import argparse
import http.client
import json
import time

from . import processes
from .addresses import Addresses, NodeName, node_name
from .admission import takes_writes
from .leases import TTL
from .programs import write_atomically
from .watchdogs import way_to_leases, wound_file

_EVERY = 0.2  # seconds between two renewals
_ANSWER = 0.4  # seconds to wait for one
MARGIN = 0.6  # seconds before the end of the lease at which it kills: its own longest round, and the kill


def ask(addresses: Addresses, node: NodeName) -> bool | None:
    """Ask for a renewal: granted, denied, or None where nobody answered."""
    at = way_to_leases(addresses, node)
    connection = http.client.HTTPConnection(at.host, at.port, timeout=_ANSWER)
    try:
        connection.request("POST", f"/leases/{node}/renew", "{}")
        return bool(json.loads(connection.getresponse().read())["granted"])
    except (OSError, http.client.HTTPException, ValueError, KeyError):
        return None
    finally:
        connection.close()


def run(addresses: Addresses, node: NodeName) -> None:
    """Watch for ever."""
    data = addresses.folder / "nodes" / node / "data"
    held_until = time.monotonic() + TTL
    while True:
        asked = time.monotonic()
        granted = ask(addresses, node)
        if granted:
            held_until = asked + TTL
            write_atomically(wound_file(addresses, node), repr(asked))
        elif (granted is False or time.monotonic() > held_until - MARGIN) and takes_writes(data):
            processes.kill(lambda: processes.of_folder(data, "postgres"))
        time.sleep(_EVERY)


def main() -> None:
    """Watch until killed."""
    parser = argparse.ArgumentParser(prog="python -m deployments.lab.watchdog")
    parser.add_argument("--lab", type=int, required=True)
    parser.add_argument("--node", type=node_name, required=True)
    given = parser.parse_args()
    run(Addresses(given.lab), given.node)


if __name__ == "__main__":
    main()
