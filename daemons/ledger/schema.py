"""The ledger's tables, and how an older file becomes a newer one."""

import sqlite3
from collections.abc import Sequence
from pathlib import Path

from daemons.errors import StateError

# One tuple of statements per version: the first makes version 1 out of nothing. A released one is never edited.
MIGRATIONS: tuple[tuple[str, ...], ...] = (
    (
        "CREATE TABLE meta (name TEXT PRIMARY KEY, value TEXT NOT NULL) WITHOUT ROWID",
        "CREATE TABLE findings (fingerprint TEXT PRIMARY KEY, source TEXT NOT NULL, component TEXT NOT NULL,"
        " state TEXT NOT NULL, status TEXT NOT NULL, count INTEGER NOT NULL, first_seen REAL NOT NULL,"
        " last_seen REAL NOT NULL, boot_id TEXT NOT NULL, body BLOB NOT NULL) WITHOUT ROWID",
        "CREATE TABLE changes (seq INTEGER PRIMARY KEY, at REAL NOT NULL, kind TEXT NOT NULL,"
        " fingerprint TEXT NOT NULL, body BLOB NOT NULL)",
        "CREATE TABLE memory (source TEXT PRIMARY KEY, body BLOB NOT NULL) WITHOUT ROWID",
        "CREATE TABLE cursors (name TEXT PRIMARY KEY, seq INTEGER NOT NULL) WITHOUT ROWID",
    ),
)
# SQLite's file format: the user version is the big-endian integer at byte 60 (sqlite.org/fileformat2.html, 1.3).
_USER_VERSION = slice(60, 64)


def refuse_newer(path: Path, known: int = len(MIGRATIONS)) -> None:
    """Leave a newer file alone, before SQLite opens it and touches its log. Raises StateError."""
    try:
        with path.open("rb") as file:
            header = file.read(100)
    except FileNotFoundError:
        return
    if header.startswith(b"SQLite format 3\0"):
        _refuse(path, int.from_bytes(header[_USER_VERSION], "big"), known)


def migrate(connection: sqlite3.Connection, path: Path, migrations: Sequence[Sequence[str]] = MIGRATIONS) -> int:
    """Bring the file to the newest version, each step whole or not at all; how many steps it took.

    Raises StateError for a newer file.
    """
    version = int(connection.execute("PRAGMA user_version").fetchone()[0])
    _refuse(path, version, len(migrations))
    for number, statements in enumerate(migrations[version:], version + 1):
        connection.execute("BEGIN IMMEDIATE")
        try:
            for statement in statements:
                connection.execute(statement)
            connection.execute(f"PRAGMA user_version = {number}")
            connection.execute("COMMIT")
        except BaseException:
            connection.execute("ROLLBACK")
            raise
    if version < len(migrations):
        # The version must stand in the file itself, where refuse_newer of an older muster reads it.
        connection.execute("PRAGMA wal_checkpoint(TRUNCATE)")
    return len(migrations) - version


def _refuse(path: Path, version: int, known: int) -> None:
    if version > known:
        raise StateError(
            f"{path}: written by a newer muster (schema {version}, this one knows {known}): start that version, or"
            " move the file away to begin anew"
        )
