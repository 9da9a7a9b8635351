"""Storage that still answers but reads at a tenth of its pace turns every epoch into waiting; only reading shows it."""

import statistics
from collections.abc import Iterator
from typing import Annotated

from msgspec import Meta, field
from msgspec.structs import replace

from checks.base import Check, CheckConfig, Finding, Memory, Status
from checks.direct_io import PROBE_FILE, Throughput
from checks.host import Host, Unreadable
from checks.prober import ProbeError

_LEARNED = 48  # good samples kept: half a day at the default interval
_LEAST_LEARNED = 8  # fewer are no baseline


class Config(CheckConfig, frozen=True, kw_only=True):
    """directories: where to read and write; none by default, because a check does not write where nobody asked it to.

    size: bytes per direction. 16 MB is 16 requests of 1 MB, some 10 ms of a healthy filer. write: make and rewrite the
    file `.muster-probe` there; without it an existing one is only read.
    seconds: most time per direction; a slow file system is asked for less, not longer. budget_percent: share of the
    time that a directory may be busy with these probes: after one that took 2 s at 0.1 % none is made for 33 minutes.
    least_mb_s: directory -> MB/s (1e6 bytes) that reads must reach. Without, a directory is judged against its own
    median: slower than slow_percent of it is said (our judgement; bad samples are not learned from).
    """

    interval: float = 900.0
    deadline: float = 30.0
    consecutive: int = 2
    directories: tuple[str, ...] = ()
    size: Annotated[int, Meta(ge=1_048_576, le=1_073_741_824)] = 16 * 1_048_576
    write: bool = True
    seconds: Annotated[float, Meta(gt=0, le=10)] = 2.0
    budget_percent: Annotated[float, Meta(gt=0, le=100)] = 0.1
    least_mb_s: dict[str, float] = field(default_factory=dict)
    slow_percent: Annotated[float, Meta(gt=0, lt=100)] = 30.0


def run(host: Host, config: Config, memory: Memory) -> Iterator[Finding]:
    """One finding per directory, on `mount/<directory>`."""
    if not config.directories:
        yield Finding(
            component="throughput",
            status=Status.SKIPPED,
            summary="no directory is configured: checks.read_throughput.directories = ['/data']",
        )
    boot, now = host.boot_id(), host.clock.monotonic()
    if memory.get("boot") != boot:
        memory["boot"], memory["not_before"] = boot, {}
    end = now + config.deadline
    for directory in config.directories:
        if now < memory["not_before"].get(directory, 0.0) and directory in memory.get("last", {}):
            yield _resting(directory, memory["last"][directory])
            continue
        deadline = min(2 * config.seconds + 1.0, end - host.clock.monotonic())
        yield _probe(host, directory, deadline, config, memory, now)


def _probe(host: Host, directory: str, deadline: float, config: Config, memory: Memory, now: float) -> Finding:
    component = f"mount{directory}"
    try:
        if deadline <= 0:
            raise Unreadable("not asked: others used up the time of this check")
        found = host.throughput(directory, config.size, write=config.write, seconds=config.seconds, deadline=deadline)
    except (ProbeError, Unreadable) as error:
        # It may be overloaded: leave it in peace for as long as if the probe had used its whole time.
        _rest(memory, directory, now, 2 * config.seconds, config)
        return _silent(component, directory, str(error))
    _rest(memory, directory, now, found.read_seconds + found.written_seconds, config)
    if not found.read_bytes:
        return _silent(component, directory, f"{directory}/{PROBE_FILE} is empty")
    finding = judge(directory, found, memory.setdefault("learned", {}).get(directory, []), config)
    rate = _rate(found.read_bytes, found.read_seconds)
    if finding.status is Status.OK:
        memory["learned"][directory] = [*memory["learned"].get(directory, []), rate][-_LEARNED:]
    memory.setdefault("last", {})[directory] = [finding.status == Status.OK, finding.summary, finding.kind]
    return replace(finding, values=_values(found, rate))


def judge(directory: str, found: Throughput, learned: list[float], config: Config) -> Finding:
    """What is to be said of one measurement. learned: MB/s of good samples, oldest first."""
    component, rate = f"mount{directory}", _rate(found.read_bytes, found.read_seconds)
    how = "" if found.direct else " (by way of the page cache: the file system has no direct I/O)"
    least = config.least_mb_s.get(directory)
    usual = statistics.median(learned) if len(learned) >= _LEAST_LEARNED else 0.0
    said = f"reads at {rate:.0f} MB/s{how}"
    if least is not None and rate < least:
        kind, against = "below", f"want {least:.0f} MB/s (checks.read_throughput.least_mb_s)"
    elif least is None and usual and 100.0 * rate < config.slow_percent * usual:
        kind, against = "slow", f"{usual:.0f} MB/s is usual"
    else:
        against = "" if least is not None or usual else f", {len(learned) + 1} of {_LEAST_LEARNED} samples learned"
        return Finding(component=component, status=Status.OK, summary=f"{said}{against}")
    return Finding(
        component=component,
        status=Status.WARN,
        cause="storage.filesystem",
        kind=kind,
        summary=f"{directory}: {said}, {against}",
        evidence=f"{found.read_bytes} bytes in {found.read_seconds:.3f} s",
        advice="compare with other nodes: all slow is the storage, one slow is this node's network or disk",
    )


def _resting(directory: str, last: list[object]) -> Finding:
    """What the last probe said still stands: to ask again now would load the storage more than its budget allows."""
    well, summary, kind = last
    said = f"{summary} (by the last probe; the next one waits for its budget)"
    if well:
        return Finding(component=f"mount{directory}", status=Status.OK, summary=said)
    return Finding(
        component=f"mount{directory}",
        status=Status.WARN,
        cause="storage.filesystem",
        kind=str(kind),
        summary=said,
        advice="compare with other nodes: all slow is the storage, one slow is this node's network or disk",
    )


def _silent(component: str, directory: str, reason: str) -> Finding:
    return Finding(
        component=component,
        status=Status.UNKNOWN,
        cause="storage.filesystem",
        kind="no_answer",
        summary=f"{directory}: not measured: {reason}",
        advice=f"see what the check `mounts` says of it, and that {directory}/{PROBE_FILE} may be written",
    )


def _rest(memory: Memory, directory: str, now: float, spent: float, config: Config) -> None:
    memory["not_before"][directory] = now + spent * 100.0 / config.budget_percent


def _rate(moved: int, seconds: float) -> float:
    """MB/s, 1e6 bytes."""
    return moved / 1e6 / max(seconds, 1e-6)


def _values(found: Throughput, rate: float) -> dict[str, float]:
    values = {"storage_read_bytes_per_second": rate * 1e6}
    if found.written_bytes:
        values["storage_write_bytes_per_second"] = _rate(found.written_bytes, found.written_seconds) * 1e6
    return values


CHECK = Check(
    name="read_throughput",
    run=run,
    config=Config,
    metrics={
        "storage_read_bytes_per_second": "Rate of a small timed read past the page cache.",
        "storage_write_bytes_per_second": "Rate of a small timed write, made durable.",
    },
)
