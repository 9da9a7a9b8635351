"""What a cluster of a size must expect: failures, the best checkpoint interval, spares, the share of time that trains.

Pure formulas. Symbols and sources: r_f failures per 1,000 node-days; M mean time to failure of the whole job; w seconds
that a checkpoint blocks training; dt seconds between checkpoints; u0 seconds to restart; d seconds until a failure is
noticed and explained. Young 1974 and Daly 2006 for the interval; Kokolis et al. 2025 (arXiv 2410.21680) for r_f and
for E[ETTR], which leaves d out: it is added to u0 here, since half an hour of waiting for a watchdog is lost as well.
"""

import math

import msgspec

DAY = 86400.0


class Plan(msgspec.Struct, frozen=True, kw_only=True):
    """Seconds, unless the name says otherwise. ettr: expected share of wall time that is productive, 0 to 1.

    ettr_slow_detection: the same when a failure is noticed by a watchdog of 30 minutes. spares: nodes that are enough
    on 99 of 100 days.
    """

    nodes: int
    gpus: int
    failures_per_day: float
    mean_time_to_failure: float
    survives_day: float
    checkpoint_interval: float
    checkpoint_overhead: float
    ettr: float
    ettr_slow_detection: float
    spares: int


def mean_time_to_failure(nodes: int, rate: float) -> float:
    """Seconds between failures of a job over so many nodes, at `rate` failures per 1,000 node-days."""
    return 1000.0 * DAY / (nodes * rate)


def young(w: float, mttf: float) -> float:
    """Young's interval in seconds: sqrt(2 w M)."""
    return math.sqrt(2.0 * w * mttf)


def daly(w: float, mttf: float) -> float:
    """Daly's higher-order interval in seconds; M itself once a checkpoint takes longer than 2 M."""
    if w >= 2.0 * mttf:
        return mttf
    ratio = w / (2.0 * mttf)
    return math.sqrt(2.0 * w * mttf) * (1.0 + math.sqrt(ratio) / 3.0 + ratio / 9.0) - w


def overhead(w: float, interval: float, mttf: float) -> float:
    """Share of time lost to checkpoints and to work done again: w/dt + dt/2M."""
    return w / interval + interval / (2.0 * mttf)


def ettr(*, mttf: float, interval: float, blocked: float, restart: float, detection: float = 0.0) -> float:
    """Expected effective training time ratio, 0 to 1: (1 - (d + u0 + dt/2)/M) / (1 + w/dt), not below 0."""
    lost = (detection + restart + interval / 2.0) / mttf
    return max(0.0, (1.0 - lost) / (1.0 + blocked / interval))


def spares(nodes: int, rate: float, days: float = 1.0, quantile: float = 0.99) -> int:
    """Nodes in reserve that are enough with probability `quantile`, when a failed one is back after so many days."""
    p = 1.0 - math.exp(-rate * days / 1000.0)
    term = (1.0 - p) ** nodes
    total, count = term, 0
    while total < quantile and count < nodes:
        term *= (nodes - count) / (count + 1) * p / (1.0 - p)
        total += term
        count += 1
    return count


def plan(*, nodes: int, gpus_per_node: int, rate: float, blocked: float, restart: float, detection: float) -> Plan:
    """The whole plan. blocked, restart, detection: seconds; rate: failures per 1,000 node-days."""
    mttf = mean_time_to_failure(nodes, rate)
    interval = max(daly(blocked, mttf), blocked)
    common = {"mttf": mttf, "interval": interval, "blocked": blocked, "restart": restart}
    return Plan(
        nodes=nodes,
        gpus=nodes * gpus_per_node,
        failures_per_day=DAY / mttf,
        mean_time_to_failure=mttf,
        survives_day=math.exp(-DAY / mttf),
        checkpoint_interval=interval,
        checkpoint_overhead=overhead(blocked, interval, mttf),
        ettr=ettr(**common, detection=detection),
        ettr_slow_detection=ettr(**common, detection=1800.0),
        spares=spares(nodes, rate),
    )
