"""All checks, in the order in which people see them."""

from checks.base import Check
from checks.fabric import ethernet
from checks.gpu import gpu_count, xid
from checks.storage import mounts, space
from checks.system import clock_sync, kernel_log, limits, memory, processes, shm

CHECKS: tuple[Check, ...] = (
    gpu_count.CHECK,
    xid.CHECK,
    ethernet.CHECK,
    space.CHECK,
    mounts.CHECK,
    kernel_log.CHECK,
    memory.CHECK,
    shm.CHECK,
    limits.CHECK,
    processes.CHECK,
    clock_sync.CHECK,
)


def by_name(name: str) -> Check:
    """The check of that name. Raises KeyError."""
    return {check.name: check for check in CHECKS}[name]
