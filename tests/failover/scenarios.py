"""What happens in a round, drawn from a seed: the same seed and number give the same round on any machine."""

from __future__ import annotations

import random
from dataclasses import dataclass
from typing import Final, Literal

Fault = Literal["alive", "kill", "freeze", "disconnect", "cut"]
During = Literal["nothing", "engine killed", "standby cut", "old primary healed"]
Provider = Literal["obeys", "says no", "unreachable", "silent", "not for good", "lost by sql"]

FAULTS: Final[tuple[Fault, ...]] = ("kill", "freeze", "disconnect", "cut", "alive")
DURING: Final[tuple[During, ...]] = ("engine killed", "standby cut", "old primary healed")
UNFENCEABLE: Final[tuple[Provider, ...]] = ("says no", "unreachable", "silent", "not for good", "lost by sql")
CUTS: Final = tuple(
    ("east", way, direction) for way in ("engine", "service", "replication") for direction in ("to", "from")
)
MOMENTS: Final = (("acting", "fence"), ("step-finished", "fence"), ("acting", "promote"))

_SELF_FENCE = """
if_unreachable: self-fence
self_fence: {lease: "http://127.77.0.1:17070/leases/east", ttl: 2s, skew: 2s, reset_by: hardware-timer}
"""
_ISOLATE_PATH = """
if_unreachable: isolate-path
isolate_path:
  path: http://127.77.0.1:17070/paths/east
  seen_by: [{host: 127.77.1.6, port: 15432, database: shop, user: checkout}]
  own_side: no-clients
"""
_SYNC_QUORUM = """
if_unreachable: sync-quorum
sync_quorum: {rule: west, standbys: {west: "${target.west_database}"}, sessions: every-commit-waits}
"""
_AWAY = ("127.77.0.1:17070", "127.77.0.9:17070")


@dataclass(frozen=True)
class Kinds:
    """A set of rows of the matrix: what the fence declares in their runbook, and the lab that they need.

    Another way to fence is one entry in SETS, with its snippet.
    """

    rows: tuple[str, ...]
    declares: str = ""
    """Fields of postgres.fence beside its method, for a provider that is away. Empty: only the method counts."""
    lab: tuple[str, ...] = ()
    """What `Lab.up` is asked for: sync, supervise, watchdog."""
    holds: bool = True
    """Whether that can hold; else its rounds must be refused as well."""
    by_way: bool = False
    """Its clients come by the way that is closed, not from its own side."""
    lives_on: bool = False
    """The old primary may live on, and make rows that nobody is told of."""


def _each(name: str) -> tuple[str, ...]:
    return tuple(f"{name}: {fault}" for fault in FAULTS)


SETS: Final[dict[str, Kinds]] = {
    "method": Kinds((*FAULTS, *DURING, *(f"unfenceable: {one}" for one in UNFENCEABLE))),
    "self-fence": Kinds(_each("self-fence"), _SELF_FENCE, lab=("watchdog",)),
    "isolate-path": Kinds(_each("isolate-path"), _ISOLATE_PATH, by_way=True, lives_on=True),
    "sync-quorum": Kinds(  # a node that answers is never fenced by its standbys
        tuple(f"sync-quorum: {fault}" for fault in ("kill", "freeze", "disconnect")), _SYNC_QUORUM, lab=("sync",), lives_on=True
    ),
    "no-lease": Kinds(("unfenceable: lease service away",), _SELF_FENCE.replace(*_AWAY), holds=False),
    "no-way": Kinds(("unfenceable: owner of the way away",), _ISOLATE_PATH.replace(*_AWAY), holds=False),
}
"""Rounds take turns through the rows of one set, so that each row gets its share."""
KINDS: Final = SETS["method"].rows


@dataclass(frozen=True)
class Scenario:
    """One round. `late`: the fault comes after the engine's first look instead of before it."""

    seed: int
    number: int
    of: str
    """Name of its set of kinds."""
    kind: str
    fault: Fault
    cuts: tuple[tuple[str, str, str], ...] = ()
    late: bool = False
    method: Literal["control", "sql"] = "control"
    provider: Provider = "obeys"
    during: During = "nothing"
    moment: tuple[str, str] = ("acting", "fence")
    pause: float = 0.0
    """Seconds: how long the standby stays cut."""
    direction: str = "both"

    @property
    def kinds(self) -> Kinds:
        return SETS[self.of]

    @property
    def fenceable(self) -> bool:
        return self.provider == "obeys" or bool(self.kinds.declares and self.kinds.holds)

    def __str__(self) -> str:
        cuts = ", ".join(" ".join(cut) for cut in self.cuts)
        more = f", {self.during} at {' '.join(self.moment)}" if self.during != "nothing" else ""
        return (
            f"{self.number} [{self.kind}] {self.fault}{f' ({cuts})' if cuts else ''}{' late' if self.late else ''}, "
            f"{self.method}, provider {self.provider}{more}"
        )


def draw(seed: int, number: int, of: str = "method") -> Scenario:
    """Draw a round of this set of kinds."""
    dice = random.Random(f"{seed}/{number}")
    kind = SETS[of].rows[number % len(SETS[of].rows)]
    provider = next((one for one in UNFENCEABLE if kind == f"unfenceable: {one}"), "obeys")
    if SETS[of].declares:
        provider = "unreachable"
    fault: Fault = next((one for one in FAULTS if kind in {one, f"{of}: {one}"}), None) or dice.choice(FAULTS)
    if provider == "lost by sql":  # a node that the engine cannot reach cannot be fenced through itself
        fault = dice.choice(("kill", "freeze", "disconnect"))
    alive = fault == "alive" or (fault == "cut" and provider == "obeys")
    cuts = tuple(dice.sample(CUTS, dice.choice((1, 1, 2)))) if fault == "cut" else ()
    reachable = alive and not any(way == "engine" for _, way, _ in cuts)
    sql = provider == "lost by sql" or (provider == "obeys" and reachable and dice.random() < 0.5)
    return Scenario(
        seed, number, of, kind, fault, cuts,
        late=dice.random() < 0.5,
        method="sql" if sql else "control",
        provider=provider,
        during=next((one for one in DURING if one == kind), "nothing"),
        moment=dice.choice(MOMENTS),
        pause=dice.uniform(0.3, 2.0),
        direction=dice.choice(("both", "to", "from")),
    )  # fmt: skip


def draw_kind(seed: int, kind: str, of: str = "method") -> Scenario:
    """Draw the seed's first round of a kind."""
    return draw(seed, SETS[of].rows.index(kind), of)
