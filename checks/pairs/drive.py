"""Carries a sweep out with a real runner: pairs side by side, nobody waits for a pair that hangs."""

import math
import time
from collections.abc import Callable, Mapping
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from dataclasses import dataclass, field

import numpy as np

from checks.pairs.runner import Answer, Outcome, Runner
from checks.pairs.sweep import Sweep

# A new round starts when all pairs are done, or those that are late take this much longer than the median did.
_PATIENCE = 1.5


@dataclass(slots=True)
class Progress:
    """How far a sweep is. rounds: begun so far; tests: done; expected: rounds when it ends without a finding."""

    rounds: int = 0
    tests: int = 0
    expected: int = 0
    seconds: float = 0.0


@dataclass(slots=True)
class Driver:
    """One sweep under way. told: called with every outcome as it comes; progress: after every round."""

    sweep: Sweep
    runner: Runner
    told: Callable[[Outcome], None] = lambda outcome: None
    progress: Callable[[Progress], None] = lambda progress: None
    outcomes: list[Outcome] = field(default_factory=list)
    _running: dict["Future[Outcome]", tuple[int, int]] = field(default_factory=dict)
    _took: list[float] = field(default_factory=list)

    def run(self) -> None:
        """Until the sweep is finished. An interrupt ends it at once; what was measured so far stays told."""
        nodes = self.sweep.topology.nodes
        rounds, started = 0, time.monotonic()
        pool = ThreadPoolExecutor(max(1, len(nodes)))
        try:
            while not self.sweep.finished(rounds):
                busy = {node for pair in self._running.values() for node in pair}
                pairs = self.sweep.next(set(range(len(nodes))) - busy)
                for a, b in pairs:
                    self._running[pool.submit(self._measure, nodes[a], nodes[b])] = (a, b)
                if not self._running:
                    break
                rounds += 1
                self._collect(everything=not pairs)
                self.sweep.localiser.judge()
                self.progress(Progress(rounds, len(self.outcomes), self.sweep.expected, time.monotonic() - started))
            self.sweep.localiser.finish()
        finally:
            pool.shutdown(wait=False, cancel_futures=True)

    def _measure(self, a: str, b: str) -> Outcome:
        started = time.monotonic()
        outcome = self.runner.measure(a, b)
        if outcome.answer is Answer.MEASURED:
            self._took.append(time.monotonic() - started)
        return outcome

    def _collect(self, everything: bool) -> None:
        """Wait for the round; for late pairs only until patience ends, unless nothing else can be started."""
        started = time.monotonic()
        batch: list[tuple[tuple[int, int], Outcome]] = []
        while self._running:
            usual = sorted(self._took)[len(self._took) // 2] if self._took else math.inf
            left = usual * _PATIENCE + 0.2 - (time.monotonic() - started)
            if left <= 0 and batch and not everything:
                break
            limit = None if everything or math.isinf(left) else max(left, 0.01)
            done, _ = wait(self._running, timeout=limit, return_when=FIRST_COMPLETED)
            batch += [(self._running.pop(future), future.result()) for future in done]
            if everything and batch:
                break
            if not done and not batch and left <= 0:
                everything = True  # all of them are late
        self._take(batch)

    def _take(self, batch: list[tuple[tuple[int, int], Outcome]]) -> None:
        if not batch:
            return
        for _, outcome in batch:
            self.outcomes.append(outcome)
            self.told(outcome)
        values = np.asarray([outcome.values(self.sweep.topology.rails) for _, outcome in batch])
        a, b = (np.asarray([pair[side] for pair, _ in batch], dtype=np.int64) for side in (0, 1))
        self.sweep.localiser.add(a, b, values)
        self.sweep.measured([pair for pair, outcome in batch if outcome.answer is not Answer.UNKNOWN])


def unknown(outcomes: list[Outcome]) -> Mapping[str, int]:
    """Why measurements say nothing, and how often."""
    counts: dict[str, int] = {}
    for outcome in outcomes:
        if outcome.answer is Answer.UNKNOWN:
            counts[outcome.note] = counts.get(outcome.note, 0) + 1
    return counts
