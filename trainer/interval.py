"""When the next checkpoint is due."""

import math
from dataclasses import dataclass

from trainer.config import Every

# Seconds. Before the first save nothing is known of its cost; after that the least that makes sense beside a save.
FIRST_AUTO = 60.0
LEAST_AUTO = 10.0


def daly(cost: float, between_failures: float) -> float:
    """The time between checkpoints, in seconds, that loses least to saving and to work done again.

    J. T. Daly, "A higher order estimate of the optimum checkpoint interval for restart dumps" (2006), equation 37,
    whose first term is Young's (1974). `cost`: seconds a save takes from training; `between_failures`: mean, seconds.
    """
    if cost >= 2 * between_failures:
        return between_failures
    ratio = cost / (2 * between_failures)
    return math.sqrt(2 * cost * between_failures) * (1 + math.sqrt(ratio) / 3 + ratio / 9) - cost


@dataclass(frozen=True, slots=True, kw_only=True)
class Interval:
    """The rule of one run. `between_failures`: mean seconds between failures of any of its nodes."""

    every: Every
    between_failures: float

    def seconds(self, stall: float, total: float) -> float:
        """Seconds between saves, where they count: given, or from a save that stalled training for `stall` and was
        durable after `total`. There is no use in starting one more often than one can be finished."""
        if self.every.seconds:
            return self.every.seconds
        if not total:
            return FIRST_AUTO
        return max(daly(stall, self.between_failures), 2 * total, LEAST_AUTO)

    def step_due(self, step: int) -> bool:
        """All ranks know this alone."""
        return self.every.steps > 0 and step % self.every.steps == 0

    def time_due(self, now: float, last: float, stall: float, total: float) -> bool:
        """Rank 0 asks this of its clock and the others follow."""
        return not self.every.steps and now - last >= self.seconds(stall, total)
