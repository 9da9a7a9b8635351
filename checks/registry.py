"""All checks, in the order in which people see them."""

from checks.base import Check
from checks.fabric import efa, ethernet, ib_counters, ib_firmware, ib_flap, ib_port, mtu, rails, roce_gid
from checks.gpu import gpu_count, xid
from checks.storage import mounts, space
from checks.system import clock_sync, kernel_log, limits, memory, processes, shm

CHECKS: tuple[Check, ...] = (
    gpu_count.CHECK,
    xid.CHECK,
    rails.CHECK,
    ib_port.CHECK,
    ib_flap.CHECK,
    ib_counters.CHECK,
    ib_firmware.CHECK,
    roce_gid.CHECK,
    efa.CHECK,
    ethernet.CHECK,
    mtu.CHECK,
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
