"""What the desk was given, by where it came from.

A store restored from a backup gets the nodes' changes once more, under new numbers: people are not told of them twice.
"""

import sqlite3
from collections.abc import Iterable
from pathlib import Path

from daemons.errors import StateError
from daemons.fleet.store import OWN, Origin

_SCHEMA = (
    "CREATE TABLE IF NOT EXISTS given (node TEXT NOT NULL, ledger TEXT NOT NULL, seq INTEGER NOT NULL,"
    " PRIMARY KEY (node, ledger)) WITHOUT ROWID"
)


class Given:
    """The last change of every ledger that the desk has taken, in a file beside the desk's. For one thread."""

    def __init__(self, path: Path) -> None:
        try:
            self._connection = sqlite3.connect(path, isolation_level=None, check_same_thread=False, timeout=5.0)
            for statement in ("PRAGMA journal_mode=WAL", "PRAGMA synchronous=FULL", _SCHEMA):
                self._connection.execute(statement)
            rows = self._connection.execute("SELECT node, ledger, seq FROM given").fetchall()
        except sqlite3.Error as error:
            raise StateError(f"{path}: {error}: free space there; if it is damaged, delete it") from error
        self._last: dict[tuple[str, str], int] = {(node, ledger): seq for node, ledger, seq in rows}

    def fresh(self, page: Iterable[Origin]) -> list[Origin]:
        """Those that the desk was never given. What the fleet itself has seen is numbered anew and always fresh."""
        return [
            origin
            for origin in page
            if origin.ledger == OWN or origin.seq > self._last.get((origin.node, origin.ledger), -1)
        ]

    def note(self, page: Iterable[Origin]) -> None:
        """The desk has taken these. A file that cannot be written now holds it the next time."""
        news = {
            (origin.node, origin.ledger): origin.seq
            for origin in page
            if origin.ledger != OWN and origin.seq > self._last.get((origin.node, origin.ledger), -1)
        }
        self._last.update(news)
        rows = [(node, ledger, seq) for (node, ledger), seq in news.items()]
        try:
            self._connection.execute("BEGIN IMMEDIATE")
            self._connection.executemany("INSERT OR REPLACE INTO given VALUES (?, ?, ?)", rows)
            self._connection.execute("COMMIT")
        except sqlite3.Error:
            if self._connection.in_transaction:
                self._connection.execute("ROLLBACK")

    def close(self) -> None:
        """Let the file go."""
        self._connection.close()
