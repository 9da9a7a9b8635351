"""Which lines of a block are worth a look: every rule's literals in one pass, by hyperscan or by google-re2."""

from collections.abc import Iterable
from typing import Any, Protocol

import msgspec
import re2

from classifiers.base import Rule
from classifiers.literals import literals

# (end of the literal in the block, number of the literal)
Match = tuple[int, int]


class Index(msgspec.Struct, frozen=True):
    """All literals of all rules: their bytes, whether either case will do, and the numbers of the rules they call."""

    texts: list[bytes]
    caseless: list[bool]
    rules: list[list[int]]

    @classmethod
    def of(cls, rules: Iterable[Rule]) -> "Index":
        """The literals of the rules, by their place. Raises ValueError for a rule that has none."""
        found: dict[tuple[bytes, bool], list[int]] = {}
        for number, rule in enumerate(rules):
            texts, caseless = literals(rule.pattern, rule.ignore_case)
            for text in sorted(texts):
                found.setdefault((text.encode(), caseless), []).append(number)
        return cls([text for text, _ in found], [caseless for _, caseless in found], list(found.values()))


class Matcher(Protocol):
    """Finds every place of a block where a literal ends, in order."""

    def scan(self, block: bytes) -> list[Match]: ...

    def clone(self) -> "Matcher":
        """A matcher for another thread."""
        ...


class Hyperscan:
    """hyperscan's block mode: each block is handed over whole, so no state is kept between blocks."""

    def __init__(self, database: Any, scratch: Any) -> None:
        self._database = database
        self._scratch = scratch

    @classmethod
    def of(cls, index: Index) -> "Hyperscan":
        """Compile: a quarter of a second for two thousand literals; `dump` saves it for the next start."""
        import hyperscan

        database = hyperscan.Database(mode=hyperscan.HS_MODE_BLOCK)
        database.compile(
            expressions=index.texts,
            ids=list(range(len(index.texts))),
            elements=len(index.texts),
            flags=[hyperscan.HS_FLAG_CASELESS if caseless else 0 for caseless in index.caseless],
            literal=True,
        )
        return cls(database, hyperscan.Scratch(database))

    @classmethod
    def load(cls, data: bytes) -> "Hyperscan":
        """What `dump` gave. hyperscan trusts these bytes: they must come from a file that only we can write."""
        import hyperscan

        database = hyperscan.loadb(data, hyperscan.HS_MODE_BLOCK)
        return cls(database, hyperscan.Scratch(database))

    def dump(self) -> bytes:
        """The compiled database, for this version of hyperscan and this kind of processor."""
        import hyperscan

        data = hyperscan.dumpb(self._database)
        assert isinstance(data, bytes)
        return data

    def clone(self) -> "Hyperscan":
        """For another thread: the database is shared, the scratch space is not."""
        import hyperscan

        return Hyperscan(self._database, hyperscan.Scratch(self._database))

    def scan(self, block: bytes) -> list[Match]:
        found: list[Match] = []
        add = found.append
        self._database.scan(
            block,
            match_event_handler=lambda literal, _start, end, _flags, _context: add((end, literal)),
            scratch=self._scratch,
        )
        found.sort()
        return found


class Re2:
    """google-re2: a set says which literals are in the block at all, and only those are looked for one by one."""

    def __init__(self, index: Index) -> None:
        self._index = index
        self._set = re2.Set.SearchSet(latin1())
        for text, caseless in zip(index.texts, index.caseless, strict=True):
            self._set.Add((b"(?i)" if caseless else b"") + re2.escape(text))
        self._set.Compile()

    def clone(self) -> "Re2":
        return self

    def scan(self, block: bytes) -> list[Match]:
        lower = block.lower()
        found: list[Match] = []
        for literal in self._set.Match(block) or ():
            text, caseless = self._index.texts[literal], self._index.caseless[literal]
            where, at = (lower, 0) if caseless else (block, 0)
            while (at := where.find(text, at)) >= 0:
                at += 1
                found.append((at - 1 + len(text), literal))
        found.sort()
        return found


def latin1() -> re2.Options:
    """As hyperscan sees it: a character is a byte, whatever encoding a log is in."""
    options = re2.Options()
    options.encoding = re2.Options.Encoding.LATIN1
    options.log_errors = False
    options.max_mem = 1 << 28
    return options


def compiled(pattern: str, ignore_case: bool = False) -> "re2._Regexp[bytes]":
    """The pattern for one line's bytes. Raises ValueError."""
    options = latin1()
    options.case_sensitive = not ignore_case
    try:
        return re2.compile(pattern.encode(), options)
    except re2.error as error:
        raise ValueError(f"not a regular expression: {error}") from error


def available() -> bool:
    """Whether hyperscan is here."""
    try:
        import hyperscan  # noqa: F401
    except ImportError:
        return False
    return True
