"""One start of a job, from launch to verdict."""

import contextlib
import os
import shutil
import signal
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Protocol

import msgspec

from checks.clock import Clock
from daemons.supervisor.config import RunConfig
from daemons.supervisor.instrument import job_environment
from daemons.supervisor.jobdir import JobDirectory
from daemons.supervisor.launch import Job, launch
from daemons.supervisor.logs import Follower
from daemons.supervisor.meeting import Place
from daemons.supervisor.postmortem import verdict_of
from daemons.supervisor.record import Attempt, Verdict
from daemons.supervisor.running import Running
from daemons.supervisor.watch import Watch

# How often a job is looked at. Shorter costs CPU of the job's own cores, longer delays every verdict.
LOOK_SECONDS = 1.0


class Stop(Protocol):
    """Whether somebody wants the job to end: the signals of `muster run` itself."""

    requests: int


class Plan(msgspec.Struct, frozen=True, kw_only=True):
    """What is to be run. environment: of `muster run` itself, which the job inherits.

    listen, state: of the node agent, as configured, which is told of troubles. meeting: where the job's supervisors
    meet when it runs on several hosts.
    """

    job: str
    command: Sequence[str]
    environment: Mapping[str, str]
    config: RunConfig
    host: str
    listen: str = ""
    state: str = ""
    meeting: Place | None = None


class Outcome(msgspec.Struct, frozen=True, kw_only=True):
    """An attempt that is over. progressed: whether the job got further than it had been before."""

    attempt: Attempt
    progressed: bool
    refused: str = ""
    step: int = -1


class Run:
    """One attempt under way."""

    def __init__(
        self,
        plan: Plan,
        number: int,
        directory: JobDirectory,
        stop: Stop,
        clock: Clock,
        tell: Callable[[str], None],
        watch: Watch,
    ) -> None:
        self._plan = plan
        self._directory = directory
        self._stop = stop
        self._clock = clock
        self._tell = tell
        self._watch = watch
        self._path = directory.attempt(number)
        self._asked_at: float | None = None
        self._killed = False
        self._number = number

    def go(self) -> Outcome:
        """Run it to its end."""
        started = self._clock.monotonic()
        rank_logs = self._path / "ranks" if self._path else None
        scratch = self._directory.scratch
        environment = job_environment(
            self._plan.environment,
            job=self._plan.job,
            attempt=self._number,
            scratch=scratch,
            rank_logs=rank_logs,
            hook=self._plan.config.instrument,
        )
        for name in ("beat", "hook"):
            # Nothing of an attempt may be taken for the next one's.
            shutil.rmtree(scratch / name, ignore_errors=True)
            (scratch / name).mkdir()
        job = launch(self._plan.command, environment)
        self._known(job)
        follower = Follower(self._path, (job.out, job.err), self._clock.monotonic, self._tell)
        self._watch.begin(job, follower, self._path, self._number)
        try:
            self._attend(job)
        finally:
            # Whatever goes wrong in here, the job must not go on without a supervisor.
            job.ask("kill")
            while not job.wait(1.0):
                pass
        follower.join(5.0)
        return self._outcome(job, follower, self._clock.monotonic() - started)

    def _known(self, job: Job) -> None:
        """Let `muster pause` find it."""
        if self._path is None:
            return
        scratch = str(self._directory.scratch)
        one = Running(job=self._plan.job, supervisor=os.getpid(), guardian=job.guardian, scratch=scratch)
        with contextlib.suppress(OSError):
            one.write(self._directory.path)

    def _attend(self, job: Job) -> None:
        next_look = self._clock.monotonic() + LOOK_SECONDS
        while not job.wait(max(0.05, min(0.25, next_look - self._clock.monotonic()))):
            now = self._clock.monotonic()
            self._obey(job, now)
            if now >= next_look:
                # A look that took long (the machine is busy) is not made up for: the next is a whole interval away.
                next_look = max(next_look + LOOK_SECONDS, now + LOOK_SECONDS / 2)
                if self._asked_at is None and self._watch.look(now):
                    self._tell(f"ending the stuck job: SIGTERM, then SIGKILL after {self._plan.config.stop_grace:g} s")
                    self._ask(job, now)

    def _obey(self, job: Job, now: float) -> None:
        """Pass on what the user asks for: the first signal ends the job gently, a second one at once."""
        if self._stop.requests and self._asked_at is None:
            self._tell(f"ending the job: SIGTERM, then SIGKILL after {self._plan.config.stop_grace:g} s")
            self._ask(job, now)
        late = self._asked_at is not None and now - self._asked_at > self._plan.config.stop_grace
        if not self._killed and (late or self._stop.requests > 1):
            self._killed = True
            job.ask("kill")

    def _ask(self, job: Job, now: float) -> None:
        self._asked_at = now
        job.ask("term")

    def _outcome(self, job: Job, follower: Follower, seconds: float) -> Outcome:
        code = job.exit if job.exit is not None else -signal.SIGKILL
        stopped = bool(self._stop.requests)
        verdict = self._watch.close() or self._ended(job, follower, code, stopped)
        attempt = Attempt(exit=code, seconds=round(seconds, 3), verdict=verdict)
        return Outcome(
            attempt=attempt, progressed=self._watch.progressed, refused=job.refused, step=self._watch.furthest
        )

    def _ended(self, job: Job, follower: Follower, code: int, stopped: bool) -> Verdict:
        if stopped:
            return Verdict(kind="stopped", cause="host.preempted", summary="stopped as asked", host=self._plan.host)
        if code == 0:
            return Verdict(kind="finished", host=self._plan.host, summary="finished")
        return verdict_of(self._plan, self._path, self._directory.scratch, follower, job, self._watch)


def exit_code(code: int) -> int:
    """What a shell makes of it: 128 and the signal's number for one that a signal ended."""
    return 128 - code if code < 0 else code


def own_environment() -> dict[str, str]:
    """The environment that the job inherits."""
    return dict(os.environ)


def newest(directory: Path | None, pattern: str) -> list[Path]:
    """Files below `directory` that match, newest last."""
    if directory is None or not directory.is_dir():
        return []
    return sorted(directory.glob(pattern), key=lambda path: path.stat().st_mtime)
