"""All measurements of a sweep as arrays, and what they say of every node once the noise is known.

log bandwidth = centre of the pair's class + losses of what is on its way + noise. Centre and noise are estimated per
class (same leaf, other leaf) from the values themselves, robustly, so faults move neither; what a verdict already
explains is set to neutral, so that one fault does not accuse its partners.
"""

from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

from checks.pairs.patterns import Weights, patterns, weights
from checks.pairs.statistics import healthy_centre, noise_scale
from checks.pairs.topology import Topology

Floats = NDArray[np.float64]
Integers = NDArray[np.int64]
Bools = NDArray[np.bool_]

# A standardised value counts no further than this: a dead cell must not outweigh all else that is known of a node.
_LEAST, _MOST = -10.0, 5.0
# No measurement of bandwidth repeats better than this for long, whatever a small sample says.
_LEAST_NOISE = 0.01
# What is taken for granted of the noise that all values of a test share, and how many tests that is worth.
_PRIOR_COMMON, _PRIOR_TESTS = 0.2, 40
# The logarithm that stands for "nothing answered": far below any rate, and finite.
_DEAD = -30.0
# Centres of very many tests are estimated from the last so many: as good and much faster.
_SAMPLE = 8192
# Classes by which tests are compared with their likes.
SAME_LEAF, OTHER_LEAF = 0, 1


class Evidence:
    """Tests in the order in which they were added.

    ignore: losses up to this share are nobody's fault (healthy parts differ by some tenths of a per cent).
    """

    def __init__(self, topology: Topology, ignore: float) -> None:
        self.topology = topology
        self.ignore = ignore
        self.rails = topology.rails
        self.patterns = patterns(self.rails)
        self._leaf = np.asarray(topology.leaf if topology.known else [0] * len(topology.nodes), dtype=np.int64)
        self.size = 0
        self.version = 0  # another number whenever what is known has changed
        self._a = np.zeros(64, dtype=np.int64)
        self._b = np.zeros(64, dtype=np.int64)
        self._kind = np.zeros(64, dtype=np.int64)
        self._log = np.zeros((64, 2, self.rails), dtype=np.float32)
        self._explained = np.zeros((64, 2, self.rails), dtype=np.bool_)
        self._counted = np.ones(64, dtype=np.bool_)
        self._scores = np.zeros((64, 2, len(self.patterns)), dtype=np.float32)
        self.centre = np.zeros((2, self.rails))
        self.noise = np.full(2, 0.02)
        self._weights: list[Weights] = [weights(self.rails, 0.5)] * 2
        self._calibrated_at = 0
        self._explains: list[Callable[[Evidence, int], Bools]] = []
        nodes = len(topology.nodes)
        self._epoch = np.zeros(nodes, dtype=np.int64)  # tests before it no longer count for the node
        self.sums = np.zeros((2, nodes, len(self.patterns)))
        self.counts = np.zeros((2, nodes))

    @property
    def a(self) -> Integers:
        """First node of every test."""
        return self._a[: self.size]

    @property
    def b(self) -> Integers:
        """Second node of every test."""
        return self._b[: self.size]

    @property
    def kind(self) -> Integers:
        """Class of every test: SAME_LEAF or OTHER_LEAF."""
        return self._kind[: self.size]

    @property
    def scores(self) -> NDArray[np.float32]:
        """(tests, 2, patterns): score of each pattern as seen from the first and the second node; N(0, 1) if well."""
        return self._scores[: self.size]

    @property
    def counted(self) -> Bools:
        """Tests of which at least half is not explained by a verdict."""
        return self._counted[: self.size]

    def leaf(self, nodes: Integers) -> Integers:
        """The leaf of each node; 0 for all when none is known."""
        return self._leaf[nodes]

    def loss(self, tests: Integers) -> Floats:
        """(tests, 2, rails): lost share of bandwidth against the centre of the test's class; nan where not measured."""
        away = self._log[tests] - self.centre[self._kind[tests]][:, None, :]
        return np.asarray(1 - np.exp(away), dtype=np.float64)

    def gigabytes(self, tests: Integers) -> Floats:
        """(tests, 2, rails): the measured bandwidth in GB/s."""
        return np.asarray(np.exp(self._log[tests]), dtype=np.float64)

    def tolerance(self) -> Floats:
        """(2, patterns): what the loss that is ignored would score in each class."""
        return np.asarray([w.gain * self.ignore / s for w, s in zip(self._weights, self.noise, strict=True)])

    def add(self, a: Integers, b: Integers, gigabytes: Floats) -> None:
        """Append disjoint tests. gigabytes: (tests, 2, rails) in GB/s, 0 for no answer, nan for not measured."""
        count = len(a)
        self._grow(self.size + count)
        here = slice(self.size, self.size + count)
        self._a[here], self._b[here] = a, b
        self._kind[here] = np.where(self._leaf[a] == self._leaf[b], SAME_LEAF, OTHER_LEAF)
        with np.errstate(divide="ignore"):
            self._log[here] = np.maximum(np.log(gigabytes), _DEAD)
        self.size += count
        self.version += 1
        self._explained[here] = np.isnan(gigabytes)
        for cells in self._explains:
            self._explained[here] |= cells(self, here.start)
        self._counted[here] = self._explained[here].mean(axis=(1, 2)) < 0.5
        if self.size >= 1.3 * self._calibrated_at:
            self.recalibrate()
        else:
            self._score(np.arange(here.start, here.stop))
            self._sum(np.arange(here.start, here.stop))

    def explain(self, cells: Callable[["Evidence", int], Bools]) -> None:
        """From now on the cells that a verdict explains are neutral, in old tests and new; all is estimated anew.

        cells(evidence, start): (tests from `start` on, 2, rails), true where the verdict explains the value.
        """
        self._explains.append(cells)
        self._explained[: self.size] |= cells(self, 0)
        self._counted[: self.size] = self._explained[: self.size].mean(axis=(1, 2)) < 0.5
        self.recalibrate()

    def forget(self, node: int, keep_from: int) -> None:
        """From now on only tests from number `keep_from` on count for the node: what went before was looked into."""
        self._epoch[node] = keep_from
        self.recount()

    def recalibrate(self) -> None:
        """Estimate centres and noise from all tests and score all of them anew."""
        self._calibrated_at = self.size
        for kind in (SAME_LEAF, OTHER_LEAF):
            tests = np.nonzero(self.kind == kind)[0][-_SAMPLE:]
            if len(tests):
                self._calibrate(kind, tests)
        self._score(np.arange(self.size))
        self.recount()

    def recount(self) -> None:
        """Sum the scores by node anew."""
        self.version += 1
        self.sums[:] = 0
        self.counts[:] = 0
        self._sum(np.arange(self.size))

    def _calibrate(self, kind: int, tests: Integers) -> None:
        values = np.where(self._explained[tests], np.nan, self._log[tests]).astype(np.float64)
        means = _means(values)
        if not len(means):
            return
        touched = self._touched_by_one(kind)
        middle = healthy_centre(means, touched)
        rails = self._rail_offsets(values, middle) if touched <= 0.4 and len(self.topology.nodes) >= 16 else 0.0
        self.centre[kind] = middle + rails
        away = values - self.centre[kind]
        every = away[np.isfinite(away)]
        noise = max(noise_scale(every, 0.0, touched), _LEAST_NOISE)
        common = noise_scale(_means(away), 0.0, touched) ** 2 / noise**2
        size = 2 * self.rails
        common = min(max((common - 1 / size) / (1 - 1 / size), 0.0), 0.9)
        # Estimated from few tests it may be far off, and too high a value makes chance look like one direction's loss.
        common = (len(tests) * common + _PRIOR_TESTS * _PRIOR_COMMON) / (len(tests) + _PRIOR_TESTS)
        self.noise[kind] = noise
        self._weights[kind] = weights(self.rails, common)

    def _rail_offsets(self, values: Floats, middle: float) -> Floats:
        """What each rail differs from the middle by: a rail plane that is slower for all is no node's fault."""
        offsets = np.zeros(self.rails)
        for rail in range(self.rails):
            column = values[:, :, rail]
            column = column[np.isfinite(column)]
            if len(column) >= 16:
                offsets[rail] = float(np.median(column)) - middle
        return offsets

    def _touched_by_one(self, kind: int) -> float:
        """Largest share of this class's tests that one node or one leaf can pull down."""
        leaves, nodes = len(set(self._leaf.tolist())), len(self.topology.nodes)
        share = 2 / max(nodes, 2)
        if leaves > 1:
            share = max(share, 2 / leaves if kind == OTHER_LEAF else 1 / leaves)
        return share

    def _score(self, tests: Integers) -> None:
        for kind in (SAME_LEAF, OTHER_LEAF):
            chosen = tests[self._kind[tests] == kind]
            if not len(chosen):
                continue
            cells = (self._log[chosen] - self.centre[kind].astype(np.float32)) / np.float32(self.noise[kind])
            np.clip(cells, _LEAST, _MOST, out=cells)
            cells[self._explained[chosen] | np.isnan(cells)] = 0
            matrix = self._weights[kind].matrix.astype(np.float32)
            self._scores[chosen, 0] = cells.reshape(len(chosen), -1) @ matrix
            self._scores[chosen, 1] = cells[:, ::-1].reshape(len(chosen), -1) @ matrix

    def _sum(self, tests: Integers) -> None:
        """Add the scores of these tests to the sums of their nodes."""
        counted = self._counted[tests]
        nodes, patterns_ = self.sums.shape[1:]
        for side, ends in enumerate((self._a[tests], self._b[tests])):
            ours = counted & (tests >= self._epoch[ends])
            for kind in (SAME_LEAF, OTHER_LEAF):
                chosen = ours & (self._kind[tests] == kind)
                if not chosen.any():
                    continue
                slot = ends[chosen][:, None] * patterns_ + np.arange(patterns_)
                scores = self._scores[tests[chosen], side]
                sums = np.bincount(slot.ravel(), scores.ravel(), minlength=nodes * patterns_)
                self.sums[kind] += sums.reshape(nodes, patterns_)
                self.counts[kind] += np.bincount(ends[chosen], minlength=nodes)

    def _grow(self, size: int) -> None:
        while len(self._a) < size:
            for name in ("_a", "_b", "_kind", "_log", "_explained", "_counted", "_scores"):
                old = getattr(self, name)
                setattr(self, name, np.concatenate([old, np.zeros_like(old)]))


def _means(values: Floats) -> Floats:
    """Mean of each test's measured cells, for tests with at least half of them."""
    finite = np.isfinite(values)
    enough = finite.mean(axis=(1, 2)) >= 0.5
    kept = np.where(finite, values, 0.0)[enough]
    return np.asarray(kept.sum(axis=(1, 2)) / finite[enough].sum(axis=(1, 2)))
