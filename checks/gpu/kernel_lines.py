"""Reads on in the kernel log from where a check left off, for the checks that look for lines in it.

The place is kept in the check's memory together with the boot it belongs to: sequence numbers begin again at boot, and
what was logged while the agent was away is read when it is back.
"""

from collections.abc import Iterator
from dataclasses import dataclass

from checks.base import Memory
from checks.host import Host


@dataclass(frozen=True, slots=True)
class Line:
    """One kernel log line. at: seconds since the epoch. lost: lines overwritten before this one."""

    text: str
    at: float
    lost: int


def new_lines(host: Host, memory: Memory, boot: str) -> Iterator[Line]:
    """The lines since the last call with this memory, oldest first. Raises Unreadable."""
    after = memory.get("after", -1) if memory.get("boot") == boot else -1
    booted = host.clock.now() - host.uptime()
    memory["boot"], memory["after"] = boot, after
    for record in host.kernel_records(after):
        memory["after"] = record.sequence
        yield Line(record.text, booted + record.seconds, record.lost)
