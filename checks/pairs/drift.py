"""A link that gets slower over days: the one point in a series where its level changes, if there is one."""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True, slots=True)
class Change:
    """index: first value of the new level. percent: change of level, negative for slower. score: in its own noise."""

    index: int
    percent: float
    score: float


def change(values: Sequence[float], certain: float = 5.0, least: float = 0.03) -> Change | None:
    """The likeliest change of level, or None when chance would do as well.

    values: GB/s, the oldest first, all above 0. The noise is taken from neighbouring differences, which a change of
    level moves once only. certain: score that counts (the largest of up to some hundred places: five sigma). least:
    share of bandwidth below which a change is not told.
    """
    logs = np.log(np.asarray([value for value in values if value > 0]))
    if len(logs) < 8:
        return None
    noise = max(float(np.median(np.abs(np.diff(logs)))) / 0.6745 / math.sqrt(2), 0.003)
    places = np.arange(3, len(logs) - 2)
    sums = np.cumsum(logs)
    before, after = sums[places - 1] / places, (sums[-1] - sums[places - 1]) / (len(logs) - places)
    scores = np.abs(after - before) / (noise * np.sqrt(1 / places + 1 / (len(logs) - places)))
    best = int(np.argmax(scores))
    step = float(after[best] - before[best])
    if scores[best] < certain or abs(step) < least:
        return None
    return Change(int(places[best]), round(100 * (math.exp(step) - 1), 2), round(float(scores[best]), 1))
