"""Data loaders and NCCL share memory through /dev/shm: too small or full ends a job with a bus error."""

from collections.abc import Iterator
from typing import Annotated

from msgspec import Meta

from checks.base import Check, CheckConfig, Finding, Memory, Status
from checks.host import Host, Unreadable
from checks.mountinfo import mounts
from checks.storage.space import bytes_text

Percent = Annotated[float, Meta(ge=0, le=100)]
_POINT = "/dev/shm"


class Config(CheckConfig, frozen=True, kw_only=True):
    """least_bytes: how large it must be; 1 GB. Docker's default of 64 MB ends loaders with "bus error", and NCCL takes
    some 10 MB per GPU (NCCL's guide asks for --shm-size=1g). The kernel's default, half of the memory, is plenty.
    warn_percent, fail_percent: share used. What lies there is memory; stale segments of dead jobs are the usual cause.
    """

    interval: float = 60.0
    consecutive: int = 2
    least_bytes: Annotated[int, Meta(ge=0)] = 1_000_000_000
    warn_percent: Percent = 80.0
    fail_percent: Percent = 95.0


def run(host: Host, config: Config, memory: Memory) -> Iterator[Finding]:
    """One finding on `shm`."""
    if not any(mount.point == _POINT for mount in mounts(host)):
        raise Unreadable(f"{_POINT} is not mounted: jobs cannot share memory; mount a tmpfs there")
    size = host.size(_POINT, 3.0)
    if size.total <= 0:
        raise Unreadable(f"{_POINT} says it has no size")
    percent = 100.0 * (1.0 - size.available / size.total)
    said = f"{bytes_text(size.available)} of {bytes_text(size.total)} free"
    values = {"shm_size_bytes": float(size.total), "shm_available_bytes": float(size.available)}
    if size.total < config.least_bytes:
        advice = "`mount -o remount,size=50% /dev/shm`; in a container: --shm-size, or a memory-backed volume"
        kind, status, said = "small", Status.WARN, f"{_POINT} has only {bytes_text(size.total)}"
    elif percent >= config.warn_percent:
        advice = "remove what dead jobs left: `ls -lt /dev/shm`, `lsof +L1 /dev/shm`"
        kind, status = "full", Status.FAIL if percent >= config.fail_percent else Status.WARN
        said = f"{_POINT} is {percent:.0f} % full: {said}"
    else:
        yield Finding(component="shm", status=Status.OK, summary=said, values=values)
        return
    yield Finding(
        component="shm",
        status=status,
        cause="host.shared_memory",
        kind=kind,
        summary=said,
        evidence=f"statvfs({_POINT}): {size.available} of {size.total} bytes available",
        advice=advice,
        values=values,
    )


CHECK = Check(
    name="shm",
    run=run,
    config=Config,
    metrics={
        "shm_size_bytes": "Size of /dev/shm.",
        "shm_available_bytes": "What can still be put into /dev/shm.",
    },
)
