"""Checkpoints that are whole or not there, written beside training.

A save goes to `step-N.partial`. When every rank's files are on disk their sizes and CRC-32 go into `manifest.json`,
the directory is renamed to `step-N`, and only then does the file `latest` name it: each of these is made durable
before the next. Loading checks every byte against the manifest and goes back to the checkpoint before where one is
damaged.
"""

import fcntl
import json
import os
import shutil
import time
import zlib
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch.distributed as dist
from torch import Tensor
from torch.distributed.checkpoint.api import CheckpointException
from torch.distributed.checkpoint.filesystem import FileSystemReader, FileSystemWriter
from torch.distributed.checkpoint.staging import DefaultStager, StagingOptions
from torch.distributed.checkpoint.state_dict_loader import load
from torch.distributed.checkpoint.state_dict_saver import async_save
from torch.distributed.tensor import DTensor

from trainer.distributed import World, ask_one
from trainer.errors import (
    CheckpointBusyError,
    CheckpointDamagedError,
    CheckpointDiskFullError,
    CheckpointTargetError,
    disk_full,
)

State = dict[str, Any]  # names to tensors, DTensors among them
Facts = dict[str, Any]  # what JSON holds

_MANIFEST = "manifest.json"
_LATEST = "latest"
_BLOCK = 1 << 22  # bytes read at a time for checksums
_LOCK_WAIT = 20.0  # seconds; a run that was just killed may take a moment to let go


@dataclass(slots=True)
class Cost:
    """Seconds of the last save: `stall` that training waited, `total` until it was durable."""

    stall: float = 0.0
    total: float = 0.0


@dataclass(slots=True)
class Checkpoints:
    """The checkpoints of one run. Every method is called by all ranks at the same point."""

    directory: Path
    world: World
    keep: int
    keep_every: int
    failures_allowed: int
    say: Callable[[str], None]
    synchronous: bool = False
    clock: Callable[[], float] = time.monotonic
    cost: Cost = field(default_factory=Cost)
    saved: int | None = None  # step of the last durable checkpoint
    failures: int = 0  # in a row
    _running: Future[str | None] | None = None
    _staged: Future[None] | None = None
    _stager: DefaultStager | None = None
    _pool: ThreadPoolExecutor = field(default_factory=lambda: ThreadPoolExecutor(1, thread_name_prefix="checkpoint"))
    _lock: int = -1

    def open(self) -> None:
        """Take the directory for this run and clear what an interrupted save left.

        Raises CheckpointBusyError where another run has it. A directory that cannot be written is said and left to
        the saves, which may succeed later.
        """
        ask_one(self.world, self._open)

    def save(self, step: int, state: State, facts: Facts, *, wait: bool = False) -> None:
        """Copy `state` aside and write it in the background; with `wait` return when it is durable.

        A save that is still running is waited for first: there is one copy and one writer. Raises
        CheckpointTargetError after too many failures in a row.
        """
        self.settle()
        begun = self.clock()
        partial = self.directory / f"step-{step:08}.partial"
        writer = FileSystemWriter(partial, sync_files=True)
        if self._stager is None:
            self._stager = _stager(self.world)
        response = async_save(state, storage_writer=writer, process_group=self.world.saves, async_stager=self._stager)
        if isinstance(response, Future):
            upload, self._staged = response, None
        else:
            upload, self._staged = response.upload_completion, response.staging_completion
        size = sum(_local_bytes(value) for value in state.values())
        self._running = self._pool.submit(self._finish, upload, step, facts, begun, size)
        if wait or self.synchronous:
            self.settle()
        self.cost.stall = self.clock() - begun

    def staging_wait(self) -> None:
        """Return when the copy is made: the optimizer must not change what is still being copied."""
        if self._staged is not None:
            begun = self.clock()
            self._staged.result()
            self._staged = None
            self.cost.stall += self.clock() - begun

    @property
    def busy(self) -> bool:
        return self._running is not None and not self._running.done()

    def settle(self) -> None:
        """Wait for the running save, count how it ended and raise CheckpointTargetError at the limit."""
        if self._running is None:
            return
        failure, self._running = self._running.result(), None
        if failure is None:
            self.failures = 0
            return
        self.failures += 1
        left = self.failures_allowed - self.failures
        self.say(f"checkpoint failed ({self.failures} in a row, {left} more end the run): {failure}")
        if left <= 0:
            error = CheckpointDiskFullError if disk_full(OSError(failure)) else CheckpointTargetError
            raise error(f"{self.directory}: {self.failures} saves in a row failed, the last with: {failure}")

    def find(self) -> tuple[Path, Facts] | None:
        """The checkpoint to go on from and its facts; None where there is none.

        Raises CheckpointDamagedError where there are some and none is whole.
        """
        candidates = ask_one(self.world, lambda: [path.name for path in _candidates(self.directory)])
        for name in candidates:
            path = self.directory / name
            why = self._damage(path)
            if not why:
                facts: Facts = json.loads((path / _MANIFEST).read_text())["facts"]
                self.saved = int(facts["step"])
                return path, facts
            self.say(f"checkpoint {path} is damaged ({why}): going back to the one before")
            ask_one(self.world, lambda path=path: _set_aside(path))  # type: ignore[misc]
        if candidates:
            raise CheckpointDamagedError(
                f"{self.directory}: none of {len(candidates)} checkpoints is whole; they were renamed to *.damaged: "
                "repair one, or start again to train from the first step"
            )
        return None

    def load(self, path: Path, state: State) -> None:
        """Read `state` in place, resharded for this world. Raises CheckpointDamagedError naming the checkpoint."""
        try:
            load(state, storage_reader=FileSystemReader(path), process_group=self.world.saves)
        except CheckpointException as error:
            raise CheckpointDamagedError(f"{path}: {_first_failure(error)}") from error

    def require(self, step: int) -> None:
        """Raises CheckpointTargetError unless `step` is durable: a run must not end as if it were."""
        if self.saved != step:
            raise CheckpointTargetError(f"{self.directory}: step {step} is trained and could not be saved")

    def close(self) -> None:
        """Wait for what is being written and give the directory up."""
        try:
            self.settle()
        finally:
            self._pool.shutdown(wait=True)
            if self._stager is not None:
                self._stager.close()
            if self._lock >= 0:
                os.close(self._lock)
                self._lock = -1

    def _open(self) -> None:
        deadline = self.clock() + _LOCK_WAIT
        try:
            self.directory.mkdir(parents=True, exist_ok=True)
            self._lock = os.open(self.directory / "lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
            while True:
                try:
                    fcntl.flock(self._lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
                    break
                except BlockingIOError:
                    if self.clock() > deadline:
                        raise CheckpointBusyError(
                            f"--checkpoint-dir {self.directory}: another run is writing there; end it or choose another"
                        ) from None
                    time.sleep(0.2)
            for rest in [*self.directory.glob("step-*.partial"), *self.directory.glob("step-*.old")]:
                shutil.rmtree(rest, ignore_errors=True)
        except OSError as error:
            self.say(f"checkpoint directory cannot be used for now, training goes on: {error}")

    def _finish(self, upload: "Future[Any]", step: int, facts: Facts, begun: float, size: int) -> str | None:
        """What follows the writing, in the background; the reason where the save failed. All ranks come through here
        in the same order, so the exchange of checksums pairs up."""
        partial = self.directory / f"step-{step:08}.partial"
        try:
            upload.result()
            mine: dict[str, tuple[int, int]] | str = {
                path.name: checksum(path) for path in sorted(partial.glob(f"__{self.world.rank}_*"))
            }
        except (OSError, RuntimeError, CheckpointException) as error:
            mine = self._refusal(partial, size) or _first_failure(error)
        everyone: list[Any] = [None] * self.world.size
        dist.all_gather_object(everyone, mine, group=self.world.saves)
        failures = [answer for answer in everyone if isinstance(answer, str)]
        failure = failures[0] if failures else None
        if self.world.rank == 0 and failure is None:
            try:
                sums = {name: value for answer in everyone for name, value in answer.items()}
                self._publish(step, sums, facts)
            except OSError as error:
                failure = str(error)
        # All ranks leave with rank 0's answer, when it has one: they count failures alike, and none goes on to wait for
        # rank 0 in a collective of the step, whose timeout is short, while a slow file system holds it here.
        answer = [failure]
        dist.broadcast_object_list(answer, src=0, group=self.world.saves)
        failure = answer[0]
        if failure is not None:
            if self.world.rank == 0:
                shutil.rmtree(partial, ignore_errors=True)
            return failure
        self.saved = step
        self.cost.total = self.clock() - begun
        return None

    def _refusal(self, partial: Path, size: int) -> str:
        """Why the disk does not take `size` bytes of this rank, "" if it does.

        torch's writer hides a full disk behind a message on positions in its file, so the disk is asked again.
        """
        probe = partial / f"__{self.world.rank}_probe"
        try:
            for path in partial.glob(f"__{self.world.rank}_*"):
                path.unlink()
            with probe.open("wb") as file:
                os.posix_fallocate(file.fileno(), 0, max(size, 1))
            probe.unlink()
        except OSError as error:
            return f"rank {self.world.rank}: {error.strerror} ({size:,} bytes wanted)"
        return ""

    def _publish(self, step: int, sums: dict[str, tuple[int, int]], facts: Facts) -> None:
        partial = self.directory / f"step-{step:08}.partial"
        final = partial.with_suffix("")
        sums[".metadata"] = checksum(partial / ".metadata")
        write_durably(partial / _MANIFEST, json.dumps({"facts": facts, "files": sums}, indent=1))
        if final.exists():  # trained again from an older one
            final.rename(final.with_suffix(".old"))
        partial.rename(final)
        sync_directory(self.directory)
        write_durably(self.directory / _LATEST, f"{final.name}\n")
        shutil.rmtree(final.with_suffix(".old"), ignore_errors=True)
        for path in superseded(self.directory, self.keep, self.keep_every):
            shutil.rmtree(path, ignore_errors=True)

    def _damage(self, path: Path) -> str:
        """Why the checkpoint is not whole, "" if it is. The ranks share the reading."""
        try:
            files = json.loads((path / _MANIFEST).read_text())["files"]
            share = sorted(files.items())[self.world.rank :: self.world.size]
            why = next((why for name, expected in share if (why := _differs(path / name, expected))), "")
        except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
            why = f"{_MANIFEST}: {error}"
        everyone: list[str] = [""] * self.world.size
        dist.all_gather_object(everyone, why, group=self.world.saves)
        return next(filter(None, everyone), "")


def _stager(world: World) -> DefaultStager:
    """The copy aside: pinned and beside the computation on CUDA, a plain copy into kept buffers on a CPU."""
    cuda = world.device.type == "cuda"
    return DefaultStager(
        StagingOptions(
            use_pinned_memory=cuda, use_shared_memory=False, use_async_staging=cuda, use_non_blocking_copy=cuda
        )
    )


def _local_bytes(value: Tensor) -> int:
    """What this rank holds of a tensor."""
    local = value.to_local() if isinstance(value, DTensor) else value
    return local.numel() * local.element_size()


def checksum(path: Path) -> tuple[int, int]:
    """(size in bytes, CRC-32) of a file. Raises OSError."""
    size = crc = 0
    with path.open("rb", buffering=0) as file:
        while block := file.read(_BLOCK):
            size, crc = size + len(block), zlib.crc32(block, crc)
    return size, crc


def _differs(path: Path, expected: list[int]) -> str:
    try:
        size, crc = checksum(path)
    except OSError as error:
        return f"{path.name}: {error.strerror}"
    if size != expected[0]:
        return f"{path.name}: {size} bytes, {expected[0]} were written"
    return "" if crc == expected[1] else f"{path.name}: its checksum is wrong"


def write_durably(path: Path, text: str) -> None:
    """Replace a file so that a crash leaves the old one or the new one, whole. Raises OSError."""
    temporary = path.with_name(f".{path.name}.new")
    with temporary.open("w") as file:
        file.write(text)
        file.flush()
        os.fsync(file.fileno())
    temporary.rename(path)
    sync_directory(path.parent)


def sync_directory(path: Path) -> None:
    """Make renames in a directory durable. Raises OSError."""
    fd = os.open(path, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)


def steps(directory: Path) -> list[int]:
    """Steps of the finished checkpoints, oldest first, damaged ones that nobody has looked at among them."""
    names = (path.name.removeprefix("step-") for path in directory.glob("step-*"))
    return sorted(int(name) for name in names if name.isdigit())


def _candidates(directory: Path) -> list[Path]:
    """What may be loaded, best first: what `latest` names, then the ones before it. Newer ones than `latest` names
    are left: somebody has set it back, or a crash came before it moved."""
    found = [directory / f"step-{step:08}" for step in reversed(steps(directory))]
    try:
        latest = (directory / _LATEST).read_text().strip()
    except OSError:
        return found
    names = [path.name for path in found]
    return found[names.index(latest) :] if latest in names else found


def _set_aside(path: Path) -> None:
    target = path.with_suffix(".damaged")
    shutil.rmtree(target, ignore_errors=True)
    try:
        path.rename(target)
    except OSError:
        return  # it stays, and will be found damaged again


def superseded(directory: Path, keep: int, keep_every: int) -> list[Path]:
    """The checkpoints that may go: all but the newest `keep` and every multiple of `keep_every` steps."""
    old = steps(directory)[:-keep]
    return [directory / f"step-{step:08}" for step in old if not (keep_every and step % keep_every == 0)]


def _first_failure(error: BaseException) -> str:
    """The reason within DCP's error, which holds one (error, traceback) by rank, in one line."""
    if isinstance(error, CheckpointException) and error.failures:
        rank, (cause, _) = next(iter(sorted(error.failures.items())))
        return f"rank {rank}: {_one_line(cause)}"
    return _one_line(error)


def _one_line(error: BaseException) -> str:
    text = str(error).strip()
    return f"{type(error).__name__}: {text.splitlines()[0]}" if text else type(error).__name__
