"""Text in, batches out, in an order that depends on the seed alone: not on ranks, nodes, workers or restarts.

Sample number n of the whole run is the same sequence on every world size. A step takes the next `batch` numbers and
each rank its share of them, so the position in the data is one number: how many samples were taken.
"""

import bisect
import hashlib
import itertools
import os
import sysconfig
import time
from collections import deque
from collections.abc import Callable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field
from fnmatch import fnmatch
from pathlib import Path
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from trainer.errors import ConfigError, DataMissingError, DataUnreadableError, TrainerError

Tokens = NDArray[np.int64]

END = 256  # the mark after each file when bytes are the tokens
MISSING = -1  # a token that could not be read and was skipped; the loss leaves it out
_LEFT_OUT = {"__pycache__", "site-packages", "dist-packages"}


class Source(Protocol):
    """Numbered sequences of `length` + 1 tokens each."""

    @property
    def sequences(self) -> int: ...

    @property
    def identity(self) -> str:
        """Equal for equal data: what a checkpoint's position refers to."""

    @property
    def unreadable(self) -> dict[str, str]:
        """Files that could not be read any more and were skipped, with why; it grows while training."""

    def read(self, index: int) -> Tokens: ...


@dataclass(frozen=True, slots=True)
class Manifest:
    """The files of a directory, in the order of their paths. Made by one rank and shared with all."""

    root: str
    files: tuple[tuple[str, int], ...]  # path below root, size in bytes
    skipped: tuple[tuple[str, str], ...] = ()  # path, why

    @property
    def identity(self) -> str:
        """By names and sizes: reading every byte of a large data set at each start would cost more than it tells."""
        lines = "".join(f"{path}\0{size}\n" for path, size in self.files)
        return hashlib.sha256(lines.encode()).hexdigest()[:32]


def standard_library() -> str:
    """The directory of the Python standard library's sources, the text that every machine has."""
    return sysconfig.get_paths()["stdlib"]


def scan(root: str, pattern: str, *, strict: bool) -> Manifest:
    """List the files below `root` whose names match `pattern`.

    Raises DataMissingError for no such directory or no file left, and, if `strict`, DataUnreadableError or
    DataMissingError for the first file that is empty, not readable or a link to nothing; else those are skipped.
    """
    if not Path(root).is_dir():
        raise DataMissingError(f"{root}: no such directory of training data")
    files: list[tuple[str, int]] = []
    skipped: list[tuple[str, str]] = []
    for directory, names, entries in os.walk(root):
        names[:] = sorted(name for name in names if name not in _LEFT_OUT and not name.startswith("."))
        for name in sorted(entries):
            if name.startswith(".") or not fnmatch(name, pattern):
                continue
            path = os.path.relpath(Path(directory, name), root)
            size, why = _look(Path(directory, name))
            if why and strict:
                error = DataMissingError if why == "missing" else DataUnreadableError
                raise error(f"{Path(directory, name)}: {why}")
            if why:
                skipped.append((path, why))
            else:
                files.append((path, size))
    if not files:
        raise DataMissingError(f"{root}: no usable file matches {pattern} ({len(skipped)} skipped)")
    return Manifest(root, tuple(sorted(files)), tuple(sorted(skipped)))


def _look(path: Path) -> tuple[int, str]:
    """(size, "") of a usable file, (0, why not) of another."""
    try:
        size = path.stat().st_size
    except FileNotFoundError:
        return 0, "missing"
    except OSError as error:
        return 0, f"not readable: {error.strerror}"
    if not path.is_file():
        return 0, "not a regular file"
    if not os.access(path, os.R_OK):
        return 0, "not readable: Permission denied"
    return size, "" if size else "empty"


class ByteSource:
    """Every file's bytes and an end mark, one after the other, cut into sequences. Nothing is read before its turn."""

    def __init__(self, manifest: Manifest, length: int, *, strict: bool) -> None:
        self._manifest, self._length, self._strict = manifest, length, strict
        self._starts = [0, *itertools.accumulate(size + 1 for _, size in manifest.files)]
        self.unreadable: dict[str, str] = {}
        if self.sequences < 1:
            raise DataMissingError(
                f"{manifest.root}: {self._starts[-1]} tokens in all, fewer than one sequence of {length}"
            )

    @property
    def sequences(self) -> int:
        return (self._starts[-1] - 1) // self._length

    @property
    def identity(self) -> str:
        return f"bytes:{self._manifest.identity}:{self._length}"

    def read(self, index: int) -> Tokens:
        at, left = index * self._length, self._length + 1
        parts: list[Tokens] = []
        number = bisect.bisect_right(self._starts, at) - 1
        while left:
            _, size = self._manifest.files[number]
            offset = at - self._starts[number]
            count = min(left, size + 1 - offset)
            parts.append(self._part(number, offset, count))
            at, left, number = at + count, left - count, number + 1
        return np.concatenate(parts)

    def _part(self, number: int, offset: int, count: int) -> Tokens:
        """`count` tokens of a file from `offset`; the last token of a file is its end mark."""
        name, size = self._manifest.files[number]
        wanted = min(count, size - offset)
        tokens = np.full(count, END, dtype=np.int64)
        if wanted:
            tokens[:wanted] = self._bytes(name, offset, wanted)
        return tokens

    def _bytes(self, name: str, offset: int, count: int) -> Tokens:
        path = Path(self._manifest.root, name)
        try:
            with path.open("rb", buffering=0) as file:
                data = os.pread(file.fileno(), count, offset)
            if len(data) < count:
                raise DataUnreadableError(f"{path}: shorter than when it was listed")
        except FileNotFoundError:
            return self._unusable(DataMissingError(f"{path}: gone since it was listed"), name, count)
        except OSError as error:
            return self._unusable(DataUnreadableError(f"{path}: {error.strerror}"), name, count)
        except DataUnreadableError as error:
            return self._unusable(error, name, count)
        return np.frombuffer(data, dtype=np.uint8).astype(np.int64)

    def _unusable(self, error: TrainerError, name: str, count: int) -> Tokens:
        if self._strict:
            raise error
        self.unreadable[name] = str(error)
        return np.full(count, MISSING, dtype=np.int64)


class TokenSource:
    """A file of uint32 tokens, mapped: what a tokenizer made of the text, once a node."""

    def __init__(self, path: Path, length: int, identity: str) -> None:
        self._tokens = np.memmap(path, dtype=np.uint32, mode="r")
        self._length, self._identity = length, identity
        self.unreadable: dict[str, str] = {}
        if self.sequences < 1:
            raise DataMissingError(f"{path}: {len(self._tokens)} tokens, fewer than one sequence of {length}")

    @property
    def sequences(self) -> int:
        return (len(self._tokens) - 1) // self._length

    @property
    def identity(self) -> str:
        return f"tokens:{self._identity}:{self._length}"

    def read(self, index: int) -> Tokens:
        at = index * self._length
        return self._tokens[at : at + self._length + 1].astype(np.int64)


@dataclass(frozen=True, slots=True)
class Order:
    """Which sequence the n-th sample of the run is. A pass over the data is a permutation of it.

    Of `sequences`, `held_out` are kept for evaluation and never trained on. Nothing is stored: the permutation is a
    Feistel network over the index, which costs a few microseconds a sample and no memory for any size of data.
    """

    sequences: int
    seed: int
    held_out: int = 0

    def __post_init__(self) -> None:
        if self.sequences - self.held_out < 1:
            raise ConfigError(
                f"{self.sequences} sequences of data: holding out {self.held_out} leaves none to train on"
            )

    def sample(self, number: int) -> int:
        trained = self.sequences - self.held_out
        turn, place = divmod(number, trained)
        return permute(permute(place, trained, f"{self.seed}/{turn}"), self.sequences, f"{self.seed}/split")

    def held_out_sample(self, number: int) -> int:
        place = self.sequences - self.held_out + number % self.held_out
        return permute(place, self.sequences, f"{self.seed}/split")


def permute(index: int, size: int, key: str) -> int:
    """Where a permutation of range(size), chosen by `key`, sends `index`."""
    half = max(1, ((size - 1).bit_length() + 1) // 2)
    mask = (1 << half) - 1
    while True:  # a network permutes a power of two; walk on until back inside, on average less than four times
        left, right = index >> half, index & mask
        for turn in range(4):
            left, right = right, left ^ (_mix(right, turn, key) & mask)
        index = left << half | right
        if index < size:
            return index


def _mix(value: int, turn: int, key: str) -> int:
    digest = hashlib.blake2b(f"{key}/{turn}/{value}".encode(), digest_size=8).digest()
    return int.from_bytes(digest, "little")


@dataclass(slots=True)
class Loader:
    """Hands each step its share of the next global batch, read ahead by `workers` threads (0: read when asked)."""

    source: Source
    order: Order
    batch: int
    rank: int
    world_size: int
    workers: int
    taken: int = 0  # samples of the whole run, over all ranks
    clock: Callable[[], float] = time.perf_counter
    waited: float = 0.0  # seconds the last `next` took
    _ahead: deque[Future[Tokens]] = field(default_factory=deque)
    _pool: ThreadPoolExecutor | None = None
    _asked: int = 0  # the first sample that is not read ahead yet

    def __post_init__(self) -> None:
        if self.workers:
            self._pool = ThreadPoolExecutor(self.workers, thread_name_prefix="data")

    def next(self) -> Tokens:
        """(batch / world_size, length + 1) tokens. Raises the TrainerError of the file that could not be read."""
        begun = self.clock()
        if self._pool is None:
            tokens = self._share(self.taken)
        else:
            if not self._ahead:
                self._asked = self.taken
            while len(self._ahead) < 2 * self.workers:
                self._ahead.append(self._pool.submit(self._share, self._asked))
                self._asked += self.batch
            tokens = self._ahead.popleft().result()
        self.taken += self.batch
        self.waited = self.clock() - begun
        return tokens

    def held_out(self, number: int) -> Tokens:
        """This rank's share of evaluation batch `number`."""
        return self._stack([self.order.held_out_sample(place) for place in self._places(number * self.batch)])

    def close(self) -> None:
        if self._pool is not None:
            self._pool.shutdown(wait=True, cancel_futures=True)

    def _places(self, first: int) -> range:
        share = self.batch // self.world_size
        return range(first + self.rank * share, first + (self.rank + 1) * share)

    def _share(self, first: int) -> Tokens:
        return self._stack([self.order.sample(place) for place in self._places(first)])

    def _stack(self, indices: Sequence[int]) -> Tokens:
        return np.stack([self.source.read(index) for index in indices])
