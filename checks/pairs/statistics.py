"""Robust small statistics: centres and scales that faults do not move, and control of the false discovery rate."""

import math
from statistics import NormalDist

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]
_NORMAL = NormalDist()
# median(|x|) of a standard normal
_MAD = 0.6744897501960817


def noise_scale(values: Floats, centre: float, touched: float) -> float:
    """Standard deviation of the healthy values, of which one fault may pull down the share `touched`.

    From the values above the centre, because faults only pull down; or from the ones below where these scatter more
    (contention pulls down too), as far below as one fault does not reach. More for a small sample, whose scale may be
    too small by chance. 0 with nothing above.
    """
    above = values[values > centre]
    if not len(above):
        return 0.0
    scale = float(np.median(above) - centre) / _MAD
    share = max(0.25, touched + 0.06)
    if share < 0.42:
        scale = max(scale, (centre - float(np.quantile(values, share))) / -quantile(share))
    return scale * (1 + 20 / len(values))


def healthy_centre(values: Floats, touched: float) -> float:
    """Where the healthy values lie, if one fault may pull the share `touched` of all of them down.

    That is the median as long as it is a minority. Else the values are split in two where that explains most of their
    variance, and the upper part taken, but only if the parts are clearly apart.
    """
    middle = float(np.median(values))
    if touched <= 0.4 or len(values) < 3:
        return middle
    ordered = np.sort(values)
    counts = np.arange(1, len(ordered))
    sums = np.cumsum(ordered)[:-1]
    low, high = sums / counts, (ordered.sum() - sums) / (len(ordered) - counts)
    cut = int(np.argmax(counts * (len(ordered) - counts) * (high - low) ** 2)) + 1
    upper, lower = ordered[cut:], ordered[:cut]
    within = math.sqrt((upper.var() * len(upper) + lower.var() * len(lower)) / len(ordered))
    enough = len(upper) >= 0.7 * (1 - touched) * len(ordered)
    apart = upper.mean() - lower.mean() > 5 * max(within, 1e-9)
    return float(np.median(upper)) if enough and apart else middle


def discoveries(scores: Floats, rate: float, padding: int = 0) -> NDArray[np.bool_]:
    """Which one-sided scores (low is bad) stand out, by Benjamini and Hochberg's rule at the false discovery `rate`.

    padding: so many unremarkable ones more count as tested, so that a look at few at a time is not too lenient.
    """
    if scores.size == 0:
        return np.zeros(scores.shape, dtype=np.bool_)
    ordered = np.sort(scores, axis=None)
    # The k-th smallest p-value must lie below rate * k / m; where none does nothing is found. Only scores below -1.5
    # can pass at any rate of use here, so only those are looked at.
    some = ordered[: np.searchsorted(ordered, -1.5)]
    limits = rate * np.arange(1, len(some) + 1) / (ordered.size + padding)
    passing = np.nonzero(tail(some) <= limits)[0]
    if not len(passing):
        return np.zeros(scores.shape, dtype=np.bool_)
    found: NDArray[np.bool_] = scores <= some[passing[-1]]
    return found


def tail(scores: Floats) -> Floats:
    """P(a standard normal lies below each score)."""
    return np.asarray([0.5 * math.erfc(-min(score, 8.0) / math.sqrt(2)) for score in scores])


def quantile(share: float) -> float:
    """The standard normal's quantile."""
    return _NORMAL.inv_cdf(share)
