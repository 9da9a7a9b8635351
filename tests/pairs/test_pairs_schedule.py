"""Plans: every pair once, no node twice at a time, none left out; whatever comes, leaves or hangs in between."""

import random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from checks.pairs.plans import planned
from checks.pairs.schedule import Coverage, Pair, across_leaves, circle, full, leaf_cover, pair_of, within_leaves
from checks.pairs.topology import TopologyError, flat, uniform


def every_pair(count: int) -> set[Pair]:
    return {(a, b) for a in range(count) for b in range(a + 1, count)}


@settings(max_examples=25, deadline=None)
@given(st.integers(0, 600))
def test_circle_covers_every_pair_once_in_the_fewest_rounds(count: int) -> None:
    rounds = list(circle(count))
    assert len(rounds) == (0 if count < 2 else count - 1 if count % 2 == 0 else count)
    assert all(len({node for pair in pairs for node in pair}) == 2 * len(pairs) for pairs in rounds)
    flattened = [pair for pairs in rounds for pair in pairs]
    assert len(flattened) == len(set(flattened)) == count * (count - 1) // 2
    assert set(flattened) == every_pair(count)


def test_an_odd_node_rests_in_turn_and_is_never_booked_twice() -> None:
    resting = [set(range(7)) - {node for pair in pairs for node in pair} for pairs in circle(7)]
    assert sorted(node for one in resting for node in one) == list(range(7))


@pytest.mark.parametrize("count", [5, 8, 31, 33])
def test_no_remainder_is_dropped(count: int) -> None:
    assert {node for pairs in full(count, random.Random(1)) for pair in pairs for node in pair} == set(range(count))


@settings(max_examples=40, deadline=None)
@given(st.integers(2, 200), st.integers(1, 40), st.integers(0, 99))
def test_screening_matchings_are_disjoint_and_leave_at_most_one_out(count: int, size: int, seed: int) -> None:
    topology = uniform(count, size)
    for matching in (within_leaves, across_leaves):
        pairs = matching(topology, random.Random(seed))
        assert len({node for pair in pairs for node in pair}) == 2 * len(pairs) == count - count % 2


@settings(max_examples=40, deadline=None)
@given(st.integers(3, 12), st.integers(2, 20), st.integers(0, 99))
def test_partners_are_on_other_leaves_then_on_the_same(leaves: int, size: int, seed: int) -> None:
    topology = uniform(leaves * size, size)
    across = across_leaves(topology, random.Random(seed))
    assert all(topology.leaf[a] != topology.leaf[b] for a, b in across)
    within = within_leaves(topology, random.Random(seed))
    assert sum(topology.leaf[a] == topology.leaf[b] for a, b in within) == leaves * (size // 2)


def test_leaf_cover_crosses_every_pair_of_leaves_in_one_round_less_than_leaves() -> None:
    topology = uniform(128, 16)
    rounds = list(leaf_cover(topology))
    met = {pair_of(topology.leaf[a], topology.leaf[b]) for pairs in rounds for a, b in pairs}
    assert len(rounds) == 7
    assert met == every_pair(8)


def test_a_leaf_plan_without_leaves_is_refused() -> None:
    with pytest.raises(TopologyError, match="needs to know them"):
        planned(flat(["a", "b"]), "leaf", 1, 5.0, 0)


def drive(coverage: Coverage, free: set[int], hung: set[int]) -> list[Pair]:
    """Rounds until nothing can be started: hung nodes never come back once they were taken."""
    measured: list[Pair] = []
    while pairs := coverage.next(free):
        done = [pair for pair in pairs if not hung & set(pair)]
        free -= {node for pair in pairs if hung & set(pair) for node in pair if node in hung}
        coverage.measured(done)
        measured += done
    return measured


@settings(max_examples=60, deadline=None)
@given(st.integers(2, 60), st.sets(st.integers(0, 59), max_size=3), st.integers(0, 99))
def test_a_hung_node_costs_its_own_pairs_and_no_others(count: int, hung: set[int], seed: int) -> None:
    coverage = Coverage(count, full(count, random.Random(seed)))
    measured = drive(coverage, set(range(count)), hung)
    assert set(measured) == {pair for pair in every_pair(count) if not hung & set(pair)}
    assert len(measured) == len(set(measured))


@settings(max_examples=60, deadline=None)
@given(st.integers(3, 40), st.integers(0, 99), st.data())
def test_every_pair_of_present_nodes_is_measured_though_nodes_come_and_go(
    count: int, seed: int, data: st.DataObject
) -> None:
    coverage = Coverage(count, full(count, random.Random(seed)))
    present = set(range(count))
    for _ in range(data.draw(st.integers(0, 6))):
        node = data.draw(st.integers(0, count - 1))
        if node in present and len(present) > 2:
            present.discard(node)
            coverage.leave(node)
        elif node not in present:
            present.add(node)
            coverage.join(node)
        coverage.measured(coverage.next(present))
    drive(coverage, set(present), set())
    assert {pair for pair in every_pair(count) if set(pair) <= present} <= coverage.done
    assert not coverage.left


@settings(max_examples=30, deadline=None)
@given(st.integers(2, 40), st.integers(0, 40), st.integers(0, 99))
def test_a_sweep_resumes_where_it_was_stopped(count: int, rounds: int, seed: int) -> None:
    first = Coverage(count, full(count, random.Random(seed)))
    for _ in range(rounds):
        first.measured(first.next(range(count)))
    second = Coverage(count, full(count, random.Random(seed)))
    second.measured(first.done)
    again = drive(second, set(range(count)), set())
    assert not set(again) & first.done
    assert set(again) | first.done == every_pair(count)


def test_few_free_nodes_do_not_use_up_the_plan() -> None:
    coverage = Coverage(64, full(64, random.Random(3)))
    coverage.measured(coverage.next(range(64)))
    for _ in range(100):
        coverage.next({0, 1})
    assert len(coverage.owed) < 3 * 64
