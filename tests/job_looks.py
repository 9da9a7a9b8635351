"""Builds looks at jobs of four ranks, as the supervisor takes them of real ones."""

from typing import Any

from daemons.supervisor.frames import Frame
from daemons.supervisor.procfs import Activity
from daemons.supervisor.snapshot import Collective, Flight, GroupState, HostSample, Look, RankLook, RankSample

SITE = "/venv/lib/python3.11/site-packages/torch"
# Innermost first: where a rank of a DDP job waits for the gradients of the others.
BACKWARD = [
    Frame(f"{SITE}/autograd/graph.py", 979, "_engine_run_backward"),
    Frame(f"{SITE}/_tensor.py", 623, "backward"),
    Frame("/home/u/train.py", 33, "step"),
    Frame("/home/u/train.py", 50, "main"),
]
ALL_REDUCE = [
    Frame(f"{SITE}/distributed/distributed_c10d.py", 3252, "all_reduce"),
    Frame(f"{SITE}/distributed/c10d_logger.py", 83, "wrapper"),
    Frame("/home/u/train.py", 30, "step"),
    Frame("/home/u/train.py", 50, "main"),
]
FUTEX = Activity(state="S", syscall=202, wchan="futex_do_wait")
SLEEP = Activity(state="S", syscall=230, wchan="hrtimer_nanosleep")
RUNNING = Activity(state="R", syscall=-1, wchan="0", busy=0.97)
STOPPED = Activity(state="T", wchan="do_signal_stop")
IN_FILE = Activity(state="S", syscall=0, arguments=(7,), descriptor="/data/shard-3", wchan="pipe_read")
IN_OPEN = Activity(state="S", syscall=257, wchan="wait_for_partner")
DISK = Activity(state="D", syscall=0, wchan="folio_wait_bit_common")


def users(line: int, function: str, *inner: Frame) -> list[Frame]:
    """A stack whose innermost frame of the user's is that one."""
    return [*inner, Frame("/home/u/train.py", line, function), Frame("/home/u/train.py", 50, "main")]


def flight(enqueued: int, completed: int, size: int = 64, last: str = "gloo:all_reduce") -> Flight:
    """A recorder with that many collectives, the last of which may be another one."""
    calls = [
        Collective(group="0", sequence=n, operation="gloo:all_reduce", sizes=((64,),), types=("Float",), done=True)
        for n in range(max(1, enqueued - 5), enqueued)
    ]
    calls.append(
        Collective(
            group="0", sequence=enqueued, operation=last, sizes=((size,),), types=("Float",), done=completed >= enqueued
        )
    )
    return Flight(groups={"0": GroupState(enqueued=enqueued, completed=completed)}, collectives=calls)


def rank(number: int, stack: list[Frame] | None = None, activity: Activity = FUTEX, **more: Any) -> RankLook:
    """One rank; by default it waits for gradients in collective 26."""
    more.setdefault("flight", flight(26, 25))
    return RankLook(
        rank=number, host="n1", pid=100 + number, stack=BACKWARD if stack is None else stack, activity=activity, **more
    )


def look(at: float, *odd: RankLook, world: int = 4) -> Look:
    """All ranks, those given in place of the ordinary ones."""
    ranks = {number: rank(number) for number in range(world)}
    return Look(at=at, ranks=ranks | {one.rank: one for one in odd})


def sample(step: int = -1, *, phases: tuple[str, ...] = (), age: float = 0.0, **more: Any) -> HostSample:
    """Two ranks of one host at that step, which they reached `age` seconds ago."""
    state = more.pop("state", "S")
    ranks = [
        RankSample(rank=r, pid=100 + r, step=step, phases=phases, step_age=age, state=state, world_size=2)
        for r in (0, 1)
    ]
    return HostSample(host="n1", ranks=ranks, **more)
