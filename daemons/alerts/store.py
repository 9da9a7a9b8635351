"""The desk's file: situation, place in the ledger and queue change together or not at all (SQLite, WAL, full sync)."""

import contextlib
import sqlite3
from collections.abc import Iterable, Iterator
from pathlib import Path

import msgspec

from daemons.alerts import tables
from daemons.alerts.posts import Post, Thread
from daemons.alerts.tables import Facts, Saved
from daemons.errors import StateError
from daemons.incidents import Situation
from daemons.ledger.damage import check, is_damage, set_aside


class Store:
    """One writer; every `write` is one transaction. Not thread-safe: the desk holds its lock.

    trouble: why nothing can be written at the moment, "" while it can. The next `write` tries again, with all that
    is missing on the disk.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self.trouble = ""
        self.set_aside: Path | None = None
        self._connection: sqlite3.Connection | None = None
        self._identity: tuple[int, int] | None = None
        self._saved = Situation()
        self._facts: Facts | None = None

    def load(self, now: float) -> Saved:
        """What the file holds; a damaged one is set aside and replaced. Raises StateError when it cannot be read."""
        try:
            return self._load()
        except sqlite3.DatabaseError as error:
            if not damaging(error):
                raise StateError(f"{self.path}: {error}; free space there, or give muster the right to it") from error
        except (msgspec.MsgspecError, UnicodeDecodeError):
            pass
        self._put_aside(now)
        lost = Saved(facts=Facts(lost_until=now))
        self.write(lost.situation, lost.facts, (), (), now)
        return lost

    def _load(self) -> Saved:
        try:
            return self._read(self._open())
        except sqlite3.OperationalError as error:
            self._close()
            if damaging(error) or not self.path.exists():
                raise
            self.trouble = _words(error)
        with contextlib.closing(_unshared(self.path)) as connection:
            return self._read(connection)

    def _read(self, connection: sqlite3.Connection) -> Saved:
        check(connection)
        saved = tables.read(connection)
        self._saved, self._facts = saved.situation, saved.facts
        return saved

    def write(
        self, situation: Situation, facts: Facts, posts: Iterable[Post], threads: Iterable[Thread], now: float
    ) -> bool:
        """Store the situation's differences from what the file holds, and these posts and threads. True once done."""
        posts, threads = list(posts), list(threads)
        for _ in range(2):
            try:
                self._store(situation, facts, posts, threads)
            except sqlite3.DatabaseError as error:
                self.trouble = _words(error)
                self._close()
                if not damaging(error):
                    return False
                self._put_aside(now)
            else:
                self._saved, self._facts, self.trouble = situation, facts, ""
                return True
        return False

    @property
    def complete(self) -> bool:
        """Whether the file at the path still is the one that was written."""
        return self._identity is not None and self._identity == _identity(self.path)

    def _open(self) -> sqlite3.Connection:
        if self._connection is not None and self.complete:
            return self._connection
        if self._identity is not None and not self.complete:
            self._forget()  # deleted or replaced under us: all of it has to be written again
        self._close()
        self._connection = connection = sqlite3.connect(
            self.path, isolation_level=None, check_same_thread=False, timeout=5.0
        )
        connection.execute("PRAGMA journal_mode = WAL")
        connection.execute("PRAGMA synchronous = FULL")
        version = connection.execute("PRAGMA user_version").fetchone()[0]
        if version > tables.SCHEMA_VERSION:
            raise StateError(f"{self.path}: written by a newer muster (schema {version}); install that one again")
        if version == 0:
            with transaction(connection):
                tables.create(connection)
        self._identity = _identity(self.path)
        return connection

    def _store(self, situation: Situation, facts: Facts, posts: list[Post], threads: list[Thread]) -> None:
        connection = self._open()
        with transaction(connection):
            tables.store_situation(connection, situation, self._saved)
            if facts != self._facts:
                tables.store_facts(connection, facts)
            tables.store_posts(connection, posts)
            tables.store_threads(connection, threads)

    def prune(self, before: float) -> None:
        """Drop incidents that are over, finished messages and threads older than this; quietly not, when it cannot."""
        with contextlib.suppress(sqlite3.DatabaseError):
            connection = self._open()
            with transaction(connection):
                tables.prune(connection, before)

    def reading(self) -> sqlite3.Connection | None:
        """The connection, for what only the record holds; None while there is none."""
        return self._connection

    def close(self) -> None:
        """Let the file go."""
        self._close()

    def _close(self) -> None:
        if self._connection is not None:
            with contextlib.suppress(sqlite3.Error):
                self._connection.close()
        self._connection = None

    def _forget(self) -> None:
        self._saved, self._facts, self._identity = Situation(), None, None

    def _put_aside(self, now: float) -> None:
        self._close()
        self._forget()
        if self.path.exists():
            self.set_aside = set_aside(self.path, str(int(now)))


@contextlib.contextmanager
def transaction(connection: sqlite3.Connection) -> Iterator[None]:
    """All of it, or none."""
    connection.execute("BEGIN IMMEDIATE")
    try:
        yield
        connection.execute("COMMIT")
    except BaseException:
        with contextlib.suppress(sqlite3.Error):
            connection.execute("ROLLBACK")
        raise


def damaging(error: sqlite3.DatabaseError) -> bool:
    """Whether the file itself is broken or holds other tables, rather than the disk full or the file locked."""
    return is_damage(error) or "no such table" in str(error) or "no such column" in str(error)


def _unshared(path: Path) -> sqlite3.Connection:
    """A connection that needs no -shm file beside the database: it reads also where no byte can be written."""
    connection = sqlite3.connect(path, isolation_level=None, timeout=5.0)
    connection.execute("PRAGMA locking_mode = EXCLUSIVE")
    return connection


def _identity(path: Path) -> tuple[int, int] | None:
    try:
        status = path.stat()
    except OSError:
        return None
    return status.st_dev, status.st_ino


def _words(error: sqlite3.Error) -> str:
    return f"alerts are kept in memory only: {error}"
