"""One example of every action's inputs and of what its `observe` gives: the contract suite runs over all of them."""

from __future__ import annotations

from typing import Any

SECRET = "hunter2-canary"  # noqa: S105 - what must never be shown
SERVER = {"host": "db.west.example", "database": "shop", "user": "failover", "password": SECRET}

INPUTS: dict[str, dict[str, Any]] = {
    "assess.severity": {
        "rules": [{"severity": "P1", "disposition": "evacuate", "reason": "gone", "when": {"down_at_least": 1}}],
        "signals": [{"name": "health", "says": "dead", "answered": True, "detail": "refused"}],
    },
    "aws.autoscaling.scale": {"region": "us-west-2", "group": "web", "desired": 3},
    "aws.route53.point": {"zone": "shop.example", "record": "checkout.shop.example", "values": ["192.0.2.7"]},
    "aws.route53.shift_weights": {
        "zone": "shop.example", "record": "checkout.shop.example", "base": "http://checkout.shop.example",
        "old": {"id": "west", "values": ["192.0.2.2"]}, "new": {"id": "east", "values": ["192.0.2.1"]},
        "requests": [{"name": "health", "url": "/health", "headers": {"Authorization": SECRET}}],
    },
    "detect.outage": {
        "signals": {"primary": {"postgres": SERVER}, "health": {"http": {"url": "http://checkout.example/health"}}}
    },
    "http.smoke_test": {
        "base": "http://checkout.example",
        "requests": [{"name": "health", "url": "/health", "headers": {"Authorization": SECRET}}],
    },
    "postgres.advance_sequences": {"server": SERVER, "by": 1000},
    "postgres.elect": {"standbys": {"a": SERVER, "b": SERVER}, "prefer": ["b"]},
    "postgres.follow": {"standbys": {"a": SERVER, "b": SERVER}, "leader": "a"},
    "postgres.divergence": {
        "node": SERVER, "primary": SERVER, "host": {"control": {"url": "http://host.example/east"}},
        "tables": [{"table": "orders", "key": "ref"}],
    },
    "postgres.fence": {"node": SERVER, "method": {"control": {"url": "http://provider.example/east"}}},
    "postgres.promote": {"standby": SERVER, "heartbeat": {}, "system_id": "7", "max_loss": "30s"},
    "postgres.rebuild_standby": {
        "node": SERVER, "primary": SERVER, "host": {"control": {"url": "http://host.example/east"}}, "source": "west",
        "standby": {"name": "east", "slot": "east", "synchronous": "east"},
        "divergence": {"read": True, "diverged": True, "system_id": "7", "timeline": 1, "fork_lsn": "0/3000060",
                       "end_lsn": "0/3000A28", "transactions": 3, "digest": "abc"},
    },
    "postgres.replication": {"standby": SERVER, "primary": SERVER, "heartbeat": {}},
    "postgres.switchover": {
        "primary": SERVER, "standby": SERVER, "host": {"control": {"url": "http://host.example/west"}}, "source": "east",
        "before": {"name": "east", "slot": "east"}, "after": {"name": "west", "slot": "west"},
    },
}

_STANDBY = {
    "system_id": "7", "timeline": 1, "in_recovery": True, "receiver": "streaming", "received_lsn": "0/3000A28",
    "replayed_lsn": "0/3000A28", "replay_paused": False, "heartbeat_at": "2026-11-21T03:00:00Z", "detail": "",
}  # fmt: skip
_PROMOTION = {
    **_STANDBY, "endpoint": "db.west.example:5432", "timeline_before": 1, "writable": False, "commits_wait": False,
    "synchronous_before": "", "synchronous_now": "", "loss_seconds_at_most": 1.5,
}  # fmt: skip
_FOLLOWING = {
    **_STANDBY, "attached": True, "last_replayed_at": None, "lag_seconds": 0.2, "lag_bytes": 0,
    "loss_at_least_seconds": 0.0, "loss_at_most_seconds": 0.2, "primary_answers": True, "primary_system_id": "7",
    "synchronous": False, "logical_slots": ["cdc"],
    "replicas": [{"name": "west", "state": "streaming", "sync_state": "async", "lag_bytes": 0}],
}  # fmt: skip
_CANDIDATE = {
    "name": "a", "endpoint": "db.west.example:5432", "system_id": "7", "timeline": 1, "in_recovery": True,
    "received_lsn": "0/3000A28", "receiver": "streaming", "upstream": {"host": "db.east.example", "port": "5432"},
}  # fmt: skip
_ELECTION = {
    "chosen": "a", "system_id": "7", "timeline": 1, "received_lsn": "0/3000A28", "candidates": [_CANDIDATE],
    "not_eligible": {"b": "is paused"}, "unreachable": ["c"],
}  # fmt: skip
_FOLLOWERS = {
    "leader": "a", "leader_in_recovery": False, "system_id": "7", "timeline": 2, "following": ["b"],
    "left_out": {"c": "cannot be asked"}, "candidates": [{**_CANDIDATE, "name": "b"}],
}  # fmt: skip
_SEQUENCE = {
    "name": "public.orders_id_seq", "increment": 1, "least": 1, "most": 2**31 - 1, "cycles": False, "last": 33, "target": 1033,
}  # fmt: skip
_FLEET = {
    "group": "web", "desired": 1, "min_size": 0, "max_size": 4, "in_service": 1, "launches": True,
    "instances": [{"id": "i-1", "lifecycle": "InService", "health": "Healthy"}],
}  # fmt: skip
_RECORD = {
    "zone_id": "Z1", "record": "checkout.shop.example.", "type": "A", "values": ["192.0.2.1"], "ttl": "1m", "simple": True,
    "answers": [{"server": "127.0.0.1:53", "values": ["192.0.2.1"], "agrees": False}],
}  # fmt: skip
_GOOD = {"ms": 12.5, "good": True, "error": False}
_HALF: dict[str, Any] = {
    "zone_id": "Z1", "record": "checkout.shop.example.", "type": "A", "in_sync": True, "answers": [], "sent": [_GOOD] * 5,
    "sets": [
        {"id": "west", "weight": 50, "values": ["192.0.2.2"], "ttl": "1m"},
        {"id": "east", "weight": 50, "values": ["192.0.2.1"], "ttl": "1m", "health_check": "h-1"},
    ],
    "share": 50, "since": "2026-11-21T03:00:00Z", "soaked": "2m", "recent": [_GOOD] * 30, "trips": 1,
    "because": "error rate 2.0% of 100 requests, limit 1.0% at 100 of 100",
}  # fmt: skip
_ALL = {**_HALF, "sets": [{**_HALF["sets"][0], "weight": 0}, {**_HALF["sets"][1], "weight": 100}], "share": 100}
_SMOKE = {
    "requests": 4, "failures": 0, "errors": 0, "error_rate": 0.0, "success_rate": 1.0, "p95_ms": 12.5, "address": None,
    "results": [{"name": "health", "sent": 4, "good": 4, "slowest_ms": 12.5}],
}  # fmt: skip
_FENCED = {"method": "control", "state": "stopped", "stays_off": True, "reachable": False, "evidence": "stopped"}
_CUT_OFF = {"name": "west", "calls_itself": "west", "system_id": "7", "in_recovery": True, "receiver": False, "kept": True}
_CONTROL = {"system_id": "7", "timeline": 1, "clean": True, "checkpoint": "0/3000A28"}
_HOST = {"state": "running", "stays_off": False, "control": None, "job": {"number": 1, "state": "done", "method": "rewind"}}
_OFF = {"state": "stopped", "stays_off": True, "control": _CONTROL}
_LINK = {
    "primary": {"system_id": "7", "in_recovery": False, "timeline": 2}, "names": "east", "state": "streaming",
    "standby": {"system_id": "7", "in_recovery": True, "timeline": 2}, "behind_bytes": 0, "replay_bytes": 0, "slot": "active",
}  # fmt: skip
_GONE = {**_LINK, "standby": None, "state": "", "slot": "missing", "detail": "refused"}
_SWITCHING = {"host": _HOST, "candidate": {**_PROMOTION, "timeline": 2}, "link": _LINK, "old_answers": True}
_NEW = {**_PROMOTION, "in_recovery": False, "timeline": 3, "writable": True}

STATES: dict[str, list[tuple[dict[str, Any], bool]]] = {
    "assess.severity": [({"severity": "P1", "disposition": "evacuate", "reasons": ["gone"], "rule": 0}, True)],
    "aws.autoscaling.scale": [(_FLEET, False), ({**_FLEET, "desired": 3, "in_service": 3}, True)],
    "aws.route53.point": [
        (_RECORD, False),
        ({**_RECORD, "values": ["192.0.2.7"], "in_sync": True, "answers": []}, True),
        ({**_RECORD, "values": ["192.0.2.7"], "in_sync": False, "answers": []}, False),
    ],
    "aws.route53.shift_weights": [
        (_HALF, False),
        ({**_HALF, "verdict": "held"}, False),
        ({**_HALF, "verdict": "tripped"}, False),
        (_ALL, False),
        ({**_ALL, "verdict": "held"}, True),
        ({**_ALL, "verdict": "held", "in_sync": False}, False),
        ({**_HALF, "sets": []}, False),
    ],
    "detect.outage": [
        ({"outage": None, "impact": None, "reason": "first look", "signals": []}, False),
        (
            {
                "outage": True, "impact": "2026-11-21T03:00:00Z", "reason": "1 agrees",
                "signals": [{"name": "health", "says": "dead", "answered": True, "detail": "refused", "past": True}],
            },
            True,
        ),
    ],
    "http.smoke_test": [(_SMOKE, True), ({**_SMOKE, "p95_ms": 900.0}, False)],
    "postgres.advance_sequences": [
        ({"in_recovery": False, "sequences": [_SEQUENCE]}, True),
        ({"in_recovery": False, "sequences": [_SEQUENCE], "behind": ["public.orders_id_seq"]}, False),
        ({"in_recovery": True, "sequences": []}, False),
    ],
    "postgres.elect": [
        (_ELECTION, True),
        ({**_ELECTION, "receiving": ["a"]}, False),
        ({**_ELECTION, "chosen": None}, False),
    ],
    "postgres.follow": [
        (_FOLLOWERS, True),
        ({**_FOLLOWERS, "pending": ["b"], "following": []}, False),
        ({**_FOLLOWERS, "following": []}, False),
        ({**_FOLLOWERS, "leader_in_recovery": True}, False),
    ],
    "postgres.divergence": [
        ({"found": {"read": False}}, False),
        (
            {
                "found": {"read": True, "diverged": True, "system_id": "7", "timeline": 1, "fork_lsn": "0/3000060",
                          "end_lsn": "0/3000A28", "transactions": 2, "digest": "abc"},
                "first_at": "2026-11-21T03:00:00Z", "last_at": "2026-11-21T03:00:01Z", "written": 2, "lost": 1,
                "rows": [{"table": "orders", "key": "k1", "row": "{}"}],
            },
            True,
        ),
    ],
    "postgres.fence": [
        (_FENCED, True),
        ({**_FENCED, "state": "running"}, False),
        ({**_FENCED, "stays_off": False}, False),
        ({**_FENCED, "reachable": True, "sessions": 0}, False),
        ({**_FENCED, "state": "sync-quorum-lost", "commits": {"names": "west", "level": "on"}, "standbys": [_CUT_OFF]}, True),
        ({**_FENCED, "state": "sync-quorum-lost", "reachable": True, "sessions": 0}, False),
    ],
    "postgres.promote": [
        (_PROMOTION, False),
        ({**_PROMOTION, "in_recovery": False, "timeline": 2, "writable": True}, True),
        ({**_PROMOTION, "in_recovery": False, "timeline": 2, "writable": False}, False),
        ({**_PROMOTION, "in_recovery": False, "timeline": 1, "writable": True}, False),
        ({**_PROMOTION, "in_recovery": False, "timeline": 2, "writable": True, "commits_wait": True}, False),
    ],
    "postgres.rebuild_standby": [
        ({"host": _OFF, "link": _GONE}, False),
        ({"host": {**_OFF, "job": {"number": 1, "state": "running", "phase": "rewind"}}, "link": _GONE}, False),
        ({"host": _HOST, "link": _LINK, "kept": "/kept/east-1", "method": "rewind"}, True),
        ({"host": {**_HOST, "job": {"number": 1, "state": "running", "phase": "start"}}, "link": _LINK}, False),
        ({"host": _HOST, "link": {**_LINK, "names": ""}}, False),
        ({"host": _HOST, "link": {**_LINK, "behind_bytes": 10_000_000}}, False),
        ({"host": _HOST, "link": {**_LINK, "standby": {**_LINK["primary"]}}}, False),
    ],
    "postgres.replication": [(_FOLLOWING, True)],
    "postgres.switchover": [
        (_SWITCHING, False),
        ({**_SWITCHING, "host": _OFF, "old_answers": False, "shutdown_lsn": "0/3000A28"}, False),
        ({**_SWITCHING, "host": {**_OFF, "control": {**_CONTROL, "clean": False}}}, False),
        ({**_SWITCHING, "candidate": _NEW}, True),
        ({**_SWITCHING, "candidate": _NEW, "host": {**_HOST, "job": {"number": 1, "state": "running"}}}, False),
        ({**_SWITCHING, "candidate": _NEW, "link": _GONE}, False),
        ({**_SWITCHING, "candidate": _NEW, "link": {**_LINK, "standby": {**_LINK["primary"]}}}, False),
    ],
}  # fmt: skip
