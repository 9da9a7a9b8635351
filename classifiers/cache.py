"""Files that may be made again at any time: kept where only this user can write, believed only when whole."""

import hashlib
import os
import stat
import tempfile
from pathlib import Path

_MAGIC = b"muster-cache-1\n"
_SUM = 32  # bytes of SHA-256
# Other versions' files are useless; the newest few stay for a user who switches rules directories.
_KEEP = 6


def directory() -> Path:
    """$XDG_CACHE_HOME/muster, else ~/.cache/muster."""
    base = os.environ.get("XDG_CACHE_HOME", "")
    return (Path(base) if base.startswith("/") else Path("~/.cache").expanduser()) / "muster"


def read(name: str, where: Path | None = None) -> bytes | None:
    """What was written under the name; None when there is nothing, it is damaged, or another user could have put it."""
    path = (where or directory()) / name
    try:
        with path.open("rb") as file:
            about = os.fstat(file.fileno())
            if about.st_uid != os.geteuid() or about.st_mode & (stat.S_IWGRP | stat.S_IWOTH):
                return None
            data = file.read()
    except (OSError, RuntimeError):
        return None
    head = len(_MAGIC) + _SUM
    if not data.startswith(_MAGIC) or hashlib.sha256(data[head:]).digest() != data[len(_MAGIC) : head]:
        return None
    return data[head:]


def write(name: str, data: bytes, where: Path | None = None) -> None:
    """Keep data under the name, whole or not at all; a cache that cannot be written is no error."""
    try:
        home = where or directory()
        home.mkdir(parents=True, exist_ok=True, mode=0o700)
        if home.stat().st_uid != os.geteuid():
            return
        handle, temporary = tempfile.mkstemp(dir=home, prefix=".new-")
        with os.fdopen(handle, "wb") as file:
            file.write(_MAGIC + hashlib.sha256(data).digest() + data)
        Path(temporary).replace(home / name)
        _prune(home)
    except (OSError, RuntimeError):
        return


def _prune(home: Path) -> None:
    kept = sorted(home.glob("rules-*"), key=lambda path: path.stat().st_mtime, reverse=True)
    for path in kept[_KEEP:]:
        path.unlink(missing_ok=True)
