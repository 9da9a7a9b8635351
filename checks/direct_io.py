"""Times a small read and write past the page cache; runs in a killable child and gives up by itself when it is slow."""

import mmap
import os
import time
from pathlib import Path

import msgspec

PROBE_FILE = ".muster-probe"
_CHUNK = 1 << 20  # also the alignment: every block size divides it


class Throughput(msgspec.Struct, frozen=True, kw_only=True):
    """What one probe measured. bytes and seconds by direction, 0 where nothing was done.

    direct: past the page cache; False where the file system has none to pass (tmpfs) or does not allow it.
    """

    read_bytes: int = 0
    read_seconds: float = 0.0
    written_bytes: int = 0
    written_seconds: float = 0.0
    direct: bool = True


def measure(directory: str, size: int, write: bool, seconds: float) -> dict[str, float | int | bool]:
    """Write (if allowed) and read `size` bytes of the probe file in `directory`, each for at most `seconds`.

    What was moved until then is the answer, so that a slow file system is asked for little. Raises OSError; without
    `write` also when there is no probe file to read.
    """
    path = Path(directory) / PROBE_FILE
    buffer = mmap.mmap(-1, _CHUNK)  # page-aligned, as direct I/O demands
    found: dict[str, float | int | bool] = {"direct": True}
    if write:
        buffer.write(os.urandom(4096) * (_CHUNK // 4096))
        flags = os.O_WRONLY | os.O_CREAT | os.O_CLOEXEC
        moved, spent, direct = _move(path, flags, buffer, size, seconds, reading=False)
        found |= {"written_bytes": moved, "written_seconds": spent, "direct": direct}
    moved, spent, direct = _move(path, os.O_RDONLY | os.O_CLOEXEC, buffer, size, seconds, reading=True)
    return found | {"read_bytes": moved, "read_seconds": spent, "direct": direct and bool(found["direct"])}


def _move(
    path: Path, flags: int, buffer: mmap.mmap, size: int, seconds: float, *, reading: bool
) -> tuple[int, float, bool]:
    fd, direct = _open(path, flags)
    try:
        if not direct and reading:
            os.posix_fadvise(fd, 0, 0, os.POSIX_FADV_DONTNEED)
        start = time.monotonic()
        moved = 0
        while moved < size and time.monotonic() - start < seconds:
            step = os.readv(fd, [buffer]) if reading else os.write(fd, buffer)
            if step <= 0:
                break
            moved += step
        if not reading:
            os.fdatasync(fd)
        return moved, time.monotonic() - start, direct
    finally:
        os.close(fd)


def _open(path: Path, flags: int) -> tuple[int, bool]:
    try:
        return os.open(path, flags | os.O_DIRECT, 0o600), True
    except OSError:
        return os.open(path, flags, 0o600), False
