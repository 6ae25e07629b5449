"""The order of steps: what each waits for, what stands before it, cycles, and the longest chain of budgets."""

from __future__ import annotations

import heapq
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import timedelta
from functools import cached_property

from runbooks.plan import CriticalPath

Parts = tuple[tuple[str, timedelta], ...]


@dataclass(frozen=True)
class Graph:
    """Steps by id, in the order of the file, and the steps that each waits for (known ids only, without cycles)."""

    after: Mapping[str, tuple[str, ...]]

    @cached_property
    def order(self) -> tuple[str, ...]:
        """Every step after all it waits for; otherwise as in the file."""
        position = {step: index for index, step in enumerate(self.after)}
        waiting = {step: len(before) for step, before in self.after.items()}
        followers: dict[str, list[str]] = {step: [] for step in self.after}
        for step, before in self.after.items():
            for each in before:
                followers[each].append(step)
        ready = [(position[step], step) for step, count in waiting.items() if not count]
        heapq.heapify(ready)
        order: list[str] = []
        while ready:
            _, step = heapq.heappop(ready)
            order.append(step)
            for follower in followers[step]:
                waiting[follower] -= 1
                if not waiting[follower]:
                    heapq.heappush(ready, (position[follower], follower))
        return tuple(order)

    @cached_property
    def _bits(self) -> Mapping[str, int]:
        return {step: 1 << index for index, step in enumerate(self.after)}

    @cached_property
    def _masks(self) -> Mapping[str, int]:
        """For each step the set of steps before it, as bits: a thousand steps in a row stay cheap."""
        masks: dict[str, int] = {}
        for step in self.order:
            mask = 0
            for before in self.after[step]:
                mask |= masks[before] | self._bits[before]
            masks[step] = mask
        return masks

    def is_before(self, one: str, other: str) -> bool:
        """Whether `one` is done or settled before `other` starts, on every run."""
        return bool(self._masks[other] & self._bits[one])

    def upstream(self, step: str) -> tuple[str, ...]:
        """All steps before a step, in order."""
        return tuple(each for each in self.order if self.is_before(each, step))

    def longest(self, ends: Iterable[str], cost: Callable[[str], Parts]) -> CriticalPath:
        """The chain with the greatest sum of times that leads to one of the steps `ends`, that step included."""
        best: dict[str, tuple[timedelta, str | None]] = {}
        for step in self.order:
            own = sum((time for _, time in cost(step)), timedelta(0))
            before = max(self.after[step], key=lambda each: best[each][0], default=None)
            best[step] = (own + (best[before][0] if before else timedelta(0)), before)
        end = max((each for each in ends if each in best), key=lambda each: best[each][0], default=None)
        parts: list[tuple[str, timedelta]] = []
        step_back = end
        while step_back is not None:
            parts[:0] = [part for part in cost(step_back) if part[1]]
            step_back = best[step_back][1]
        return CriticalPath(tuple(parts), best[end][0] if end else timedelta(0))


def break_cycles(after: Mapping[str, Sequence[str]]) -> tuple[Graph, tuple[tuple[str, ...], ...]]:
    """The graph without the waits that close a cycle, and each such cycle: ('a', 'b', 'a') reads a waits for b."""
    kept: dict[str, list[str]] = {step: [] for step in after}
    cycles: list[tuple[str, ...]] = []
    finished: set[str] = set()
    for start in after:
        if start in finished:
            continue
        trail = [start]
        on_trail = {start}
        pending = [iter(after[start])]
        while trail:
            step = trail[-1]
            before = next(pending[-1], None)
            if before is None:
                finished.add(step)
                on_trail.discard(trail.pop())
                pending.pop()
            elif before in on_trail:
                cycles.append((*trail[trail.index(before) :], before))
            else:
                kept[step].append(before)
                if before not in finished:
                    trail.append(before)
                    on_trail.add(before)
                    pending.append(iter(after[before]))
    return Graph({step: tuple(before) for step, before in kept.items()}), tuple(cycles)
