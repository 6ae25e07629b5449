"""The fault matrix as a page, from the rounds that were measured: `python -m tests.failover.matrix FILE… > docs/fault-matrix.md`."""

from __future__ import annotations

import json
import sys
from collections.abc import Sequence
from pathlib import Path
from statistics import median
from typing import Any

from tests.failover.scenarios import KINDS, SELF_FENCE

HEAD = """# Fault matrix

Randomised rounds of *fence, then promote* in the lab: real PostgreSQL servers, the command as people start it, and
clients pinned to each node. Made by `make fault-matrix`; do not edit. Every number below was measured.

{total}

"Recovered" means that the standby became primary and took writes; "refused" that nothing was promoted. A write is
*acknowledged by two nodes* when the old primary acknowledged any write after the new one had acknowledged its first, by
one clock, or when the content says so: see the end of this page. Lost are writes that the old primary had acknowledged
and the new one does not hold. Recovery is from the fault to the new primary's first acknowledged write; there is no
detection in these rounds, so it is mostly the command's own start.

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
   or method `sql` and a node that the engine cannot reach. Each must end with nothing promoted.
6. Everything is healed, and the clients go on for a second. Then both histories are read and compared.

Faults, cuts, directions and moments are drawn from a seed: `python -m tests.failover.rounds --rounds 1 --first 7 --seed 1
--lab 92 --out /tmp/r.jsonl` repeats round 7 of seed 1.

## What is compared

- by the clock: no write acknowledged by the old primary after the first that the new one acknowledged. All clients
  share one machine's monotonic clock. `margin` is the least distance that was seen.
- by content: each acknowledged write is in the history of the node that acknowledged it; none of the new primary's
  is in the old history; no row of the old history was made after the first of the new one; no row is there twice; the
  two acknowledged on different timelines.
- lost: none where replication is synchronous; else the time from the oldest lost write to the old primary's last
  acknowledgement must lie within the range that the promotion stated beforehand.

What this cannot show: more than two nodes, real networks and disks, a provider that lies (it says *stopped* and the
node lives where the engine cannot see it), and clients that bring their own clock.
"""


def page(rounds: Sequence[dict[str, Any]]) -> str:
    """The whole page."""
    seeds = sorted({(one["scenario"]["seed"], one["sync"], one.get("supervised", False)) for one in rounds})
    wrong = [one for one in rounds if one["wrong"]]
    two = sum(one["judgement"]["two_writers"] for one in rounds)
    unfenceable = [one for one in rounds if one["scenario"]["provider"] not in {"obeys", "self-fence"}]
    refused = sum(one["outcome"] == "refused" for one in unfenceable)
    margins = [one["judgement"]["margin"] for one in rounds if one["judgement"]["margin"] is not None]
    acks = sum(one["acks_old"] + one["acks_new"] for one in rounds)
    lines = [
        f"**{len(rounds)} rounds** (seeds {', '.join(str(seed) for seed, _, _ in seeds)}), {acks} acknowledged writes: "
        f"**{two} acknowledged by two nodes**; {refused} of {len(unfenceable)} unfenceable rounds refused; "
        f"{len(wrong)} rounds with anything wrong. Least margin between the old primary's last acknowledgement and the new "
        f"one's first: {min(margins):.3f} s." if margins else f"{len(rounds)} rounds."
    ]  # fmt: skip
    text = HEAD.format(total=lines[0])
    for sync in (False, True):
        chosen = [one for one in rounds if one["sync"] is sync]
        if chosen:
            text += f"## {'Synchronous' if sync else 'Asynchronous'} replication\n\n{_table(chosen)}\n"
    supervised = sum(bool(one.get("supervised")) for one in rounds)
    return text + TAIL.format(supervised=f"{supervised} of {len(rounds)}")


def _table(rounds: Sequence[dict[str, Any]]) -> str:
    rows = [
        "| fault | rounds | recovered | refused | acknowledged by two | lost writes | true loss, at most | stated for it | recovery, median |",
        "|---|---|---|---|---|---|---|---|---|",
    ]
    for kind in (*KINDS, *SELF_FENCE):
        chosen = [one for one in rounds if one["scenario"]["kind"] == kind]
        if chosen:
            rows.append(_row(kind, chosen))
    rows.append(_row("**all**", rounds))
    return "\n".join(rows) + "\n"


def _row(kind: str, rounds: Sequence[dict[str, Any]]) -> str:
    recovered = [one for one in rounds if one["outcome"] == "recovered"]
    worst = max(recovered, key=lambda one: one["judgement"]["true_loss"], default=None)
    loss = stated = "-"
    if worst is not None:
        loss = f"{worst['judgement']['true_loss']:.2f} s"
        stated = "-" if worst["stated_loss"] is None else f"{worst['stated_loss']:.2f} s"
    times = [one["recovery"] for one in recovered if one["recovery"] is not None]
    cells = [
        kind, len(rounds), len(recovered), len(rounds) - len(recovered),
        sum(one["judgement"]["two_writers"] for one in rounds), sum(one["judgement"]["lost"] for one in recovered),
        loss, stated, f"{median(times):.1f} s" if times else "-",
    ]  # fmt: skip
    return "| " + " | ".join(str(cell) for cell in cells) + " |"


def main() -> None:
    """Print the page."""
    print(page([json.loads(line) for name in sys.argv[1:] for line in Path(name).read_text().splitlines()]), end="")


if __name__ == "__main__":
    main()
