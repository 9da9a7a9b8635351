"""Counters as rates: first look, rise, reset, saturation, reboot, a clock that stands or goes back."""

import pytest

from checks.base import Memory
from checks.counters import Rise, observe


def steps(*values: tuple[float, int], boots: str = "a", maximum: int | None = None) -> list[Rise]:
    memory: Memory = {}
    return [observe(memory, "k", value, at=at, boot=boots, maximum=maximum) for at, value in values]


def test_first_look_says_so() -> None:
    assert steps((0, 17)) == [Rise(now=0, recent=0, seconds=0.0, first=True)]


def test_rise_and_the_hour() -> None:
    found = steps((0, 10), (60, 13), (90, 14), (3700, 14), (3701, 20))
    assert [(rise.now, rise.recent) for rise in found] == [(0, 0), (3, 3), (1, 4), (0, 0), (6, 6)]


def test_reset_counts_what_came_since() -> None:
    _, rise = steps((0, 100), (30, 4))
    assert rise == Rise(now=4, recent=4, seconds=30.0, reset=True)


@pytest.mark.parametrize("maximum", [0xFF, 0xFFFF, 0xFFFFFFFF])
def test_saturated_counter_is_stuck_and_its_last_rise_a_lower_bound(maximum: int) -> None:
    found = steps((0, maximum - 2), (30, maximum), (60, maximum), (90, 1), maximum=maximum)
    assert [(rise.now, rise.stuck, rise.reset) for rise in found] == [
        (0, False, False),
        (2, True, False),
        (0, True, False),
        (1, False, True),
    ]


def test_another_boot_or_an_earlier_time_is_a_first_look() -> None:
    memory: Memory = {}
    observe(memory, "k", 5, at=100, boot="a")
    assert observe(memory, "k", 900, at=200, boot="b").first
    assert observe(memory, "k", 901, at=100, boot="b").first


def test_memory_of_a_busy_counter_stays_small() -> None:
    memory: Memory = {}
    for second in range(0, 36_000, 5):
        observe(memory, "k", second, at=second, boot="a")
    assert len(memory["counters"]["k"]["rises"]) <= 60
