"""What a process and its children take of the machine, from /proc."""

import os
from pathlib import Path

_TICKS = os.sysconf("SC_CLK_TCK")


def family(pid: int) -> list[int]:
    """The process and all its descendants that are there now."""
    pids = [pid]
    for one in pids:
        for children in Path(f"/proc/{one}/task").glob("*/children"):
            pids += [int(child) for child in children.read_text().split()]
    return pids


def cpu_seconds(pid: int) -> float:
    """User and system time of the process, its descendants and those of them that have ended."""
    total = 0
    for one in family(pid):
        fields = Path(f"/proc/{one}/stat").read_text().rsplit(")", 1)[1].split()
        total += sum(int(field) for field in fields[11:15])
    return total / _TICKS


def bytes_of(pid: int, what: str) -> int:
    """Rss or Pss of one process."""
    lines = Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines()
    (line,) = [line for line in lines if line.startswith(f"{what}:")]
    return int(line.split()[1]) * 1024
