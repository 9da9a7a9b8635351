"""Every measurement that was ever made, durable, with its age: what the canaries' rounds add up to over days."""

import sqlite3
import time
from collections.abc import Iterator, Sequence
from contextlib import closing
from pathlib import Path

import msgspec

from checks.pairs.runner import Answer, Outcome
from checks.pairs.schedule import Pair, pair_of

_SCHEMA = """
CREATE TABLE IF NOT EXISTS measured (
    at REAL NOT NULL, a TEXT NOT NULL, b TEXT NOT NULL, rail INTEGER NOT NULL, runner TEXT NOT NULL,
    forth REAL, back REAL, variation REAL NOT NULL);
CREATE INDEX IF NOT EXISTS by_pair ON measured (a, b, at);
PRAGMA user_version = 1;
"""


class Entry(msgspec.Struct, frozen=True, kw_only=True):
    """One rail of one measurement. at: seconds since the epoch. forth: a to b, back: b to a, in GB/s."""

    at: float
    a: str
    b: str
    rail: int
    runner: str
    forth: float
    back: float
    variation: float


class Matrix:
    """The file of all measurements. kill -9 at any moment loses at most the measurement under way."""

    def __init__(self, path: Path) -> None:
        self._database = sqlite3.connect(path, timeout=10.0, check_same_thread=False)
        self._database.executescript("PRAGMA journal_mode=WAL;" + _SCHEMA)

    def close(self) -> None:
        """Give the file back."""
        self._database.close()

    def add(self, outcome: Outcome, runner: str, at: float) -> None:
        """Keep one measurement; `unknown` says nothing of the pair and is not kept."""
        if outcome.answer is Answer.UNKNOWN:
            return
        turned = outcome.a > outcome.b
        a, b = sorted((outcome.a, outcome.b))
        ways = (outcome.back, outcome.forth) if turned else (outcome.forth, outcome.back)
        rows = [
            (at, a, b, rail, runner, forth.gigabytes, back.gigabytes, max(forth.variation, back.variation))
            for rail, (forth, back) in enumerate(zip(*ways, strict=False))
        ] or [(at, a, b, 0, runner, 0.0, 0.0, 0.0)]
        with self._database:
            self._database.executemany("INSERT INTO measured VALUES (?, ?, ?, ?, ?, ?, ?, ?)", rows)

    def history(self, a: str, b: str) -> list[Entry]:
        """All measurements of a pair, the oldest first, told as from `a` to `b`."""
        first, second = sorted((a, b))
        columns = ", ".join(Entry.__struct_fields__)
        query = f"SELECT {columns} FROM measured WHERE a = ? AND b = ? ORDER BY at, rail"
        return [_entry(row, turned=a > b) for row in self._database.execute(query, (first, second))]

    def ages(self, nodes: Sequence[str], now: float) -> dict[tuple[str, str], float]:
        """Seconds since each pair of `nodes` was last measured; pairs never measured are missing."""
        known = set(nodes)
        rows = self._database.execute("SELECT a, b, MAX(at) FROM measured GROUP BY a, b")
        return {(a, b): now - at for a, b, at in rows if a in known and b in known}

    def coverage(self, nodes: Sequence[str], now: float, horizon: float) -> tuple[float, float]:
        """(share of pairs measured within `horizon` seconds, age of the oldest of all measured pairs; -1: none)."""
        ages = self.ages(nodes, now)
        pairs = len(nodes) * (len(nodes) - 1) // 2
        return sum(age <= horizon for age in ages.values()) / pairs if pairs else 1.0, max(ages.values(), default=-1.0)

    def oldest_first(self, nodes: Sequence[str], now: float) -> Iterator[Pair]:
        """Pairs by age, never measured ones first: the order in which canaries cover the matrix."""
        ages = self.ages(nodes, now)
        index = {name: i for i, name in enumerate(nodes)}
        pairs = [(a, b) for i, a in enumerate(nodes) for b in nodes[i + 1 :]]
        key = {pair: -ages.get((min(pair), max(pair)), float("inf")) for pair in pairs}
        for a, b in sorted(pairs, key=lambda pair: key[pair]):
            yield pair_of(index[a], index[b])

    def forget(self, before: float) -> int:
        """Drop what is older; how many rows that were."""
        with self._database:
            return self._database.execute("DELETE FROM measured WHERE at < ?", (before,)).rowcount


def _entry(row: Sequence[object], turned: bool) -> Entry:
    found = msgspec.convert(dict(zip(Entry.__struct_fields__, row, strict=True)), Entry)
    if not turned:
        return found
    return msgspec.structs.replace(found, a=found.b, b=found.a, forth=found.back, back=found.forth)


def one_round(matrix: Matrix, nodes: Sequence[str], now: float) -> list[Pair]:
    """Disjoint pairs for one canary: the longest unmeasured ones, every node at most once."""
    free = set(range(len(nodes)))
    chosen = []
    for pair in matrix.oldest_first(nodes, now):
        if free >= set(pair):
            free -= set(pair)
            chosen.append(pair)
    return chosen


def recorder(path: Path, runner: str) -> "Recorder":
    """Opens the matrix for a sweep's outcomes."""
    return Recorder(Matrix(path), runner)


class Recorder:
    """Keeps every outcome of a sweep as it comes."""

    def __init__(self, matrix: Matrix, runner: str) -> None:
        self._matrix, self._runner = matrix, runner

    def __call__(self, outcome: Outcome) -> None:
        self._matrix.add(outcome, self._runner, time.time())

    def close(self) -> None:
        """Give the file back."""
        self._matrix.close()


def read_history(path: Path, a: str, b: str) -> list[Entry]:
    """One pair's history from a file."""
    with closing(Matrix(path)) as matrix:
        return matrix.history(a, b)
