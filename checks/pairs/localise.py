"""Screen, fit, confirm: from bandwidths of pairs to the part that is slow.

Every round's tests are scored (evidence.py). A node whose scores stand out at a controlled false discovery rate, and
both ends of a pair whose single test does, become suspects. A suspect is blamed on *fresh* evidence only, measured
after the suspicion with partners that are known to be good, so that the luck that raised the suspicion cannot confirm
it; at least two different partners must agree. A pair is blamed when it is slow again and both its ends are well with
others. Leaves and paths between leaves come first: they are blamed when most of their nodes are low together.
"""

import math
from dataclasses import dataclass

import msgspec
import numpy as np

from checks.pairs import names
from checks.pairs.evidence import OTHER_LEAF, SAME_LEAF, Bools, Evidence, Floats, Integers
from checks.pairs.patterns import Pattern, cells
from checks.pairs.schedule import Pair, pair_of
from checks.pairs.statistics import discoveries
from checks.pairs.switches import Blame, SwitchSuspects
from checks.pairs.topology import Topology
from checks.pairs.verdict import ADVICE, Kind, Sample, Verdict

# With fewer tests than this their noise is not known, and nothing is said.
_LEAST_TESTS = 12


@dataclass(frozen=True, slots=True, kw_only=True)
class Rules:
    """Where suspicion begins and when it is settled.

    ignore: losses up to this share are nobody's fault; least: no smaller loss is blamed. false_discoveries: rate
    among suspects, who are only looked into. certain: score of fresh evidence that blames, one-sided (4.8: one in a
    million). strike: score at which a single test counts as slow by itself. clear_after: fresh tests without a finding
    that end a suspicion which a single slow test raised (a part that is slow half the time stays hidden in one run of
    1024); give_up_after: that end any. gap: log likelihood ratio by which one pattern must beat the next (e^4 to one).
    """

    ignore: float = 0.01
    least: float = 0.02
    false_discoveries: float = 0.2
    certain: float = 4.8
    strike: float = 4.0
    clear_after: int = 10
    give_up_after: int = 14
    gap: float = 4.0


@dataclass(slots=True)
class _Node:
    """A suspected node. since: number of the first fresh test. struck: a single slow test raised it."""

    since: int
    struck: bool


@dataclass(slots=True)
class _Link:
    """A suspected pair. since: number of the first fresh test."""

    since: int


@dataclass(slots=True)
class _Fresh:
    """Fresh tests of one node. scores: (tests, patterns), already less what is ignored and in units of the pool."""

    tests: Integers
    partners: Integers
    scores: Floats
    plain: Floats

    def __len__(self) -> int:
        return len(self.tests)

    def total(self, scores: Floats) -> Floats:
        """Combined score of each pattern."""
        return np.asarray(scores.sum(axis=0) / math.sqrt(max(len(scores), 1)))


class Localiser:
    """Takes measurements, names the next ones it needs, and gives verdicts. Pure: no clock, no chance, no I/O."""

    def __init__(self, topology: Topology, rules: Rules | None = None) -> None:
        self.topology = topology
        self.rules = rules or Rules()
        self.evidence = Evidence(topology, self.rules.ignore)
        self.verdicts: list[Verdict] = []
        self.round = 0
        self._switches = SwitchSuspects(self.evidence, self.rules.certain)
        self._nodes: dict[int, _Node] = {}
        self._links: dict[Pair, _Link] = {}
        self._doubted: dict[Pair, int] = {}
        self._strikes: dict[int, None] = {}
        self._bad_nodes: dict[int, list[Pattern]] = {}
        self._looked_at = 0
        self._scored: tuple[int, Floats] = (-1, np.zeros((0, 0)))
        self._pool = _Pool.plain(len(self.evidence.patterns))
        self._cells = cells(topology.rails)

    @property
    def suspects(self) -> list[int]:
        """Nodes under suspicion that are not on a suspected switch, the worst first."""
        worst = self._worst()
        open_ = [node for node in self._nodes if not self._switches.holds(node)]
        return sorted(open_, key=lambda node: (worst[node], node))

    @property
    def links(self) -> list[Pair]:
        """Pairs under suspicion."""
        return list(self._links)

    @property
    def settled(self) -> bool:
        """Whether nothing is under suspicion."""
        return not self._nodes and not self._links and not self._switches.open

    @property
    def judged(self) -> bool:
        """Whether there are enough tests to know the noise, and so to say anything at all."""
        return self.evidence.size >= _LEAST_TESTS

    def again(self, pair: Pair) -> bool:
        """Whether it is the suspected pair's turn to be measured again: its ends met others as often since."""
        again, others = self._looks(pair)
        return again < others

    def strength(self, pair: Pair) -> float:
        """How far the pair's slowest test lay below its peers, in standard deviations."""
        return -float(self.evidence.scores[self._tests_of(pair, 0), 0].min(initial=0.0))

    def _looks(self, pair: Pair) -> tuple[int, int]:
        """How often the pair was measured since it came under suspicion, and the less measured end with others."""
        since = self._links[pair].since
        ends = [self._ends(node, since)[1] for node in pair]
        return len(self._tests_of(pair, since)), min(int((~np.isin(partners, pair)).sum()) for partners in ends)

    def bad(self, node: int) -> bool:
        """Whether the node, or a part of it, is blamed or under suspicion: no partner to confirm with."""
        return node in self._bad_nodes or node in self._nodes

    def partners(self, node: int) -> set[int]:
        """With whom the node was measured since it came under suspicion."""
        if node not in self._nodes:
            return set()
        fresh = self._ends(node, self._nodes[node].since)
        return set(fresh[1].tolist())

    def add(self, a: Integers, b: Integers, gigabytes: Floats) -> None:
        """Take measurements of disjoint pairs, in GB/s: (pairs, 2, rails); 0: no answer, nan: not measured."""
        self.evidence.add(a, b, gigabytes)

    def judge(self) -> None:
        """Weigh what came since the last time: raise suspicions, settle those that can be settled."""
        evidence = self.evidence
        self.round += 1
        if not self.judged:
            return
        start, self._looked_at = self._looked_at, evidence.size
        self._pool = _Pool.of(evidence, self._innocent_tests())
        for blame in self._switches.judge():
            self._blame_switch(blame)
        self._raise(start)
        while self._settle_one():
            pass

    def finish(self) -> None:
        """The sweep is over: what could not be settled is said to be unclear."""
        for pair in list(self._links):
            self._unclear_link(pair)
        for node in list(self._nodes):
            self._unclear(node)
        self._nodes.clear()
        self._links.clear()

    # -- suspicion

    def _raise(self, start: int) -> None:
        evidence = self.evidence
        found = discoveries(self._node_scores(), self.rules.false_discoveries)
        for node in np.nonzero(found.any(axis=1))[0].tolist():
            if node not in self._nodes:
                self._nodes[node] = _Node(evidence.size, struck=False)
        fresh = evidence.scores[start:, 0].astype(np.float64) + evidence.tolerance()[evidence.kind[start:]]
        scale = self._pool.low_scale[evidence.kind[start:]]
        padding = max(0, 16 - len(fresh)) * fresh.shape[1]
        for test in np.nonzero(discoveries(fresh / scale, self.rules.false_discoveries, padding).any(axis=1))[0]:
            self._strike(start + int(test))

    def _strike(self, test: int) -> None:
        evidence = self.evidence
        a, b = int(evidence.a[test]), int(evidence.b[test])
        if self._switches.covers(test):
            return
        self._strikes[test] = None
        for node in (a, b):
            self._nodes.setdefault(node, _Node(evidence.size, struck=True)).struck = True
        if pair_of(a, b) not in self._links:
            self._links[pair_of(a, b)] = _Link(evidence.size)
            self._doubted.setdefault(pair_of(a, b), evidence.size)

    def _node_scores(self) -> Floats:
        """(nodes, patterns or twice that): combined scores, less what is ignored, against those of all other nodes."""
        evidence = self.evidence
        if self._scored[0] == evidence.version:
            return self._scored[1]
        tolerance = evidence.tolerance()
        parts = [(SAME_LEAF, OTHER_LEAF)] + ([(SAME_LEAF,)] if self.topology.known else [])
        scores = []
        for kinds in parts:
            counts = np.asarray(sum(evidence.counts[kind] for kind in kinds))
            sums = np.asarray(sum(evidence.sums[kind] for kind in kinds))
            ignored = np.asarray(sum(evidence.counts[kind][:, None] * tolerance[kind] for kind in kinds))
            scores.append(_peer_relative(sums, ignored, counts))
        self._scored = evidence.version, np.concatenate(scores, axis=1)
        return self._scored[1]

    def _worst(self) -> Floats:
        return np.asarray(self._node_scores().min(axis=1))

    # -- settling

    def _settle_one(self) -> bool:
        """Settle one suspicion, the worst first; False when none can be settled now. A verdict changes all others."""
        for node in self.suspects:
            if self._settle_node(node):
                return True
        return any(self._settle_link(pair) for pair in list(self._links))

    def _settle_node(self, node: int) -> bool:
        suspect = self._nodes[node]
        fresh = self._fresh(node, suspect.since)
        if not len(fresh):
            return False
        totals = fresh.total(fresh.scores)
        best = int(np.argmin(totals))
        if totals[best] <= -self.rules.certain and self._replicated(node, fresh, best):
            everything = self._fresh(node, 0, plain=True)
            best, odds = self._pattern(everything, fresh)
            big = self._size(node, best, everything)[0] >= 100 * self.rules.least
            if big and (odds >= self.rules.gap or len(fresh) >= self.rules.give_up_after):
                self._blame_node(node, best, odds, everything)
                return True
            if len(fresh) < self.rules.give_up_after:
                return False
        enough = self.rules.clear_after if suspect.struck else 4
        if len(fresh) >= self.rules.give_up_after or (len(fresh) >= enough and totals[best] > -2.5):
            self._clear(node)
            return True
        return False

    def _replicated(self, node: int, fresh: _Fresh, best: int) -> bool:
        """Two different partners agree: two strikes, or still a finding without the worst partner's tests."""
        column = fresh.scores[:, best]
        struck = set(fresh.partners[column < -self.rules.strike].tolist())
        if struck:
            earlier = self._fresh(node, 0, plain=True)
            struck |= set(earlier.partners[earlier.plain[:, best] < -self.rules.strike].tolist())
        if len(struck) >= 2:
            return True
        sums = {partner: float(column[fresh.partners == partner].sum()) for partner in set(fresh.partners.tolist())}
        kept = column[fresh.partners != min(sums, key=lambda partner: sums[partner])]
        return bool(len(kept)) and float(kept.sum()) / math.sqrt(len(kept)) <= -3

    def _pattern(self, everything: _Fresh, fresh: _Fresh) -> tuple[int, float]:
        """The likeliest pattern and the log likelihood ratio to the next one that overlaps it."""
        totals = everything.total(everything.plain) if len(everything) > len(fresh) else fresh.total(fresh.plain)
        best = int(np.argmin(totals))
        overlaps = (self._cells & self._cells[best]).any(axis=1)
        overlaps[best] = False
        second = float(min(totals[overlaps].min(), 0.0))
        return best, (float(totals[best]) ** 2 - second**2) / 2

    def _settle_link(self, pair: Pair) -> bool:
        link = self._links[pair]
        if any(self._node_blamed(node) for node in pair) or self._explained(pair):
            del self._links[pair]
            return True
        tests = self._tests_of(pair, link.since)
        if len(tests) >= 2:
            scores = self._pool.fresh(self.evidence, tests, 0)
            totals = scores.sum(axis=0) / math.sqrt(len(tests))
            best = int(np.argmin(totals))
            column = scores[:, best]
            a = int(self.evidence.a[tests[0]])
            sides = [best if node == a else self._mirrored(best) for node in pair]
            if totals[best] <= -self.rules.certain and all(
                self._only_here(node, pair, column, side) for node, side in zip(pair, sides, strict=True)
            ):
                self._blame_link(pair, tests)
                return True
            if totals[best] <= -self.rules.certain:
                return False  # slow all along: only the sweep's end may leave it open
        looks = sum(self._looks(pair))
        if looks >= self.rules.give_up_after or (
            looks >= self.rules.clear_after and not any(node in self._nodes for node in pair)
        ):
            self._transient(pair)
            return True
        return False

    def _only_here(self, node: int, pair: Pair, column: Floats, pattern: int) -> bool:
        """Whether the pair is slow and its end is not: by the odds that one rate of slow tests holds for both.

        column: scores of the pair's fresh tests. pattern: the same cells as seen from this end. With a uniform prior
        on the rates the odds are a ratio of Beta functions; they must be a hundred to one. Every test of the node with
        others counts, not only fresh ones.
        """
        tests, partners, side = self._ends(node, 0)
        elsewhere = ~np.isin(partners, pair)
        others = self._pool.fresh(self.evidence, tests[elsewhere], side[elsewhere])[:, pattern]
        if len(others) < 2 or others.mean() < column.mean() / 3 or others.sum() / math.sqrt(len(others)) < -3.5:
            return False
        limit = -self.rules.strike / 2
        slow, times, slow_too, rest = int((column < limit).sum()), len(column), int((others < limit).sum()), len(others)
        apart = _log_beta(slow, times) + _log_beta(slow_too, rest)
        return apart - _log_beta(slow + slow_too, times + rest) >= math.log(100)

    def _mirrored(self, pattern: int) -> int:
        """The same cells as seen from the other end."""
        seen = self.evidence.patterns[pattern]
        return self.evidence.patterns.index(Pattern(seen.rail, {"": "", "tx": "rx", "rx": "tx"}[seen.direction]))

    # -- verdicts

    def _blame_node(self, node: int, best: int, odds: float, tests: _Fresh) -> None:
        pattern = self.evidence.patterns[best]
        percent, duty = self._size(node, best, tests)
        name = names.node(self.topology, node, pattern.rail, pattern.direction)
        self._add_verdict(
            Verdict(
                component=name,
                kind=Kind.NODE if pattern.rail is None else Kind.RAIL,
                percent=percent,
                duty=duty,
                confidence=1 / (1 + math.exp(-min(odds, 7.0))),
                samples=self._samples(tests.tests, self._cell_mask(node, best, tests.tests)),
            )
        )
        self._bad_nodes.setdefault(node, []).append(pattern)
        del self._nodes[node]
        self._explain(Blame(Kind.NODE, name, lambda e, start: _node_cells(e, node, self._cells[best], start)))
        self._merge(node)

    def _merge(self, node: int) -> None:
        """Both directions at fault are one fault, and so are most rails of a node."""
        found = self._bad_nodes[node]
        for rail in {pattern.rail for pattern in found}:
            if {Pattern(rail, "tx"), Pattern(rail, "rx")} <= set(found):
                self._replace(node, [Pattern(rail, "tx"), Pattern(rail, "rx")], Pattern(rail, ""))
        for way in ("", "tx", "rx"):
            rails = [
                pattern for pattern in self._bad_nodes[node] if pattern.rail is not None and pattern.direction == way
            ]
            if len(rails) >= max(3, 0.75 * self.topology.rails):
                self._replace(node, rails, Pattern(None, way))

    def _replace(self, node: int, parts: list[Pattern], whole: Pattern) -> None:
        self._bad_nodes[node] = [p for p in self._bad_nodes[node] if p not in parts] + [whole]
        gone = {names.node(self.topology, node, p.rail, p.direction) for p in parts}
        replaced = [v for v in self.verdicts if v.component in gone]
        best = self.evidence.patterns.index(whole)
        kept = [v for v in self.verdicts if v.component not in gone]
        kind = Kind.NODE if whole.rail is None else Kind.RAIL
        name = names.node(self.topology, node, whole.rail, whole.direction)
        if replaced:
            last = replaced[-1]
            self.verdicts = [*kept, msgspec.structs.replace(last, component=name, kind=kind, advice=ADVICE[kind])]
        self._explain(Blame(Kind.NODE, name, lambda e, start: _node_cells(e, node, self._cells[best], start)))

    def _blame_link(self, pair: Pair, tests: Integers) -> None:
        scores = self.evidence.scores[self._tests_of(pair, 0), 0].astype(np.float64)
        directed = scores[:, :3].sum(axis=0) / math.sqrt(len(scores))
        best = int(np.argmin(directed))
        second = float(min(np.delete(directed, best).min(), 0.0))
        odds = (float(directed[best]) ** 2 - second**2) / 2
        direction = self.evidence.patterns[best].direction
        a, b = int(self.evidence.a[tests[0]]), int(self.evidence.b[tests[0]])
        mask = np.broadcast_to(self._cells[best].reshape(2, -1), (len(tests), 2, self.topology.rails))
        losses = np.nanmedian(np.where(mask, self.evidence.loss(tests), np.nan), axis=(1, 2))
        name = names.link(self.topology, a, b, direction)
        self._add_verdict(
            Verdict(
                component=name,
                kind=Kind.LINK,
                percent=_percent(float(np.median(losses))),
                confidence=1 / (1 + math.exp(-min(odds, 7.0))),
                samples=self._samples(tests, mask),
            )
        )
        del self._links[pair]
        self._explain(Blame(Kind.LINK, name, lambda e, start: _pair_cells(e, pair, start)))
        for node in pair:
            self._drop_if_clean(node)

    def _blame_switch(self, blame: Blame) -> None:
        mask = blame.cells(self.evidence, 0)
        tests = np.nonzero(mask.any(axis=(1, 2)))[0]
        mask = mask[tests]
        losses = np.nanmedian(np.where(mask, self.evidence.loss(tests), np.nan), axis=(1, 2))
        percent = _percent(float(np.median(losses)))
        self._add_verdict(
            Verdict(
                component=blame.name,
                kind=blame.kind,
                percent=percent,
                confidence=0.999,
                rivals=list(blame.rivals),
                samples=self._samples(tests, mask),
            )
        )
        self._explain(blame)

    def _clear(self, node: int) -> None:
        since = self._nodes.pop(node).since
        self.evidence.forget(node, since)

    def _transient(self, pair: Pair) -> None:
        tests = self._tests_of(pair, 0)
        struck = [t for t in tests.tolist() if t in self._strikes]
        del self._links[pair]
        if struck and float(self.evidence.scores[struck, 0].min()) < -2 * self.rules.strike:
            mask = np.ones((len(struck), 2, self.topology.rails), dtype=np.bool_)
            losses = np.nanmax(self.evidence.loss(np.asarray(struck)), axis=(1, 2))
            if losses.max() < self.rules.least:
                return
            self._add_verdict(
                Verdict(
                    component=names.link(self.topology, *pair),
                    kind=Kind.TRANSIENT,
                    percent=_percent(float(losses.max())),
                    duty=len(struck) / len(tests),
                    samples=self._samples(np.asarray(struck), mask),
                )
            )

    def _unclear_link(self, pair: Pair) -> None:
        """A pair that is slow to the end, while too little is known of its ends elsewhere to acquit them."""
        tests = self._tests_of(pair, 0)
        low = self.evidence.scores[tests, 0].min(axis=1) < -self.rules.strike
        if any(self._node_blamed(node) for node in pair):
            return
        name = names.link(self.topology, *pair)
        self._leave_open(name, tests[low], float(low.mean()), [name, *(names.node(self.topology, n) for n in pair)])

    def _unclear(self, node: int) -> None:
        """A suspicion at the end of the sweep: said, if it is more than a suspicion."""
        tests, _, _ = self._ends(node, 0)
        if not len(tests):
            return
        low = self.evidence.scores[tests, 0].min(axis=1) < -self.rules.strike
        name = names.node(self.topology, node)
        if not self._node_blamed(node) and not any(name in verdict.rivals for verdict in self.verdicts):
            self._leave_open(name, tests[low], float(low.mean()), [name])

    def _leave_open(self, name: str, tests: Integers, duty: float, rivals: list[str]) -> None:
        if len(tests) < 2:
            return
        loss = float(np.median(np.nanmedian(self.evidence.loss(tests), axis=(1, 2))))
        if loss < self.rules.least:
            return
        self._add_verdict(
            Verdict(
                component=name,
                kind=Kind.UNCLEAR,
                percent=_percent(loss),
                duty=round(duty, 2),
                rivals=rivals,
                samples=self._samples(tests, np.ones((len(tests), 2, self.topology.rails), dtype=np.bool_)),
            )
        )

    def _add_verdict(self, verdict: Verdict) -> None:
        advice = ADVICE[verdict.kind]
        self.verdicts.append(
            msgspec.structs.replace(verdict, round=self.round, tests=self.evidence.size, advice=advice)
        )

    def _explain(self, blame: Blame) -> None:
        """From now on this explains its tests; suspicions that rested on them alone are dropped."""
        self.evidence.explain(blame.cells)
        self._strikes = {t: None for t in self._strikes if self.evidence.scores[t, 0].min() < -self.rules.strike / 2}
        for pair in [pair for pair in self._links if self._explained(pair)]:
            del self._links[pair]
        for node in list(self._nodes):
            self._drop_if_clean(node)

    def _drop_if_clean(self, node: int) -> None:
        """End a suspicion whose reasons are explained by a verdict."""
        suspect = self._nodes.get(node)
        if suspect is None:
            return
        still_struck = any(node in (int(self.evidence.a[t]), int(self.evidence.b[t])) for t in self._strikes)
        in_link = any(node in pair for pair in self._links)
        if not still_struck and not in_link and self._worst()[node] > -3.5:
            del self._nodes[node]

    # -- views of the evidence

    def _node_blamed(self, node: int) -> bool:
        return Pattern(None, "") in self._bad_nodes.get(node, ())

    def _explained(self, pair: Pair) -> bool:
        tests = self._tests_of(pair, 0)
        return (bool(len(tests)) and not self.evidence.counted[tests].any()) or not any(
            t in self._strikes for t in tests.tolist()
        )

    def _tests_of(self, pair: Pair, since: int) -> Integers:
        a, b = self.evidence.a[since:], self.evidence.b[since:]
        return np.nonzero(((a == pair[0]) & (b == pair[1])) | ((a == pair[1]) & (b == pair[0])))[0] + since

    def _ends(self, node: int, since: int) -> tuple[Integers, Integers, Integers]:
        """Tests of the node from `since` on that no verdict explains, the partner in each, and the node's own side."""
        a, b = self.evidence.a[since:], self.evidence.b[since:]
        tests = np.nonzero((a == node) | (b == node))[0] + since
        tests = tests[self.evidence.counted[tests]]
        side = (self.evidence.a[tests] != node).astype(np.int64)
        return tests, np.where(side == 0, self.evidence.b[tests], self.evidence.a[tests]), side

    def _fresh(self, node: int, since: int, plain: bool = False, leave_out: Pair | None = None) -> _Fresh:
        """The node's tests from `since` on with partners that are known to be good."""
        tests, partners, side = self._ends(node, since)
        rivals = self._rivals(node)
        good = np.asarray(
            [
                test < rivals.get(int(partner), test + 1) and self._good(int(partner), node)
                for test, partner in zip(tests.tolist(), partners, strict=True)
            ],
            dtype=np.bool_,
        )
        if leave_out is not None:
            good &= ~np.isin(partners, leave_out)
        if plain and not good.any():
            good[:] = True
        tests, partners, side = tests[good], partners[good], side[good]
        bare = self.evidence.scores[tests, side].astype(np.float64)
        return _Fresh(tests, partners, self._pool.fresh(self.evidence, tests, side), bare)

    def _rivals(self, node: int) -> dict[int, int]:
        """Partners with whom a slow test raised suspicion, and the number of the first test after it.

        Such a pair's later tests accuse both ends and the link between them alike, so they settle nothing between
        the ends; unless the node is suspected with all others there are, which only its own fault explains simply.
        """
        found = {a + b - node: since for (a, b), since in self._doubted.items() if node in (a, b)}
        return found if len(found) < len(self.topology.nodes) - 1 else {}

    def _good(self, partner: int, node: int) -> bool:
        """Whether a low test with this partner speaks against the node: the partner is well with others."""
        if partner in self._bad_nodes and self._node_blamed(partner):
            return False
        if partner not in self._nodes:
            return True
        tests, partners, side = self._ends(partner, 0)
        elsewhere = partners != node
        if not elsewhere.any():
            return False
        scores = self._pool.fresh(self.evidence, tests[elsewhere], side[elsewhere])
        return (
            float(scores.min()) > -self.rules.strike and float((scores.sum(axis=0) / math.sqrt(len(scores))).min()) > -3
        )

    def _innocent_tests(self) -> Integers:
        """The last tests between nodes of which none is blamed or suspected."""
        evidence = self.evidence
        bad = np.zeros(len(self.topology.nodes), dtype=np.bool_)
        bad[[node for node in range(len(bad)) if self.bad(node)]] = True
        recent = np.arange(max(0, evidence.size - 4096), evidence.size)
        return recent[~bad[evidence.a[recent]] & ~bad[evidence.b[recent]] & evidence.counted[recent]]

    def _cell_mask(self, node: int, best: int, tests: Integers) -> Bools:
        return _node_cells(self.evidence, node, self._cells[best], 0)[tests]

    def _size(self, node: int, best: int, tests: _Fresh) -> tuple[float, float]:
        """Loss in percent while it is slow, and the share of tests in which it is."""
        mask = self._cell_mask(node, best, tests.tests)
        losses = np.nanmedian(np.where(mask, self.evidence.loss(tests.tests), np.nan), axis=(1, 2))
        struck = tests.plain[:, best] < -self.rules.strike
        low = (
            struck
            if struck.any()
            and losses[struck].min() > 2 * max(np.median(losses[~struck]) if (~struck).any() else 0, 0.01)
            else np.ones(len(losses), dtype=np.bool_)
        )
        return _percent(float(np.median(losses[low]))), round(float(low.mean()), 2)

    def _samples(self, tests: Integers, mask: Bools) -> list[Sample]:
        chosen = slice(max(0, len(tests) - 8), len(tests))
        losses = np.where(mask, self.evidence.loss(tests), np.nan)[chosen]
        rates = np.where(mask, self.evidence.gigabytes(tests), np.nan)[chosen]
        return [
            Sample(
                a=self.topology.nodes[self.evidence.a[test]],
                b=self.topology.nodes[self.evidence.b[test]],
                gigabytes=round(float(np.nanmean(rate)), 3),
                percent=_percent(float(np.nanmedian(loss))),
            )
            for test, rate, loss in zip(tests[chosen].tolist(), rates, losses, strict=True)
        ]


@dataclass(frozen=True, slots=True)
class _Pool:
    """How the scores of innocent nodes lie, by class and pattern: skewed and wide where flows collide.

    mean: at most 0. scale: standard deviation, at least 1. low_scale: of the lower side, for single tests.
    """

    mean: Floats
    scale: Floats
    low_scale: Floats
    tolerance: Floats

    @classmethod
    def plain(cls, patterns: int) -> "_Pool":
        """What theory says of pure noise."""
        ones = np.ones((2, patterns))
        return cls(np.zeros((2, patterns)), ones, ones, np.zeros((2, patterns)))

    @classmethod
    def of(cls, evidence: Evidence, tests: Integers) -> "_Pool":
        """As measured, for classes with enough tests; theory for the others."""
        patterns = len(evidence.patterns)
        mean, scale, low = np.zeros((2, patterns)), np.ones((2, patterns)), np.ones((2, patterns))
        for kind in (SAME_LEAF, OTHER_LEAF):
            scores = evidence.scores[tests[evidence.kind[tests] == kind]].reshape(-1, patterns).astype(np.float64)
            if len(scores) < 32:
                continue
            mean[kind] = np.minimum(scores.mean(axis=0), 0)
            scale[kind] = np.maximum(scores.std(axis=0), 1)
            if len(evidence.topology.nodes) >= 16:
                sixth, middle = np.quantile(scores, [0.1587, 0.5], axis=0)
                low[kind] = np.maximum(middle - sixth, 1)
        return cls(mean, scale, low, evidence.tolerance())

    def fresh(self, evidence: Evidence, tests: Integers, side: Integers | int) -> Floats:
        """(tests, patterns): scores less what is ignored, in units of the pool."""
        kind = evidence.kind[tests]
        scores = evidence.scores[tests, side].astype(np.float64)
        return np.asarray((scores + self.tolerance[kind] - self.mean[kind]) / self.scale[kind])


def _peer_relative(sums: Floats, ignored: Floats, counts: Floats) -> Floats:
    """Combined scores; with 16 nodes or more in units of how all nodes' scores scatter (an empirical null)."""
    root = np.sqrt(np.maximum(counts, 1))[:, None]
    scores, slack = sums / root, ignored / root
    if (counts > 0).sum() >= 16:
        centre = np.median(scores[counts > 0], axis=0)
        scale = np.maximum(np.median(np.abs(scores[counts > 0] - centre), axis=0) / 0.6745, 1)
        scores, slack = (scores - np.minimum(centre, 0)) / scale, slack / scale
    return np.asarray(np.where(counts[:, None] > 0, scores + slack, 0.0))


def _node_cells(evidence: Evidence, node: int, cells_of: Bools, start: int) -> Bools:
    """The cells of the node's tests that its pattern touches."""
    own = cells_of.reshape(2, -1)
    mask = np.zeros((evidence.size - start, 2, evidence.rails), dtype=np.bool_)
    mask[evidence.a[start:] == node] = own
    mask[evidence.b[start:] == node] = own[::-1]
    return mask


def _pair_cells(evidence: Evidence, pair: Pair, start: int) -> Bools:
    a, b = evidence.a[start:], evidence.b[start:]
    here = ((a == pair[0]) & (b == pair[1])) | ((a == pair[1]) & (b == pair[0]))
    return np.asarray(np.broadcast_to(here[:, None, None], (len(a), 2, evidence.rails)))


def _log_beta(hits: int, trials: int) -> float:
    """log of the chance of one sequence with that many hits, the rate being anything from 0 to 1 alike."""
    return math.lgamma(hits + 1) + math.lgamma(trials - hits + 1) - math.lgamma(trials + 2)


def _percent(share: float) -> float:
    return round(100 * max(share, 0.0), 2)
