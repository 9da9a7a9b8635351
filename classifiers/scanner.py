"""One source of bytes: blocks of whole lines go through the matcher, and only lines with a hit are looked at."""

from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field

import re2

from classifiers.base import Cue, Evidence, Hit, Role, Rule
from classifiers.blocks import FRAME, SUMMARY, TRACEBACK, Line, Raised, SummaryBlock, TracebackBlock, loose_exception
from classifiers.patterns import Match, Matcher, compiled
from classifiers.rulebook import Rulebook
from classifiers.text import decode, origin, without_colours
from classifiers.xid import refined

# Whole lines are scanned once this much has come, in bytes: large enough that the cost of a call vanishes, small
# enough to stay in the CPU's cache.
BLOCK = 256 * 1024
# A line longer than a block is scanned in pieces that overlap by this much, so that no message is cut in two.
OVERLAP = 8 * 1024
# Around a hit in an overlong line this much is looked at.
WINDOW = 4 * 1024
# A rule's first hits in a source are kept, and its last: a million equal lines say no more than forty.
FIRST_HITS = 40
# Marks of blocks say nothing by themselves: a few of them are enough.
SAYS_LITTLE = 5
FEW = 3
# A literal's first places in a source are looked at, and after so many the last of each block: a word that every
# line has, as "error" in a line of metrics, must not cost more than a memory scan.
FIRST_LOOKS = 500
MOST_KNOWN = 1000  # exceptions whose cue a session remembers
# A session of so many lines is worth the time that numpy takes to import.
MANY_LINES = 300_000
# Tracebacks after the first ones are set aside, this many of the last, with so many bytes of what follows each: it
# is the first and the last that tell why a job ended.
LATE_TRACEBACKS = 8
LATE_BYTES = 24 * 1024
# What is kept of a source's end for the suspects of an unknown failure.
TAIL = 16 * 1024
_KEPT_FIELDS = ("rank", "host", "device", "peer", "path", "code", "pg", "seq", "op", "numel")
_LOOSE = "exception-line"
# The rule of an exception that no cue knows.
UNTOLD = "cue/python"


class Reader:
    """Rules made ready to read single lines; shared by all sources of a session."""

    def __init__(self, book: Rulebook) -> None:
        self.book = book
        self._known: dict[tuple[str, str, tuple[str, ...]], Cue | None] = {}
        self.lines = 0  # of all sources that it reads for
        self._rules: dict[int, tuple[re2._Regexp[bytes], re2._Regexp[bytes] | None]] = {}
        self._cues: list[tuple[Cue, tuple[re2._Regexp[str] | None, ...]]] | None = None

    def reads(self, number: int, line: bytes) -> "re2._Match[bytes] | None":
        """The rule's match in this one line, None when the rule does not hold for it after all."""
        if number not in self._rules:
            rule = self.book.rules[number]
            pattern = compiled(rule.pattern, rule.ignore_case)
            self._rules[number] = (pattern, compiled(rule.unless) if rule.unless else None)
        pattern, unless = self._rules[number]
        found = pattern.search(line)
        return None if found is None or (unless is not None and unless.search(line)) else found

    def names(self, number: int) -> tuple[str, ...]:
        """The named groups of a rule that are kept."""
        pattern, _ = self._rules[number]
        return tuple(name for name in _KEPT_FIELDS if name.encode() in pattern.groupindex)

    def cue(self, raised: Raised) -> Cue | None:
        """The heaviest cue for an exception; the same exception comes many times, from every rank."""
        key = (raised.type, raised.message, tuple(raised.frames))
        if key not in self._known:
            if len(self._known) >= MOST_KNOWN:
                self._known.clear()
            self._known[key] = self._find_cue(raised)
        return self._known[key]

    def _find_cue(self, raised: Raised) -> Cue | None:
        if self._cues is None:
            self._cues = [
                (cue, tuple(re2.compile(text) if text else None for text in (cue.type, cue.message, cue.frames)))
                for cue in self.book.cues
            ]
        name, frames = raised.type.rsplit(".", 1)[-1], "\n".join(raised.frames)
        for cue, patterns in self._cues:
            if _fits(patterns, name, raised.message, frames):
                return cue
        return None

    def matches(self, cue: Cue, raised: Raised) -> bool:
        """Whether this one cue fits."""
        patterns = tuple(re2.compile(text) if text else None for text in (cue.type, cue.message, cue.frames))
        return _fits(patterns, raised.type.rsplit(".", 1)[-1], raised.message, "\n".join(raised.frames))


def _fits(patterns: "tuple[re2._Regexp[str] | None, ...]", name: str, message: str, frames: str) -> bool:
    kind, text, path = patterns
    return (
        (kind is None or kind.fullmatch(name) is not None)
        and (text is None or text.search(message) is not None)
        and (path is None or path.search(frames) is not None)
    )


@dataclass(slots=True)
class Scanner:
    """What one source has said so far. rank, host: what its place says of it (a log directory of rank 3)."""

    name: str
    matcher: Matcher
    reader: Reader
    year: int
    rank: int | None
    host: str
    next_order: Callable[[], int]
    hits: list[Hit] = field(default_factory=list)
    last: dict[int, Hit] = field(default_factory=dict)
    counts: dict[int, int] = field(default_factory=dict)
    looked: dict[int, int] = field(default_factory=dict)
    tracebacks: list[TracebackBlock] = field(default_factory=list)
    late: "deque[tuple[Line, bytes]]" = field(default_factory=lambda: deque(maxlen=LATE_TRACEBACKS))
    loose: list[Raised] = field(default_factory=list)
    summaries: list[SummaryBlock] = field(default_factory=list)
    lines: int = 0  # completed before what is pending
    tail: deque[bytes] = field(default_factory=deque)
    _tail_bytes: int = 0
    _pending: list[bytes] = field(default_factory=list)
    _pending_bytes: int = 0
    _open: list[TracebackBlock | SummaryBlock] = field(default_factory=list)
    _ignored_until: int = 0
    first_order: int = field(init=False)

    def __post_init__(self) -> None:
        self.first_order = self.next_order()

    def feed(self, chunk: bytes) -> None:
        """Take bytes as they come, in pieces of any size."""
        self._pending.append(chunk)
        self._pending_bytes += len(chunk)
        if self._pending_bytes >= BLOCK:
            self._scan_pending(everything=False)

    def flush(self) -> None:
        """Look at what has come so far, the unfinished last line included (it is looked at again when it goes on)."""
        self._scan_pending(everything=True)

    def finish(self) -> None:
        """Flush, and keep no more of the end than an unknown failure needs: of a source without a hit one line."""
        self.flush()
        if not self.hits and not self.tracebacks:
            self.tail = deque([b"".join(self.tail)[-1024:]])
            self._tail_bytes = len(self.tail[0])

    def _scan_pending(self, everything: bool) -> None:
        cut = 0 if everything else self._pending[-1].rfind(b"\n") + 1
        if everything:
            whole, rest = b"".join(self._pending), b""
        elif cut:
            *before, last = self._pending
            whole, rest = b"".join([*before, memoryview(last)[:cut]]), last[cut:]
        else:
            data = b"".join(self._pending)
            cut = data.rfind(b"\n") + 1
            # A piece of an overlong line: its end is scanned again with what follows.
            whole, rest = (data[:cut], data[cut:]) if cut else (data, data[-OVERLAP:])
        self._pending, self._pending_bytes = [rest], len(rest)
        if whole:
            self._block(whole)

    def _block(self, data: bytes) -> None:
        self._remember(data)
        data = without_colours(data)
        position, line = 0, self.lines + 1
        for start, stop, rules in self._lines_with_hits(data):
            if self._open:
                self._follow(data, position, start, line)
            line += self._newlines(data, position, start)
            position = start
            self._look(data, start, stop, rules, line)
            position = stop
        if self._open:
            self._follow(data, position, len(data), line)
        before = self.lines
        self.lines = line - 1 + self._newlines(data, position, len(data))
        self.reader.lines += self.lines - before

    def _newlines(self, data: bytes, start: int, stop: int) -> int:
        """How many lines end there. numpy counts five times as fast and takes a tenth of a second to come."""
        if self.reader.lines < MANY_LINES or stop - start < 4096:
            return data.count(b"\n", start, stop)
        import numpy

        return int(numpy.count_nonzero(numpy.frombuffer(data, numpy.uint8, stop - start, start) == 10))

    def _remember(self, data: bytes) -> None:
        piece = data[-TAIL:]
        self.tail.append(piece)
        self._tail_bytes += len(piece)
        while self._tail_bytes - len(self.tail[0]) >= TAIL:
            self._tail_bytes -= len(self.tail.popleft())

    def _lines_with_hits(self, data: bytes) -> list[tuple[int, int, dict[int, int]]]:
        """(start, end, {rule: end of its literal}) of each line worth a look, in order."""
        lines: list[tuple[int, int, dict[int, int]]] = []
        stop = -1
        for end, literal in self._worth(data):
            if end > stop:
                start, stop = bounds(data, end)
                lines.append((start, stop, {}))
            for rule in self.reader.book.index.rules[literal]:
                lines[-1][2].setdefault(rule, end)
        return lines

    def _worth(self, data: bytes) -> list[Match]:
        """Each literal's first places, and of one that has had them the last of this block."""
        looked, kept, last = self.looked, [], {}
        for match in self.matcher.scan(data):
            literal = match[1]
            seen = looked.get(literal, 0)
            if seen < FIRST_LOOKS:
                looked[literal] = seen + 1
                kept.append(match)
            else:
                last[literal] = match
        return sorted([*kept, *last.values()]) if last else kept

    def _look(self, data: bytes, start: int, stop: int, rules: dict[int, int], number: int) -> None:
        raw = data[start:stop] if stop - start <= WINDOW else b""
        hits = []
        for rule, end in rules.items():
            window = raw or _window(data, start, stop, end)
            found = self.reader.reads(rule, window)
            if found is not None:
                hits.append((rule, window, found))
        if not hits and not self._open:
            return
        line = Line(number, decode(hits[0][1] if hits else raw or data[start : start + WINDOW]), self.next_order())
        quoted = self._blocks(line, data, stop)
        for rule, _, found in hits:
            if not quoted:
                self._note(rule, line, found)

    def _blocks(self, line: Line, data: bytes, stop: int) -> bool:
        """Hand the line to the blocks that are open, and open one where it begins one.

        True for a line of source code that a traceback shows: what it says has not happened.
        """
        taken = [block for block in self._open if block.feed(line)]
        self._open = [block for block in self._open if not block.done]
        traced = [block for block in taken if isinstance(block, TracebackBlock)]
        if not traced and (TRACEBACK in line.text or FRAME in line.text):
            if len(self.tracebacks) >= FIRST_HITS:
                if TRACEBACK in line.text:
                    self.late.append((line, data[stop : stop + LATE_BYTES]))
                return FRAME in line.text
            self._begin(TracebackBlock(line, line.order, ignored=line.number <= self._ignored_until))
            return FRAME in line.text
        if SUMMARY in line.text:
            self._begin(SummaryBlock(line))
        if "Exception ignored" in line.text:
            self._ignored_until = line.number + 2
        return any(block.quoting for block in traced)

    def _begin(self, block: TracebackBlock | SummaryBlock) -> None:
        if isinstance(block, TracebackBlock):
            self.tracebacks.append(block)
        else:
            self.summaries.append(block)
        self._open.append(block)

    def all_tracebacks(self) -> list[TracebackBlock]:
        """The first ones, and the last ones that were set aside."""
        return [*self.tracebacks, *(_read_late(line, after) for line, after in self.late)]

    def _note(self, number: int, line: Line, found: "re2._Match[bytes]") -> None:
        rule = self.reader.book.rules[number]
        if rule.id == _LOOSE:
            self._loose(line)
            return
        seen = self.counts.get(number, 0)
        self.counts[number] = seen + 1
        if rule.weight < SAYS_LITTLE and seen >= FEW:
            return
        fields = {
            name: value.decode("utf-8", "replace")
            for name in self.reader.names(number)
            if (value := found[name.encode()]) is not None
        }
        hit = refined(self._hit(rule, line, fields))
        if hit is None:
            return
        if seen < FIRST_HITS:
            self.hits.append(hit)
        else:
            self.last[number] = hit

    def _loose(self, line: Line) -> None:
        """An exception's line outside any traceback: read like one where the class begins what the line says."""
        if any(one.line.number == line.number for block in self.tracebacks for one in block.raised):
            return
        if (raised := loose_exception(line)) is not None and len(self.loose) < FIRST_HITS:
            self.loose.append(raised)

    def _hit(self, rule: Rule, line: Line, fields: dict[str, str]) -> Hit:
        said = origin(line.text, self.year)
        rank = int(fields["rank"]) if fields.get("rank", "").isdigit() else said.rank
        return Hit(
            rule=rule.id,
            cause=rule.cause,
            role=rule.role,
            weight=rule.weight,
            evidence=Evidence(file=self.name, line=line.number, text=line.text),
            rank=self.rank if rank is None else rank,
            host=fields.get("host") or said.host or self.host,
            time=said.time,
            order=line.order,
            advice=rule.advice,
            fields=fields,
            clears=rule.clears,
        )

    def raised_hit(self, raised: Raised) -> Hit:
        """What an exception says; one that no cue knows is the program's."""
        cue = self.reader.cue(raised)
        said = origin(raised.line.text, self.year)
        return Hit(
            rule=f"cue/{cue.id}" if cue else UNTOLD,
            cause=cue.cause if cue else "program.python",
            role=Role.NOTE if raised.ignored else cue.role if cue else Role.ROOT,
            weight=cue.weight if cue else 30,
            evidence=Evidence(file=self.name, line=raised.line.number, text=raised.line.text),
            rank=self.rank if said.rank is None else said.rank,
            host=said.host or self.host,
            time=said.time,
            order=raised.line.order,
            advice=cue.advice if cue else "",
        )

    def _follow(self, data: bytes, start: int, stop: int, number: int) -> None:
        """Hand the lines between to the blocks that are open; number: of the line that `start` is in."""
        while start < stop and self._open:
            end = data.find(b"\n", start, stop)
            end = stop if end < 0 else end
            for part in data[start : min(end, start + WINDOW)].split(b"\r"):
                if part:
                    self._hand(Line(number, decode(part), self.next_order()))
            number += 1
            start = end + 1

    def _hand(self, line: Line) -> None:
        for block in self._open:
            block.feed(line)
        self._open = [block for block in self._open if not block.done]


def _read_late(first: Line, after: bytes) -> TracebackBlock:
    block = TracebackBlock(first, first.order)
    for number, line in enumerate(after.split(b"\n"), first.number):
        if block.done:
            break
        if line:
            block.feed(Line(number, decode(line), first.order))
    return block


def bounds(data: bytes, end: int) -> tuple[int, int]:
    """Start and end of the line around the byte before `end`; a progress bar's carriage return ends a line too."""
    at = max(end - 1, 0)
    start = data.rfind(b"\n", 0, at) + 1
    stop = data.find(b"\n", at)
    stop = len(data) if stop < 0 else stop
    start = max(start, data.rfind(b"\r", start, at) + 1)
    back = data.find(b"\r", at, stop)
    return start, stop if back < 0 else back


def _window(data: bytes, start: int, stop: int, end: int) -> bytes:
    """The part of an overlong line that a hit ends in."""
    first = max(start, end - WINDOW // 2)
    return data[first : min(stop, first + WINDOW)]
