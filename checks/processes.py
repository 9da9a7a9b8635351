"""The processes of a machine, by /proc/<pid>/stat: reading it never blocks (cmdline can, on the memory lock)."""

from collections.abc import Iterator
from dataclasses import dataclass

from checks.host import Host, Unreadable

_TICKS_PER_SECOND = 100  # USER_HZ: fixed by the kernel's interface on every architecture that runs GPUs


@dataclass(frozen=True, slots=True, kw_only=True)
class Process:
    """One process. state: the letter of proc_pid_stat(5). started: seconds since boot."""

    pid: int
    name: str
    state: str
    parent: int
    started: float

    @property
    def kernel_thread(self) -> bool:
        return self.parent == 2 or self.pid == 2


def processes(host: Host) -> Iterator[Process]:
    """All processes, by pid; one that ends meanwhile is left out. Raises Unreadable when /proc cannot be listed."""
    for path in host.entries(host.proc):
        if not path.name.isdigit():
            continue
        try:
            process = parse(host.read(path / "stat"))
        except Unreadable:
            continue
        if process:
            yield process


def parse(text: str) -> Process | None:
    """A process from its stat line, or None when that is damaged. Its name may hold spaces and brackets."""
    head, opened, rest = text.partition(" (")
    name, closed, tail = rest.rpartition(") ")
    fields = tail.split()
    if not opened or not closed or len(fields) < 20 or not head.isdigit() or not fields[19].isdigit():
        return None
    return Process(
        pid=int(head),
        name=name,
        state=fields[0],
        parent=int(fields[1]),
        started=int(fields[19]) / _TICKS_PER_SECOND,
    )
