"""All checks, in the order in which people see them."""

from checks.base import Check
from checks.fabric import efa, ethernet, ib_counters, ib_firmware, ib_flap, ib_port, mtu, rails, roce_gid
from checks.gpu import (
    clocks,
    confidential_computing,
    driver_version,
    ecc,
    fabric_state,
    gpu_count,
    gpu_processes,
    mig,
    nvlink_errors,
    nvlink_state,
    p2p_status,
    pcie_link,
    pcie_replay,
    persistence,
    power,
    recovery_action,
    remapped_rows,
    retired_pages,
    spin_hang,
    sxid,
    temperature,
    throttle,
    utilization,
    xid,
)
from checks.storage import mounts, space
from checks.system import clock_sync, kernel_log, limits, memory, processes, shm

CHECKS: tuple[Check, ...] = (
    gpu_count.CHECK,
    xid.CHECK,
    sxid.CHECK,
    recovery_action.CHECK,
    ecc.CHECK,
    remapped_rows.CHECK,
    retired_pages.CHECK,
    nvlink_state.CHECK,
    nvlink_errors.CHECK,
    p2p_status.CHECK,
    fabric_state.CHECK,
    pcie_link.CHECK,
    pcie_replay.CHECK,
    throttle.CHECK,
    clocks.CHECK,
    temperature.CHECK,
    power.CHECK,
    spin_hang.CHECK,
    utilization.CHECK,
    gpu_processes.CHECK,
    persistence.CHECK,
    mig.CHECK,
    confidential_computing.CHECK,
    driver_version.CHECK,
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
