"""From hits to the one cause: pure functions, told everything they go by.

In order: what was recovered from is no failure; a root beats every cascade; a weightier root beats a lighter one by a
whole step; of equals the earliest, by the clock where two sources both have one, else by the place in the logs.
"""

from collections import Counter
from collections.abc import Iterable
from collections.abc import Set as AbstractSet
from dataclasses import dataclass
from typing import TypeVar

import msgspec

from classifiers.base import NONE, UNKNOWN, Cascade, Evidence, Explanation, Hit, Role

_T = TypeVar("_T")

MISMATCH = "program.collective_mismatch"
TIMEOUT = "net.collective_timeout"
PEER_LOST = "net.peer_lost"
# A hit lighter than this is a launcher's summary: no word of a rank's own.
_OWN_WORD = 15

# Weights of one step count as equal: the rules' authors cannot tell finer.
STEP = 10
# Clocks of one cluster agree to about this, in seconds; closer than that, times say nothing about order.
CLOCK_TOLERANCE = 2.0


@dataclass(frozen=True, slots=True)
class First:
    """Whom torchelastic saw fail first, by its summary: exit code (negative: signal) and the line that gives it."""

    rank: int | None
    host: str
    code: int | None = None
    evidence: Evidence | None = None
    order: int = 0


@dataclass(frozen=True, slots=True)
class Attribution:
    """The chosen hit (None: nothing failed), how sure that is, and what became of all the others."""

    chosen: Hit | None
    confidence: float
    rank: int | None
    host: str
    ranks: list[int]
    cascades: list[Cascade]
    also: list[Cascade]
    fates: list[tuple[Hit, str]]

    @property
    def cause(self) -> str:
        return self.chosen.cause if self.chosen else NONE


def attribute(hits: Iterable[Hit], firsts: Iterable[First] = (), seen: AbstractSet[int] = frozenset()) -> Attribution:
    """The cause that explains the hits. seen: the ranks whose own logs are among those read."""
    fates: list[tuple[Hit, str]] = []
    live = _disagreeing(_not_recovered(sorted(hits, key=lambda hit: hit.order), fates))
    candidates = _candidates(live)
    if not candidates:
        fates += [(hit, "alone it is no failure") for hit in live]
        return Attribution(None, 0.95 if not live else 0.7, None, "", [], [], [], fates)
    chosen = _choose(candidates)
    others = [hit for hit in live if hit is not chosen]
    fates += [(chosen, "chosen"), *((hit, _why_not(hit, chosen)) for hit in others)]
    rank, host = _where(chosen, others, list(firsts))
    if chosen.cause == MISMATCH:
        odd = odd_one([chosen, *others])
        rank = rank if odd is None else odd
    elif chosen.role is Role.CASCADE and chosen.cause in (TIMEOUT, PEER_LOST):
        rank = the_silent_one(chosen, [chosen, *others], seen)
    same = {hit.rank for hit in [chosen, *others] if hit.cause == chosen.cause and hit.rank is not None}
    return Attribution(
        chosen=chosen,
        confidence=_confidence(chosen, others),
        rank=rank,
        host=host,
        ranks=sorted(same),
        cascades=_grouped(hit for hit in others if hit.role is Role.CASCADE and hit.cause != UNKNOWN),
        also=_grouped(hit for hit in others if _independent(hit, chosen)),
        fates=fates,
    )


def _not_recovered(hits: list[Hit], fates: list[tuple[Hit, str]]) -> list[Hit]:
    """The hits that no later recovery of their source overcame, recoveries and notes left out.

    A hint stays when a root of its cause comes after all: then the recovery did not last.
    """
    recoveries: dict[str, list[Hit]] = {}
    for hit in hits:
        if hit.role is Role.RECOVERY:
            recoveries.setdefault(hit.evidence.file, []).append(hit)
    fates += [(hit, "no failure") for hit in hits if hit.role in (Role.RECOVERY, Role.NOTE)]
    standing = [hit for hit in hits if hit.role not in (Role.RECOVERY, Role.NOTE)]
    overcome = {
        id(hit): by for hit in standing if (by := _overcome_by(hit, recoveries.get(hit.evidence.file, []))) is not None
    }
    relapsed = {hit.cause: hit.order for hit in standing if hit.role is Role.ROOT and id(hit) not in overcome}
    live = []
    for hit in standing:
        by = overcome.get(id(hit))
        if by is None or (hit.role is Role.HINT and relapsed.get(hit.cause, -1) > by.order):
            live.append(hit)
        else:
            fates.append((hit, f"overcome: {by.rule} in line {by.evidence.line}"))
    return live


def _overcome_by(hit: Hit, recoveries: list[Hit]) -> Hit | None:
    """The one of its source's recoveries that ended it: later and of its cause; a root must also be the lighter one."""
    for recovery in recoveries:
        if (
            recovery.order > hit.order
            and ("*" in recovery.clears or hit.cause in recovery.clears)
            and (hit.role is not Role.ROOT or hit.weight < recovery.weight)
        ):
            return recovery
    return None


def _disagreeing(live: list[Hit]) -> list[Hit]:
    """Watchdog timeouts of one process group that name different collectives are ranks that disagree, no mere wait."""
    said: dict[str, dict[int, tuple[str, ...]]] = {}
    for hit in live:
        if hit.rank is not None and "seq" in hit.fields:
            told = tuple(hit.fields.get(key, "") for key in ("seq", "op", "numel"))
            said.setdefault(hit.fields.get("pg", ""), {}).setdefault(hit.rank, told)
    torn = {group for group, ranks in said.items() if len(set(ranks.values())) > 1}
    return [
        msgspec.structs.replace(hit, cause=MISMATCH)
        if hit.fields.get("pg", "") in torn and "seq" in hit.fields
        else hit
        for hit in live
    ]


def odd_one(hits: Iterable[Hit]) -> int | None:
    """The rank that does another collective than the rest: most of the others name it, or few do what it does."""
    named: Counter[int] = Counter()
    does: dict[int, tuple[str, ...]] = {}
    for hit in hits:
        if hit.fields.get("peer", "").isdigit() and hit.cause == MISMATCH:
            named[int(hit.fields["peer"])] += 1
        elif "seq" in hit.fields and hit.rank is not None:
            does.setdefault(hit.rank, tuple(hit.fields.get(key, "") for key in ("seq", "op", "numel")))
    (first, second) = (*named.most_common(2), (None, 0), (None, 0))[:2]
    if first[1] > second[1]:
        return first[0]
    often = Counter(does.values())
    rare = [rank for rank, told in does.items() if often[told] == 1]
    return rare[0] if len(rare) == 1 and len(does) > 2 else None


def the_silent_one(chosen: Hit, hits: list[Hit], seen: AbstractSet[int]) -> int | None:
    """Whom the others waited for or lost: the only rank that says nothing while all others complain.

    None when several ranks complain and more than one, or none, is silent: those who waited are not to blame.
    """
    complain = {hit.rank for hit in hits if hit.weight >= _OWN_WORD and hit.rank is not None}
    silent = set(seen) - complain
    if len(silent) == 1 and complain:
        return silent.pop()
    return chosen.rank if len(complain) <= 1 else None


def _candidates(live: list[Hit]) -> list[Hit]:
    """Roots with what may explain them; without a root the hints if something failed at all, else the cascades."""
    roots = [hit for hit in live if hit.role is Role.ROOT]
    cascades = [hit for hit in live if hit.role is Role.CASCADE]
    hints = [hit for hit in live if hit.role is Role.HINT]
    if roots:
        return sorted(roots + hints, key=lambda hit: hit.order)
    if cascades:
        return hints or cascades
    return []


def _choose(candidates: list[Hit]) -> Hit:
    step = max(hit.weight for hit in candidates) // STEP
    equals = [hit for hit in candidates if hit.weight // STEP == step]
    firsts: dict[str, Hit] = {}
    for hit in equals:
        firsts.setdefault(hit.evidence.file, hit)
    chosen = min(firsts.values(), key=lambda hit: hit.order)
    for hit in firsts.values():
        if _earlier(hit, chosen):
            chosen = hit
    return chosen


def _earlier(hit: Hit, than: Hit) -> bool:
    """Whether the clock says that a hit of another source came first."""
    return bool(hit.time and than.time and hit.time < than.time - CLOCK_TOLERANCE)


def _where(chosen: Hit, others: list[Hit], firsts: list[First]) -> tuple[int | None, str]:
    """Rank and host of the chosen hit; where its line names none, the same cause's other lines, then torchelastic."""
    alike = [hit for hit in others if hit.cause == chosen.cause]
    summary = firsts[0] if firsts else First(None, "")
    rank = chosen.rank
    if rank is None:
        rank = _first((hit.rank for hit in alike), summary.rank)
    host = chosen.host or _first((hit.host or None for hit in alike if hit.rank == rank), "") or summary.host
    return rank, host or ""


def _first(values: Iterable[_T | None], otherwise: _T | None) -> _T | None:
    return next((value for value in values if value is not None), otherwise)


def _independent(hit: Hit, chosen: Hit) -> bool:
    return hit.role is Role.ROOT and hit.cause not in (chosen.cause, UNKNOWN)


def _confidence(chosen: Hit, others: list[Hit]) -> float:
    """The rule's weight, lower where other causes stand beside it, higher where other rules say the same."""
    score = chosen.weight / 100 if chosen.role is not Role.CASCADE else min(chosen.weight / 100, 0.5)
    rivals = {hit.cause for hit in others if _independent(hit, chosen) and hit.weight > chosen.weight - 2 * STEP}
    allies = {hit.rule for hit in others if hit.cause == chosen.cause and hit.rule != chosen.rule}
    score = score - 0.1 * min(len(rivals), 3) + 0.04 * min(len(allies), 3)
    return round(min(max(score, 0.05), 0.99), 2)


def _grouped(hits: Iterable[Hit]) -> list[Cascade]:
    """One for each cause: its first line, and all ranks that had it."""
    causes: dict[str, list[Hit]] = {}
    for hit in hits:
        causes.setdefault(hit.cause, []).append(hit)
    return [
        Cascade(
            cause=cause,
            evidence=found[0].evidence,
            ranks=sorted({hit.rank for hit in found if hit.rank is not None}),
        )
        for cause, found in causes.items()
    ]


def _why_not(hit: Hit, chosen: Hit) -> str:
    if hit.role is Role.CASCADE and chosen.role is not Role.CASCADE:
        return "a consequence, and there is a root"
    if hit.role is Role.HINT and hit.weight // STEP <= chosen.weight // STEP:
        return "a hint only"
    if hit.weight // STEP < chosen.weight // STEP:
        return f"says less than {chosen.rule} ({hit.weight} against {chosen.weight})"
    return "the same" if hit.cause == chosen.cause else f"later than line {chosen.evidence.line}"


def explained(attribution: Attribution) -> list[Explanation]:
    """Every hit with its fate, the chosen one first, the rest by weight."""

    def place(one: tuple[Hit, str]) -> tuple[bool, int, int]:
        return one[1] != "chosen", -one[0].weight, one[0].order

    return [
        Explanation(
            rule=hit.rule,
            cause=hit.cause,
            role=hit.role,
            weight=hit.weight,
            count=hit.count,
            rank=hit.rank,
            evidence=hit.evidence,
            fate=fate,
        )
        for hit, fate in sorted(attribution.fates, key=place)
    ]
