"""A damaged file is put aside under another name, never emptied."""

import sqlite3
from pathlib import Path

_DAMAGE = {sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB}


class Damaged(sqlite3.DatabaseError):
    """The file opens and its pages do not hold together."""


def is_damage(error: sqlite3.Error) -> bool:
    """Whether the file is not what it should be, rather than the disk full or away."""
    code = getattr(error, "sqlite_errorcode", None)  # none on errors of the module's own
    return isinstance(error, Damaged) or (isinstance(code, int) and code & 0xFF in _DAMAGE)


def check(database: sqlite3.Connection) -> None:
    """Walk the file. Raises Damaged."""
    (found,) = database.execute("PRAGMA quick_check(1)").fetchone()
    if found != "ok":
        raise Damaged(" ".join(str(found).split()))


def set_aside(path: Path, stamp: str) -> Path:
    """Rename the file and its log; where it is now."""
    kept = path.with_name(f"{path.name}.damaged-{stamp}")
    number = 1
    while kept.exists():
        number += 1
        kept = path.with_name(f"{path.name}.damaged-{stamp}-{number}")
    for suffix in ("-wal", "-shm", ""):
        part = path.with_name(path.name + suffix)
        if part.exists():
            part.rename(kept.with_name(kept.name + suffix))
    return kept
