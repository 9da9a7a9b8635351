"""A full file system ends a run at its next checkpoint, and a full root ends everything on the node."""

from collections.abc import Iterator
from typing import Annotated

from msgspec import Meta

from checks.base import Check, CheckConfig, Finding, Memory, Status
from checks.host import FileSystemSize, Host, Unreadable
from checks.mountinfo import Mount, disks
from checks.prober import ProbeError

Percent = Annotated[float, Meta(ge=0, le=100)]
Hours = Annotated[float, Meta(ge=0)]
Bytes = Annotated[int, Meta(ge=0)]

# A shorter span says how one checkpoint was written, not how the file system grows.
_LEAST_SPAN_SECONDS = 1800.0
_WINDOW_SECONDS = 7200.0
_SAMPLE_SECONDS = 300.0


class Config(CheckConfig, frozen=True, kw_only=True):
    """exclude: mount points left out. ask_seconds: how long one file system may take to answer.

    warn_percent, fail_percent: share of bytes or of inodes used. gcm warns at 80 % and is critical at 85 %, which on a
    100 TB scratch calls 15 TB critical; so here 85 % and 95 %, and the share of bytes only counts while also less than
    enough_bytes is free: 200 GB, one checkpoint of a 13B model with its optimiser (16 bytes a parameter).
    fail_bytes: 500 MB is too little whatever the share says (gpud: root degraded below 500 MiB), on file systems
    larger than ten times that.
    warn_hours_to_full: at its growth over the last two hours it is full sooner than this. Four hours is about the
    time to find and move somebody's data; our judgement.
    """

    deadline: float = 15.0
    exclude: tuple[str, ...] = ()
    ask_seconds: Annotated[float, Meta(gt=0)] = 3.0
    warn_percent: Percent = 85.0
    fail_percent: Percent = 95.0
    enough_bytes: Bytes = 200_000_000_000
    fail_bytes: Bytes = 500_000_000
    warn_hours_to_full: Hours = 4.0


def run(host: Host, config: Config, memory: Memory) -> Iterator[Finding]:
    """One finding per file system that can be written, on `mount/<its mount point>`."""
    end = host.clock.monotonic() + config.deadline
    samples = {}
    for mount in disks(host):
        if mount.point in config.exclude or mount.read_only:
            continue
        deadline = min(config.ask_seconds, end - host.clock.monotonic())
        try:
            if deadline <= 0:
                raise Unreadable("not asked: others used up the time of this check")
            size = host.size(mount.point, deadline)
        except (ProbeError, Unreadable) as error:
            yield _no_answer(mount, str(error))
            continue
        if size.total <= 0:
            continue  # a file system of handles that mountinfo's list of kinds does not know yet
        series = remember(memory, host, mount.point, size.available)
        samples[mount.point] = series
        yield judge(mount, size, hours_to_full(series), config)
    memory["samples"] = samples


def judge(mount: Mount, size: FileSystemSize, hours: float | None, config: Config) -> Finding:
    """What is to be said of one file system. hours: until it is full, None when it does not grow or nobody knows."""
    used = 100.0 * (1.0 - size.available / size.total)
    inodes = 100.0 * (1.0 - size.inodes_available / size.inodes) if size.inodes > 0 else 0.0
    values = {
        "filesystem_size_bytes": float(size.total),
        "filesystem_available_bytes": float(size.available),
        "filesystem_inodes": float(max(size.inodes, 0)),
        "filesystem_available_inodes": float(max(size.inodes_available, 0)),
    }
    status, kind = _verdict(size, used, inodes, hours, config)
    said = f"{used:.0f} % used, {bytes_text(size.available)} of {bytes_text(size.total)} free"
    if kind == "inodes":
        said = f"{inodes:.0f} % of {size.inodes} inodes used, {size.inodes_available} free"
    elif kind == "growth":
        said += f", full in {hours:.1f} h at the growth of the last two hours"
    if status is Status.OK:
        return Finding(component=mount.component, status=status, summary=said, values=values)
    return Finding(
        component=mount.component,
        status=status,
        cause="storage.disk_full",
        kind=kind,
        summary=f"{mount.point}: {said}",
        evidence=f"{mount.source} on {mount.point} type {mount.kind}",
        advice=_ADVICE[kind].format(point=mount.point),
        values=values,
    )


_ADVICE = {
    "bytes": "find what fills it: `du -xh --max-depth=2 {point} | sort -h | tail`",
    "inodes": "find the directory with the many files: `du -x --inodes --max-depth=2 {point} | sort -n | tail`",
    "growth": "find what grows: `du -xh --max-depth=2 {point} | sort -h | tail`, twice, a minute apart",
}


def _verdict(
    size: FileSystemSize, used: float, inodes: float, hours: float | None, config: Config
) -> tuple[Status, str]:
    roomy = size.available >= config.enough_bytes
    if size.total > 10 * config.fail_bytes and size.available < config.fail_bytes:
        return Status.FAIL, "bytes"
    if used >= config.fail_percent and not roomy:
        return Status.FAIL, "bytes"
    if inodes >= config.fail_percent:
        return Status.FAIL, "inodes"
    if used >= config.warn_percent and not roomy:
        return Status.WARN, "bytes"
    if inodes >= config.warn_percent:
        return Status.WARN, "inodes"
    if hours is not None and hours < config.warn_hours_to_full:
        return Status.WARN, "growth"
    return Status.OK, ""


def remember(memory: Memory, host: Host, point: str, available: int) -> list[list[float]]:
    """The samples of this boot, [monotonic seconds, bytes available], one in five minutes, the newest last."""
    now, boot = host.clock.monotonic(), host.boot_id()
    if memory.get("boot") != boot:
        memory["boot"], memory["samples"] = boot, {}
    kept = [sample for sample in memory["samples"].get(point, []) if now - _WINDOW_SECONDS <= sample[0] <= now]
    if len(kept) >= 2 and now - kept[-2][0] < _SAMPLE_SECONDS:
        kept.pop()
    return [*kept, [now, float(available)]]


def hours_to_full(series: list[list[float]]) -> float | None:
    """Hours until nothing is available, by the first and the last sample; None when it does not shrink."""
    (start, before), (end, after) = series[0], series[-1]
    if end - start < _LEAST_SPAN_SECONDS or after >= before:
        return None
    return after / ((before - after) / (end - start)) / 3600.0


def _no_answer(mount: Mount, reason: str) -> Finding:
    return Finding(
        component=mount.component,
        status=Status.UNKNOWN,
        cause="storage.filesystem",
        kind="no_answer",
        summary=f"{mount.point}: size not known: {reason}",
        evidence=f"{mount.source} on {mount.point} type {mount.kind}",
        advice="see what the check `mounts` says of it",
    )


def bytes_text(count: float) -> str:
    """A size for people, in powers of 1000."""
    for unit in ("B", "kB", "MB", "GB", "TB"):
        if count < 1000:
            return f"{count:.0f} {unit}"
        count /= 1000
    return f"{count:.1f} PB"


CHECK = Check(
    name="space",
    run=run,
    config=Config,
    metrics={
        "filesystem_size_bytes": "Size of the file system.",
        "filesystem_available_bytes": "What an ordinary user can still write to it.",
        "filesystem_inodes": "Files that the file system can hold; 0 where it sets no limit.",
        "filesystem_available_inodes": "Files that can still be made.",
    },
)
