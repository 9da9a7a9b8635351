"""Runs the demonstration beside the agent: starts a supervised job, kills one rank, says what muster does and when."""

import json
import os
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import click
import psutil

from daemons.demo.story import Chapter, Story, last_step, of_job, verdict_text

# Three checkpoints' worth of steps: long enough to lose some work, short enough to be watched.
_STEPS = 30
_CHECKPOINT_EVERY = 10
_KILL_AT = 13
_POLL_SECONDS = 0.05
_PATIENCE_SECONDS = 300.0

Incidents = Callable[[], list[dict[str, Any]]]
Message = Callable[[str], Mapping[str, Any] | None]


def missing() -> str:
    """What a demonstration needs and is not installed, "" when all is there."""
    from importlib.util import find_spec

    return "" if find_spec("torch") else "torch (pip install 'muster[trainer]')"


class Demonstration(threading.Thread):
    """One job, one fault. incidents, message: asked of the agent. say: prints a line. show: prints a Slack message."""

    def __init__(
        self,
        *,
        config: Path | None,
        incidents: Incidents,
        message: Message,
        posted: bool,
        say: Callable[[str], None] = click.echo,
        show: Callable[[Mapping[str, Any]], None],
    ) -> None:
        super().__init__(name="demonstration", daemon=True)
        self._config, self._incidents, self._message = config, incidents, message
        self._posted, self._say, self._show = posted, say, show
        self._directory = Path(tempfile.mkdtemp(prefix="muster-demo-"))
        self._job = f"demo-{os.getpid()}"
        self._ended = threading.Event()
        self._child: subprocess.Popen[bytes] | None = None
        self._story = Story(began=time.monotonic())

    def run(self) -> None:
        """The whole story; says so when it cannot be told."""
        lacking = missing()
        if lacking:
            self._say(f"no demonstration: it needs {lacking}")
            return
        try:
            self._tell()
        except TimeoutError as error:
            self._say(f"demonstration: {error}; its logs are in {self._directory}")
        finally:
            self._end_job()

    def stop(self) -> None:
        """End the job and everything it started; called when the agent ends."""
        self._ended.set()
        if self.ident is not None:
            self.join(timeout=20)
        self._end_job()

    def _tell(self) -> None:
        self._story = Story(began=time.monotonic())
        self._say(
            f"\ndemonstration: the reference trainer, 2 ranks, learns on the Python standard library's sources;"
            f" one rank will be killed\n  everything it writes: {self._directory}"
        )
        self._child = self._start()
        self._until(lambda: self._step() >= 1, "the job made no step")
        self._tell_of(Chapter.TRAINING, "first step done")
        self._until(lambda: self._step() >= _KILL_AT and self._saved(), "the job made no checkpoint")
        self._tell_of(Chapter.FAULT, f"at step {self._step()}: kill -9 of rank 1, process {self._kill()}")
        step = self._step()
        verdict = self._until(self._verdict, "the failure was not noticed")
        self._tell_of(Chapter.DETECTED, f"{verdict_text(verdict)}")
        self._alerted(0.0)
        self._until(lambda: self._step() != step and self._resumed(step), "the job was not started again")
        self._tell_of(
            Chapter.RESTARTED, f"training again, at step {self._step()} from the checkpoint of step {_CHECKPOINT_EVERY}"
        )
        self._alerted(15.0)
        self._until(lambda: self._child is not None and self._child.poll() is not None, "the job did not end")
        assert self._child is not None
        self._tell_of(Chapter.FINISHED, f"all {_STEPS} steps, exit code {self._child.returncode}")
        self._say(f"\ndemonstration over: {self._story.summary()}\nstill watching this machine; Ctrl-C ends it")

    def _start(self) -> "subprocess.Popen[bytes]":
        config = ["--config", str(self._config)] if self._config else []
        trainer = [
            "--preset", "1m", "--steps", str(_STEPS), "--checkpoint-dir", str(self._directory / "checkpoints"),
            "--checkpoint-every", str(_CHECKPOINT_EVERY), "--log-file", str(self._log),
        ]  # fmt: skip
        command = [
            sys.executable, "-I", "-m", "daemons", *config, "run", "--name", self._job, "--record", str(self._record),
            "--max-restarts", "2", "--dir", str(self._directory), "--",
            sys.executable, "-m", "torch.distributed.run", "--nproc-per-node", "2", "-m", "trainer", *trainer,
        ]  # fmt: skip
        with (self._directory / "console.log").open("wb") as console:
            return subprocess.Popen(
                command,
                stdin=subprocess.DEVNULL,
                stdout=console,
                stderr=subprocess.STDOUT,
                env={**os.environ, "OMP_NUM_THREADS": "1"},
                cwd=self._directory,
                start_new_session=True,  # the terminal's Ctrl-C is the agent's, which ends the job in its own time
            )

    def _tell_of(self, chapter: Chapter, text: str) -> None:
        if self._story.happened(chapter, time.monotonic()):
            self._say(self._story.line(chapter, text))

    def _alerted(self, patience: float) -> None:
        """The message about the job, once there is one; it may come before or after the restart."""
        if Chapter.ALERTED in self._story.times:
            return
        end = time.monotonic() + patience
        while True:
            found = of_job(self._incidents(), self._job)
            message = self._message(str(found["id"])) if found else None
            if found and message:
                where = "posted to Slack" if self._posted else "as Slack would show it, no credentials being set"
                self._tell_of(Chapter.ALERTED, f"incident {found['id']}, {where}:")
                self._show(message)
                return
            if time.monotonic() >= end or self._ended.wait(_POLL_SECONDS):
                return

    def _until(self, true: Callable[[], Any], otherwise: str) -> Any:
        """Wait for an answer that is true, and for the alert meanwhile. Raises TimeoutError."""
        end = time.monotonic() + _PATIENCE_SECONDS
        while time.monotonic() < end:
            found = true()
            if found:
                return found
            if Chapter.DETECTED in self._story.times:
                self._alerted(0.0)
            if self._ended.wait(_POLL_SECONDS):
                raise TimeoutError("ended")
            if self._child is not None and self._child.poll() is not None and not true():
                raise TimeoutError(f"{otherwise}; it ended with exit code {self._child.returncode}")
        raise TimeoutError(f"{otherwise} within {_PATIENCE_SECONDS:.0f} s")

    @property
    def _log(self) -> Path:
        return self._directory / "steps.jsonl"

    @property
    def _record(self) -> Path:
        return self._directory / "record.json"

    def _step(self) -> int:
        return last_step(self._log.read_text()) if self._log.exists() else 0

    def _saved(self) -> bool:
        return (self._directory / "checkpoints/latest").exists()

    def _resumed(self, before: int) -> bool:
        """Whether the log went back to the checkpoint: the work after it is done again."""
        steps = [json.loads(line)["step"] for line in self._log.read_text().splitlines() if line.endswith("}")]
        return any(later <= earlier for earlier, later in zip(steps, steps[1:], strict=False)) or self._step() < before

    def _verdict(self) -> Mapping[str, Any] | None:
        try:
            attempts = json.loads(self._record.read_text())["attempts"]
        except (OSError, ValueError, KeyError):
            return None
        return attempts[0]["verdict"] if attempts else None

    def _kill(self) -> int:
        assert self._child is not None
        ranks = [p for p in psutil.Process(self._child.pid).children(recursive=True) if _is_rank(p, "1")]
        victim = min(ranks, key=psutil.Process.create_time)
        victim.send_signal(signal.SIGKILL)
        return int(victim.pid)

    def _end_job(self) -> None:
        if self._child is None or self._child.poll() is not None:
            return
        self._child.terminate()  # the supervisor ends the job and all that it started
        try:
            self._child.wait(timeout=15)
        except subprocess.TimeoutExpired:
            self._child.kill()
            self._child.wait(timeout=5)


def _is_rank(process: psutil.Process, rank: str) -> bool:
    try:
        return process.environ().get("RANK") == rank and "trainer" in " ".join(process.cmdline())
    except (psutil.NoSuchProcess, psutil.AccessDenied, psutil.ZombieProcess):
        return False
