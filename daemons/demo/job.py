"""The job of the demonstration: the reference trainer under `muster run`, and the fault that befalls it."""

import json
import os
import signal
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from daemons.demo.story import steps_of
from daemons.supervisor.procfs import environment, process

# Long enough to lose some work, short enough to be watched.
STEPS = 30
CHECKPOINT_EVERY = 10
# In the environment of everything the job starts, so that its ranks are told from everybody else's.
_MARK = "MUSTER_DEMO"


class DemoJob:
    """A supervised training run of two ranks; all it writes is in `directory`."""

    def __init__(self, directory: Path, config: Path | None) -> None:
        self.directory = directory
        self.name = f"demo-{os.getpid()}"
        self._config = config
        self._child: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        """Start the supervisor, which starts the job."""
        with (self.directory / "console.log").open("wb") as console:
            self._child = subprocess.Popen(
                self._command(),
                stdin=subprocess.DEVNULL,
                stdout=console,
                stderr=subprocess.STDOUT,
                env={**os.environ, "OMP_NUM_THREADS": "1", _MARK: self.name},
                cwd=self.directory,
                start_new_session=True,  # the terminal's Ctrl-C is the agent's, which ends the job in its own time
            )

    def steps(self) -> list[int]:
        """The steps in the order in which they were done, those that were done twice twice."""
        log = self.directory / "steps.jsonl"
        return steps_of(log.read_text()) if log.exists() else []

    def step(self) -> int:
        """The last step that was done, 0 before the first."""
        return (self.steps() or [0])[-1]

    def saved(self) -> bool:
        """Whether there is a checkpoint to go on from."""
        return (self.directory / "checkpoints/latest").exists()

    def verdict(self) -> Mapping[str, Any] | None:
        """What the supervisor says of the first attempt, once it is over."""
        try:
            attempts = json.loads((self.directory / "record.json").read_text())["attempts"]
        except (OSError, ValueError, KeyError):
            return None  # it is not there yet, or being replaced
        return attempts[0]["verdict"] if attempts else None

    def kill_rank(self, rank: int) -> int:
        """kill -9 of one rank; its pid."""
        pids = [int(path.name) for path in Path("/proc").glob("[0-9]*") if self._is_rank(int(path.name), rank)]
        victim = min(pids, key=_started)  # its children have the same environment
        os.kill(victim, signal.SIGKILL)
        return victim

    def exit_code(self) -> int | None:
        """The supervisor's, None while it runs or was not started."""
        return self._child.poll() if self._child else None

    def end(self) -> None:
        """End the job and all it started; nothing when it is over."""
        if self._child is None or self._child.poll() is not None:
            return
        self._child.terminate()  # the supervisor ends what it started
        try:
            self._child.wait(timeout=15)
        except subprocess.TimeoutExpired:
            self._child.kill()
            self._child.wait(timeout=5)

    def _is_rank(self, pid: int, rank: int) -> bool:
        found = environment(pid)
        return found.get(_MARK) == self.name and found.get("RANK") == str(rank)

    def _command(self) -> list[str]:
        config = ["--config", str(self._config)] if self._config else []
        supervise = ["--name", self.name, "--record", "record.json", "--max-restarts", "2", "--dir", "jobs"]
        torchrun = ["-m", "torch.distributed.run", "--nproc-per-node", "2"]
        trainer = ["--preset", "1m", "--steps", str(STEPS), "--checkpoint-every", str(CHECKPOINT_EVERY)]
        files = ["--checkpoint-dir", "checkpoints", "--log-file", "steps.jsonl"]
        muster = [sys.executable, "-I", "-m", "daemons", *config, "run", *supervise, "--"]
        return [*muster, sys.executable, *torchrun, "-m", "trainer", *trainer, *files]


def _started(pid: int) -> int:
    found = process(pid)
    return found.started if found else sys.maxsize
