"""The ledger's file: one writer, every entry whole or not at all, and in memory while the disk will not have it.

An entry is durable when `record` returns, unless `degraded` says why it could not be: it is then kept in memory,
handed out like any other, and written as soon as the disk takes it.
"""

import logging
import sqlite3
import threading
import time
import uuid
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

import msgspec

from checks.base import Finding, Memory
from checks.clock import Clock
from daemons.ledger.damage import check, is_damage, set_aside
from daemons.ledger.records import Entry, FindingState, Kind, LedgerChange, Tracked
from daemons.ledger.schema import migrate, refuse_newer

log = logging.getLogger(__name__)

# Sequence numbers are reserved on disk ahead of use, so that numbers handed out while the disk was full are not used
# again after a crash. Also the most changes that are handed out while it is full.
_RESERVE = 10_000
_DAY = 86400.0
# cache_size: 512 KiB; the agent's memory is the node's. FULL: a commit is on the disk when it returns, through a power
# cut too. journal_size_limit: the log shrinks to 4 MiB again after a burst.
_PRAGMAS = ("journal_mode=WAL", "synchronous=FULL", "cache_size=-512", "journal_size_limit=4194304")


@dataclass(frozen=True, slots=True, kw_only=True)
class Keep:
    """How much stays of what every reader has read and of findings that are over: so many days, so many changes.

    What a reader has not read stays in any case.
    """

    days: float = 30.0
    changes: int = 100_000


@dataclass(slots=True)
class _Backlog:
    """What is not on disk yet; None: a row to delete."""

    findings: dict[str, Tracked | None] = field(default_factory=dict)
    changes: dict[int, LedgerChange] = field(default_factory=dict)
    memory: dict[str, bytes] = field(default_factory=dict)
    cursors: dict[str, int | None] = field(default_factory=dict)

    def __bool__(self) -> bool:
        return bool(self.findings or self.changes or self.memory or self.cursors)


class Ledger:
    """The record of one node. All methods may be called from any thread; one process at a time (see node/state.py).

    path: of the SQLite file; made when missing. Raises StateError when it is a newer muster's, sqlite3.Error when
    it cannot be opened at all. id: names this file's run of sequence numbers. set_aside: what happened to a damaged
    file, "" when there was none.
    """

    def __init__(self, path: Path, clock: Clock, keep: Keep | None = None) -> None:
        self._path = path
        self._clock = clock
        self._keep = keep or Keep()
        self._lock = threading.RLock()
        self._backlog = _Backlog()
        self._tracked: dict[str, dict[str, Tracked]] = {}
        self._memory: dict[str, bytes] = {}
        self._cursors: dict[str, int] = {}
        self._next = 1
        self.id = ""
        self.degraded = ""
        self.set_aside = ""
        refuse_newer(path)
        try:
            self._open()
        except sqlite3.DatabaseError as error:
            if not is_damage(error):
                raise
            self._begin_anew(str(error))

    def of(self, source: str) -> Mapping[str, Tracked]:
        """Pending, open and acknowledged findings of a source, by fingerprint."""
        return self._tracked.get(source, {})

    def sources(self) -> list[str]:
        """The sources that have any."""
        return [source for source, found in self._tracked.items() if found]

    def open_findings(self) -> tuple[Finding, ...]:
        """What is open or acknowledged."""
        with self._lock:
            return tuple(t.finding for found in self._tracked.values() for t in found.values() if t.is_open)

    def memory(self, source: str) -> Memory:
        """What a check remembers; a copy."""
        body = self._memory.get(source)
        return msgspec.json.decode(body, type=dict) if body else {}

    def changes_after(self, seq: int, limit: int = 1000) -> list[LedgerChange]:
        """Changes with a higher sequence number, in order."""
        with self._lock:
            waiting = self._backlog.changes
            found = [] if waiting and seq >= min(waiting) else self._stored(seq, limit)
            new = [change for s, change in waiting.items() if seq < s < self._reserved]
            return found + new[: limit - len(found)]

    def oldest(self) -> int:
        """Number of the oldest change there still is, 0 when there is none."""
        with self._lock:
            return next((change.seq for change in self.changes_after(0, 1)), 0)

    @property
    def last_seq(self) -> int:
        """The highest sequence number given so far."""
        return self._next - 1

    def record(self, entry: Entry, memory: tuple[str, Memory] | None = None) -> list[LedgerChange]:
        """Write an entry, with what its check remembers after it; the changes with their numbers."""
        with self._lock:
            for fingerprint, tracked in entry.put.items():
                self._put(fingerprint, tracked)
            for fingerprint in entry.forget:
                self._forget(fingerprint)
            changes = [self._log(kind, finding) for kind, finding in entry.changes]
            if memory is not None:
                self._remember(*memory)
            self.flush()
            return changes

    def flush(self) -> bool:
        """Write what is waiting; whether nothing waits any more."""
        with self._lock:
            if not self._backlog and not self.degraded:
                return True
            try:
                self._write()
            except sqlite3.Error as error:
                self._failed(error)
                return not self._backlog
            self._written()
            return True

    def start_above(self, seq: int) -> None:
        """Give only numbers above `seq`, which a reader has seen of a file that is no more."""
        with self._lock:
            if seq >= self._next:
                self._next = seq + 1
                with self._transaction():
                    self._reserve(self._next + _RESERVE)

    def register(self, reader: str, seq: int = 0) -> int:
        """Keep what this reader has not read from now on; where it stands."""
        with self._lock:
            if reader not in self._cursors:
                self._cursors[reader] = self._backlog.cursors[reader] = seq
                self.flush()
            return self._cursors[reader]

    def advance(self, reader: str, seq: int) -> None:
        """The reader has read up to `seq`; it never goes back. Written with the next entry."""
        with self._lock:
            if seq > self._cursors.get(reader, 0):
                self._cursors[reader] = self._backlog.cursors[reader] = seq

    def release(self, reader: str) -> None:
        """The reader is no more: keep nothing for it."""
        with self._lock:
            if self._cursors.pop(reader, None) is not None:
                self._backlog.cursors[reader] = None
                self.flush()

    def prune(self) -> int:
        """Let go what need not be kept; how many changes went."""
        with self._lock:
            if not self.flush():
                return 0
            before = self._clock.now() - self._keep.days * _DAY
            read = min(self._cursors.values(), default=self._next)
            try:
                return self._prune(before, read)
            except sqlite3.Error as error:
                self._failed(error)
                return 0

    def close(self) -> None:
        """Write what waits and give the file back."""
        with self._lock:
            if self.flush():
                try:
                    self._reserve(self._next)
                    self._database.execute("PRAGMA wal_checkpoint(TRUNCATE)")
                except sqlite3.Error as error:
                    self._failed(error)
            self._database.close()

    def _put(self, fingerprint: str, tracked: Tracked) -> None:
        found = self._tracked.setdefault(tracked.finding.source, {})
        if tracked.state is FindingState.CLEARED:
            found.pop(fingerprint, None)
        else:
            found[fingerprint] = tracked
        self._backlog.findings[fingerprint] = tracked

    def _forget(self, fingerprint: str) -> None:
        for found in self._tracked.values():
            found.pop(fingerprint, None)
        self._backlog.findings[fingerprint] = None

    def _log(self, kind: Kind, finding: Finding) -> LedgerChange:
        change = LedgerChange(seq=self._next, kind=kind, finding=finding, at=self._clock.now())
        self._next += 1
        if self.degraded and kind is Kind.REPEATED:
            # Nothing is lost by it: the later one has the whole count. It keeps a long outage from filling memory.
            self._drop_earlier_repeat(finding.fingerprint)
        self._backlog.changes[change.seq] = change
        return change

    def _drop_earlier_repeat(self, fingerprint: str) -> None:
        for seq, change in reversed(self._backlog.changes.items()):
            if change.finding.fingerprint == fingerprint:
                if change.kind is Kind.REPEATED:
                    del self._backlog.changes[seq]
                return

    def _remember(self, source: str, memory: Memory) -> None:
        body = msgspec.json.encode(memory)
        if body != self._memory.get(source, b"{}"):
            self._memory[source] = self._backlog.memory[source] = body

    def _open(self) -> None:
        self._database = sqlite3.connect(self._path, isolation_level=None, check_same_thread=False, timeout=5.0)
        try:
            for pragma in _PRAGMAS:
                self._database.execute(f"PRAGMA {pragma}").fetchone()
            check(self._database)
            migrate(self._database, self._path)
            self._load()
        except BaseException:
            self._database.close()
            raise

    def _load(self) -> None:
        rows = self._database.execute("SELECT fingerprint, body FROM findings WHERE state != 'cleared'")
        for fingerprint, body in rows:
            tracked = msgspec.json.decode(body, type=Tracked)
            self._tracked.setdefault(tracked.finding.source, {})[fingerprint] = tracked
        self._memory.update(self._database.execute("SELECT source, body FROM memory"))
        self._cursors.update(self._database.execute("SELECT name, seq FROM cursors"))
        meta = dict(self._database.execute("SELECT name, value FROM meta"))
        last = self._database.execute("SELECT max(seq) FROM changes").fetchone()[0] or 0
        self._next = max(self._next, int(meta.get("next_seq", 1)), last + 1)
        self.id = meta.get("id") or str(uuid.uuid4())
        with self._transaction():
            self._meta("id", self.id)
            self._reserve(self._next + _RESERVE)

    def _begin_anew(self, why: str) -> None:
        """Put the damaged file aside and begin a new one with everything that is still in memory."""
        stamp = time.strftime("%Y%m%dT%H%M%SZ", time.gmtime(self._clock.now()))
        kept = set_aside(self._path, stamp)
        self.set_aside = f"{self._path.name} was damaged ({why}) and is kept as {kept.name}; a new one was begun"
        log.error("%s", self.set_aside)
        self._open()
        held = {f: t for found in self._tracked.values() for f, t in found.items()}
        waiting = self._backlog
        waiting.findings = {**held, **waiting.findings}
        waiting.memory = {**self._memory, **waiting.memory}
        waiting.cursors = {**self._cursors, **waiting.cursors}

    def _stored(self, seq: int, limit: int) -> list[LedgerChange]:
        query = "SELECT body FROM changes WHERE seq > ? ORDER BY seq LIMIT ?"
        try:
            rows = self._database.execute(query, (seq, limit)).fetchall()
        except sqlite3.Error as error:
            self._failed(error)
            return []
        return [msgspec.json.decode(body, type=LedgerChange) for (body,) in rows]

    def _write(self) -> None:
        waiting, encode, many = self._backlog, msgspec.json.encode, self._database.executemany
        gone = [(f,) for f, tracked in waiting.findings.items() if tracked is None]
        rows = [_row(f, tracked) for f, tracked in waiting.findings.items() if tracked is not None]
        changes = [(c.seq, c.at, c.kind, c.finding.fingerprint, encode(c)) for c in waiting.changes.values()]
        with self._transaction():
            many("DELETE FROM findings WHERE fingerprint = ?", gone)
            many("INSERT OR REPLACE INTO findings VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?)", rows)
            many("INSERT INTO changes VALUES (?, ?, ?, ?, ?)", changes)
            many("INSERT OR REPLACE INTO memory VALUES (?, ?)", list(waiting.memory.items()))
            many("DELETE FROM cursors WHERE name = ?", [(n,) for n, seq in waiting.cursors.items() if seq is None])
            cursors = [(name, seq) for name, seq in waiting.cursors.items() if seq is not None]
            many("INSERT OR REPLACE INTO cursors VALUES (?, ?)", cursors)
            if self.degraded or self._next + _RESERVE // 2 > self._reserved:
                self._reserve(self._next + _RESERVE)

    def _written(self) -> None:
        self._backlog = _Backlog()
        if self.degraded:
            log.warning("the ledger is written again, nothing was lost (it was: %s)", self.degraded)
            self.degraded = ""

    def _prune(self, before: float, read: int) -> int:
        run = self._database.execute
        with self._transaction():
            run("DELETE FROM findings WHERE state = 'cleared' AND last_seen < ?", (before,))
            gone = run("DELETE FROM changes WHERE seq <= ? AND at < ?", (read, before)).rowcount
            over = run("SELECT count(*) FROM changes").fetchone()[0] - self._keep.changes
            if over > 0:
                oldest = "SELECT seq FROM changes WHERE seq <= ? ORDER BY seq LIMIT ?"
                gone += run(f"DELETE FROM changes WHERE seq IN ({oldest})", (read, over)).rowcount
        return gone

    def _reserve(self, seq: int) -> None:
        self._meta("next_seq", str(seq))
        self._reserved = seq

    def _meta(self, name: str, value: str) -> None:
        self._database.execute("INSERT OR REPLACE INTO meta VALUES (?, ?)", (name, value))

    def _transaction(self) -> "_Transaction":
        return _Transaction(self._database)

    def _failed(self, error: sqlite3.Error) -> None:
        why = str(error)
        if is_damage(error):
            self._database.close()
            try:
                self._begin_anew(why)
                self._write()
            except (sqlite3.Error, OSError) as second:
                why = f"{why}; then: {second}"
            else:
                self._written()
                return
        if not self.degraded:
            log.error("the ledger cannot be written and is kept in memory: %s", why)
        self.degraded = f"{self._path}: {why}"


class _Transaction:
    """BEGIN IMMEDIATE to COMMIT, or ROLLBACK."""

    def __init__(self, database: sqlite3.Connection) -> None:
        self._database = database

    def __enter__(self) -> None:
        self._database.execute("BEGIN IMMEDIATE")

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        try:
            if kind is None:
                self._database.execute("COMMIT")
        finally:
            if self._database.in_transaction:
                self._database.execute("ROLLBACK")


def _row(fingerprint: str, tracked: Tracked) -> tuple[object, ...]:
    f = tracked.finding
    seen = (f.first_seen, f.last_seen, f.boot_id)
    return (fingerprint, f.source, f.component, tracked.state, f.status, f.count, *seen, msgspec.json.encode(tracked))
