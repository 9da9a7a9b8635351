"""A fabric that is not there: nodes with rails on leaves below spines, with noise, contention and placed faults.

What a test of a pair gives is the least of what its ends, its switches and its path let through (bottlenecks do not
multiply), times the noise of the measurement. Ground truth is known, so that every figure about localisation in
docs/benchmarks.md can be counted rather than claimed.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from checks.pairs import names
from checks.pairs.faults import Fault, FaultError
from checks.pairs.topology import Topology

Floats = NDArray[np.float64]
Integers = NDArray[np.int64]


@dataclass(frozen=True, slots=True, kw_only=True)
class Conditions:
    """How the fabric behaves apart from its faults.

    line_rate: GB/s of one rail in one direction (NDR InfiniBand: 400 Gb/s). efficiency: what a clean test reaches of
    it (391 of 400 Gb/s is typical). noise: standard deviation of the log of a measured value; half its variance is
    common to all rails and directions of a test, as host jitter is. spread: lasting differences between healthy
    NICs. taper: bandwidth of a leaf's uplinks relative to its nodes' (1 = non-blocking). ecmp: flows are hashed on
    uplinks and collide; else adaptive routing spreads them. flows: connections per pair and rail, which soften
    collisions. background: chance that other traffic disturbs a test on a rail, taking up to half of it.
    window, setup, timeout: seconds of traffic, of preparation, and until a hung test is given up.
    """

    line_rate: float = 50.0
    efficiency: float = 0.978
    noise: float = 0.02
    spread: float = 0.003
    taper: float = 1.0
    ecmp: bool = False
    flows: int = 4
    background: float = 0.0
    window: float = 5.0
    setup: float = 1.0
    timeout: float = 30.0


@dataclass(slots=True)
class Placed:
    """One fault in its place. nodes: the ends it touches (a leaf's or a path's: leaf indices)."""

    fault: Fault
    name: str
    nodes: tuple[int, ...]
    rail: int | None = None


@dataclass(slots=True)
class Fabric:
    """The simulated cluster; `measure` is what the runners of real traffic offer too.

    Deterministic: seed, topology, faults and the sequence of calls give the same values.
    """

    topology: Topology
    faults: Sequence[Fault]
    conditions: Conditions
    seed: int
    placed: list[Placed] = field(init=False)
    _rng: np.random.Generator = field(init=False)
    _leaf: Integers = field(init=False)
    _quality: NDArray[np.float32] = field(init=False)

    def __post_init__(self) -> None:
        place = np.random.default_rng((self.seed, 1))
        self._rng = np.random.default_rng((self.seed, 2))
        count, rails = len(self.topology.nodes), self.topology.rails
        self._leaf = np.asarray(self.topology.leaf or [0] * count, dtype=np.int64)
        quality = place.normal(0.0, self.conditions.spread, (count, 2, rails))
        self._quality = np.exp(-np.abs(quality)).astype(np.float32)
        self.placed = _place(self.topology, self.faults, place)

    @property
    def truth(self) -> list[str]:
        """The names of what is at fault, sorted."""
        return sorted(placed.name for placed in self.placed)

    def measure(self, a: Integers, b: Integers) -> Floats:
        """Bandwidth of disjoint pairs measured at once, in GB/s: (pairs, 2, rails).

        [:, 0] is a to b, [:, 1] is b to a. 0 where nothing answered.
        """
        shape = (len(a), 2, self.topology.rails)
        rate = np.ones(shape, dtype=np.float32)
        quality = self._quality
        rate[:, 0] = np.minimum(quality[a, 0], quality[b, 1])
        rate[:, 1] = np.minimum(quality[b, 0], quality[a, 1])
        for placed in self.placed:
            self._hit(placed, rate, a, b)
        np.minimum(rate, self._fabric_share(a, b, shape), out=rate)
        self._disturb(rate)
        return np.asarray(rate * (self.conditions.line_rate * self.conditions.efficiency), dtype=np.float64)

    def hung(self, a: Integers, b: Integers) -> NDArray[np.bool_]:
        """Which of the pairs do not answer but cost their whole timeout."""
        stuck = [p.nodes[0] for p in self.placed if p.fault.hang and p.fault.kind == "node"]
        both = np.isin(a, stuck) | np.isin(b, stuck)
        for placed in self.placed:
            if placed.fault.hang and placed.fault.kind == "link":
                both |= np.isin(a, placed.nodes) & np.isin(b, placed.nodes)
        return both

    def _hit(self, placed: Placed, rate: NDArray[np.float32], a: Integers, b: Integers) -> None:
        fault = placed.fault
        cells = np.zeros(rate.shape, dtype=np.bool_)
        touched = _touched(placed, a, b, self._leaf)
        for swapped, side in enumerate(touched):
            for way, word in enumerate(("tx", "rx")):
                if fault.direction in ("", word):
                    cells[side, way ^ swapped] = True
        if placed.rail is not None:
            cells[:, :, np.arange(rate.shape[2]) != placed.rail] = False
        if fault.duty < 1:
            cells &= (self._rng.random(len(a)) < fault.duty)[:, None, None]
        left = 0.0 if fault.hang else 1.0 - fault.slow
        np.minimum(rate, np.where(cells, left, 1.0), out=rate)

    def _fabric_share(self, a: Integers, b: Integers, shape: tuple[int, int, int]) -> Floats | float:
        """What the uplinks leave to each flow that crosses leaves."""
        condition = self.conditions
        cross = self._leaf[a] != self._leaf[b]
        if not cross.any() or (condition.taper >= 1 and not condition.ecmp):
            return 1.0
        share = np.ones(shape)
        size = int(np.bincount(self._leaf).max())
        uplinks = max(1, round(size * condition.taper))
        for way, (source, sink) in enumerate(((a, b), (b, a))):
            for rail in range(shape[2]):
                ends = (self._leaf[source[cross]], self._leaf[sink[cross]])
                share[cross, way, rail] = self._uplink_share(ends, uplinks)
        return share

    def _uplink_share(self, ends: tuple[Integers, Integers], uplinks: int) -> Floats:
        leaves, count = int(self._leaf.max()) + 1, len(ends[0])
        flows = self.conditions.flows if self.conditions.ecmp else 1
        result = np.ones((count, flows))
        for end in ends:  # the uplink out of the source's leaf, then the one into the sink's
            if self.conditions.ecmp:
                hashed = self._rng.integers(0, uplinks, (count, flows))
                slots = end[:, None] * uplinks + hashed
                load = np.bincount(slots.ravel(), minlength=leaves * uplinks) / flows
                np.minimum(result, 1 / np.maximum(load[slots], 1), out=result)
            else:
                load = np.bincount(end, minlength=leaves).astype(np.float64)
                np.minimum(result, np.minimum(1, uplinks / np.maximum(load[end], 1))[:, None], out=result)
        share: Floats = result.mean(axis=1)
        return share

    def _disturb(self, rate: NDArray[np.float32]) -> None:
        condition, rng = self.conditions, self._rng
        if condition.noise > 0:
            half = np.float32(condition.noise * np.sqrt(0.5))
            noise = rng.standard_normal(rate.shape, dtype=np.float32)
            noise += rng.standard_normal((len(rate), 1, 1), dtype=np.float32)
            noise *= half
            rate *= np.exp(noise)
        if condition.background > 0:
            busy = rng.random(rate.shape) < condition.background
            rate *= np.where(busy, 1 - 0.5 * rng.random(rate.shape), 1).astype(np.float32)


def _touched(placed: Placed, a: Integers, b: Integers, leaf: Integers) -> tuple[NDArray[np.bool_], NDArray[np.bool_]]:
    """Which tests the fault touches, by whether its own direction is the test's or the other."""
    kind, where = placed.fault.kind, placed.nodes
    if kind in ("node", "rail"):
        return a == where[0], b == where[0]
    if kind == "link":
        return (a == where[0]) & (b == where[1]), (a == where[1]) & (b == where[0])
    ends = leaf[a], leaf[b]
    if kind == "leaf":
        both = (ends[0] == where[0]) | (ends[1] == where[0])
    elif kind == "uplink":
        both = (ends[0] == where[0]) ^ (ends[1] == where[0])
    else:
        both = np.isin(ends[0], where) & np.isin(ends[1], where) & (ends[0] != ends[1])
    return both, np.zeros_like(both)


def _place(topology: Topology, faults: Sequence[Fault], rng: np.random.Generator) -> list[Placed]:
    """Every fault on a victim of its own. Raises FaultError when the cluster has no place for one."""
    placed: list[Placed] = []
    taken: set[tuple[int, ...]] = set()
    for fault in faults:
        for _ in range(fault.count):
            where, rail = _victim(topology, fault, rng, taken)
            taken.add(where)
            placed.append(Placed(fault, _name(topology, fault, where, rail), where, rail))
    return placed


def _victim(
    topology: Topology, fault: Fault, rng: np.random.Generator, taken: set[tuple[int, ...]]
) -> tuple[tuple[int, ...], int | None]:
    if fault.at:
        return _named_victim(topology, fault)
    pool = len(topology.leaves) if fault.kind in ("leaf", "uplink", "path") else len(topology.nodes)
    wanted = 2 if fault.kind in ("link", "path") else 1
    used = {i for where in taken for i in where} if fault.kind in ("node", "rail", "link") else set()
    free = [i for i in range(pool) if i not in used and (i,) not in taken]
    if len(free) < wanted:
        raise FaultError(f"{fault.kind}: no place left for it in a cluster of {len(topology.nodes)} nodes")
    where = tuple(sorted(int(i) for i in rng.choice(free, wanted, replace=False)))
    railed = fault.kind == "rail" or (fault.kind in ("leaf", "uplink", "path") and topology.rail_leaves)
    if fault.kind == "rail" and topology.rails < 2:
        raise FaultError("rail: a node with one rail has no other to compare it with: give --rails 2 or more")
    return where, int(rng.integers(topology.rails)) if railed else None


def _named_victim(topology: Topology, fault: Fault) -> tuple[tuple[int, ...], int | None]:
    place, _, rail = fault.at.partition("/rail/")
    known = list(topology.leaves) if fault.kind in ("leaf", "uplink", "path") else list(topology.nodes)
    parts = place.split("/")
    wanted = 2 if fault.kind in ("link", "path") else 1
    if len(parts) != wanted or any(part not in known for part in parts) or (rail and not rail.isdigit()):
        raise FaultError(f"at={fault.at}: no such place for a {fault.kind}; names here: {', '.join(known[:3])}, ...")
    if rail and int(rail) >= topology.rails:
        raise FaultError(f"at={fault.at}: there are {topology.rails} rails, from 0")
    return tuple(known.index(part) for part in parts), int(rail) if rail else None


def _name(topology: Topology, fault: Fault, where: tuple[int, ...], rail: int | None) -> str:
    if fault.kind in ("node", "rail"):
        return names.node(topology, where[0], rail, fault.direction)
    if fault.kind == "link":
        return names.link(topology, where[0], where[1], fault.direction)
    if fault.kind == "path":
        return names.path(topology, where[0], where[1], rail)
    return names.leaf(topology, where[0], rail)
