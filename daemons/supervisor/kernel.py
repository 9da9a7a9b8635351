"""What the kernel log says of a job's processes: whom the OOM killer ended."""

import re
from collections.abc import Iterable, Mapping

from checks.host import Host, Unreadable

_KILLED = re.compile(r"(?:Killed process|oom-kill:.*\bpid=|Memory cgroup out of memory: Killed process)\s*(\d+)")


def killed_for_memory(lines: Iterable[str], owners: Mapping[int, int]) -> list[int]:
    """The ranks whose processes (owners: pid -> rank, workers included) were ended for want of memory, first first."""
    found: list[int] = []
    for line in lines:
        for pid in _KILLED.findall(line):
            rank = owners.get(int(pid))
            if rank is not None and rank not in found:
                found.append(rank)
    return found


class KernelLog:
    """The kernel log from where it stood when the attempt began; silent where it cannot be read."""

    def __init__(self) -> None:
        self._host = Host()
        self._from = -1
        for record in self._read(-1):
            self._from = record[0]

    def lines(self) -> list[str]:
        """What was written since."""
        return [text for _, text in self._read(self._from)]

    def close(self) -> None:
        """Give the device back."""
        self._host.close()

    def _read(self, after: int) -> list[tuple[int, str]]:
        try:
            return [(record.sequence, record.text) for record in self._host.kernel_records(after)]
        except Unreadable:
            return []
