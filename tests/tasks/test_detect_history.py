"""A thousand disturbances that heal by themselves, and deaths that do not: the defaults of detect.outage, simulated."""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

import pytest

from tasks.contract import Mark, Seen
from tasks.detect import DetectOutage, Outage
from tasks.signals import Reading, Says

START = datetime(2026, 11, 21, 3, 0, tzinfo=UTC)
SERVER = {"host": "db", "database": "shop", "user": "failover"}
SIGNALS = {
    "health": {"http": {"url": "http://checkout/health"}},
    "port": {"tcp": {"host": "db", "port": 5432}},
    "primary": {"postgres": SERVER},
    "standby": {"standby": SERVER},
    "provider": {"control": {"url": "http://provider/east"}},
}
PING = 7.0  # the standby says up while its stream is younger: wal_receiver_timeout 10s / 2 + 2
RECONNECT = 5.0  # wal_retrieve_retry_interval: so long a standby may miss a primary that is back
UP, DEAD, SILENT, UNKNOWN = Says.up, Says.dead, Says.silent, Says.unknown

World = dict[str, tuple[Says, bool]]
"""What each party would say now, and whether a host answers."""


def step(**changes: object) -> DetectOutage:
    return DetectOutage.model_validate({"signals": SIGNALS, **changes})


@dataclass(frozen=True)
class Trouble:
    """Something that begins, and ends by itself unless `lasts` is None."""

    kind: str
    begins: float
    lasts: float | None

    def on(self, now: float, after: float = 0.0) -> bool:
        return self.begins <= now and (self.lasts is None or now < self.begins + self.lasts + after)


def world(troubles: list[Trouble], now: float) -> World:
    """Say what each party would answer at `now`."""
    said: World = dict.fromkeys(SIGNALS, (UP, True))
    for trouble in troubles:
        since = now - trouble.begins
        if trouble.kind == "restart" and trouble.on(now, RECONNECT):
            said["standby"] = (DEAD, True)
        if not trouble.on(now):
            continue
        if trouble.kind in ("gap", "freeze"):
            said.update(dict.fromkeys(("health", "port", "primary"), (SILENT, False)))
            said["standby"] = (UP if since < PING else SILENT, True)
            said["provider"] = (SILENT if trouble.kind == "freeze" else UP, True)
        elif trouble.kind in ("restart", "killed"):
            said.update(
                {"port": (DEAD, True), "primary": (DEAD, True), "standby": (DEAD, True), "health": (SILENT, True)}
            )
        elif trouble.kind == "stopped":  # by its provider: no reset reaches anybody
            said.update(dict.fromkeys(("health", "port", "primary"), (SILENT, False)))
            said.update({"standby": (UP if since < PING else SILENT, True), "provider": (DEAD, True)})
        elif trouble.kind == "blind":
            said = {name: (UNKNOWN if name in ("standby", "provider") else SILENT, False) for name in SIGNALS}
        elif trouble.kind == "half blind":  # our way to the primary's side is cut, the standby's is not
            said.update(dict.fromkeys(("health", "port", "primary"), (SILENT, False)))
            said["provider"] = (UNKNOWN, False)
        elif trouble.kind == "service":
            said["health"] = (SILENT, True)
        elif trouble.kind == "standby":
            said["standby"] = (UNKNOWN, False)
    return said


BUSY = (0.05, 0.05, 0.1, 0.4)  # pauses between looks on a machine that is busy
QUIET = (0.05,)


def looks(
    troubles: list[Trouble], until: float, chance: random.Random, pauses: tuple[float, ...] = QUIET
) -> Iterator[Seen[Outage]]:
    """Look as the engine does: often, not at all while it is stopped; who gives no answer is awaited for a second."""
    now, asked = 0.0, dict.fromkeys(SIGNALS, -1.0)
    while now < until:
        stopped = next((one for one in troubles if one.kind == "stopped ourselves" and one.on(now)), None)
        if stopped is not None:
            now = stopped.begins + (stopped.lasts or 0.0)
        readings, took = [], 0.005
        for name, (says, answered) in world(troubles, now).items():
            waiting = not answered and not 0 <= asked[name] <= now - 1.0
            if waiting and asked[name] < 0:
                asked[name], took = now, 0.1  # a new question costs the look a tenth of a second
            elif not waiting:
                asked[name] = -1.0
            late = UNKNOWN if name in ("standby", "provider") else SILENT
            reading = Reading(name=name, says=late if waiting else says, answered=answered, detail="", waiting=waiting)
            readings.append(reading)
        state = Outage(outage=None, impact=None, signals=tuple(readings), reason="")
        yield Seen(state, START + timedelta(seconds=now + took))
        now += took + chance.choice(pauses)


def detect(
    probe: DetectOutage, troubles: list[Trouble], until: float, seed: int = 0, pauses: tuple[float, ...] = QUIET
) -> tuple[float, Outage] | None:
    """Fold every look; give when an outage was confirmed."""
    earlier: Seen[Outage] | None = None
    for seen in looks(troubles, until, random.Random(seed), pauses):
        folded = probe.fold(earlier, seen)
        earlier = Seen(folded, seen.at)
        if folded.outage:
            return (seen.at - START).total_seconds(), folded
    return None


def healing(chance: random.Random) -> list[Trouble]:
    """Draw up to three disturbances, one after the other, perhaps with our own blindness across them."""
    longest = {"gap": 15, "freeze": 15, "restart": 1.2, "half blind": 120, "service": 60, "standby": 60}
    troubles, now = [], chance.uniform(0.5, 3)
    for _ in range(chance.randint(1, 3)):
        kind = chance.choice(list(longest))
        lasts = chance.uniform(0.1, longest[kind])
        troubles.append(Trouble(kind, now, lasts))
        now += lasts + chance.uniform(RECONNECT + 1, RECONNECT + 4)
    if chance.random() < 0.5:
        kind = chance.choice(("blind", "stopped ourselves"))
        troubles.append(Trouble(kind, chance.uniform(0.1, now), chance.uniform(0.2, 300)))
    return troubles


def test_a_thousand_disturbances_that_heal_confirm_no_outage() -> None:
    probe = step(up_for="1h")
    wrong = []
    for seed in range(1000):
        troubles = healing(random.Random(seed))
        ends = max(one.begins + (one.lasts or 0) for one in troubles) + 3
        if detect(probe, troubles, min(ends, 60), seed, BUSY):
            wrong.append((seed, troubles))
    assert not wrong, wrong[:3]


@pytest.mark.parametrize("kind", ["killed", "stopped"])
def test_a_proven_death_is_confirmed_within_two_seconds(kind: str) -> None:
    slowest = 0.0
    for seed in range(100):
        begins = random.Random(seed).uniform(1, 4)
        found = detect(step(up_for="1h", dead_for="1500ms"), [Trouble(kind, begins, None)], 30, seed)
        assert found is not None
        at, outage = found
        slowest = max(slowest, at - begins)
        assert outage.impact is not None
        assert timedelta(0) <= outage.impact - START - timedelta(seconds=begins) <= timedelta(seconds=1.5)
    assert slowest < (2.0 if kind == "killed" else 3.5), slowest


@pytest.mark.parametrize("kind", ["gap", "freeze"])
def test_silence_that_stays_is_confirmed_after_its_hold_down(kind: str) -> None:
    found = detect(step(up_for="1h"), [Trouble(kind, 2, None)], 60)
    assert found is not None
    assert 22 <= found[0] <= 24


def test_being_blind_for_an_hour_confirms_nothing_and_delays_nothing() -> None:
    blind = Trouble("blind", 1, 3600)
    chance = random.Random(1)
    probe, earlier = step(), None
    for seen in looks([blind, Trouble("killed", 3602, None)], 3610, chance):
        folded = probe.fold(earlier, seen)
        earlier = Seen(folded, seen.at)
        if folded.outage:
            break
    assert earlier is not None
    assert 3602 < (earlier.at - START).total_seconds() < 3605
    assert earlier.state.outage is True


def test_a_standby_that_hears_the_primary_overrules_silence_of_any_length() -> None:
    assert detect(step(up_for="1h"), [Trouble("half blind", 1, None)], 120) is None


def test_all_up_for_long_enough_means_no_outage_and_ends_the_run() -> None:
    probe, earlier = step(), None
    for seen in looks([], 20, random.Random(0)):
        earlier = Seen(probe.fold(earlier, seen), seen.at)
        if probe.done(earlier.state):
            break
    assert earlier is not None
    assert earlier.state.outage is False
    assert 10 <= (earlier.at - START).total_seconds() < 11
    assert probe.ends(earlier.state) is not None
    assert probe.marks(earlier.state) == {}


def folded(probe: DetectOutage, said: list[tuple[float, dict[str, tuple[Says, bool]]]]) -> Outage:
    earlier: Seen[Outage] | None = None
    for at, world_now in said:
        readings = tuple(
            Reading(name=name, says=says, answered=answered, detail="") for name, (says, answered) in world_now.items()
        )
        state = Outage(outage=None, impact=None, signals=readings, reason="")
        stamp = START + timedelta(seconds=at)
        earlier = Seen(probe.fold(earlier, Seen(state, stamp)), stamp)
    assert earlier is not None
    return earlier.state


ALL_UP: World = dict.fromkeys(SIGNALS, (UP, True))
KILLED: World = {**ALL_UP, **dict.fromkeys(("port", "primary", "standby"), (DEAD, True))}


def test_a_gap_between_looks_restarts_every_hold_down() -> None:
    state = folded(step(), [(0, KILLED), (0.1, KILLED), (0.2, KILLED), (9, KILLED)])
    assert state.outage is None
    assert {one.looks for one in state.signals} == {1}


def test_a_clock_that_is_set_back_restarts_every_hold_down() -> None:
    assert folded(step(), [(5, KILLED), (4, KILLED)]).signals[1].looks == 1


def test_unknown_restarts_only_its_own_hold_down() -> None:
    lost: World = {**KILLED, "port": (UNKNOWN, False)}
    ticks = [round(0.1 * n, 1) for n in range(20)]
    state = folded(step(), [(at, lost if at == 1.0 else KILLED) for at in ticks])
    past = {one.name: one.past for one in state.signals}
    assert (past["port"], past["primary"]) == (False, True)


def test_a_stream_that_was_stale_before_it_went_proves_no_death() -> None:
    stale: World = {**ALL_UP, "standby": (SILENT, True)}
    gone: World = {**ALL_UP, "standby": (DEAD, True)}
    state = folded(step(), [(0, stale), (0.1, gone), (0.2, gone)])
    assert {one.name: one.says for one in state.signals}["standby"] is SILENT


def test_the_impact_is_the_first_look_that_found_it_down() -> None:
    ticks = [round(0.1 * n, 1) for n in range(25)]
    state = folded(step(), [(at, KILLED if at >= 0.5 else ALL_UP) for at in ticks])
    assert state.outage is True
    assert state.impact == START + timedelta(seconds=0.5)
    assert step().marks(state) == {Mark.impact: state.impact, Mark.detected: None}
    known = START - timedelta(seconds=30)
    assert folded(step(impact_at=known), [(at, KILLED) for at in ticks]).impact == known


def test_a_partial_outage_is_reported_only_when_asked_for() -> None:
    service: World = {**ALL_UP, "health": (DEAD, True)}
    ticks = [(round(0.5 * n, 1), service) for n in range(30)]
    assert folded(step(), ticks).outage is None
    state = folded(step(partial_for="5s"), ticks)
    assert state.outage is False
    assert step().ends(state) is None


def test_more_agreement_than_signals_is_refused() -> None:
    with pytest.raises(ValueError, match="only 5 signals"):
        step(agree=6)


@pytest.mark.parametrize("hold", [lambda: {"dead_for": "10s"}])
def test_a_signal_may_have_its_own_hold_down(hold: Callable[[], dict[str, str]]) -> None:
    signals = {**SIGNALS, "port": {**SIGNALS["port"], **hold()}}
    probe = DetectOutage.model_validate({"signals": signals})
    state = folded(probe, [(round(0.1 * n, 1), KILLED) for n in range(30)])
    assert not {one.name: one.past for one in state.signals}["port"]
