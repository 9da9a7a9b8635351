"""One sweep from the first round to the verdicts: what to measure next, for real and for simulated traffic alike.

Every round the suspects are measured first, each with a partner that is known to be good and was not its partner
before, and suspected pairs again with each other; all other nodes go on with the plan. It ends when the plan is done
and nothing is under suspicion, or at its budget.
"""

import random
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass

from checks.pairs.localise import Localiser, Rules
from checks.pairs.schedule import Coverage, Pair, full, leaf_cover, pair_of, screening
from checks.pairs.topology import Topology


@dataclass(frozen=True, slots=True, kw_only=True)
class Budget:
    """How much a sweep may cost. plan: quick, leaf or full. rounds: at least so many; most: at most so many."""

    plan: str = "quick"
    rounds: int = 12
    most: int = 30


class Sweep:
    """The state of one sweep. Pure: chance comes from `seed`, time not at all."""

    def __init__(self, topology: Topology, budget: Budget, seed: int, rules: Rules | None = None) -> None:
        self.topology = topology
        self.budget = budget
        self.localiser = Localiser(topology, rules)
        self._rng = random.Random(seed)
        self._away: set[int] = set()
        self._screen = screening(topology, self._rng)
        self._cover = self._covering()

    def _covering(self) -> Coverage | None:
        count = len(self.topology.nodes)
        if self.budget.plan == "full":
            return Coverage(count, full(count, self._rng))
        if self.budget.plan == "leaf" and self.topology.known:
            return Coverage(count, leaf_cover(self.topology))
        return None

    @property
    def expected(self) -> int:
        """Rounds it takes if nothing is found."""
        count = len(self.topology.nodes)
        if self.budget.plan == "full":
            return count - 1 + count % 2
        return max(1, len(set(self.topology.leaf)) - 1) if self._cover else self.budget.rounds

    @property
    def covered(self) -> frozenset[Pair]:
        """Pairs of the plan that were measured."""
        return self._cover.done if self._cover else frozenset()

    def resume(self, done: Iterable[Pair]) -> None:
        """An earlier sweep measured these."""
        if self._cover:
            self._cover.measured(done)

    def join(self, node: int) -> None:
        """The node can be measured (again)."""
        self._away.discard(node)
        if self._cover:
            self._cover.join(node)

    def leave(self, node: int) -> None:
        """The node can no longer be measured."""
        self._away.add(node)
        if self._cover:
            self._cover.leave(node)

    def finished(self, rounds: int) -> bool:
        """Whether there is nothing more to measure after so many rounds."""
        if len(self.topology.nodes) - len(self._away) < 2:
            return True
        if self._cover is not None:
            return self._exhausted(rounds)
        return rounds >= self.budget.most or (rounds >= self.budget.rounds and self.localiser.settled)

    def _exhausted(self, rounds: int) -> bool:
        count = len(self.topology.nodes)
        left = self._cover is not None and self._cover.left
        # A cover needs its rounds; what is under suspicion at its end gets as many more as a quick sweep may take.
        return (not left and (self.localiser.settled or rounds >= count + self.budget.most)) or rounds >= 3 * count + 64

    def next(self, free: Iterable[int]) -> list[Pair]:
        """Disjoint pairs of free nodes to measure now; empty when these have to wait."""
        available = set(free) - self._away
        chosen = list(self._confirm(available))
        if self._cover is not None:
            planned = self._cover.next(available)
            available -= {node for pair in planned for node in pair}
            chosen += planned
            if self._cover.left:
                return chosen
        return chosen + self._fill(available)

    def measured(self, pairs: Sequence[Pair]) -> None:
        """These pairs were measured: they are covered."""
        if self._cover:
            self._cover.measured(pair_of(*pair) for pair in pairs)

    def _confirm(self, available: set[int]) -> Iterator[Pair]:
        """Tests that settle suspicions; takes their nodes out of `available`."""
        yield from self._again(available)
        for node in self.localiser.suspects[: max(2, len(self.topology.nodes) // 3)]:
            partner = self._partner(node, available) if node in available else None
            if partner is not None:
                available -= {node, partner}
                yield pair_of(node, partner)

    def _again(self, available: set[int]) -> Iterator[Pair]:
        """Suspected pairs once more, in turn with tests of their ends with others.

        A node that is suspected with several meets new partners first: it is the likelier culprit.
        """
        strength = {pair: self.localiser.strength(pair) for pair in self.localiser.links}
        for pair in sorted(strength, key=lambda pair: (-strength[pair], pair)):
            rivals = [strength[other] for other in strength if other != pair and set(other) & set(pair)]
            alone = 2 * max(rivals, default=0.0) < strength[pair]
            if alone and set(pair) <= available and self.localiser.again(pair):
                available -= set(pair)
                yield pair

    def _partner(self, node: int, available: set[int]) -> int | None:
        """A good partner the suspect has not met yet, on its own leaf twice in three times."""
        met = self.localiser.partners(node)
        good = [other for other in sorted(available) if other != node and not self.localiser.bad(other)]
        if not good:  # with few nodes there may be suspects only
            good = [other for other in sorted(available) if other != node]
        fresh = [other for other in good if other not in met] or good
        if not fresh:
            return None
        same = [other for other in fresh if self._same_leaf(node, other)]
        other = [other for other in fresh if not self._same_leaf(node, other)]
        prefer, else_ = (other, same) if len(met) % 3 == 2 else (same, other)
        return self._rng.choice(prefer or else_)

    def _same_leaf(self, a: int, b: int) -> bool:
        leaf = self.topology.leaf
        return bool(leaf) and leaf[a] == leaf[b]

    def _fill(self, available: set[int]) -> list[Pair]:
        """The next screening matching as far as its nodes are free; the ones left over are matched at random."""
        pairs = [pair for pair in next(self._screen, []) if set(pair) <= available]
        rest = sorted(available - {node for pair in pairs for node in pair})
        self._rng.shuffle(rest)
        return pairs + [pair_of(a, b) for a, b in zip(rest[::2], rest[1::2], strict=False)]
