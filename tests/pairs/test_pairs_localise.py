"""The right part is blamed, and nobody else: every kind of fault on the simulated fabric, by outcome."""

import pytest

from checks.pairs.fabric import Conditions
from checks.pairs.faults import parse
from checks.pairs.simulate import Result, simulate
from checks.pairs.sweep import Budget
from checks.pairs.topology import Topology, uniform

QUICK = Budget()


def sweeps(topology: Topology, fault: str, seeds: int = 5, noise: float = 0.02, budget: Budget = QUICK) -> list[Result]:
    return [simulate(topology, parse(fault), Conditions(noise=noise), budget, seed) for seed in range(seeds)]


# Every one of these is decided by many standard deviations of noise.
CLEAR = [
    "node:slow=0.4",
    "node:slow=0.4,count=3",
    "node:slow=0.15,direction=tx",
    "node:slow=0.15,direction=rx",
    "node:slow=1",
    "node:hang=1",
    "rail:slow=0.3",
    "rail:slow=0.3,direction=tx",
    "leaf:slow=0.3",
    "uplink:slow=0.3",
]


@pytest.mark.parametrize("fault", CLEAR)
def test_a_clear_fault_is_blamed_exactly(fault: str) -> None:
    for result in sweeps(uniform(64, 16, rails=4), fault):
        assert result.blamed == result.truth


def test_nobody_is_blamed_where_nothing_is_wrong() -> None:
    assert [result.blamed for result in sweeps(uniform(64, 16, rails=4), "none", seeds=10)] == [[]] * 10


def test_a_leaf_of_one_rail_is_told_from_the_pod() -> None:
    for result in sweeps(uniform(64, 16, rails=4, rail_leaves=True), "leaf:slow=0.3"):
        assert result.blamed == result.truth


def test_one_slow_link_is_found_by_the_full_cover_and_not_laid_on_its_ends() -> None:
    for result in sweeps(uniform(32, 8, rails=2), "link:slow=0.4", budget=Budget(plan="full")):
        assert result.blamed == result.truth


def test_a_dead_nvlink_of_18_is_seen() -> None:
    for result in sweeps(uniform(32, 0, rails=1), "node:slow=0.056", noise=0.005):
        assert result.blamed == result.truth


def test_hard_faults_are_found_within_six_rounds() -> None:
    assert max(result.rounds for result in sweeps(uniform(64, 16, rails=4), "node:slow=0.4")) <= 6


def test_the_size_of_the_loss_is_said() -> None:
    (verdict,) = sweeps(uniform(64, 16, rails=4), "node:slow=0.4", seeds=1)[0].verdicts
    assert verdict.percent == pytest.approx(40, abs=2)
    assert verdict.confidence > 0.99
    assert len({sample.a for sample in verdict.samples} | {sample.b for sample in verdict.samples}) > 2


def test_two_nodes_cannot_be_told_apart() -> None:
    for result in sweeps(uniform(2, 0), "node:slow=0.4"):
        assert result.blamed == []


def test_the_same_seed_gives_the_same_sweep() -> None:
    once, again = (sweeps(uniform(32, 8, rails=2), "node:slow=0.07,duty=0.5", seeds=2) for _ in range(2))
    assert once == again
