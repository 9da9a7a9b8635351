"""What muster asks of the scheduler that runs the jobs; it never schedules by itself.

An engine answers in values of its own time: nothing is cached here. Every call has a deadline and raises EngineError
when the scheduler does not answer, so that a caller can say `unknown` instead of "no node is down".
"""

import enum
from collections.abc import Sequence
from typing import Protocol

import msgspec

from daemons.errors import MusterError

# Every drain of ours carries it in its reason, and only what carries it is ever undrained by us.
REASON_PREFIX = "muster: "


class EngineError(MusterError):
    """The scheduler did not answer, or refused; the message says what was asked of it."""

    exit_code = 3


class NodeState(enum.StrEnum):
    """Where a node stands with its scheduler. `draining`: closed to new jobs, the running ones may end."""

    IDLE = "idle"
    BUSY = "busy"
    DRAINING = "draining"
    DRAINED = "drained"
    DOWN = "down"
    UNKNOWN = "unknown"


class JobState(enum.StrEnum):
    """Where a job stands. `preempted` and `node_failed` were ended by the scheduler, not by their own fault."""

    PENDING = "pending"
    RUNNING = "running"
    COMPLETED = "completed"
    FAILED = "failed"
    CANCELLED = "cancelled"
    TIMED_OUT = "timed_out"
    PREEMPTED = "preempted"
    NODE_FAILED = "node_failed"
    OUT_OF_MEMORY = "out_of_memory"
    UNKNOWN = "unknown"

    @property
    def over(self) -> bool:
        """Whether it has ended, one way or another."""
        return self not in (JobState.PENDING, JobState.RUNNING, JobState.UNKNOWN)


class EngineNode(msgspec.Struct, frozen=True, kw_only=True):
    """One node as the scheduler sees it. gpus, gpus_used: devices. reason: why it is drained or down."""

    name: str
    state: NodeState
    partitions: tuple[str, ...] = ()
    gpus: int = 0
    gpus_used: int = 0
    reason: str = ""

    @property
    def drained_by_us(self) -> bool:
        """Whether muster closed it: only such a node may be opened again by muster."""
        return self.reason.startswith(REASON_PREFIX)


class EngineJob(msgspec.Struct, frozen=True, kw_only=True):
    """One job as the scheduler sees it. Times are epoch seconds, 0 while not there. nodes: none while it waits."""

    id: str
    name: str
    state: JobState
    user: str = ""
    partition: str = ""
    nodes: tuple[str, ...] = ()
    gpus: int = 0
    exit_code: int | None = None
    signal: int | None = None
    reason: str = ""
    submitted: float = 0.0
    started: float = 0.0
    ended: float = 0.0
    output: str = ""
    restarts: int = 0


class Submission(msgspec.Struct, frozen=True, kw_only=True):
    """A job to be run. command: run once per node. nodes: names, or a number of any nodes.

    time_limit: seconds. nice: how far behind everybody else's jobs it queues. environment: added to the job's.
    """

    name: str
    command: tuple[str, ...]
    nodes: tuple[str, ...] | int
    gpus_per_node: int = 0
    cpus_per_task: int = 1
    time_limit: float = 300.0
    partition: str = ""
    account: str = ""
    qos: str = ""
    nice: int = 0
    output: str = ""
    environment: dict[str, str] = {}


class Engine(Protocol):
    """A scheduler. All methods raise EngineError."""

    @property
    def name(self) -> str: ...
    def nodes(self) -> list[EngineNode]: ...
    def jobs(self) -> list[EngineJob]:
        """All jobs that wait or run, of every user."""
        ...

    def job(self, job_id: str) -> EngineJob:
        """One job, also when it ended lately; `unknown` when the scheduler has forgotten it."""
        ...

    def leaves(self) -> dict[str, tuple[str, ...]]:
        """Leaf switch -> nodes; empty where the engine knows no topology."""
        ...

    def submit(self, submission: Submission) -> str:
        """Start a job; its id."""
        ...

    def cancel(self, job_id: str) -> None:
        """End a job; nothing when it is over already."""
        ...

    def drain(self, node: str, reason: str) -> None:
        """Close a node to new jobs; the reason gets our prefix. A node somebody else closed is left as it is."""
        ...

    def undrain(self, node: str) -> None:
        """Open a node that we closed. Raises EngineError for one that somebody else closed."""
        ...

    def requeue(self, job_id: str, exclude: Sequence[str] = ()) -> None:
        """Put a running job back into the queue, away from some nodes."""
        ...
