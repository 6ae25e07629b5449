"""What many teams have instead: a good hand-written script. Probe every 200 ms, three misses, stop, promote, re-point.

It knows nothing of gates, leases, blips or journals; it is as fast as such a script can be. Prints the time of each step.
Usage: python -m benchmarks.hand_failover LAB_NUMBER (with `failover lab env` in the environment)
"""

from __future__ import annotations

import socket
import sys
import time

import boto3
import httpx
import psycopg

from deployments.lab import Lab


def alive(host: str, port: int) -> bool:
    """Probe once: a PostgreSQL that lives answers within 300 ms."""
    try:
        with socket.create_connection((host, port), timeout=0.3) as wire:
            wire.settimeout(0.3)
            wire.sendall(b"\x00\x00\x00\x08\x04\xd2\x16\x2f")  # SSLRequest: one byte comes back from a living server
            return wire.recv(1) in {b"S", b"N"}
    except OSError:
        return False


def main() -> None:
    """Watch, then fail over once."""
    lab = Lab(int(sys.argv[1]))
    base = f"127.{lab.number}"
    session = boto3.session.Session()
    route53 = session.client("route53")
    scaling = session.client("autoscaling", region_name="us-west-2")
    zone = route53.list_hosted_zones_by_name(DNSName="lab.test")["HostedZones"][0]["Id"]
    print("watching", flush=True)
    misses = 0
    while misses < 3:
        misses = 0 if alive(f"{base}.1.5", 15432) else misses + 1
        time.sleep(0.2)
    print(f"{time.time():.3f} declared dead", flush=True)
    scaling.set_desired_capacity(AutoScalingGroupName="checkout-west", DesiredCapacity=3)
    httpx.post(f"http://{base}.0.1:17070/nodes/east/stop", timeout=10, trust_env=False).raise_for_status()
    print(f"{time.time():.3f} stopped", flush=True)
    with psycopg.connect(lab.conninfo("west", "failover"), autocommit=True) as standby:
        while standby.execute("SELECT pg_is_in_recovery()").fetchone() == (True,):
            try:
                standby.execute("SELECT pg_promote(false)")
            except psycopg.errors.ObjectNotInPrerequisiteState:
                break
            time.sleep(0.05)
    print(f"{time.time():.3f} promoted", flush=True)
    record = {"Name": "checkout.lab.test", "Type": "A", "TTL": 2, "ResourceRecords": [{"Value": f"{base}.2.1"}]}
    change = {"Changes": [{"Action": "UPSERT", "ResourceRecordSet": record}]}
    route53.change_resource_record_sets(HostedZoneId=zone, ChangeBatch=change)
    print(f"{time.time():.3f} pointed", flush=True)


if __name__ == "__main__":
    main()
