"""Reads the kernel's log record by record, from where a reader left off, and says when records were lost.

Format: Documentation/ABI/testing/dev-kmsg. One read() gives one record, `priority,sequence,microseconds,flags;text`,
then optional lines that begin with a space (key=value), which are left out here.
"""

import errno
import os
import threading
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

_MOST_READERS = 8
_RECORD_BYTES = 8192  # the kernel's largest record (CONSOLE_EXT_LOG_MAX)


@dataclass(frozen=True, slots=True)
class Record:
    """One kernel log record. seconds: since boot. lost: records that were overwritten before this one was read."""

    sequence: int
    level: int
    facility: int
    seconds: float
    text: str
    lost: int = 0


def parse(raw: bytes) -> Record | None:
    """A record from its bytes, or None when they are none (a damaged or foreign line)."""
    head, separator, body = raw.partition(b";")
    fields = head.split(b",")
    if not separator or len(fields) < 3:
        return None
    try:
        priority, sequence, microseconds = (int(field) for field in fields[:3])
    except ValueError:
        return None
    text = body.split(b"\n", 1)[0].decode("utf-8", "backslashreplace")
    return Record(sequence, priority & 7, priority >> 3, microseconds / 1e6, text)


class KernelLog:
    """The live /dev/kmsg, kept open between reads; never blocks.

    Several checks read it, each from where it left off and some at the same time, so each has a descriptor of its own:
    one that stands where the caller wants to go on is used again, which spares reading the whole ring anew.
    Raises OSError when it cannot be opened (not root with dmesg_restrict, no such device).
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self._lock = threading.Lock()
        self._idle: list[_Reader] = []

    def read(self, after: int) -> Iterator[Record]:
        """The records with a sequence number above `after`, oldest first, as many as there are now."""
        reader = self._take(after + 1)
        try:
            yield from reader.read(after)
        finally:
            self._give_back(reader)

    def close(self) -> None:
        """Give the device back."""
        with self._lock:
            readers, self._idle = self._idle, []
        for reader in readers:
            reader.close()

    def _take(self, position: int) -> "_Reader":
        with self._lock:
            for reader in self._idle:
                if reader.position == position:
                    self._idle.remove(reader)
                    return reader
        return _Reader(self._path, position)

    def _give_back(self, reader: "_Reader") -> None:
        with self._lock:
            self._idle.append(reader)
            extra = self._idle[:-_MOST_READERS]
            self._idle = self._idle[-_MOST_READERS:]
        for old in extra:
            old.close()


class _Reader:
    """One open descriptor. position: the sequence number that it reads next."""

    def __init__(self, path: Path, position: int) -> None:
        self._fd = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
        self.position = position

    def read(self, after: int) -> Iterator[Record]:
        while (raw := self._one()) is not None:
            record = parse(raw)
            if record is None or record.sequence < self.position:
                continue
            lost = record.sequence - self.position if after >= 0 else 0
            after = record.sequence
            self.position = after + 1
            yield record if not lost else _with_lost(record, lost)

    def close(self) -> None:
        os.close(self._fd)

    def _one(self) -> bytes | None:
        while True:
            try:
                return os.read(self._fd, _RECORD_BYTES) or None
            except BlockingIOError:
                return None
            except OSError as error:
                # EPIPE: the ring overtook this reader; the next read gives the oldest record there still is.
                if error.errno != errno.EPIPE:
                    raise


class RecordedKernelLog:
    """A kernel log from a file of records, one a line: for recorded nodes. A line added later is read later."""

    def __init__(self, path: Path) -> None:
        self._path = path

    def read(self, after: int) -> Iterator[Record]:
        """The records with a sequence number above `after`."""
        for raw in self._path.read_bytes().splitlines():
            record = None if raw.startswith(b" ") else parse(raw)
            if record is None or record.sequence <= after:
                continue
            lost = record.sequence - after - 1 if after >= 0 else 0
            after = record.sequence
            yield record if not lost else _with_lost(record, lost)

    def close(self) -> None:
        """Nothing is held."""


def _with_lost(record: Record, lost: int) -> Record:
    return Record(record.sequence, record.level, record.facility, record.seconds, record.text, lost)
