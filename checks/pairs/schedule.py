"""Who is measured with whom, and when: disjoint pairs, every pair once, no node twice at a time, none left out.

All N(N-1)/2 pairs of N nodes fit into N-1 rounds of N/2 disjoint pairs (N even) or N rounds with one node resting in
each (N odd): the circle method, which is also the least possible. A path fault above the leaf switches needs every
pair of *leaves* only: `leaf_cover` does that in L-1 rounds.
"""

import random
from collections.abc import Iterable, Iterator, Sequence

from checks.pairs.topology import Topology

Pair = tuple[int, int]  # node indices, the smaller first


def pair_of(a: int, b: int) -> Pair:
    """The pair in its one spelling."""
    return (a, b) if a < b else (b, a)


def circle(count: int) -> Iterator[list[Pair]]:
    """Rounds of disjoint pairs of 0..count-1 in which every pair comes once. Odd count: one rests, in turn."""
    if count < 2:
        return
    seats = count + count % 2
    for turn in range(seats - 1):
        pairs = [pair_of(turn, seats - 1)]
        pairs += [pair_of((turn + k) % (seats - 1), (turn - k) % (seats - 1)) for k in range(1, seats // 2)]
        yield [(a, b) for a, b in pairs if b < count]


def full(count: int, rng: random.Random) -> Iterator[list[Pair]]:
    """The circle's rounds with nodes and rounds shuffled, so that what is measured first is a sample of all."""
    seat = list(range(count))
    rng.shuffle(seat)
    rounds = list(circle(count))
    rng.shuffle(rounds)
    for pairs in rounds:
        yield [pair_of(seat[a], seat[b]) for a, b in pairs]


def within_leaves(topology: Topology, rng: random.Random) -> list[Pair]:
    """One random matching of nodes on the same leaf; the odd ones of the leaves are matched with each other."""
    pairs: list[Pair] = []
    left: list[int] = []
    for members in topology.members().values():
        members = list(members)
        rng.shuffle(members)
        if len(members) % 2:
            left.append(members.pop())
        pairs += [pair_of(a, b) for a, b in zip(members[::2], members[1::2], strict=True)]
    return pairs + [pair_of(a, b) for a, b in zip(left[::2], left[1::2], strict=False)]


def across_leaves(topology: Topology, rng: random.Random) -> list[Pair]:
    """One random matching in which partners hang on different leaves, as far as the sizes of the leaves allow.

    Random, so that every leaf meets several others in one round; a pair on one leaf is then mended by exchanging
    partners with a pair that touches that leaf with neither end.
    """
    line = list(range(len(topology.nodes)))
    rng.shuffle(line)
    pairs = [[a, b] for a, b in zip(line[::2], line[1::2], strict=False)]
    leaf = topology.leaf
    for pair in pairs:
        if leaf[pair[0]] == leaf[pair[1]]:
            start = rng.randrange(len(pairs))
            for other in pairs[start:] + pairs[:start]:
                if leaf[pair[0]] not in (leaf[other[0]], leaf[other[1]]):
                    pair[1], other[1] = other[1], pair[1]
                    break
    return [pair_of(a, b) for a, b in pairs]


def leaf_cover(topology: Topology) -> Iterator[list[Pair]]:
    """Rounds in which every pair of leaves exchanges traffic at least once: the circle over the leaves."""
    members = [nodes for _, nodes in sorted(topology.members().items())]
    for pairs in circle(len(members)):
        chosen = [zip(members[a], members[b], strict=False) for a, b in pairs]
        yield [pair_of(x, y) for zipped in chosen for x, y in zipped]


def screening(topology: Topology, rng: random.Random) -> Iterator[list[Pair]]:
    """Endless random matchings of alternating partner class: other leaf, same leaf, other leaf, ...

    Same-leaf pairs test node, NIC and cable without the fabric, the others with it; where no leaf is known, or all
    hang on one, the circle's rounds over shuffled nodes come again and again.
    """
    while True:
        if not topology.known:
            yield from full(len(topology.nodes), rng)
            if len(topology.nodes) < 2:
                return
        else:
            yield across_leaves(topology, rng)
            yield within_leaves(topology, rng)


class Coverage:
    """The pairs that are still to be measured, with nodes that come, go or hang in the middle; it can be resumed.

    A planned pair whose nodes are not both free stays owed and is taken up later, so a busy or hung node delays its
    own pairs only. Deterministic: the same rounds, busy nodes and joins give the same pairs.
    """

    def __init__(self, count: int, rounds: Iterable[Sequence[Pair]]) -> None:
        self._rounds = iter(rounds)
        self._ended = False
        self._present = set(range(count))
        self._owed: dict[Pair, None] = {}
        self._done: set[Pair] = set()

    @property
    def done(self) -> frozenset[Pair]:
        """Pairs that were measured."""
        return frozenset(self._done)

    @property
    def owed(self) -> tuple[Pair, ...]:
        """Pairs that were planned so far and not yet measured, in their order."""
        return tuple(self._owed)

    @property
    def left(self) -> bool:
        """Whether something is still to be measured."""
        return bool(self._owed) or not self._ended

    def join(self, node: int) -> None:
        """A node is there (again): its pairs with all others become owed, except those that were measured."""
        for other in sorted(self._present - {node}):
            if (pair := pair_of(node, other)) not in self._done:
                self._owed.setdefault(pair)
        self._present.add(node)

    def leave(self, node: int) -> None:
        """A node has gone: nothing is owed with it any more."""
        self._present.discard(node)
        self._owed = {pair: None for pair in self._owed if node not in pair}

    def measured(self, pairs: Iterable[Pair]) -> None:
        """These were measured, by this sweep or (resuming) by the one before."""
        for pair in pairs:
            self._done.add(pair)
            self._owed.pop(pair, None)

    def next(self, free: Iterable[int]) -> list[Pair]:
        """Disjoint pairs of `free` nodes to measure now.

        With most nodes free the next round of the plan comes first and what is owed fills the gaps; with few free it
        is the other way round, so that the plan is not used up for the sake of one idle node. Empty when nothing can
        be started: all is measured, or the pairs left need a node that is not free.
        """
        available = set(free) & self._present
        chosen: list[Pair] = []
        if 2 * len(available) > len(self._present) and (planned := self._pull()):
            chosen += self._take(planned, available)
        chosen += self._take(list(self._owed), available)
        while not chosen and len(available) > 1 and len(self._owed) < len(self._present) and self._pull():
            chosen += self._take(list(self._owed), available)
        return chosen

    def _pull(self) -> list[Pair]:
        """What is left to measure of the plan's next round that still has something; it becomes owed."""
        for pairs in self._rounds:
            fresh = [pair for pair in pairs if set(pair) <= self._present and pair not in self._done]
            if fresh:
                self._owed.update(dict.fromkeys(fresh))
                return fresh
        self._ended = True
        return []

    def _take(self, pairs: Iterable[Pair], available: set[int]) -> list[Pair]:
        taken = []
        for pair in pairs:
            if len(available) < 2:
                break
            if pair[0] in available and pair[1] in available:
                taken.append(pair)
                available -= set(pair)
                del self._owed[pair]
        return taken
