"""Runs the demonstration beside the agent: starts a supervised job, kills one rank, says what muster does and when."""

import tempfile
import threading
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from daemons.demo.job import CHECKPOINT_EVERY, STEPS, DemoJob
from daemons.demo.story import Chapter, Story, of_job, resumed_at, verdict_text

# Past the first checkpoint, so that some work is lost and done again.
_KILL_AT = CHECKPOINT_EVERY + 3
_POLL_SECONDS = 0.05
_PATIENCE_SECONDS = 300.0

Incidents = Callable[[], list[dict[str, Any]]]
Message = Callable[[str], tuple[bool, Mapping[str, Any]] | None]


def missing() -> str:
    """What a demonstration needs and is not installed, "" when all is there."""
    from importlib.util import find_spec

    return "" if find_spec("torch") else "torch (pip install 'muster[trainer]')"


class NotShown(Exception):
    """Something did not happen that should have; the message says what."""


class Demonstration(threading.Thread):
    """One job, one fault.

    incidents: those of the agent. message: of an incident, whether it was posted and what. say: prints a line. show:
    prints a Slack message.
    """

    def __init__(
        self,
        *,
        config: Path | None,
        incidents: Incidents,
        message: Message,
        say: Callable[[str], None],
        show: Callable[[Mapping[str, Any]], None],
    ) -> None:
        super().__init__(name="demonstration", daemon=True)
        self._incidents, self._message = incidents, message
        self._say, self._show = say, show
        self._job = DemoJob(Path(tempfile.mkdtemp(prefix="muster-demo-")), config)
        self._ended = threading.Event()
        self._story = Story(began=time.monotonic())

    def run(self) -> None:
        """The whole story; says so when it cannot be told."""
        lacking = missing()
        if lacking:
            self._say(f"no demonstration: it needs {lacking}")
            return
        try:
            self._tell()
        except NotShown as error:
            self._say(f"demonstration: {error}; its logs are in {self._job.directory}")
        except TimeoutError:
            # The agent answers no more: it is ending, and says so itself.
            self._ended.set()
        finally:
            self._job.end()

    def stop(self) -> None:
        """End the job and everything it started; called when the agent ends."""
        self._ended.set()
        if self.ident is not None:
            self.join(timeout=20)
        self._job.end()

    def _tell(self) -> None:
        job = self._job
        self._story = Story(began=time.monotonic())
        self._say(
            "\ndemonstration: the reference trainer, two ranks, learns on the Python standard library's sources; one of"
            f" them will be killed\n  all that it writes: {job.directory}"
        )
        job.start()
        self._until(lambda: job.step() >= 1, "the job made no step")
        self._tell_of(Chapter.TRAINING, "first step done")
        self._until(lambda: job.step() >= _KILL_AT and job.saved(), "the job made no checkpoint")
        killed = job.kill_rank(1)
        self._tell_of(Chapter.FAULT, f"at step {job.step()}: kill -9 of rank 1, process {killed}")
        verdict = self._until(job.verdict, "the failure was not noticed")
        stood_at = job.step()
        self._tell_of(Chapter.DETECTED, verdict_text(verdict))
        step = self._until(lambda: resumed_at(job.steps(), stood_at, CHECKPOINT_EVERY), "the job was not started again")
        self._tell_of(
            Chapter.RESTARTED, f"training again from the checkpoint of step {CHECKPOINT_EVERY}: step {step} done anew"
        )
        self._alerted(15.0)
        self._until(lambda: job.exit_code() is not None, "the job did not end")
        self._tell_of(Chapter.FINISHED, f"all {STEPS} steps, exit code {job.exit_code()}")
        self._say(f"\ndemonstration over: {self._story.summary()}\nstill watching this machine; Ctrl-C ends it")

    def _tell_of(self, chapter: Chapter, text: str) -> None:
        if self._story.happened(chapter, time.monotonic()):
            self._say(self._story.line(chapter, text))

    def _alerted(self, patience: float) -> None:
        """The message about the job, once there is one; it may come before or after the restart."""
        if Chapter.ALERTED in self._story.times:
            return
        end = time.monotonic() + patience
        while True:
            found = of_job(self._incidents(), self._job.name)
            message = self._message(str(found["id"])) if found else None
            if found and message:
                posted, content = message
                where = "posted to Slack" if posted else "as Slack would show it (no credentials are set)"
                self._tell_of(Chapter.ALERTED, f"incident {found['id']}, {where}:")
                self._show(content)
                return
            if time.monotonic() >= end or self._ended.wait(_POLL_SECONDS):
                return

    def _until(self, true: Callable[[], Any], otherwise: str) -> Any:
        """Wait for an answer that is true, and for the alert meanwhile. Raises NotShown."""
        end = time.monotonic() + _PATIENCE_SECONDS
        while time.monotonic() < end:
            found = true()
            if found:
                return found
            if Chapter.DETECTED in self._story.times:
                self._alerted(0.0)
            if self._ended.wait(_POLL_SECONDS):
                raise NotShown("ended before its story was")
            code = self._job.exit_code()
            if code is not None and not true():
                raise NotShown(f"{otherwise}; it ended with exit code {code}")
        raise NotShown(f"{otherwise} within {_PATIENCE_SECONDS:.0f} s")
