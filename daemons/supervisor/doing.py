"""What a rank that holds up the others is at: told from its stack, its state and the system call it is in."""

import os
import re

import msgspec

from daemons.supervisor.frames import Frame, innermost_users
from daemons.supervisor.procfs import Activity
from daemons.supervisor.record import Doing
from daemons.supervisor.snapshot import RankLook, WorkerLook

CAUSES: dict[Doing, str] = {
    "data": "data.loader",
    "storage": "storage.filesystem",
    "python": "program.python",
    "lock": "program.python",
    "stopped": "host.preempted",
    "dead": "net.peer_lost",
    "collective": "program.collective_mismatch",
    "gpu": "gpu.compute_fault",
    "network": "net.socket",
}


class Place(msgspec.Struct, frozen=True, kw_only=True):
    """Where: the user's frame, and whose activity says what happens there."""

    frame: Frame | None
    activity: Activity
    stack: list[Frame] = []
    worker: bool = False


class AtWhat(msgspec.Struct, frozen=True, kw_only=True):
    """doing: one word. sure: 0 to 1. words: for people, after "rank 3"."""

    doing: Doing
    sure: float
    words: str


# Functions and classes that fetch what a step needs.
_DATA_NAME = re.compile(
    r"data|batch|loader|sampl|fetch|token|collate|prefetch|getitem|^__next__$|^__iter__$|shard|example|corpus|record"
    r"|(^|_)(load|read|next|get)(_|$)",
    re.IGNORECASE,
)
_LOADER_FILE = re.compile(r"torch/utils/data/|webdataset|/datasets/|tfrecord|streaming/base")
_LOCK_FILE = re.compile(r"/(threading|queue|multiprocessing/\w+|concurrent/futures/\w+|asyncio/\w+)\.py$")
_LOCK_SOURCE = re.compile(
    r"acquire\(|with\s+.*(lock|mutex|cond|sem)|\.join\(|\.wait\(|\.get\(|\.result\(|lock", re.IGNORECASE
)
_NET_FILE = re.compile(
    r"/(socket|ssl|http/client|urllib/request|selectors)\.py$|/(urllib3|requests|httpx|botocore|aiohttp|grpc)/"
)
_GPU_FILE = re.compile(r"torch/cuda/|triton/")
_STORAGE_WAIT = re.compile(
    r"fuse|nfs|rpc_|io_schedule|folio_wait|wait_on_page|jbd2|ext4|xfs|btrfs|lustre|ll_|cl_sync|wait_for_partner|fifo"
    r"|pipe_wait|pipe_read|anon_pipe|blk_|request_wait|gpfs|ceph|beegfs"
)

_X86 = os.uname().machine == "x86_64"
# Numbers on x86-64 and on arm64.
_FUTEX = {202} if _X86 else {98}
_SLEEP = {35, 230} if _X86 else {101, 115}
_SELECT = {23, 270} if _X86 else {72}
# open, openat, stat, fstat, lstat, fsync, fdatasync, getdents64, statx, rename, unlink, flock, fallocate, close.
_FILE_CALLS = (
    {2, 4, 5, 6, 3, 72, 73, 74, 75, 82, 87, 217, 257, 262, 263, 264, 285, 332}
    if _X86
    else {32, 46, 56, 57, 61, 79, 80, 82, 83, 291}
)
_READ_WRITE = {0, 1, 17, 18, 19, 20} if _X86 else {63, 64, 65, 66, 67, 68}
# connect, accept, recvfrom, recvmsg, sendto, sendmsg.
_SOCKET_CALLS = {42, 43, 45, 47, 44, 46, 288} if _X86 else {203, 202, 207, 212, 206, 211, 242}


def place(look: RankLook) -> Place:
    """Where a rank is; one that waits for its data-loading workers is where its stuck worker is."""
    stack = look.stack or []
    own = Place(frame=innermost_users(stack), activity=look.activity, stack=stack)
    if any(_LOADER_FILE.search(frame.file) for frame in _inner(stack)):
        for worker in sorted(look.workers, key=_idleness):
            if frame := innermost_users(worker.stack):
                return Place(frame=frame, activity=worker.activity, stack=worker.stack, worker=True)
    return own


def _idleness(worker: WorkerLook) -> tuple[bool, int]:
    """Workers that are at work in the user's code before those that wait for orders."""
    waiting = bool(worker.stack) and any(_LOCK_FILE.search(frame.file) for frame in _inner(worker.stack))
    return waiting, worker.pid


def _inner(stack: list[Frame]) -> list[Frame]:
    """The frames between what is done and the user's code, which is not among them."""
    return stack[: next((i for i, frame in enumerate(stack) if frame.users), len(stack))]


def at_what(look: RankLook) -> AtWhat:
    """What a rank that is not in a collective is at."""
    where = place(look)
    activity, inner = where.activity, _inner(where.stack)
    users = [frame for frame in where.stack if frame.users]
    data = (
        where.worker
        or any(_LOADER_FILE.search(frame.file) for frame in inner)
        or any(_DATA_NAME.search(frame.function.split(".")[-1]) for frame in users[:2])
    )
    source = "" if where.worker else look.source
    return (
        _in_storage(activity)
        or _on_gpu(inner, activity)
        or _running(activity)
        or _locked(activity, inner, source, data)
        or _asleep(activity, data)
        or _in_network(activity, inner, data)
        or (
            AtWhat(doing="data", sure=0.7, words="waits for its data")
            if data
            else AtWhat(doing="python", sure=0.5, words="stays in the user's code")
        )
    )


def _in_storage(activity: Activity) -> AtWhat | None:
    file = activity.descriptor.startswith("/") and not activity.descriptor.startswith("/dev/null")
    if activity.syscall in _READ_WRITE and file:
        verb = "write" if activity.syscall in (1, 18, 20, 64, 66, 68) else "read"
        return AtWhat(doing="storage", sure=0.95, words=f"blocked in a {verb} of {activity.descriptor}")
    if activity.state == "D":
        where = f" ({activity.wchan})" if activity.wchan not in ("", "0") else ""
        return AtWhat(doing="storage", sure=0.9, words=f"in uninterruptible I/O{where}")
    if activity.syscall in _FILE_CALLS and activity.state == "S":
        return AtWhat(doing="storage", sure=0.9, words="blocked while opening or looking up a file")
    if _STORAGE_WAIT.search(activity.wchan):
        return AtWhat(doing="storage", sure=0.85, words=f"waits in the kernel for storage ({activity.wchan})")
    return None


def _on_gpu(inner: list[Frame], activity: Activity) -> AtWhat | None:
    if any(_GPU_FILE.search(frame.file) for frame in inner):
        return AtWhat(doing="gpu", sure=0.8, words="waits for a GPU kernel to end")
    return None


def _running(activity: Activity) -> AtWhat | None:
    if activity.state == "R" or activity.busy > 0.5:
        return AtWhat(doing="python", sure=0.9, words="computes in the user's code and does not come back")
    return None


def _locked(activity: Activity, inner: list[Frame], source: str, data: bool) -> AtWhat | None:
    if activity.syscall not in _FUTEX and activity.syscall != -1:
        return None
    by_file = any(_LOCK_FILE.search(frame.file) for frame in inner)
    if data and by_file and not _LOCK_SOURCE.search(source):
        return AtWhat(doing="data", sure=0.7, words="waits for its data in a queue")
    if by_file or _LOCK_SOURCE.search(source):
        return AtWhat(doing="lock", sure=0.9, words="waits for a lock")
    if activity.syscall in _FUTEX and not data:
        return AtWhat(doing="lock", sure=0.6, words="waits for another thread")
    return None


def _asleep(activity: Activity, data: bool) -> AtWhat | None:
    if activity.syscall not in _SLEEP:
        return None
    if data:
        return AtWhat(doing="data", sure=0.9, words="sleeps while loading data")
    return AtWhat(doing="python", sure=0.8, words="sleeps in the user's code")


def _in_network(activity: Activity, inner: list[Frame], data: bool) -> AtWhat | None:
    socket = activity.syscall in _SOCKET_CALLS or activity.descriptor.startswith("socket:")
    if socket or any(_NET_FILE.search(frame.file) for frame in inner):
        if data:
            return AtWhat(doing="data", sure=0.7, words="waits for data from the network")
        return AtWhat(doing="network", sure=0.8, words="waits for an answer from the network")
    return None
