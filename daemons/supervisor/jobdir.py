"""Where a job's logs, evidence and memory lie, and a directory short enough for Unix sockets."""

import contextlib
import os
import shutil
import tempfile
from pathlib import Path

from daemons.node.state import directory as state_directory
from daemons.supervisor.config import RunConfig

# Less room than this and nothing of a job is redirected to disk: a rank whose log cannot be written would fail.
_ROOM_BYTES = 64 << 20


def home(config: RunConfig, state: str = "") -> Path:
    """The directory of all jobs of this user on this machine. state: the node agent's configured directory."""
    return Path(config.directory) if config.directory else state_directory(state) / "jobs"


class JobDirectory:
    """The directory of one job; `trouble` says in one line why there is none to be written to.

    scratch: for sockets, beats and the hook's notes; it goes when the job is over.
    """

    def __init__(self, jobs: Path, job: str) -> None:
        self.path = jobs / job
        self.trouble = ""
        self.scratch = Path(tempfile.mkdtemp(prefix="muster-"))
        try:
            self.path.mkdir(parents=True, exist_ok=True)
            room = shutil.disk_usage(self.path).free
            if room < _ROOM_BYTES:
                self.trouble = f"{self.path}: {room >> 20} MiB left"
        except OSError as error:
            self.trouble = f"{self.path}: {error.strerror}"

    def attempt(self, number: int) -> Path | None:
        """The directory of an attempt; None where there is no room. A supervisor that was started again goes on."""
        if self.trouble:
            return None
        path = self.path / f"attempt-{number}"
        try:
            path.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            self.trouble = f"{path}: {error.strerror}"
            return None
        return path

    def close(self) -> None:
        """Remove what only a running job needs."""
        shutil.rmtree(self.scratch, ignore_errors=True)


def forget_old(jobs: Path, keep: int) -> None:
    """Remove the oldest job directories above `keep`; never one that changed within the last hour."""
    with contextlib.suppress(OSError):
        found = sorted((entry.stat().st_mtime, entry.path) for entry in os.scandir(jobs) if entry.is_dir())
        newest = found[-1][0] if found else 0.0
        for changed, path in found[:-keep]:
            if changed < newest - 3600:
                shutil.rmtree(path, ignore_errors=True)
