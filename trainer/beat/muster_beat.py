"""Says how far a training process has come, so that whoever supervises it can tell slow from stuck.

A user's process imports this one file (`import muster_beat`; standard library only, Python 3.8 or later) and calls

    muster_beat.beat(step=step, tokens=tokens, loss=loss)
    with muster_beat.phase("checkpoint"):
        ...

Without MUSTER_BEAT_DIR in the environment both do nothing. With it each rank keeps one small file there,
`rank-00005.beat`. The file holds two slots that are written in turn, each with a sequence number and a checksum: a
reader takes the newest whole slot and so never sees half a record. It is allocated before first use and written in
place with pwrite, not through a mapping: on a full disk it goes on working, and on a file that somebody truncated a
write fails with an error that is counted here, where a mapped page would kill the process with SIGBUS.

MUSTER_BEAT_SPANS=1 also appends one JSON line for each finished phase to `rank-00005.spans.jsonl`.
"""

from __future__ import annotations

import fcntl
import json
import os
import socket
import struct
import sys
import threading
import time
import zlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple

# What the launchers call the rank. RANK comes first because torchrun under srun leaves SLURM_PROCID at the node's
# number; SLURM_PROCID comes last because mpirun inside a batch script leaves it at 0 for every rank.
RANK_VARIABLES = (
    "RANK",
    "OMPI_COMM_WORLD_RANK",
    "PMIX_RANK",
    "PMI_RANK",
    "MV2_COMM_WORLD_RANK",
    "HOROVOD_RANK",
    "SLURM_PROCID",
)
WORLD_VARIABLES = (
    "WORLD_SIZE",
    "OMPI_COMM_WORLD_SIZE",
    "PMI_SIZE",
    "MV2_COMM_WORLD_SIZE",
    "HOROVOD_SIZE",
    "SLURM_NTASKS",
)

_MAGIC = b"MBT1"
_HEAD = struct.Struct("<4sIQ")  # magic, CRC-32 of the rest, sequence number
_BODY = struct.Struct("<IiiIqqdddddddd64s192s")
_SLOT = 512  # bytes; both slots lie within one page
_HAS_STEP, _HAS_TOKENS, _HAS_LOSS, _HAS_STEP_SECONDS, _HAS_DATA_SECONDS = 1, 2, 4, 8, 16
_RETRY_SECONDS = 1.0  # a file that could not be opened is tried again this often, not at every step
_SPANS_LIMIT = 64 << 20  # bytes; a job of months must not fill the disk with spans

# Boot time counts through suspend and never steps; systems without it (macOS) have a monotonic clock.
_BOOT_CLOCK = getattr(time, "CLOCK_BOOTTIME", time.CLOCK_MONOTONIC)


class Record(NamedTuple):
    """The last thing a rank said. Times named `changed` are seconds of the node's CLOCK_BOOTTIME."""

    rank: int
    pid: int
    host: str
    step: int | None
    phase: str  # the innermost phase, "" before the first was named
    phases: tuple[str, ...]  # from the outermost to the innermost
    changed: float  # the last beat
    time: float  # the last beat, seconds since the epoch
    tokens: int | None
    loss: float | None
    step_seconds: float | None
    data_seconds: float | None
    step_changed: float  # when the step number last changed
    phase_changed: float  # when the present phase was entered
    started: float  # the first beat of this process
    world_size: int  # 0 where the launcher does not say
    beats: int  # sequence number; grows by one a beat


def boot_clock() -> float:
    """Seconds of the clock that `Record.changed` counts in."""
    return time.clock_gettime(_BOOT_CLOCK)


def environment_rank(environ: dict[str, str]) -> int | None:
    """The rank a launcher gave this process, or None where none did."""
    return _first_number(environ, RANK_VARIABLES)


def _first_number(environ: dict[str, str], names: tuple[str, ...]) -> int | None:
    for name in names:
        text = environ.get(name, "")
        if text.isdigit():
            return int(text)
    return None


def _torch_rank() -> int | None:
    """The rank by torch.distributed, for launchers that set no variable; torch is looked at only if it is loaded."""
    distributed = sys.modules.get("torch.distributed")
    if distributed is None or not distributed.is_available() or not distributed.is_initialized():
        return None
    return int(distributed.get_rank())


def _pack(record: Record) -> bytes:
    present = (record.step, record.tokens, record.loss, record.step_seconds, record.data_seconds)
    flags = sum(1 << bit for bit, value in enumerate(present) if value is not None)
    body = _BODY.pack(
        record.pid,
        record.rank,
        record.world_size,
        flags,
        record.step or 0,
        record.tokens or 0,
        record.loss or 0.0,
        record.step_seconds or 0.0,
        record.data_seconds or 0.0,
        record.time,
        record.changed,
        record.step_changed,
        record.phase_changed,
        record.started,
        record.host.encode()[:64],
        "\n".join(record.phases).encode()[:192],
    )
    checksum = zlib.crc32(struct.pack("<Q", record.beats) + body)
    return _HEAD.pack(_MAGIC, checksum, record.beats) + body


def _unpack(slot: bytes) -> Record | None:
    """The record in one slot; None for a slot that was never written, is half written or is not ours."""
    if len(slot) < _HEAD.size + _BODY.size:
        return None
    magic, checksum, sequence = _HEAD.unpack_from(slot)
    if magic != _MAGIC or checksum != zlib.crc32(slot[8 : _HEAD.size + _BODY.size]):
        return None
    (
        pid,
        rank,
        world,
        flags,
        step,
        tokens,
        loss,
        step_s,
        data_s,
        wall,
        changed,
        step_at,
        phase_at,
        started,
        host,
        names,
    ) = _BODY.unpack_from(slot, _HEAD.size)
    text = names.rstrip(b"\0").decode(errors="replace")
    phases = tuple(text.split("\n")) if text else ()
    return Record(
        rank=rank,
        pid=pid,
        host=host.rstrip(b"\0").decode(errors="replace"),
        step=step if flags & _HAS_STEP else None,
        phase=phases[-1] if phases else "",
        phases=phases,
        changed=changed,
        time=wall,
        tokens=tokens if flags & _HAS_TOKENS else None,
        loss=loss if flags & _HAS_LOSS else None,
        step_seconds=step_s if flags & _HAS_STEP_SECONDS else None,
        data_seconds=data_s if flags & _HAS_DATA_SECONDS else None,
        step_changed=step_at,
        phase_changed=phase_at,
        started=started,
        world_size=world,
        beats=sequence,
    )


def _newest(data: bytes) -> Record | None:
    found = [record for record in (_unpack(data[:_SLOT]), _unpack(data[_SLOT : 2 * _SLOT])) if record is not None]
    return max(found, key=lambda record: record.beats, default=None)


def read(directory: str | os.PathLike[str]) -> dict[int, Record]:
    """The last record of every rank that has beaten in `directory`, by rank; a damaged file is left out.

    A directory that does not exist, or not yet, holds no ranks.
    """
    records = (read_file(path) for path in sorted(Path(directory).glob("rank-*.beat")))
    return {record.rank: record for record in records if record is not None}


def read_file(path: str | os.PathLike[str]) -> Record | None:
    """The last record in one rank's file, or None where there is none (yet)."""
    # Three tries: a writer that laps a reader within one read spoils both slots at once, and does so rarely.
    for _ in range(3):
        try:
            data = Path(path).read_bytes()[: 2 * _SLOT]
        except OSError:
            return None
        record = _newest(data)
        if record is not None or not data.strip(b"\0"):
            return record
    return None


class Beat:
    """The writer of one rank. Nothing in here raises on a failing disk or a wrong value: `failures` counts them."""

    def __init__(
        self,
        directory: str | os.PathLike[str],
        rank: int,
        world_size: int = 0,
        *,
        spans: bool = False,
        clock: Callable[[], float] = boot_clock,
        wall: Callable[[], float] = time.time,
    ) -> None:
        self.directory = Path(directory)
        self.failures = 0
        self._spans = spans
        self._clock = clock
        self._wall = wall
        self._fd = -1
        self._spans_fd = -1
        self._retry_at = float("-inf")
        self._told = False
        # Re-entrant: a signal handler that beats may interrupt a beat in the same thread.
        self._lock = threading.RLock()
        self._base: list[str] = [""]
        self._base_since = clock()
        self._stack: list[list[str]] = []
        host = socket.gethostname()
        now = clock()
        self._record = Record(
            rank, os.getpid(), host, None, "", (), now, wall(), None, None, None, None, now, now, now, world_size, 0
        )

    def beat(
        self,
        *,
        step: int | None = None,
        phase: str | None = None,
        tokens: int | None = None,
        loss: float | None = None,
        step_seconds: float | None = None,
        data_seconds: float | None = None,
    ) -> None:
        """Write the given values and the time; a value that is not given keeps its last one."""
        try:
            with self._lock:
                old, now = self._record, self._clock()
                if phase is not None and phase != self._base[0]:
                    self._span(self._base[0], self._base_since, now, None)
                    self._base, self._base_since = [phase], now
                self._write(
                    old._replace(
                        step=old.step if step is None else int(step),
                        tokens=old.tokens if tokens is None else int(tokens),
                        loss=old.loss if loss is None else float(loss),
                        step_seconds=old.step_seconds if step_seconds is None else float(step_seconds),
                        data_seconds=old.data_seconds if data_seconds is None else float(data_seconds),
                        step_changed=old.step_changed if step is None or step == old.step else now,
                    ),
                    now,
                )
        except (OSError, TypeError, ValueError, OverflowError, struct.error) as error:
            self._failed(error)

    @contextmanager
    def phase(self, name: str) -> Iterator[None]:
        """Mark a part of the work; parts nest, and a part that fails is left like one that ends."""
        entry = [name]
        begun = self._clock()
        self._stack.append(entry)
        self.beat()
        failure: str | None = None
        try:
            yield
        except BaseException as error:
            failure = type(error).__name__
            raise
        finally:
            # By identity, not from the end: parts of two threads may end in any order.
            self._stack = [other for other in self._stack if other is not entry]
            self._span(name, begun, self._clock(), failure)
            self.beat()

    def close(self) -> None:
        """Let go of the files; the record stays for readers."""
        for fd in (self._fd, self._spans_fd):
            if fd >= 0:
                os.close(fd)
        self._fd = self._spans_fd = -1
        self._retry_at = float("inf")

    def _write(self, record: Record, now: float) -> None:
        phases = tuple(entry[0] for entry in (self._base, *self._stack) if entry[0])
        self._record = record = record._replace(
            phases=phases,
            phase_changed=record.phase_changed if phases == record.phases else now,
            changed=now,
            time=self._wall(),
            beats=self._record.beats + 1,
        )
        if self._fd < 0 and now >= self._retry_at:
            self._open(now)
        if self._fd >= 0:
            os.pwrite(self._fd, _pack(self._record), (self._record.beats % 2) * _SLOT)

    def _open(self, now: float) -> None:
        self._retry_at = now + _RETRY_SECONDS
        self.directory.mkdir(parents=True, exist_ok=True)
        path = self.directory / f"rank-{self._record.rank:05}.beat"
        fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o644)
        try:
            if not self._claim(fd):
                os.close(fd)
                return
            os.posix_fallocate(fd, 0, 2 * _SLOT)
            last = _newest(os.pread(fd, 2 * _SLOT, 0))
        except OSError:
            os.close(fd)
            raise
        # A predecessor's last record is in the file: go on counting above it, or readers would prefer it.
        if last is not None and last.beats >= self._record.beats:
            self._record = self._record._replace(beats=last.beats + 1)
        self._fd = fd

    @staticmethod
    def _claim(fd: int) -> bool:
        """Whether this process may speak for the rank: not if another that still runs does (a data-loading worker
        started by spawn inherits RANK and imports this module anew)."""
        try:
            fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return False
        except OSError:  # a file system without locks: carry on without the guard
            return True
        return True

    def _span(self, name: str, begun: float, ended: float, failure: str | None) -> None:
        if not self._spans or not name:
            return
        line = {"span": name, "rank": self._record.rank, "step": self._record.step, "begin": round(begun, 6)}
        line.update(seconds=round(ended - begun, 6), time=round(self._wall(), 3))
        if failure is not None:
            line["error"] = failure
        try:
            if self._spans_fd < 0:
                self.directory.mkdir(parents=True, exist_ok=True)
                path = self.directory / f"rank-{self._record.rank:05}.spans.jsonl"
                self._spans_fd = os.open(
                    path, os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC | os.O_NOFOLLOW, 0o644
                )
            if os.fstat(self._spans_fd).st_size < _SPANS_LIMIT:
                os.write(self._spans_fd, json.dumps(line).encode() + b"\n")
        except OSError as error:
            self._failed(error)

    def _failed(self, error: Exception) -> None:
        self.failures += 1
        if not self._told:
            self._told = True
            print(  # noqa: T201 (a user's process has no logger of ours)
                f"muster_beat: cannot write to {self.directory}: {error}; "
                "training goes on, supervision sees no progress",
                file=sys.stderr,
            )


_beat: Beat | None = None
_off = False  # nothing is to be written, for good: no directory given, or a forked child


def _current() -> Beat | None:
    global _beat, _off
    if _beat is None and not _off:
        directory = os.environ.get("MUSTER_BEAT_DIR", "")
        if not directory:
            _off = True
            return None
        environ = dict(os.environ)
        rank = environment_rank(environ)
        rank = _torch_rank() if rank is None else rank
        world = _first_number(environ, WORLD_VARIABLES) or 0
        _beat = Beat(directory, rank or 0, world, spans=environ.get("MUSTER_BEAT_SPANS", "") == "1")
    return _beat


def beat(
    *,
    step: int | None = None,
    phase: str | None = None,
    tokens: int | None = None,
    loss: float | None = None,
    step_seconds: float | None = None,
    data_seconds: float | None = None,
) -> None:
    """Say that this rank is alive and how far it is. `phase` names what goes on outside every `phase()` block.

    Pass Python numbers: reading a CUDA tensor would wait for the device. Never raises.
    """
    if _off:
        return
    current = _current()
    if current is not None:
        current.beat(
            step=step, phase=phase, tokens=tokens, loss=loss, step_seconds=step_seconds, data_seconds=data_seconds
        )


@contextmanager
def phase(name: str) -> Iterator[None]:
    """Mark a part of the work (compile, eval, checkpoint, ...) for as long as the block runs; blocks nest."""
    current = None if _off else _current()
    if current is None:
        yield
        return
    with current.phase(name):
        yield


def _after_fork() -> None:
    """A forked child (a data-loading worker) is not the rank: it says nothing and gives up its copy of the file.

    Where the parent never spoke it may be a launcher and the child the rank, so the child is free to.
    """
    global _beat, _off
    if _beat is not None:
        _beat.close()
        _beat, _off = None, True


os.register_at_fork(after_in_child=_after_fork)
