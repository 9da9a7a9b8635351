"""A plan written out: the rounds of a sweep before anything is measured."""

import itertools
import random

import msgspec

from checks.pairs.schedule import full, leaf_cover, screening
from checks.pairs.topology import Topology, TopologyError

# Seconds from one test's traffic to the next's with resident workers: measured with gloo, see docs/benchmarks.md.
SETUP_SECONDS = 1.0


class Plan(msgspec.Struct, frozen=True, kw_only=True):
    """Rounds of disjoint pairs by name. seconds: what it takes if every round costs its window and the set-up."""

    nodes: list[str]
    plan: str
    rounds: list[list[tuple[str, str]]]
    tests: int
    seconds: float


def planned(topology: Topology, kind: str, rounds: int, window: float, seed: int) -> Plan:
    """The plan of that kind (quick, leaf, full). Raises TopologyError when it needs leaves and none are known."""
    rng = random.Random(seed)
    if kind == "leaf" and not topology.known:
        raise TopologyError("a plan over leaves needs to know them: give --topology FILE or --leaf-size")
    if kind == "full":
        found = list(full(len(topology.nodes), rng))
    elif kind == "leaf":
        found = list(leaf_cover(topology))
    else:
        found = list(itertools.islice(screening(topology, rng), rounds))
    named = [[(topology.nodes[a], topology.nodes[b]) for a, b in pairs] for pairs in found]
    return Plan(
        nodes=list(topology.nodes),
        plan=kind,
        rounds=named,
        tests=sum(len(pairs) for pairs in named),
        seconds=len(named) * (window + SETUP_SECONDS),
    )
