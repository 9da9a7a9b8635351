"""Reads what the hook in each rank has written down (see job/sitecustomize.py)."""

from pathlib import Path
from typing import TypeVar

import msgspec

from daemons.supervisor.failure import RankEnd
from daemons.supervisor.frames import Frame

T = TypeVar("T")


class RankNote(msgspec.Struct, frozen=True, kw_only=True):
    """A rank's own word. socket: of its worker server, "" until torch.distributed is up. signal: asks for stacks."""

    rank: int
    pid: int
    python: str = ""
    socket: str = ""
    signal: int = 0
    world_size: int = 0


class _End(msgspec.Struct, frozen=True, kw_only=True):
    rank: int
    pid: int
    time: float
    type: str
    message: str
    frames: list[tuple[str, int, str]] = []


class _Error(msgspec.Struct, frozen=True, kw_only=True):
    error: str


def rank_notes(directory: Path) -> dict[int, RankNote]:
    """Every rank that has registered, by pid."""
    return {note.pid: note for note in _read(directory, "rank-*.json", RankNote)}


def rank_ends(directory: Path) -> list[RankEnd]:
    """Ranks that an exception has ended."""
    return [
        RankEnd(
            rank=end.rank,
            pid=end.pid,
            time=end.time,
            type=end.type,
            message=end.message,
            frames=[Frame(*frame) for frame in end.frames],
        )
        for end in [*_read(directory, "end-*.json", _End), *_read(directory, "exit-*.json", _End)]
    ]


def hook_errors(directory: Path) -> list[str]:
    """What went wrong inside the hook; the job never noticed."""
    return sorted({found.error for found in _read(directory, "error-*.json", _Error)})


def _read(directory: Path, pattern: str, kind: type[T]) -> list[T]:
    found = []
    for path in sorted(directory.glob(pattern)):
        try:
            found.append(msgspec.json.decode(path.read_bytes(), type=kind))
        except (OSError, msgspec.DecodeError):
            continue  # it goes with its process, or is being replaced: the next look sees it
    return found
