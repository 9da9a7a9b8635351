"""Where logs lie: files, directories of ranks, standard input; compressed or not."""

import gzip
import io
import os
import stat
import zlib
from collections.abc import Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

from classifiers.engine import Engine, Session
from classifiers.intake import looks_binary
from classifiers.scanner import BLOCK

STDIN = "-"
_GZIP = b"\x1f\x8b"
_ZSTD = b"\x28\xb5\x2f\xfd"
# Of a directory these are never logs.
_NOT_LOGS = frozenset(
    (
        *(".py", ".pyc", ".so", ".pt", ".pth", ".bin", ".safetensors", ".distcp", ".npy", ".npz", ".pkl", ".pickle"),
        *(".parquet", ".arrow", ".tar", ".zip", ".png", ".jpg", ".h5"),
    )
)
# Compressed bytes taken at once: at zstd's best ratio they become 32 MB, which bounds the memory a bomb can take.
_ZSTD_PIECE = 1024
_ORDERS_EACH = 1 << 40  # numbers for the lines of one file; the next file's begin after them


class Unreadable(Exception):
    """A path that was named cannot be read; the message says which and why."""


@dataclass(frozen=True, slots=True)
class Source:
    """One log to read: its path, and the name it has in the verdict."""

    path: Path
    name: str


def found(paths: Iterable[Path]) -> list[Source]:
    """The files that the paths stand for, directories walked in order of names. Raises Unreadable."""
    sources: list[Source] = []
    for path in paths:
        if path.is_dir():
            sources += _walked(path)
        elif not path.exists():
            raise Unreadable(f"{path}: no such file or directory")
        else:
            sources.append(Source(path, str(path)))
    return sources


def _walked(top: Path) -> Iterator[Source]:
    for directory, names, files in os.walk(top):
        names.sort(key=_by_number)
        for name in sorted(files, key=_by_number):
            path = Path(directory, name)
            if path.suffix not in _NOT_LOGS and stat.S_ISREG(path.stat().st_mode):
                yield Source(path, str(path))


def _by_number(name: str) -> tuple[int, str]:
    """rank_9 before rank_10."""
    digits = "".join(sign for sign in name if sign.isdigit())
    return (int(digits[:18] or -1), name)


def read(engine: Engine, sources: list[Source], stdin: BinaryIO | None = None, threads: int | None = None) -> Session:
    """A session that has been fed all of them; several files are scanned at once, as the scan holds no lock.

    A file that cannot be read, or that is cut off, is named in the verdict's notes.
    """
    if stdin is not None:
        session = engine.session()
        _pour(session, Source(Path(), STDIN), stdin)
        return session
    workers = min(threads or os.cpu_count() or 1, len(sources))
    if workers <= 1:
        return _share(engine, list(enumerate(sources)))
    with ThreadPoolExecutor(workers) as pool:
        shares = [[*enumerate(sources)][first::workers] for first in range(workers)]
        first, *rest = pool.map(lambda share: _share(engine, share), shares)
    for session in rest:
        first.merge(session)
    return first


def _share(engine: Engine, sources: list[tuple[int, Source]]) -> Session:
    session = engine.session()
    for index, source in sources:
        session.begin(index * _ORDERS_EACH)
        try:
            with source.path.open("rb", buffering=0) as file:
                _pour(session, source, file)
        except OSError as error:
            session.note(f"{source.name}: cannot be read: {error.strerror or error}")
        session.finished(source.name)
    return session


def _pour(session: Session, source: Source, file: BinaryIO | io.RawIOBase) -> None:
    start = file.read(BLOCK) or b""
    for end, opener in ((_GZIP, _gunzipped), (_ZSTD, _unzstd)):
        if start.startswith(end):
            opener(session, source, _Joined(start, file))
            return
    if looks_binary(start):
        session.note(f"{source.name}: skipped, it is not text")
        return
    while start:
        session.feed(source.name, start)
        start = file.read(BLOCK) or b""


class _Joined(io.RawIOBase):
    """A file of which the beginning has been read already."""

    def __init__(self, start: bytes, rest: BinaryIO | io.RawIOBase) -> None:
        self._start, self._rest = start, rest

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: "bytearray | memoryview[int]") -> int:  # type: ignore[override]
        data = self._start[: len(buffer)] if self._start else self._rest.read(len(buffer)) or b""
        self._start = self._start[len(buffer) :]
        buffer[: len(data)] = data
        return len(data)


def _gunzipped(session: Session, source: Source, file: io.RawIOBase) -> None:
    try:
        with gzip.GzipFile(fileobj=io.BufferedReader(file, BLOCK)) as unpacked:
            while data := unpacked.read(BLOCK):
                session.feed(source.name, data)
    except (EOFError, gzip.BadGzipFile, zlib.error) as error:
        session.note(f"{source.name}: the compressed file is cut off or damaged ({error}): read as far as it goes")


def _unzstd(session: Session, source: Source, file: io.RawIOBase) -> None:
    import zstandard

    frame, whole = zstandard.ZstdDecompressor().decompressobj(), False
    while piece := file.read(_ZSTD_PIECE):
        try:
            while piece:
                session.feed(source.name, frame.decompress(piece))
                whole, piece = frame.eof, frame.unused_data if frame.eof else b""
                if whole:
                    frame = zstandard.ZstdDecompressor().decompressobj()
        except zstandard.ZstdError as error:
            session.note(f"{source.name}: the compressed file is damaged ({error}): read as far as it goes")
            return
    if not whole:
        session.note(f"{source.name}: the compressed file is cut off: read as far as it goes")
