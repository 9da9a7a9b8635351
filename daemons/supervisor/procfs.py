"""What /proc says of the processes of a job: who is a rank, and what each is at."""

import os
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path

import msgspec

# In this order: torchrun under srun leaves SLURM_PROCID at the node's number, mpirun inside a batch script at 0.
RANK_VARIABLES = (
    "RANK",
    "OMPI_COMM_WORLD_RANK",
    "PMIX_RANK",
    "PMI_RANK",
    "MV2_COMM_WORLD_RANK",
    "HOROVOD_RANK",
    "SLURM_PROCID",
)
_TICKS = os.sysconf("SC_CLK_TCK")


class Process(msgspec.Struct, frozen=True, kw_only=True):
    """One process. started: clock ticks since boot, which tells two processes of one pid apart."""

    pid: int
    parent: int
    name: str
    state: str
    cpu_seconds: float
    started: int


class Activity(msgspec.Struct, frozen=True, kw_only=True):
    """What a process has used so far, and what its main thread waits in.

    switches: context switches of its own will. read_bytes, written_bytes: through system calls. syscall: number, -1 in
    user space or where the kernel does not tell. arguments: of that call. wchan: kernel function it sleeps in.
    descriptor: what the first argument of a read or write names. busy: share of one core since the last look.
    """

    state: str = "?"
    cpu_seconds: float = 0.0
    switches: int = 0
    read_bytes: int = 0
    written_bytes: int = 0
    syscall: int = -1
    arguments: tuple[int, ...] = ()
    wchan: str = ""
    descriptor: str = ""
    busy: float = 0.0


def process(pid: int, proc: Path = Path("/proc")) -> Process | None:
    """One process, None when it has gone."""
    try:
        text = (proc / str(pid) / "stat").read_bytes().decode("utf-8", "replace")
    except OSError:
        return None
    name, _, rest = text.partition("(")[2].rpartition(")")
    fields = rest.split()
    return Process(
        pid=pid,
        parent=int(fields[1]),
        name=name,
        state=fields[0],
        cpu_seconds=(int(fields[11]) + int(fields[12])) / _TICKS,
        started=int(fields[19]),
    )


def environment(pid: int, proc: Path = Path("/proc")) -> dict[str, str]:
    """The environment a process was started with; empty when it cannot be read."""
    try:
        data = (proc / str(pid) / "environ").read_bytes()
    except OSError:
        return {}
    pairs = (entry.partition(b"=") for entry in data.split(b"\0") if b"=" in entry)
    return {key.decode("utf-8", "replace"): value.decode("utf-8", "replace") for key, _, value in pairs}


def activity(pid: int, proc: Path = Path("/proc")) -> Activity:
    """What a process has used and what its main thread is in; what cannot be read keeps its default."""
    base = proc / str(pid)
    found = process(pid, proc)
    io = _table(base / "io")
    status = _table(base / "status")
    number, arguments = _syscall(base / "syscall")
    return Activity(
        state=found.state if found else "X",
        cpu_seconds=found.cpu_seconds if found else 0.0,
        switches=int(status.get("voluntary_ctxt_switches", "0")),
        read_bytes=int(io.get("rchar", "0")),
        written_bytes=int(io.get("wchar", "0")),
        syscall=number,
        arguments=arguments,
        wchan=_line(base / "wchan"),
        descriptor=_descriptor(base, number, arguments),
    )


# x86-64 and arm64 numbers of calls whose first argument is a descriptor one can wait in: read, write, pread64,
# pwrite64, readv, writev.
_DESCRIPTOR_CALLS = {0, 1, 17, 18, 19, 20} if os.uname().machine == "x86_64" else {63, 64, 65, 66, 67, 68}


def _descriptor(base: Path, number: int, arguments: tuple[int, ...]) -> str:
    if number not in _DESCRIPTOR_CALLS or not arguments:
        return ""
    try:
        return str((base / "fd" / str(arguments[0])).readlink())
    except OSError:
        return ""


def _syscall(path: Path) -> tuple[int, tuple[int, ...]]:
    words = _line(path).split()
    if not words or not words[0].lstrip("-").isdigit():
        return -1, ()
    return int(words[0]), tuple(int(word, 16) for word in words[1:7])


def _line(path: Path) -> str:
    try:
        return path.read_bytes().decode("utf-8", "replace").strip()
    except OSError:
        return ""


def _table(path: Path) -> dict[str, str]:
    return {key: value.strip() for key, _, value in (line.partition(":") for line in _line(path).splitlines())}


def rank_of(environ: Mapping[str, str]) -> int | None:
    """The rank a launcher gave a process, None where none did."""
    for name in RANK_VARIABLES:
        if environ.get(name, "").isdigit():
            return int(environ[name])
    return None


class RankProcess(msgspec.Struct, frozen=True, kw_only=True):
    """A rank as found in the process tree. start: of this incarnation, 0 for the first (torchrun restarts in place)."""

    rank: int
    pid: int
    started: int
    world_size: int = 0
    children: tuple[int, ...] = ()


def ranks(
    processes: Iterable[Process], environments: Mapping[int, Mapping[str, str]], registered: Mapping[int, int]
) -> dict[int, RankProcess]:
    """The ranks among a job's processes, by rank.

    environments: pid -> what it was started with. registered: pid -> rank, of those whose hook has said so. Children of
    a rank (data-loading workers, compilers) inherit its environment: the rank is the one that registered, else the
    topmost Python of that rank, else the topmost. A launcher that has a rank itself (one pod of several) is none.
    """
    table = {item.pid: item for item in processes}
    claims: dict[int, list[Process]] = {}
    elastic = any("TORCHELASTIC_RUN_ID" in environments.get(pid, {}) for pid in table)
    for pid, item in table.items():
        environ = environments.get(pid, {})
        rank = registered.get(pid, rank_of(environ))
        if rank is None or item.state in "ZX" or (elastic and "TORCHELASTIC_RUN_ID" not in environ):
            continue
        claims.setdefault(rank, []).append(item)
    found = {}
    for rank, candidates in sorted(claims.items()):
        chosen = _choose(candidates, table, registered)
        below = tuple(item.pid for item in table.values() if _below(item, chosen.pid, table))
        world = environments.get(chosen.pid, {}).get("WORLD_SIZE", "")
        found[rank] = RankProcess(
            rank=rank,
            pid=chosen.pid,
            started=chosen.started,
            world_size=int(world) if world.isdigit() else 0,
            children=below,
        )
    return found


def _choose(candidates: list[Process], table: Mapping[int, Process], registered: Mapping[int, int]) -> Process:
    def order(item: Process) -> tuple[bool, bool, int, int]:
        return (
            item.pid not in registered,
            not item.name.startswith(("python", "pt_main")),
            _depth(item, table),
            item.started,
        )

    return min(candidates, key=order)


def _depth(item: Process, table: Mapping[int, Process]) -> int:
    return sum(1 for _ in _ancestors(item, table))


def _below(item: Process, pid: int, table: Mapping[int, Process]) -> bool:
    return any(ancestor == pid for ancestor in _ancestors(item, table))


def _ancestors(item: Process, table: Mapping[int, Process]) -> Iterator[int]:
    parent = item.parent
    while parent in table:
        yield parent
        parent = table[parent].parent
