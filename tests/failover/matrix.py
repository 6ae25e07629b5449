"""The fault matrix as a page, from what was measured: `python -m tests.failover.matrix FILE… > docs/fault-matrix.md`."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

from tests.failover.matrix_tables import Line, Lines, delays_table, kills_table, longest_delay, rounds_table, varies

HEAD = """# Fault matrix

What was done to the program in the lab (real PostgreSQL servers, the command as people start it) and what it did. Made
by `make fault-matrix`; do not edit. Every number below was measured.

{total}

"""
ROUNDS = """Rounds of *fence, then promote* with clients pinned to each node. "Recovered": the standby became primary and took writes.
A refusal is right where no fence could hold: nothing was promoted. Dual writers: writes that the old primary
acknowledged after the new one's first, by one clock. Lost: acknowledged by the old primary and not on the new one.
Recovery is from the fault to the new primary's first write; nothing is detected here, so it is mostly the command's start.

"""
KILLS = """
## The runner killed at points of its journal

The whole shipped `region-failover`, its primary killed. As soon as an event is in the journal the runner is killed
(SIGKILL), and another process in another folder finishes the run, beside customers who place {rate:g} orders a second.
Seconds are from the first start to the end of the run, the wait for the dead runner's lease among them.

"""
DELAYS = """
## Delay caused by others

Five changes in a row, each under way for 0.2 s (in Prefect 0.6 s), while somebody fails. A step's delay is its time from
the end of the one before it, less the median of the same step in undisturbed runs. In Prefect the steps after its death.
A provider that is silent holds the first change up, because all changes wait for the preflight's looks, 5 s at most; in a
failover the detection runs meanwhile. No later step waits for it.

"""
TAIL = """
## What a round does

1. The lab is brought back to its first day. Two clients are pinned to each node: they write through the node's own
   side, which no cut reaches, about 80 writes a second, and never stop trying.
2. The fault: the primary is *killed*, *frozen*, *disconnected* on every way, *cut* in one direction of one or two ways
   (asymmetric), or left *alive* (somebody fails over a primary that lives). Before the command starts, or after its
   first look. {supervised} rounds ran with hosts that start a dead PostgreSQL again after a second.
3. `failover run --live` fences and promotes, by the provider's control or, where the engine still reaches the old
   primary, in half of the rounds through SQL.
4. In rounds of the three kinds *engine killed* (SIGKILL, then `failover resume`), *standby cut* (0.3 to 2 s, both
   directions or one) and *old primary healed*, that comes during the fence or the promotion, on top of a random fault.
5. *Unfenceable* rounds have a provider that says no, is away, never answers, or stops the host without keeping it off,
   method `sql` and a node that the engine cannot reach, or, beside a provider that is away, a lease service or an owner
   of the way that is away too. Each must end with nothing promoted.
6. In *self-fence*, *isolate-path* and *sync-quorum* rounds the provider is away, and what counts instead is the node's
   own watchdog, that the way of all clients is closed, or that it waits for its standby in vain ([Fencing](fencing.md)). Behind a closed way the old primary may live, and
   clients beside it would go on, as that page says; so there its clients come by the way, as `own_side: no-clients`
   demands. A primary that waits in vain has its clients on its own side, and nothing closed. {unheard} rows
   were made by old primaries after the new one's first, acknowledged to nobody; {late} were acknowledged late, that the
   standby had confirmed before and so the new primary holds.
7. Everything is healed, and the clients go on for a second. Then both histories are read and compared.

Faults, cuts, directions and moments are drawn from a seed: `python -m tests.failover.rounds --rounds 1 --first 7 --seed 1
--lab 92 --out /tmp/r.jsonl` repeats round 7 of seed 1. CI runs a round of every kind.

## What is compared

- effects repeated: promotions by the new primary's timeline (each starts one), changes of capacity and of the record by
  what the cloud accepted, steps that finished twice. Stopping a node or closing its way is sent again until it is seen.
- by the clock: no write acknowledged by the old primary after the first that the new one acknowledged. All clients
  share one machine's monotonic clock.
- by content: each acknowledged write is in the history of the node that acknowledged it; none of the new primary's
  is in the old history; no row of the old history was made after the first of the new one (behind a closed way: no
  acknowledged one); no row is there twice; the two acknowledged on different timelines.
- lost: none where replication is synchronous; else the time from the oldest lost write to the old primary's last
  acknowledgement must lie within the range that the promotion stated beforehand.

What this cannot show: more than two nodes, real networks and disks, a provider or an owner of a way that lies, and
clients that bring their own clock.
"""


def page(lines: Lines) -> str:
    """The whole page, from lines of all tables; a table of which there are none is left out."""
    rounds, kills, delays = ([one for one in lines if one["table"] == name] for name in ("rounds", "kills", "delays"))
    told = (_of_rounds(rounds) if rounds else "", _of_kills(kills) if kills else "", _of_delays(delays) if delays else "")
    text = HEAD.format(total="\n".join(filter(None, told)))
    for sync in (False, True):
        if chosen := [one for one in rounds if one["sync"] is sync]:
            text += f"## {'Synchronous' if sync else 'Asynchronous'} replication\n\n{'' if sync else ROUNDS}{rounds_table(chosen)}\n"
    text = text.rstrip("\n") + "\n"
    if kills:
        text += KILLS.format(rate=kills[0]["rate"]) + kills_table(kills)
    if delays:
        text += DELAYS + delays_table(delays)
    supervised = sum(bool(one["supervised"]) for one in rounds)
    unheard, late = (sum(one["judgement"][name] for one in rounds) for name in ("unheard", "late"))
    return text + TAIL.format(supervised=f"{supervised} of {len(rounds)}", unheard=unheard, late=late)


def _of_rounds(rounds: Lines) -> str:
    seeds = sorted({one["scenario"]["seed"] for one in rounds})
    unfenceable = [one for one in rounds if not one["fenceable"]]
    refused = sum(one["outcome"] == "refused" for one in unfenceable)
    margins = [one["judgement"]["margin"] for one in rounds if one["judgement"]["margin"] is not None]
    least = f" Least margin between the old primary's last acknowledgement and the new one's first: {min(margins):.3f} s." if margins else ""
    return (
        f"- **{len(rounds)} rounds** with pinned clients (seeds {', '.join(map(str, seeds))}), "
        f"{sum(one['acks_old'] + one['acks_new'] for one in rounds)} acknowledged writes: "
        f"**{sum(one['judgement']['two_writers'] for one in rounds)} acknowledged by two nodes**, {_sum(rounds, 'repeated')} effects "
        f"repeated; {refused} of {len(unfenceable)} unfenceable rounds refused; {_wrong(rounds)} rounds with anything wrong.{least}"
    )


def _of_kills(kills: Lines) -> str:
    return (
        f"- **{len(kills)} kills of the runner**, {_sum(kills, 'resumed')} of them finished by another process: "
        f"**{_sum(kills, 'repeated')} effects repeated**, {_sum(kills, 'dual_writers')} with dual writers, {_sum(kills, 'lost')} orders "
        f"lost with the old primary, {_sum(kills, 'twice')} orders twice; {_wrong(kills)} with anything wrong."
    )


def _of_delays(delays: Lines) -> str:
    parties = dict.fromkeys(one["what"].partition(",")[0] for one in delays)
    who = [f"{party} {longest_delay(delays, party):.2f} s" for party in parties]
    later = max(longest_delay(delays, party, later=True) for party in parties)
    return (
        f"- Longest delay of any step beside one that fails: **{', '.join(who)}**; of any step after the first change {later:.2f} s. "
        f"Undisturbed runs vary by up to {varies(delays):.2f} s."
    )


def _sum(lines: Lines, name: str) -> int:
    return sum(one[name] for one in lines)


def _wrong(lines: Lines) -> int:
    return sum(bool(one["wrong"]) for one in lines)


def read(paths: list[Path]) -> list[Line]:
    """All lines of these files."""
    lines: list[dict[str, Any]] = [json.loads(line) for path in paths for line in path.read_text().splitlines()]
    return lines


def main() -> None:
    """Print the page."""
    print(page(read([Path(name) for name in sys.argv[1:]])), end="")


if __name__ == "__main__":
    main()
