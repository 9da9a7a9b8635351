"""The engine: bytes of any number of sources in, one verdict out, whether all at once or as a job writes them."""

import time
from collections.abc import Iterable
from itertools import count
from pathlib import Path

import msgspec

from classifiers.attribution import Attribution, First, attribute, explained
from classifiers.base import NONE, UNKNOWN, Evidence, Explanation, Hit, Role, Verdict
from classifiers.blocks import Raised
from classifiers.intake import Intake
from classifiers.patterns import Matcher
from classifiers.rulebook import Rulebook, load
from classifiers.scanner import UNTOLD, Reader, Scanner
from classifiers.text import decode, rank_in_name, without_colours
from classifiers.unknown import fingerprint, suspects

# An exception raised `from` another one says less than that one; one raised while handling another a little less.
_LATER_IN_CHAIN = {"direct": 20, "during": 6}
# A hit no heavier than this leaves the exception of its line to be told as the program's.
_SAYS_NOTHING = 10
# Of exceptions with the same class and message so many are told apart.
_EQUALS = 3
# What a signal that ended a process says where its logs say nothing: weights below every rule of a named failure.
_SIGNALS: dict[int, tuple[str, Role, int, str]] = {
    9: ("host.out_of_memory", Role.ROOT, 33, "SIGKILL: the kernel's or the cgroup's OOM killer, or somebody's kill -9"),
    7: ("host.shared_memory", Role.ROOT, 36, "SIGBUS: most often a full /dev/shm"),
    11: ("host.kernel", Role.ROOT, 32, "SIGSEGV: a fault in native code"),
    6: (UNKNOWN, Role.CASCADE, 8, "SIGABRT: the process aborted itself"),
    15: ("host.preempted", Role.CASCADE, 12, "SIGTERM: it was told to end"),
    1: ("host.preempted", Role.CASCADE, 14, "SIGHUP: its terminal went away"),
    2: ("host.preempted", Role.CASCADE, 12, "SIGINT: somebody interrupted it"),
}


class Engine:
    """Rules ready to be used; one engine serves any number of sessions and threads."""

    def __init__(self, book: Rulebook, matcher: Matcher) -> None:
        self.book = book
        self.matcher = matcher

    @classmethod
    def load(cls, directories: Iterable[Path] = ()) -> "Engine":
        """The rules that ship and those of the directories. Raises RuleError that names file and rule."""
        return cls(*load(tuple(directories)))

    def session(self) -> "Session":
        """A new job's logs."""
        return Session(self)


class Session:
    """The logs of one job. Feed it, tell it of endings, ask for the verdict; memory stays bounded by the rules.

    A session belongs to one thread; `fork` gives another thread its own, and `merge` takes that one's findings back.
    """

    def __init__(self, engine: Engine, first_order: int = 0) -> None:
        self._engine = engine
        self._matcher = engine.matcher.clone()
        self._reader = Reader(engine.book)
        self._started = time.perf_counter()
        self._year = time.gmtime().tm_year
        self._order = count(first_order)
        self._scanners: dict[str, Scanner] = {}
        self._intakes: dict[str, Intake] = {}
        self._endings: list[Hit] = []
        self._notes: list[str] = []

    def feed(self, source: str, chunk: bytes, rank: int | None = None, host: str = "") -> None:
        """Bytes of one source (a file's path, `rank 3 stderr`), in order, in pieces of any size."""
        scanner = self._scanners.get(source)
        if scanner is None:
            scanner = self._add(source, rank, host)
        self._intakes[source].feed(chunk)

    def _add(self, source: str, rank: int | None, host: str) -> Scanner:
        rank = rank_in_name(source) if rank is None else rank
        scanner = Scanner(source, self._matcher, self._reader, self._year, rank, host, self._next_order)
        self._scanners[source], self._intakes[source] = scanner, Intake(scanner.feed)
        return scanner

    def _next_order(self) -> int:
        return next(self._order)

    def begin(self, first_order: int) -> None:
        """Number the lines that follow from here: files read side by side keep the order they were named in."""
        self._order = count(first_order)

    def finished(self, source: str) -> None:
        """No more bytes of this source will come: what it holds for them is let go."""
        if source in self._scanners:
            self._intakes[source].flush()
            self._scanners[source].finish()

    def note(self, text: str) -> None:
        """Something the reader of the verdict should know of the input."""
        self._notes.append(text)

    def ended(
        self, source: str, exit_code: int | None, signal: int | None, rank: int | None = None, host: str = ""
    ) -> None:
        """How the process behind a source ended: a code of 0 says nothing, anything else is evidence."""
        if signal is None and exit_code is not None and (exit_code < 0 or 128 < exit_code < 160):
            signal = -exit_code if exit_code < 0 else exit_code - 128
        if signal is None and not exit_code:
            return
        cause, role, weight, text = _SIGNALS.get(signal or 0, (UNKNOWN, Role.CASCADE, 5, f"exit code {exit_code}"))
        scanner = self._scanners.get(source)
        rank = rank if rank is not None else scanner.rank if scanner else rank_in_name(source)
        evidence = Evidence(file=source, line=0, text=text)
        self._endings.append(
            Hit(
                rule="ending",
                cause=cause,
                role=role,
                weight=weight,
                evidence=evidence,
                rank=rank,
                host=host or (scanner.host if scanner else ""),
                order=next(self._order),
            )
        )

    def merge(self, other: "Session") -> None:
        """Take over the sources of a session that is done feeding."""
        self._scanners = dict(sorted((self._scanners | other._scanners).items(), key=lambda one: one[1].first_order))
        self._intakes |= other._intakes
        self._endings += other._endings
        self._notes += other._notes

    @property
    def bytes_read(self) -> int:
        """How many bytes it was fed."""
        return sum(intake.bytes for intake in self._intakes.values())

    def verdict(self) -> Verdict:
        """What the logs say so far."""
        return self._tell(self._attribution())

    def explanation(self) -> tuple[Verdict, list[Explanation]]:
        """The verdict, and every hit with why it won or lost."""
        attribution = self._attribution()
        return self._tell(attribution), explained(attribution)

    def _attribution(self) -> Attribution:
        for intake in self._intakes.values():
            intake.flush()
        hits = list(self._endings)
        for scanner in self._scanners.values():
            scanner.flush()
            hits += hits_of(scanner)
        seen = {scanner.rank for scanner in self._scanners.values() if scanner.rank is not None}
        firsts = [first for scanner in self._scanners.values() for first in _firsts(scanner)]
        return attribute([*hits, *_own_exits(firsts, hits, seen)], firsts, seen)

    def _tell(self, found: Attribution) -> Verdict:
        chosen, cause = found.chosen, found.cause
        lines = self._suspects() if cause == UNKNOWN else []
        mark = "" if cause == NONE else fingerprint(cause, [s.text for s in lines[:3]] or [chosen.evidence.text])  # type: ignore[union-attr]
        advice = self._advice(cause, chosen, found.host)
        named = self._engine.book.named.get(mark)
        if named is not None:
            cause, advice = named.cause, named.advice or self._advice(named.cause, None, found.host)
        return Verdict(
            cause=cause,
            confidence=found.confidence,
            evidence=_shown(chosen, lines),
            rank=found.rank,
            host=found.host,
            cascades=found.cascades,
            advice=advice,
            seconds=round(time.perf_counter() - self._started, 4),
            bytes=self.bytes_read,
            ranks=found.ranks,
            also=found.also,
            suspects=lines,
            fingerprint=mark,
            notes=[*self._notes, *(note for intake in self._intakes.values() for note in intake.notes)],
        )

    def _advice(self, cause: str, chosen: Hit | None, host: str) -> str:
        known = self._engine.book.causes.get(cause)
        text = (chosen.advice if chosen else "") or (known.advice if known else "")
        return text.replace("{host}", host or "NODE")

    def _suspects(self) -> list[Evidence]:
        scored = []
        for scanner in self._scanners.values():
            tail = decode_tail(b"".join(scanner.tail))
            scored += suspects(scanner.name, tail, scanner.lines - tail.rstrip("\n").count("\n") - tail.endswith("\n"))
        return [evidence for _, evidence in sorted(scored, key=lambda one: -one[0])[:12]]


def _shown(chosen: Hit | None, lines: list[Evidence]) -> Evidence | None:
    """The chosen hit's line; of an unknown failure, that nobody but a launcher reports, the most suspicious one."""
    if chosen is not None and lines and chosen.weight < _SAYS_NOTHING:
        return lines[0]
    return chosen.evidence if chosen is not None else None


def decode_tail(data: bytes) -> str:
    """The end of a source as text."""
    return without_colours(data).decode("utf-8", "replace")


def _firsts_and_last(raised: list[Raised]) -> list[Raised]:
    """Of equal exceptions the first ones and the last: a loop that fails a thousand times says no more."""
    groups: dict[tuple[str, str, str], list[Raised]] = {}
    for one in raised:
        groups.setdefault((one.type, one.message, one.link), []).append(one)
    kept = [one for group in groups.values() for one in (group if len(group) <= _EQUALS else [*group[:2], group[-1]])]
    return sorted(kept, key=lambda one: one.line.order)


def _exceptions(scanner: Scanner, raised: list[Raised], found: list[Hit]) -> list[Hit]:
    """The hits of exceptions whose line no rule has told better.

    A line rule that says more, or that knows its line for a consequence, is not contradicted by a class alone.
    """
    told: dict[int, int] = {}
    for hit in found:
        if hit.weight > _SAYS_NOTHING:
            weight = 100 if hit.role is Role.CASCADE else hit.weight
            told[hit.evidence.line] = max(weight, told.get(hit.evidence.line, 0))
    hits = [scanner.raised_hit(one) for one in raised]
    return [
        hit
        for hit in hits
        if hit.evidence.line not in told or (hit.rule != UNTOLD and hit.weight > told[hit.evidence.line])
    ]


def _later(raised: Raised) -> int:
    """How much less an exception says than the one that it was raised from, or that it quotes."""
    return _LATER_IN_CHAIN["direct"] if raised.message.startswith("Caught ") else _LATER_IN_CHAIN.get(raised.link, 0)


def hits_of(scanner: Scanner) -> list[Hit]:
    """A source's hits with those of its exceptions; later exceptions of a chain, and ignored ones, weigh less."""
    tracebacks = scanner.all_tracebacks()
    raised = [one for block in tracebacks for one in block.raised]
    lighter = {one.line.number: _later(one) for one in raised}
    ignored = {one.line.number for one in raised if one.ignored}
    ignored |= {block.first.number for block in tracebacks if block.ignored}
    found = [*scanner.hits, *scanner.last.values()]
    found += _exceptions(scanner, _firsts_and_last([*raised, *scanner.loose]), found)
    hits = []
    for hit in found:
        less = lighter.get(hit.evidence.line, 0)
        if hit.evidence.line in ignored:
            hit = msgspec.structs.replace(hit, role=Role.NOTE)
        elif less:
            hit = msgspec.structs.replace(hit, weight=max(hit.weight - less, 1))
        hits.append(hit)
    return hits


def _firsts(scanner: Scanner) -> list[First]:
    """Whom the launcher's summaries in this source name."""
    found = []
    for block in scanner.summaries:
        rank, code = block.fields.get("rank", "").split(" ")[0], block.fields.get("exitcode", "").split(" ")[0]
        if rank.isdigit():
            line = block.exit_line or block.first
            evidence = Evidence(file=scanner.name, line=line.number, text=line.text)
            number = int(code) if code.lstrip("-").isdigit() else None
            found.append(First(int(rank), block.fields.get("host", ""), number, evidence, line.order))
    return found


def _own_exits(firsts: list[First], hits: list[Hit], seen: set[int]) -> list[Hit]:
    """The first to fail, where it ended by a code of its own and nothing else in the logs is said by it.

    A code of 1 without that rank's log is an exception that we have not seen: it says nothing.
    """
    spoke = {hit.rank for hit in hits if hit.weight > _SAYS_NOTHING}
    return [
        Hit(
            rule="launcher-first",
            cause="program.python",
            role=Role.ROOT,
            weight=31,
            evidence=first.evidence,
            rank=first.rank,
            host=first.host,
            order=first.order,
        )
        for first in firsts
        if first.evidence is not None
        and first.code is not None
        and 0 < first.code < 128
        and first.rank not in spoke
        and (first.code > 1 or first.rank in seen)
    ]


__all__ = ["Engine", "Session", "decode"]
