"""A job from its first start to its last end: attempts, restarts by policy, the record."""

import signal
import sys
import time
from collections.abc import Callable
from pathlib import Path
from types import FrameType

import msgspec

from checks.clock import Clock, SystemClock
from daemons.errors import MusterError
from daemons.node.state import directory as state_directory
from daemons.supervisor.attempt import Outcome, Plan, Run, exit_code
from daemons.supervisor.evidence import Evidence
from daemons.supervisor.jobdir import JobDirectory, forget_old, home
from daemons.supervisor.meeting import Follower, meet
from daemons.supervisor.policy import Decision, Memory, decide, remember, used_restart
from daemons.supervisor.record import Record
from daemons.supervisor.report import Reporter
from daemons.supervisor.running import forget
from daemons.supervisor.snapshot import RankLook
from daemons.supervisor.watch import Watch

_MEMORY_FILE = "memory.json"


class CommandRefused(MusterError):
    """The command could not be started at all."""


class Stopper:
    """Counts SIGINT and SIGTERM."""

    def __init__(self) -> None:
        self.requests = 0

    def install(self) -> None:
        """Take the signals; to be called in the main thread."""
        for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
            signal.signal(number, self._asked)

    def _asked(self, number: int, frame: FrameType | None) -> None:
        self.requests += 1


def tell(text: str) -> None:
    """One line for people, beside the job's own output."""
    sys.stderr.write(f"muster {time.strftime('%H:%M:%S')} {text}\n")
    sys.stderr.flush()


class Supervisor:
    """Runs one job to its end."""

    def __init__(
        self, plan: Plan, record: Path | None, stop: Stopper, clock: Clock, say: Callable[[str], None] = tell
    ) -> None:
        self._plan = plan
        self._record_path = record
        self._stop = stop
        self._clock = clock
        self._say = say
        jobs = home(plan.config, plan.state)
        self._directory = JobDirectory(jobs, plan.job)
        forget_old(jobs, plan.config.keep_jobs)
        self._record = Record(job=plan.job)
        self._memory = self._remembered()
        self._furthest = -1
        self._watch: Watch | None = None
        self._meeting = meet(plan.meeting, plan.host, self._look) if plan.meeting else None
        self._reporter = Reporter(plan.job, plan.host, plan.listen, state_directory(plan.state), say)

    def run(self) -> int:
        """The exit code of `muster run`. Raises CommandRefused when there is no such command."""
        if self._directory.trouble:
            self._say(f"nothing of this job is kept on disk: {self._directory.trouble}")
        try:
            return self._attempts()
        finally:
            self._write()
            self._part()
            forget(self._directory.path)
            self._directory.close()
            self._reporter.close()

    def _attempts(self) -> int:
        while True:
            outcome = self._once()
            attempt = outcome.attempt
            self._record.attempts.append(attempt)
            self._memory = remember(self._memory, attempt.verdict, outcome.progressed)
            decision = decide(self._memory, attempt.verdict, exit_code(attempt.exit), self._plan.config)
            self._record.exit = decision.exit
            if outcome.refused:
                self._record.exit = exit_code(attempt.exit)
                refused = CommandRefused(f"run: {self._plan.command[0]}: {outcome.refused}")
                refused.exit_code = self._record.exit
                raise refused
            self._tell_end(outcome, decision)
            self._keep_memory()
            self._write()
            if not decision.restart or not self._pause(decision.wait):
                return self._record.exit
            self._memory = used_restart(self._memory)

    def _look(self) -> dict[int, RankLook]:
        collector = self._watch.collector if self._watch else None
        return collector.look() if collector else {}

    def _part(self) -> None:
        """Leave the meeting: the others must not take our end for a loss."""
        if isinstance(self._meeting, Follower):
            self._meeting.close(self._memory.starts)
        elif self._meeting is not None:
            self._meeting.close()

    def _once(self) -> Outcome:
        number = self._memory.starts
        watch = Watch(
            self._plan.host,
            self._directory.scratch,
            self._plan.config,
            self._furthest,
            self._say,
            Evidence(self._plan.job, self._say),
            self._reporter,
            self._meeting,
        )
        self._watch = watch
        run = Run(self._plan, number, self._directory, self._stop, self._clock, self._say, watch)
        outcome = run.go()
        self._furthest = max(self._furthest, outcome.step)
        return outcome

    def _tell_end(self, outcome: Outcome, decision: Decision) -> None:
        verdict = outcome.attempt.verdict
        if verdict.kind == "finished":
            self._say(f"job {self._plan.job} finished after {outcome.attempt.seconds:.0f} s")
            self._reporter.well("the job has finished")
            return
        where = f" in {verdict.file}:{verdict.line} {verdict.function}()" if verdict.file else ""
        told = f"job {self._plan.job} {verdict.kind} [{verdict.cause}]: {verdict.summary}{where}"
        self._say(told)
        if verdict.kind == "failed":
            self._reporter.trouble(verdict, told)
        if decision.restart:
            self._say(f"{decision.why}, in {decision.wait:.0f} s" if decision.wait else decision.why)
        elif verdict.kind != "stopped":
            self._say(f"not started again: {decision.why}")

    def _pause(self, seconds: float) -> bool:
        """Wait before a restart; False when somebody wants the job to end meanwhile."""
        end = self._clock.monotonic() + seconds
        while self._clock.monotonic() < end and not self._stop.requests:
            time.sleep(0.1)
        return not self._stop.requests

    def _remembered(self) -> Memory:
        try:
            return msgspec.json.decode((self._directory.path / _MEMORY_FILE).read_bytes(), type=Memory)
        except (OSError, msgspec.DecodeError):
            return Memory()

    def _keep_memory(self) -> None:
        if self._directory.trouble:
            return
        path = self._directory.path / _MEMORY_FILE
        try:
            beside = path.with_suffix(".part")
            beside.write_bytes(msgspec.json.encode(self._memory))
            beside.replace(path)
        except OSError as error:
            self._directory.trouble = f"{path}: {error.strerror}"
            self._say(f"what was learnt of this job cannot be kept: {self._directory.trouble}")

    def _write(self) -> None:
        if self._record_path is None:
            return
        try:
            self._record.write(self._record_path)
        except OSError as error:
            self._say(f"{self._record_path}: the record cannot be written: {error.strerror}")


def supervise(plan: Plan, record: Path | None) -> int:
    """Run a job in the foreground; SIGINT or SIGTERM end it."""
    stop = Stopper()
    stop.install()
    return Supervisor(plan, record, stop, SystemClock()).run()
