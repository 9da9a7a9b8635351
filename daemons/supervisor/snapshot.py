"""What is seen of a job at one moment: cheap samples every second, deep looks when it stands still.

Both are plain data, so that the supervisors of several hosts can send them to the one that judges, and so that every
judgement can be replayed from a recording. Times are ages in seconds, because hosts do not share a clock.
"""

import msgspec

from daemons.supervisor.frames import Frame
from daemons.supervisor.procfs import Activity


class RankSample(msgspec.Struct, frozen=True, kw_only=True):
    """One rank. started: tells two incarnations apart. step: -1 for a rank that does not beat.

    step_age, phase_age: since the step number and the phases last changed. phases: from the outermost inwards.
    """

    rank: int
    pid: int
    started: int = 0
    state: str = "S"
    cpu_seconds: float = 0.0
    step: int = -1
    phases: tuple[str, ...] = ()
    step_age: float = 0.0
    phase_age: float = 0.0
    world_size: int = 0
    step_seconds: float | None = None
    data_seconds: float | None = None
    loss: float | None = None


class HostSample(msgspec.Struct, frozen=True, kw_only=True):
    """The ranks of one host. collectives: process group -> highest sequence number any rank of it was asked for.

    output_age: since the job last wrote a line. paused: by `muster pause`. ended: exit code of the job on this host.
    """

    host: str
    ranks: list[RankSample] = []
    collectives: dict[str, int] = {}
    output_age: float = 0.0
    paused: bool = False
    ended: int | None = None


class Collective(msgspec.Struct, frozen=True, kw_only=True):
    """One entry of torch's flight recorder."""

    group: str
    sequence: int
    operation: str
    sizes: tuple[tuple[int, ...], ...] = ()
    types: tuple[str, ...] = ()
    done: bool = False
    created: float = 0.0

    @property
    def shape(self) -> str:
        """What all ranks of a group have to agree in."""
        return f"{self.operation}{[list(size) for size in self.sizes]}{','.join(self.types)}"


class GroupState(msgspec.Struct, frozen=True, kw_only=True):
    """Sequence numbers of one process group on one rank; -1 for none yet. members: ranks of the group, if told."""

    enqueued: int = -1
    started: int = -1
    completed: int = -1
    members: tuple[int, ...] = ()


class Flight(msgspec.Struct, frozen=True, kw_only=True):
    """A rank's flight recorder: the state of its groups and the last collectives, oldest first."""

    groups: dict[str, GroupState] = {}
    collectives: list[Collective] = []


class WorkerLook(msgspec.Struct, frozen=True, kw_only=True):
    """A child of a rank, such as a data-loading worker."""

    pid: int
    activity: Activity
    stack: list[Frame] = []


class RankLook(msgspec.Struct, frozen=True, kw_only=True):
    """One rank in depth. stack: of its main thread, innermost first, None when nothing could read it.

    flight: None when its recorder does not answer. threads: all stacks as text, for the evidence. source: the text of
    the user's innermost line. lost_peers: address -> connections on which nothing is acknowledged any more.
    addresses: those of the rank's host. peers: those it has connections with, lost ones included.
    """

    rank: int
    host: str = ""
    pid: int = 0
    gone: bool = False
    activity: Activity = Activity()
    stack: list[Frame] | None = None
    flight: Flight | None = None
    workers: list[WorkerLook] = []
    threads: str = ""
    source: str = ""
    phases: tuple[str, ...] = ()
    lost_peers: dict[str, int] = {}
    addresses: tuple[str, ...] = ()
    peers: tuple[str, ...] = ()


class Look(msgspec.Struct, frozen=True, kw_only=True):
    """All ranks at about one moment. at: seconds of the clock of whoever judges."""

    at: float
    ranks: dict[int, RankLook] = {}
