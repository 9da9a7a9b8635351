"""What is kept of a job that hangs, before it is ended: one directory to read, one archive to send, secrets removed."""

import platform
import shutil
import tarfile
import time
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import TYPE_CHECKING

import msgspec

from checks.host import Unreadable, run_command
from daemons.alerts.scrub import scrub
from daemons.supervisor.frames import Frame
from daemons.supervisor.record import Verdict
from daemons.supervisor.snapshot import Look, RankLook

if TYPE_CHECKING:
    from daemons.supervisor.collect import Collector
    from daemons.supervisor.logs import Follower
    from daemons.supervisor.progress import Stillness

_LOG_LINES = 300
_KERNEL_RECORDS = 200
# What the environment of a rank may show: the rest is nobody's business.
_ENVIRONMENT = (
    "CUDA",
    "NCCL",
    "TORCH",
    "OMP",
    "RANK",
    "LOCAL",
    "WORLD",
    "MASTER",
    "SLURM",
    "GLOO",
    "FI_",
    "UCX",
    "LD_",
)


class Evidence:
    """Writes bundles below a job's attempt directory. Every part is tried by itself: one that fails costs a line."""

    def __init__(self, job: str, tell: Callable[[str], None]) -> None:
        self._job = job
        self._tell = tell
        self._path: Path | None = None
        self._follower: Follower | None = None
        self._collector: Collector | None = None

    def begin(self, path: Path | None, follower: "Follower", collector: "Collector") -> None:
        """Begin with an attempt. path: None where nothing can be kept."""
        self._path, self._follower, self._collector = path, follower, collector

    def directory(self, what: str) -> Path | None:
        """A new directory for a bundle, None (and one line) when there is no room."""
        if self._path is None:
            return None
        path = self._path / f"{what}-{time.strftime('%H%M%S')}"
        try:
            path.mkdir(exist_ok=True)
            if shutil.disk_usage(path).free < 4 << 20:
                raise OSError(28, "No space left on device")
        except OSError as error:
            self._tell(f"no evidence is kept: {path}: {error.strerror}")
            return None
        return path

    def write(self, path: Path, look: Look, verdict: Verdict, still: "Stillness") -> None:
        """Fill the directory and pack it beside itself."""
        parts: list[tuple[str, Callable[[], str]]] = [
            ("README.txt", lambda: readme(self._job, verdict, still, look)),
            ("verdict.json", lambda: msgspec.json.format(msgspec.json.encode(verdict), indent=2).decode()),
            ("stacks.txt", lambda: merged(look.ranks.values())),
            ("threads.txt", lambda: threads(look.ranks.values())),
            ("flight_recorder.txt", lambda: collectives(look)),
            ("processes.txt", lambda: processes(look)),
            ("log.txt", self._log),
            ("kernel.txt", kernel_log),
            ("gpu.txt", gpus),
            ("environment.txt", lambda: environment(look)),
        ]
        troubles = [trouble for name, make in parts if (trouble := self._part(path / name, make))]
        for rank, body in sorted((self._collector.raw_flights if self._collector else {}).items()):
            trouble = self._part(path / f"flight_recorder_{rank}.json", lambda body=body: body.decode())  # type: ignore[misc]
            troubles += [trouble] if trouble else []
        troubles += self._pack(path)
        if troubles:
            self._tell(f"evidence is not complete: {'; '.join(troubles[:3])}")

    def _part(self, path: Path, make: Callable[[], str]) -> str:
        try:
            path.write_text(scrub(make()), encoding="utf-8", errors="replace")
        except OSError as error:
            return f"{path.name}: {error.strerror}"
        except Exception as error:  # noqa: BLE001 (a part that fails must cost no other part)
            return f"{path.name}: {error!r}"
        return ""

    def _pack(self, path: Path) -> list[str]:
        try:
            with tarfile.open(path.with_suffix(".tar.gz"), "w:gz", compresslevel=3) as archive:
                archive.add(path, arcname=f"{self._job}-{path.name}")
        except OSError as error:
            return [f"{path.name}.tar.gz: {error.strerror}"]
        return []

    def _log(self) -> str:
        if self._follower is None:
            return ""
        parts = []
        for name in ("stdout", "stderr"):
            lines = self._follower.text(name).splitlines()[-_LOG_LINES:]
            parts.append(f"== {name}, the last {len(lines)} lines\n" + "\n".join(lines))
        return "\n\n".join(parts)


def readme(job: str, verdict: Verdict, still: "Stillness", look: Look) -> str:
    """The page to begin with."""
    where = f"{verdict.file}:{verdict.line} {verdict.function}()" if verdict.file else "unknown"
    return f"""Job {job} is {verdict.kind}.

who           {"rank " + ", ".join(map(str, verdict.ranks)) if verdict.ranks else "no single rank"} on {verdict.host}
doing         {verdict.doing}
where         {where}
why           {verdict.summary}
cause         {verdict.cause} (confidence {verdict.confidence:.2f})
silent for    {verdict.detected_after_seconds:.1f} s (allowed: {still.limit:.0f} s in phase {still.phase})
last step     {still.step if still.step >= 0 else "unknown (the job does not beat)"}
written       {time.strftime("%Y-%m-%d %H:%M:%S %z")}

stacks.txt            the main threads of all {len(look.ranks)} ranks as one tree; ranks stand at the leaves
threads.txt           all threads of every rank
flight_recorder.txt   the last collectives of every rank, and where they part
processes.txt         what the kernel says of every rank
log.txt               the last lines of the job's output
kernel.txt            the end of the kernel log
gpu.txt               what nvidia-smi says
environment.txt       versions and variables
"""


def merged(looks: Iterable[RankLook]) -> str:
    """One tree of all main threads, outermost call first; after each leaf the ranks that are there."""
    root: dict[str, object] = {}
    for look in looks:
        node = root
        frames: list[Frame] = look.stack or [Frame("no stack could be read", 0, "")]
        for frame in reversed(frames):
            node = node.setdefault(f"{frame.function} {frame.file}:{frame.line}", {})  # type: ignore[assignment]
        leaf = node.setdefault("", [])
        assert isinstance(leaf, list)
        leaf.append(look.rank)
    return "\n".join(_branches(root, 0)) + "\n"


def _branches(node: dict[str, object], depth: int) -> list[str]:
    lines = []
    for name, below in node.items():
        if isinstance(below, dict):
            ranks = sorted(_ranks(below))
            marks = (
                f"  [{len(ranks)} ranks]" if "" not in below else f"  <- ranks {', '.join(map(str, sorted(below[''])))}"
            )
            lines.append(f"{'  ' * depth}{name}{marks}")
            lines += _branches(below, depth + 1)
    return lines


def _ranks(node: dict[str, object]) -> list[int]:
    found: list[int] = []
    for below in node.values():
        if isinstance(below, dict):
            found += _ranks(below)
        elif isinstance(below, list):
            found += below
    return found


def threads(looks: Iterable[RankLook]) -> str:
    """Every thread of every rank."""
    return "\n\n".join(
        f"== rank {look.rank}, pid {look.pid}\n{look.threads or 'no stack could be read'}" for look in looks
    )


def collectives(look: Look) -> str:
    """The last collectives of every rank side by side, and the sequence numbers of every group."""
    lines = []
    for rank, one in sorted(look.ranks.items()):
        if one.flight is None:
            lines.append(f"rank {rank}: the flight recorder does not answer")
            continue
        for group, state in sorted(one.flight.groups.items()):
            lines.append(f"rank {rank} group {group}: enqueued {state.enqueued}, completed {state.completed}")
        for item in one.flight.collectives[-8:]:
            lines.append(f"    {item.group}/{item.sequence} {item.shape} {'done' if item.done else 'pending'}")
    return "\n".join(lines) + "\n"


def processes(look: Look) -> str:
    """What the kernel says of the ranks and their workers."""
    lines = []
    for rank, one in sorted(look.ranks.items()):
        who = [
            (f"rank {rank}", one.pid, one.activity),
            *((f"  worker of rank {rank}", w.pid, w.activity) for w in one.workers),
        ]
        for name, pid, a in who:
            lines.append(
                f"{name} pid {pid} state {'gone' if one.gone else a.state} cpu {a.cpu_seconds:.1f} s"
                f" ({a.busy:.0%} of a core) read {a.read_bytes} B written {a.written_bytes} B"
                f" switches {a.switches} syscall {a.syscall} {a.descriptor} wchan {a.wchan or '-'}"
            )
    return "\n".join(lines) + "\n"


def kernel_log() -> str:
    """The end of the kernel log."""
    from checks.host import Host

    host = Host()
    try:
        records = list(host.kernel_records(0))[-_KERNEL_RECORDS:]
    except Unreadable as error:
        return f"cannot be read: {error}\n"
    finally:
        host.close()
    return "\n".join(str(getattr(record, "text", record)) for record in records) + "\n"


def gpus() -> str:
    """What nvidia-smi says, if there is one and it answers."""
    try:
        return run_command(["nvidia-smi"], 10.0).stdout
    except Exception as error:  # noqa: BLE001 (no driver, no program, no answer: the same to a reader)
        return f"{error}\n"


def environment(look: Look) -> str:
    """Versions, and the variables of the first rank that bear on how ranks talk to each other."""
    from daemons.supervisor import procfs

    lines = [f"host {platform.node()}", f"kernel {platform.release()}", f"machine {platform.machine()}"]
    for rank, one in sorted(look.ranks.items())[:1]:
        lines.append(f"rank {rank}:")
        found = procfs.environment(one.pid)
        lines += [f"    {key}={found[key]}" for key in sorted(found) if key.startswith(_ENVIRONMENT)]
    return "\n".join(lines) + "\n"
