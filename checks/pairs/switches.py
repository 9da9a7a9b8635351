"""Leaf switches and the paths between them: at fault when most of what goes through them is slow together."""

import math
from collections.abc import Callable
from dataclasses import dataclass, field

import numpy as np

from checks.pairs import names
from checks.pairs.evidence import OTHER_LEAF, SAME_LEAF, Bools, Evidence, Floats, Integers
from checks.pairs.verdict import Kind

# A leaf is low when so many of its nodes are, and so many of their tests, each of them at least slightly.
_NODES_LOW, _TESTS_LOW = 0.8, 0.75
_NODE_SCORE, _TEST_SCORE = -1.5, -1.0
# With fewer nodes than this a slow leaf cannot be told from slow nodes.
_LEAST_NODES = 3
# Combined score that raises the suspicion; it is confirmed on later tests only.
_SUSPICIOUS = -6.0


@dataclass(frozen=True, slots=True)
class Blame:
    """A part at fault and the cells that it explains. cells(evidence, start): mask of the tests from `start` on."""

    kind: Kind
    name: str
    cells: Callable[[Evidence, int], Bools]
    rivals: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class _Part:
    """A leaf (one member) or a path between two; rail None: all rails. inner: judged by tests within the leaf."""

    leaves: tuple[int, ...]
    rail: int | None
    inner: bool = False


@dataclass(slots=True)
class _Standing:
    """How a part's tests look. nodes: how many of its nodes were measured. low: most of them are. score: combined."""

    nodes: int
    low: bool
    score: float


@dataclass(slots=True)
class SwitchSuspects:
    """Suspicion, confirmation and blame of leaves and paths; nothing where the topology is not known."""

    evidence: Evidence
    certain: float
    _since: dict[_Part, int] = field(default_factory=dict)
    _done: set[_Part] = field(default_factory=set)

    @property
    def open(self) -> bool:
        """Whether a leaf or path is under suspicion."""
        return bool(self._since)

    def holds(self, node: int) -> bool:
        """Whether the node's leaf is under suspicion."""
        leaf = int(self.evidence.leaf(np.asarray([node]))[0])
        return any(part.leaves == (leaf,) for part in self._since)

    def covers(self, test: int) -> bool:
        """Whether the test went through a part under suspicion."""
        return any(bool(self._through(part, test)[0].any()) for part in self._since)

    def judge(self) -> list[Blame]:
        """At most one part to blame now, the worst; raises and drops suspicions."""
        if not self.evidence.topology.known:
            return []
        confirmed: list[tuple[float, _Part]] = []
        for part in self._parts():
            if part not in self._since:
                now = self._standing(part, max(0, self.evidence.size - 32 * len(self.evidence.topology.nodes)))
                if now.nodes >= _LEAST_NODES and now.low and now.score <= _SUSPICIOUS and not self._shadowed(part):
                    self._since[part] = self.evidence.size
                continue
            fresh = self._standing(part, self._since[part])
            if fresh.nodes >= _LEAST_NODES and fresh.low and fresh.score <= -self.certain:
                confirmed.append((fresh.score, part))
            elif fresh.nodes >= _LEAST_NODES and not fresh.low:
                del self._since[part]
        if not confirmed:
            return []
        return [self._blame(min(confirmed, key=lambda found: found[0])[1])]

    def _blame(self, part: _Part) -> Blame:
        # A leaf that is low both within and towards others is one leaf, and its paths are explained by it.
        whole = part.inner or _Part(part.leaves, part.rail, inner=True) in self._since
        self._done |= {part, _Part(part.leaves, part.rail, inner=not part.inner)}
        self._since = {other: since for other, since in self._since.items() if not set(part.leaves) & set(other.leaves)}
        topology = self.evidence.topology
        if len(part.leaves) == 1:
            name = names.leaf(topology, part.leaves[0], part.rail)
            return Blame(Kind.LEAF, name, lambda evidence, start: _mask(evidence, part, start, whole=whole))
        name = names.path(topology, part.leaves[0], part.leaves[1], part.rail)
        return Blame(Kind.PATH, name, lambda evidence, start: _mask(evidence, part, start, whole=False))

    def _shadowed(self, part: _Part) -> bool:
        """A path is no suspect while one of its leaves is: the leaf would explain it."""
        known = [other for other in (*self._since, *self._done) if len(other.leaves) == 1]
        return len(part.leaves) == 2 and any(other.leaves[0] in part.leaves for other in known)

    def _parts(self) -> list[_Part]:
        """Suspects, and what could become one: parts of which most tests were low."""
        topology = self.evidence.topology
        rails: list[int | None] = list(range(topology.rails)) if topology.rail_leaves else [None]
        found = dict.fromkeys(self._since)
        for rail in rails:
            for inner in (False, True):
                found.update(dict.fromkeys(_Part((leaf,), rail, inner) for leaf in self._slow_leaves(rail, inner)))
            if len(set(topology.leaf)) > 2:
                found.update(dict.fromkeys(_Part(pair, rail) for pair in self._slow_leaf_pairs(rail)))
        return [part for part in found if part not in self._done]

    def _recent(self, kind: int) -> Integers:
        """The latest tests of a class that no verdict explains: suspicions are raised on these."""
        evidence = self.evidence
        start = max(0, evidence.size - 32 * len(evidence.topology.nodes))
        return np.nonzero((evidence.kind[start:] == kind) & evidence.counted[start:])[0] + start

    def _slow_leaves(self, rail: int | None, inner: bool) -> list[int]:
        evidence = self.evidence
        tests = self._recent(SAME_LEAF if inner else OTHER_LEAF)
        ends = np.concatenate([evidence.leaf(evidence.a[tests]), evidence.leaf(evidence.b[tests])])
        low = np.tile(self._test_scores(tests, rail) < _TEST_SCORE, 2)
        number, slow = np.bincount(ends), np.bincount(ends, low)
        return [int(leaf) for leaf in np.nonzero((number > 0) & (slow >= _TESTS_LOW * number))[0]]

    def _slow_leaf_pairs(self, rail: int | None) -> list[tuple[int, int]]:
        evidence = self.evidence
        tests = self._recent(OTHER_LEAF)
        ends = evidence.leaf(evidence.a[tests]), evidence.leaf(evidence.b[tests])
        count = len(evidence.topology.leaves)
        key = np.minimum(*ends) * count + np.maximum(*ends)
        number = np.bincount(key, minlength=count * count)
        low = np.bincount(key, self._test_scores(tests, rail) < _TEST_SCORE, minlength=count * count)
        slow = np.nonzero((number >= _LEAST_NODES) & (low >= _TESTS_LOW * number))[0]
        return [(int(key) // count, int(key) % count) for key in slow]

    def _standing(self, part: _Part, start: int) -> _Standing:
        evidence = self.evidence
        here, tests = self._through(part, start)
        tests = tests[here & evidence.counted[tests]]
        if not len(tests):
            return _Standing(0, False, 0.0)
        scores = self._test_scores(tests, part.rail)
        most = float((scores < _TEST_SCORE).mean()) >= _TESTS_LOW
        if len(part.leaves) == 2:
            sides = [len(np.unique(evidence.a[tests])), len(np.unique(evidence.b[tests]))]
            return _Standing(min(sides), most, float(scores.sum() / math.sqrt(len(tests))))
        by_node = self._by_node(part, tests, scores)
        low = (
            most
            and (part.inner or self._towards_several(part, tests, scores))
            and float((by_node < _NODE_SCORE).mean()) >= _NODES_LOW
        )
        return _Standing(len(by_node), low, float(by_node.sum() / math.sqrt(len(by_node))))

    def _towards_several(self, part: _Part, tests: Integers, scores: Floats) -> bool:
        """Whether a leaf is low towards each of at least two others: towards one only, it is the other or the path."""
        evidence = self.evidence
        ends = evidence.leaf(evidence.a[tests]), evidence.leaf(evidence.b[tests])
        other = np.where(ends[0] == part.leaves[0], ends[1], ends[0])
        number, low = np.bincount(other), np.bincount(other, scores < _TEST_SCORE)
        met = number > 0
        return int(met.sum()) >= 2 and bool((low[met] >= np.minimum(_TESTS_LOW * number[met], number[met] - 1)).all())

    def _by_node(self, part: _Part, tests: Integers, scores: Floats) -> Floats:
        """Combined score of every node of the leaf that was measured."""
        evidence = self.evidence
        ends = np.concatenate([evidence.a[tests], evidence.b[tests]])
        both = np.concatenate([scores, scores])
        ours = evidence.leaf(ends) == part.leaves[0]
        sums = np.bincount(ends[ours], both[ours])
        counts = np.bincount(ends[ours])
        return np.asarray(sums[counts > 0] / np.sqrt(counts[counts > 0]))

    def _test_scores(self, tests: Integers, rail: int | None) -> Floats:
        column = 0 if rail is None else 3 + 3 * rail
        tolerance = self.evidence.tolerance()[self.evidence.kind[tests], column]
        return np.asarray(self.evidence.scores[tests, 0, column] + tolerance, dtype=np.float64)

    def _through(self, part: _Part, start: int) -> tuple[Bools, Integers]:
        tests = np.arange(start, self.evidence.size)
        return _through(self.evidence, part, tests), tests


def _through(evidence: Evidence, part: _Part, tests: Integers) -> Bools:
    """Whether each test went through the part; within the leaf, or out of it, as the part says."""
    first, second = evidence.leaf(evidence.a[tests]), evidence.leaf(evidence.b[tests])
    if len(part.leaves) == 2:
        return np.asarray(np.isin(first, part.leaves) & np.isin(second, part.leaves) & (first != second))
    wanted = SAME_LEAF if part.inner else OTHER_LEAF
    here = (first == part.leaves[0]) | (second == part.leaves[0])
    return np.asarray(here & (evidence.kind[tests] == wanted))


def _mask(evidence: Evidence, part: _Part, start: int, whole: bool) -> Bools:
    tests = np.arange(start, evidence.size)
    through = _through(evidence, part, tests)
    if whole:
        through |= _through(evidence, _Part(part.leaves, part.rail, not part.inner), tests)
    mask = np.zeros((len(tests), 2, evidence.rails), dtype=np.bool_)
    mask[through, :, slice(None) if part.rail is None else part.rail] = True
    return mask
