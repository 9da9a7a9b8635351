"""A whole sweep on the simulated fabric: what is at fault, what is blamed, and what it cost to find out."""

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np

from checks.pairs.fabric import Conditions, Fabric
from checks.pairs.faults import Fault
from checks.pairs.localise import Rules
from checks.pairs.sweep import Budget, Sweep
from checks.pairs.topology import Topology
from checks.pairs.verdict import Verdict


@dataclass(frozen=True, slots=True, kw_only=True)
class Result:
    """One simulated sweep.

    rounds, tests, seconds: up to the last verdict that blames somebody; of the whole sweep when nobody is blamed.
    all_rounds, all_tests, all_seconds: of the whole sweep.
    """

    seed: int
    truth: list[str]
    blamed: list[str]
    rounds: int
    tests: int
    seconds: float
    all_rounds: int
    all_tests: int
    all_seconds: float
    verdicts: list[Verdict] = field(default_factory=list)


def simulate(
    topology: Topology,
    faults: Sequence[Fault],
    conditions: Conditions,
    budget: Budget,
    seed: int,
    rules: Rules | None = None,
) -> Result:
    """Place the faults, sweep, and say who is blamed. Deterministic in all its arguments."""
    fabric = Fabric(topology, faults, conditions, seed)
    sweep = Sweep(topology, budget, seed, rules)
    rounds, clock = 0, 0.0
    ended: list[float] = []
    free_at = np.zeros(len(topology.nodes))
    step = conditions.window + conditions.setup
    while not sweep.finished(rounds):
        pairs = sweep.next(np.nonzero(free_at <= clock)[0].tolist())
        rounds += 1
        if pairs:
            a, b = (np.asarray(side, dtype=np.int64) for side in zip(*pairs, strict=True))
            values = fabric.measure(a, b)
            stuck = fabric.hung(a, b)
            values[stuck] = 0.0
            for ends in (a[stuck], b[stuck]):
                free_at[ends] = clock + conditions.setup + conditions.timeout
            sweep.localiser.add(a, b, values)
            sweep.measured(pairs)
        sweep.localiser.judge()
        clock += step
        ended.append(clock)
    sweep.localiser.finish()
    blames = [verdict for verdict in sweep.localiser.verdicts if verdict.blames]
    last = max((verdict.round for verdict in blames), default=rounds)
    all_tests = sweep.localiser.evidence.size
    return Result(
        seed=seed,
        truth=fabric.truth,
        blamed=sorted(verdict.component for verdict in blames),
        rounds=last,
        tests=max((verdict.tests for verdict in blames), default=all_tests),
        seconds=ended[last - 1] if ended else 0.0,
        all_rounds=rounds,
        all_tests=all_tests,
        all_seconds=clock,
        verdicts=list(sweep.localiser.verdicts),
    )
