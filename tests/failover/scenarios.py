"""What happens in a round, drawn from a seed: the same seed and number give the same round on any machine."""

from __future__ import annotations

import random
from dataclasses import dataclass
from typing import Final, Literal

Fault = Literal["alive", "kill", "freeze", "disconnect", "cut"]
During = Literal["nothing", "engine killed", "standby cut", "old primary healed"]
Provider = Literal["obeys", "says no", "unreachable", "silent", "not for good", "lost by sql", "self-fence"]

FAULTS: Final[tuple[Fault, ...]] = ("kill", "freeze", "disconnect", "cut", "alive")
DURING: Final[tuple[During, ...]] = ("engine killed", "standby cut", "old primary healed")
UNFENCEABLE: Final[tuple[Provider, ...]] = ("says no", "unreachable", "silent", "not for good", "lost by sql")
CUTS: Final = tuple(
    ("east", way, direction) for way in ("engine", "service", "replication") for direction in ("to", "from")
)
MOMENTS: Final = (("acting", "fence"), ("step-finished", "fence"), ("acting", "promote"))

KINDS: Final[tuple[str, ...]] = (*FAULTS, *DURING, *(f"unfenceable: {one}" for one in UNFENCEABLE))
"""The rows of the matrix; rounds take turns through them, so that each gets its share."""
SELF_FENCE: Final[tuple[str, ...]] = tuple(f"self-fence: {one}" for one in FAULTS)
"""The rows of a lab whose nodes have watchdogs, with a provider that is away."""


@dataclass(frozen=True)
class Scenario:
    """One round. `late`: the fault comes after the engine's first look instead of before it."""

    seed: int
    number: int
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
    def fenceable(self) -> bool:
        return self.provider in {"obeys", "self-fence"}

    def __str__(self) -> str:
        cuts = ", ".join(" ".join(cut) for cut in self.cuts)
        more = f", {self.during} at {' '.join(self.moment)}" if self.during != "nothing" else ""
        return (
            f"{self.number} [{self.kind}] {self.fault}{f' ({cuts})' if cuts else ''}{' late' if self.late else ''}, "
            f"{self.method}, provider {self.provider}{more}"
        )


def draw(seed: int, number: int, kinds: tuple[str, ...] = KINDS) -> Scenario:
    """Draw a round of these kinds."""
    dice = random.Random(f"{seed}/{number}")
    kind = kinds[number % len(kinds)]
    provider = next((one for one in UNFENCEABLE if kind == f"unfenceable: {one}"), "obeys")
    if kind in SELF_FENCE:
        provider = "self-fence"
    fault: Fault = next((one for one in FAULTS if kind in {one, f"self-fence: {one}"}), None) or dice.choice(FAULTS)
    if provider == "lost by sql":  # a node that the engine cannot reach cannot be fenced through itself
        fault = dice.choice(("kill", "freeze", "disconnect"))
    alive = fault == "alive" or (fault == "cut" and provider == "obeys")
    cuts = tuple(dice.sample(CUTS, dice.choice((1, 1, 2)))) if fault == "cut" else ()
    reachable = alive and not any(way == "engine" for _, way, _ in cuts)
    sql = provider == "lost by sql" or (provider == "obeys" and reachable and dice.random() < 0.5)
    return Scenario(
        seed, number, kind, fault, cuts,
        late=dice.random() < 0.5,
        method="sql" if sql else "control",
        provider=provider,
        during=next((one for one in DURING if one == kind), "nothing"),
        moment=dice.choice(MOMENTS),
        pause=dice.uniform(0.3, 2.0),
        direction=dice.choice(("both", "to", "from")),
    )  # fmt: skip
