"""The one door to the machine: where checks read, and the only place from which they start a program.

A recorded node is a directory with the same tree below it (proc/, sys/, dev/kmsg, etc/) and answers.json for what is
not a file (file system sizes, commands, the host name), so that one check runs on both.
"""

import os
import shutil
import signal
import socket
import subprocess
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar

import msgspec

from checks.adjtimex import KernelClock, kernel_clock
from checks.clock import Clock, ManualClock, RunningClock, SystemClock
from checks.direct_io import Throughput
from checks.gpu.nvml import LiveSource, Nvml, RecordedSource
from checks.kmsg import KernelLog, Record, RecordedKernelLog
from checks.owners import Walk
from checks.prober import ProbeHung, Prober
from checks.replay import BadRecording, Replay, lives

Answer = TypeVar("Answer")


class Unreadable(Exception):
    """A file that should answer does not; the message says which and why."""


class CommandError(Exception):
    """A command that gave no answer: not installed, or over its deadline."""


@dataclass(frozen=True, slots=True)
class Completed:
    """A command that ended by itself within its deadline."""

    returncode: int
    stdout: str
    stderr: str


class FileSystemSize(msgspec.Struct, frozen=True, kw_only=True):
    """What statvfs(3) says of a mount, in bytes and inodes; `available` is what an ordinary user can still have."""

    total: int
    available: int
    inodes: int
    inodes_available: int
    read_only: bool


class Answers(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What a recorded node answers where no file does.

    sizes: mount point -> sizes, or {"hangs": true} spelt as null for a mount that never answers.
    commands: the command line joined by spaces -> [exit code, stdout, stderr]. clock: what adjtimex(2) said.
    throughput: directory -> what a timed read and write measured. walks: mount point -> whose files lie there. Null in
    either: it never answers.
    """

    node: str
    now: float
    sizes: dict[str, FileSystemSize | None] = {}
    commands: dict[str, tuple[int, str, str]] = {}
    clock: KernelClock | None = None
    throughput: dict[str, Throughput | None] = {}
    walks: dict[str, Walk | None] = {}


@dataclass(slots=True, kw_only=True)
class Host:
    """One machine, live or recorded.

    root: "/" or the directory of a recording. answers: None on a live machine. replay: a recording that lives, whose
    events happen as the clock goes.
    """

    root: Path = Path("/")
    clock: Clock = field(default_factory=SystemClock)
    prober: Prober = field(default_factory=Prober)
    answers: Answers | None = None
    node: str = ""
    replay: Replay | None = None
    kernel_log: KernelLog | RecordedKernelLog = field(init=False)
    nvml: Nvml = field(init=False)

    def __post_init__(self) -> None:
        self.node = self.node or (self.answers.node if self.answers else short_host_name())
        device = self.dev / "kmsg"
        self.kernel_log = RecordedKernelLog(device) if self.answers else KernelLog(device)
        source = RecordedSource(self.root / "nvml.json") if self.answers else LiveSource(self.prober)
        self.nvml = Nvml(source, self.clock, self.gpu_addresses)

    @property
    def proc(self) -> Path:
        return self.root / "proc"

    @property
    def sys(self) -> Path:
        return self.root / "sys"

    @property
    def dev(self) -> Path:
        return self.root / "dev"

    @property
    def etc(self) -> Path:
        return self.root / "etc"

    def read(self, path: Path) -> str:
        """The text of a small file such as those of /proc and /sys, without white space at its ends.

        Raises Unreadable. Bytes that are not UTF-8 come as \\xNN.
        """
        try:
            return path.read_bytes().decode("utf-8", "backslashreplace").strip()
        except OSError as error:
            raise Unreadable(f"{self.name(path)}: {error.strerror or error}") from error

    def integer(self, path: Path) -> int:
        """The number in a small file. Raises Unreadable, also for anything that is no whole number."""
        text = self.read(path)
        try:
            return int(text, 0)
        except ValueError as error:
            raise Unreadable(f"{self.name(path)}: {text[:40]!r} is no number") from error

    def count(self, path: Path) -> int:
        """The number of something in a small file. Raises Unreadable, also for a negative one."""
        number = self.integer(path)
        if number < 0:
            raise Unreadable(f"{self.name(path)}: {number} is no count")
        return number

    def entries(self, path: Path) -> list[Path]:
        """What a directory holds, sorted by name. Raises Unreadable, also when there is no such directory."""
        try:
            return sorted(path.iterdir())
        except OSError as error:
            raise Unreadable(f"{self.name(path)}: {error.strerror or error}") from error

    def devices(self, kind: str) -> list[Path]:
        """The devices of a class below /sys/class, sorted by name; none when the kernel has no such class."""
        directory = self.sys / "class" / kind
        return self.entries(directory) if directory.is_dir() else []

    def link(self, path: Path) -> str:
        """Where a symbolic link points, its last part only (a device's bus address, a driver's name)."""
        try:
            return printable(path.readlink().name)
        except OSError as error:
            raise Unreadable(f"{self.name(path)}: {error.strerror or error}") from error

    def kernel_clock(self) -> KernelClock:
        """How the kernel's clock is disciplined. Raises Unreadable."""
        if self.answers is not None:
            if self.answers.clock is None:
                raise Unreadable("adjtimex: not recorded")
            return self.answers.clock
        try:
            return kernel_clock()
        except OSError as error:
            raise Unreadable(f"adjtimex: {error.strerror}") from error

    def name(self, path: Path) -> str:
        """The path as it is called on the machine itself."""
        return printable(f"/{path.relative_to(self.root)}" if path.is_relative_to(self.root) else str(path))

    def gpu_addresses(self) -> list[str]:
        """PCI addresses of this machine's NVIDIA GPUs as PCI enumerates them, in order.

        Bridges, switches and audio functions are none; one that is bound to vfio-pci belongs to a virtual machine.
        """
        devices = self.sys / "bus/pci/devices"
        try:
            addresses = sorted(path.name for path in devices.iterdir())
        except OSError:
            return []
        return [address for address in addresses if self._is_gpu(devices / address)]

    def _is_gpu(self, device: Path) -> bool:
        try:
            # 0x10de is NVIDIA; 0x0300 a VGA controller, 0x0302 a 3D controller (PCI code and ID assignment).
            ours = self.read(device / "vendor") == "0x10de" and self.read(device / "class")[:6] in ("0x0300", "0x0302")
        except Unreadable:
            return False
        return ours and (device / "driver").resolve().name != "vfio-pci"

    def boot_id(self) -> str:
        """The kernel's random name for this boot."""
        return self.read(self.proc / "sys/kernel/random/boot_id")

    def uptime(self) -> float:
        """Seconds since boot."""
        if self.replay is not None:
            return self.replay.uptime()
        return float(self.read(self.proc / "uptime").split()[0])

    def size(self, mount: str, deadline: float) -> FileSystemSize:
        """Sizes of the file system mounted at `mount`, asked in a killable child.

        Raises ProbeTimeout or ProbeHung when it does not answer, ProbeFailed with the system's error.
        """
        if self.answers is not None:
            return self._recorded_size(mount)
        answer = self.prober.call(f"mount:{mount}", "checks.statvfs:file_system_size", mount, deadline=deadline)
        return msgspec.convert(answer, FileSystemSize)

    def _recorded_size(self, mount: str) -> FileSystemSize:
        assert self.answers is not None
        return recorded_answer(self.answers.sizes, mount)

    def throughput(self, directory: str, size: int, *, write: bool, seconds: float, deadline: float) -> Throughput:
        """Time a read (and a write) of `size` bytes in `directory`, at most `seconds` each, in a killable child.

        Raises ProbeTimeout or ProbeHung when it does not answer, ProbeFailed with the system's error.
        """
        if self.answers is not None:
            return recorded_answer(self.answers.throughput, directory)
        function = "checks.direct_io:measure"
        answer = self.prober.call(f"mount:{directory}", function, directory, size, write, seconds, deadline=deadline)
        return msgspec.convert(answer, Throughput)

    def walk(self, mount: str, seconds: float, deadline: float) -> Walk:
        """Whose files lie on the file system of `mount`, as far as `seconds` allow, in a killable child.

        Raises ProbeTimeout or ProbeHung when it does not answer, ProbeFailed with the system's error.
        """
        if self.answers is not None:
            return recorded_answer(self.answers.walks, mount)
        answer = self.prober.call(f"mount:{mount}", "checks.owners:walk", mount, seconds, deadline=deadline)
        return msgspec.convert(answer, Walk)

    def run(self, command: Sequence[str], deadline: float) -> Completed:
        """Run a program of the machine, at most `deadline` seconds; it and its children are ended then.

        Raises CommandError when it is not installed or gave no answer in time.
        """
        if self.answers is not None:
            recorded = self.answers.commands.get(" ".join(command))
            if recorded is None:
                raise CommandError(f"{command[0]}: not found")
            return Completed(*recorded)
        return run_command(command, deadline)

    def kernel_records(self, after: int) -> Iterator[Record]:
        """Kernel log records with a sequence number above `after`. Raises Unreadable."""
        try:
            yield from self.kernel_log.read(after)
        except OSError as error:
            raise Unreadable(f"{self.name(self.dev / 'kmsg')}: {error.strerror or error}") from error

    def catch_up(self) -> None:
        """On a replayed node let happen what is due by its clock; the runner calls it before every check."""
        if self.replay is not None and self.replay.catch_up():
            self.answers = msgspec.convert(self.replay.answers(), Answers)

    def close(self) -> None:
        """End the children and give the devices back."""
        if self.replay is not None:
            self.replay.close()
        self.kernel_log.close()
        self.prober.close()


def recorded(directory: Path, clock: Clock | None = None, *, running: bool = False) -> Host:
    """The node recorded in `directory`; its events, if it has any, happen as `clock` goes.

    clock: None is one that stands still at the time of the recording, or goes on from there when `running`.
    Raises Unreadable when that holds no recording.
    """
    make = RunningClock if running else lambda now: ManualClock(now=now)
    if lives(directory):
        return _replayed(directory, clock, make)
    path = directory / "answers.json"
    try:
        answers = msgspec.json.decode(path.read_bytes(), type=Answers)
    except OSError as error:
        raise Unreadable(f"{path}: {error.strerror}: a recording has an answers.json") from error
    except (msgspec.ValidationError, msgspec.DecodeError) as error:
        raise Unreadable(f"{path}: {error}") from error
    return Host(root=directory, clock=clock or make(answers.now), answers=answers)


def recorded_answer(answers: dict[str, Answer | None], path: str) -> Answer:
    """The recorded answer for a path. Raises Unreadable when there is none, ProbeHung for one that never came."""
    if path not in answers:
        raise Unreadable(f"{path}: no such file or directory")
    answer = answers[path]
    if answer is None:
        raise ProbeHung(f"mount:{path}", 60.0, 4242)
    return answer


def printable(name: str) -> str:
    """A file's name as text that can be sent on: bytes that are not UTF-8 come as \\xNN."""
    return os.fsencode(name).decode("utf-8", "backslashreplace")


def _replayed(directory: Path, clock: Clock | None, make: Callable[[float], Clock]) -> Host:
    try:
        replay = Replay(directory)
        answers = msgspec.convert(replay.answers(), Answers)
    except BadRecording as error:
        raise Unreadable(str(error)) from error
    except msgspec.ValidationError as error:
        raise Unreadable(f"{directory}/answers.json: {error}") from error
    clock = clock or make(answers.now)
    if isinstance(clock, ManualClock):
        clock.step(answers.now - clock.now())
    replay.begin(clock)
    host = Host(root=replay.root, clock=clock, answers=answers, replay=replay)
    host.catch_up()
    return host


def short_host_name() -> str:
    """This machine's name without its domain."""
    return socket.gethostname().split(".")[0]


# Programs that tools of this field need; a service's PATH may lack the sbin directories.
_PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"


def run_command(command: Sequence[str], deadline: float, environment: dict[str, str] | None = None) -> Completed:
    """Run a program in a process group of its own, in the C locale. Raises CommandError."""
    path = f"{os.environ.get('PATH', '')}:{_PATH}"
    program = shutil.which(command[0], path=path)
    if program is None:
        raise CommandError(f"{command[0]}: not installed")
    process = subprocess.Popen(
        [program, *command[1:]],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        env={**os.environ, "LC_ALL": "C", "PATH": path, **(environment or {})},
        start_new_session=True,
    )
    try:
        out, err = process.communicate(timeout=deadline)
    except subprocess.TimeoutExpired as error:
        _end_group(process)
        raise CommandError(f"{command[0]}: no answer within {deadline:g} s") from error
    return Completed(process.returncode, out.decode("utf-8", "replace"), err.decode("utf-8", "replace"))


def _end_group(process: subprocess.Popen[Any]) -> None:
    os.killpg(process.pid, signal.SIGKILL)
    try:
        process.communicate(timeout=0.5)
    except subprocess.TimeoutExpired:
        # In D state, or a grandchild holds the pipes: the kernel ends it when it can, nobody waits.
        for pipe in (process.stdout, process.stderr):
            if pipe:
                pipe.close()
