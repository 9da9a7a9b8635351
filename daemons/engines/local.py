"""This machine alone: jobs are processes of their own session that outlive the daemon which started them.

Kept in the state directory, one file a job: what was started and as which process; the exit code is written there by a
shell that waits for it, so a daemon that was killed and came back still learns how its job ended.
"""

import contextlib
import os
import shlex
import signal
import uuid
from collections.abc import Sequence
from pathlib import Path

import msgspec

from checks.clock import Clock, SystemClock
from checks.host import short_host_name
from daemons.engines.base import (
    REASON_PREFIX,
    EngineError,
    EngineJob,
    EngineNode,
    JobState,
    NodeState,
    Submission,
)

# Runs "$@", then writes how it ended, atomically; `$0` is the file.
_WAITER = '"$@"; code=$?; printf %s "$code" > "$0.part" && mv "$0.part" "$0"'
_FORGET_SECONDS = 7 * 86400.0


class _Started(msgspec.Struct, frozen=True, kw_only=True):
    """One job on disk. birth: its start in clock ticks since boot, since a pid may be used again."""

    id: str
    name: str
    pid: int
    birth: int
    started: float
    deadline: float
    output: str
    cancelled: float = 0.0


class Local:
    """The machine that the daemon runs on, as a cluster of one node."""

    name = "local"

    def __init__(self, directory: Path, node: str = "", gpus: int = 0, clock: Clock | None = None) -> None:
        self._directory = directory
        self._node = node or short_host_name()
        self._gpus = gpus
        self._clock = clock or SystemClock()
        try:
            directory.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise EngineError(
                f"{directory}: {error.strerror}: give the local engine a directory it can write"
            ) from error

    def nodes(self) -> list[EngineNode]:
        """The one node there is."""
        drained = self._drain_file.read_text() if self._drain_file.exists() else ""
        busy = bool(self.jobs())
        state = NodeState.BUSY if busy else NodeState.IDLE
        if drained:
            state = NodeState.DRAINING if busy else NodeState.DRAINED
        return [EngineNode(name=self._node, state=state, partitions=("local",), gpus=self._gpus, reason=drained)]

    def jobs(self) -> list[EngineJob]:
        """The jobs of ours that run; those of other people on this machine are not the engine's."""
        found = [self._job(started) for started in self._all()]
        return [job for job in found if not job.state.over]

    def job(self, job_id: str) -> EngineJob:
        """One job; `unknown` when it was forgotten or never was."""
        started = self._load(self._directory / f"{job_id}.json")
        if started is None:
            return EngineJob(id=job_id, name="", state=JobState.UNKNOWN, reason="no such job on this machine")
        return self._job(started)

    def leaves(self) -> dict[str, tuple[str, ...]]:
        """One machine has no topology."""
        return {}

    def submit(self, submission: Submission) -> str:
        """Start a job now. Raises EngineError when it asks for another node, or the node is drained."""
        self._check(submission)
        job_id = uuid.uuid4().hex[:8]
        output = submission.output.replace("%j", job_id) or os.devnull
        try:
            pid = _spawn([str(self._exit_file(job_id)), *submission.command], output, submission.environment)
        except OSError as error:
            raise EngineError(f"local: {shlex.join(submission.command)}: {error}") from error
        now = self._clock.now()
        self._store(
            _Started(
                id=job_id,
                name=submission.name,
                pid=pid,
                birth=_birth(pid),
                started=now,
                deadline=now + submission.time_limit,
                output=output,
            )
        )
        self._forget(now)
        return job_id

    def cancel(self, job_id: str) -> None:
        """End a job and all it started; nothing when it is over."""
        started = self._load(self._directory / f"{job_id}.json")
        if started is None or self._job(started).state.over:
            return
        self._store(msgspec.structs.replace(started, cancelled=self._clock.now()))
        _end(started.pid)

    def drain(self, node: str, reason: str) -> None:
        """Refuse further jobs. Raises EngineError for another machine's name."""
        self._mine(node)
        if not self._drain_file.exists():
            text = reason if reason.startswith(REASON_PREFIX) else f"{REASON_PREFIX}{reason}"
            self._drain_file.write_text(text)

    def undrain(self, node: str) -> None:
        """Take jobs again. Raises EngineError for another machine's name, or a drain that is not ours."""
        self._mine(node)
        if not self._drain_file.exists():
            return
        if not self._drain_file.read_text().startswith(REASON_PREFIX):
            raise EngineError(f"{node} was not drained by muster: remove {self._drain_file} to open it")
        self._drain_file.unlink()

    def requeue(self, job_id: str, exclude: Sequence[str] = ()) -> None:
        """There is no queue here. Raises EngineError."""
        raise EngineError(f"job {job_id} cannot be requeued: the local engine has no queue")

    @property
    def _drain_file(self) -> Path:
        return self._directory / "drained"

    def _exit_file(self, job_id: str) -> Path:
        return self._directory / f"{job_id}.exit"

    def _check(self, submission: Submission) -> None:
        wanted = submission.nodes
        if isinstance(wanted, int):
            if wanted > 1:
                raise EngineError(f"local: {submission.name} asks for {wanted} nodes, this engine has one")
        else:
            for node in wanted:
                self._mine(node)
        if self._drain_file.exists():
            raise EngineError(f"{self._node} is drained ({self._drain_file.read_text()}): no job is started on it")

    def _mine(self, node: str) -> None:
        if node != self._node:
            raise EngineError(f"local: no node is called {node!r}; this machine is {self._node!r}")

    def _all(self) -> list[_Started]:
        return [job for path in sorted(self._directory.glob("*.json")) if (job := self._load(path)) is not None]

    def _load(self, path: Path) -> _Started | None:
        try:
            return msgspec.json.decode(path.read_bytes(), type=_Started)
        except (OSError, msgspec.MsgspecError):
            return None

    def _store(self, started: _Started) -> None:
        path = self._directory / f"{started.id}.json"
        part = path.with_suffix(".part")
        part.write_bytes(msgspec.json.encode(started))
        part.replace(path)

    def _forget(self, now: float) -> None:
        for started in self._all():
            if now - started.started > _FORGET_SECONDS and self._job(started).state.over:
                for suffix in (".json", ".exit"):
                    (self._directory / f"{started.id}{suffix}").unlink(missing_ok=True)

    def _job(self, started: _Started) -> EngineJob:
        if _alive(started) and self._clock.now() > started.deadline:
            _end(started.pid)
        state, code, ended = self._ending(started)
        return EngineJob(
            id=started.id,
            name=started.name,
            state=state,
            partition="local",
            nodes=(self._node,),
            exit_code=code if code is None or code < 128 else None,
            signal=code - 128 if code is not None and code > 128 else None,
            started=started.started,
            submitted=started.started,
            ended=ended,
            output=started.output,
        )

    def _ending(self, started: _Started) -> tuple[JobState, int | None, float]:
        path = self._exit_file(started.id)
        # Asked before the file is looked at: a job that ends in between has its file by then.
        alive = _alive(started)
        try:
            code, ended = int(path.read_text()), path.stat().st_mtime
        except (OSError, ValueError):
            if alive:
                return JobState.RUNNING, None, 0.0
            if started.cancelled:
                return JobState.CANCELLED, None, started.cancelled
            late = self._clock.now() > started.deadline
            return (JobState.TIMED_OUT if late else JobState.UNKNOWN), None, 0.0
        return (JobState.CANCELLED if started.cancelled else _by_code(code)), code, ended


def _spawn(words: Sequence[str], output: str, environment: dict[str, str]) -> int:
    """The waiter in a session of its own. posix_spawn: nobody here waits for it, so no handle is kept."""
    actions = [
        (os.POSIX_SPAWN_OPEN, 0, os.devnull, os.O_RDONLY, 0),
        (os.POSIX_SPAWN_OPEN, 1, output, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o644),
        (os.POSIX_SPAWN_DUP2, 1, 2),
    ]
    command = ["/bin/sh", "-c", _WAITER, *words]
    return os.posix_spawn(command[0], command, {**os.environ, **environment}, file_actions=actions, setsid=True)


def _by_code(code: int) -> JobState:
    return JobState.COMPLETED if code == 0 else JobState.FAILED


def _end(group: int) -> None:
    with contextlib.suppress(ProcessLookupError):
        os.killpg(group, signal.SIGKILL)


def _alive(started: _Started) -> bool:
    with contextlib.suppress(ChildProcessError):
        os.waitpid(started.pid, os.WNOHANG)
    return _birth(started.pid) == started.birth


def _birth(pid: int) -> int:
    """Start of a process in clock ticks since boot, 0 when it is gone or only waits to be reaped."""
    try:
        text = Path(f"/proc/{pid}/stat").read_text()
    except OSError:
        return 0
    state, *rest = text.rsplit(")", 1)[1].split()
    return 0 if state == "Z" else int(rest[18])
