"""A filer that answers slowly starves every data loader at once; the kernel's own timing shows it without a probe."""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Annotated

from msgspec import Meta

from checks.base import Check, CheckConfig, Finding, Memory, Status
from checks.host import Host, Unreadable
from checks.mountinfo import unescape

Milliseconds = Annotated[float, Meta(gt=0)]
_JUDGED = ("READ", "WRITE", "GETATTR", "LOOKUP", "OPEN", "ACCESS", "COMMIT")


class Config(CheckConfig, frozen=True, kw_only=True):
    """warn_ms, fail_ms: mean round trip of an operation since the last look, by the kernel's count (mountstats).

    A filer on a LAN answers metadata within 1 ms and reads within 10 ms; 100 ms is past what a loader with prefetch
    hides, 1,000 ms stalls training. Our judgement: vendors give no limit. least_operations: fewer say nothing.
    warn_retransmit_percent: share of requests sent more than once; nfsiostat(8) calls a rising share a sign of loss,
    the limit of 1 % is our judgement.
    """

    interval: float = 60.0
    consecutive: int = 3
    warn_ms: Milliseconds = 100.0
    fail_ms: Milliseconds = 1000.0
    least_operations: Annotated[int, Meta(ge=1)] = 20
    warn_retransmit_percent: Annotated[float, Meta(gt=0)] = 1.0


@dataclass(frozen=True, slots=True)
class Operations:
    """Since the mount: operations that ended, requests sent, major time-outs, milliseconds on the way in all."""

    operations: int
    sent: int
    timeouts: int
    round_trip_ms: int

    def since(self, before: "Operations") -> "Operations | None":
        """What came since; None when the counts went back (mounted anew)."""
        pairs = zip(self.as_list(), before.as_list(), strict=True)
        differences = [now - then for now, then in pairs]
        return None if min(differences) < 0 else Operations(*differences)

    def as_list(self) -> list[int]:
        return [self.operations, self.sent, self.timeouts, self.round_trip_ms]


def run(host: Host, config: Config, memory: Memory) -> Iterator[Finding]:
    """One finding per NFS mount, on `mount/<its mount point>`."""
    mounts = parse(_mountstats(host))
    boot = host.boot_id()
    known = memory.get("seen", {}) if memory.get("boot") == boot else {}
    for point, operations in mounts.items():
        before = {name: Operations(*numbers) for name, numbers in known.get(point, {}).items()}
        yield _judge(point, operations, before, config)
    memory["boot"] = boot
    memory["seen"] = {p: {name: o.as_list() for name, o in operations.items()} for p, operations in mounts.items()}
    if not mounts:
        yield Finding(component="nfs", status=Status.SKIPPED, summary="no NFS mount here")


def _judge(point: str, operations: dict[str, Operations], before: dict[str, Operations], config: Config) -> Finding:
    component = f"mount{point}"
    steps = {name: step for name, now in operations.items() if name in before and (step := now.since(before[name]))}
    if not steps:
        return Finding(component=component, status=Status.OK, summary="first look at its counts")
    total = Operations(*(sum(column) for column in zip(*(step.as_list() for step in steps.values()), strict=True)))
    means = {
        name: step.round_trip_ms / step.operations
        for name, step in steps.items()
        if step.operations >= config.least_operations
    }
    values = {"nfs_operations": float(total.operations)}
    if means:
        values["nfs_round_trip_seconds"] = total.round_trip_ms / max(total.operations, 1) / 1000.0
    slowest = max(means, key=means.__getitem__, default="")
    again = 100.0 * (total.sent - total.operations) / total.sent if total.sent else 0.0
    if slowest and means[slowest] >= config.warn_ms:
        said = f"{slowest} takes {means[slowest]:.0f} ms on average over {steps[slowest].operations} operations"
        status = Status.FAIL if means[slowest] >= config.fail_ms else Status.WARN
        return _trouble(component, status, "slow", said, values)
    if total.timeouts:
        said = f"{total.timeouts} requests timed out since the last look"
        return _trouble(component, Status.WARN, "timeouts", said, values)
    if total.sent >= config.least_operations and again >= config.warn_retransmit_percent:
        said = f"{again:.1f} % of {total.sent} requests were sent more than once"
        return _trouble(component, Status.WARN, "retransmits", said, values)
    if not slowest:
        summary = f"{total.operations} operations since the last look: too few to judge"
    else:
        summary = f"{slowest} is slowest, {means[slowest]:.1f} ms on average"
    return Finding(component=component, status=Status.OK, summary=summary, values=values)


def _trouble(component: str, status: Status, kind: str, said: str, values: dict[str, float]) -> Finding:
    return Finding(
        component=component,
        status=status,
        cause="storage.filesystem",
        kind=kind,
        summary=f"{component.removeprefix('mount')}: {said}",
        evidence=said,
        advice="compare with other nodes: all slow is the filer, one slow is this node's network (`nfsiostat 1`)",
        values=values,
    )


def parse(text: str) -> dict[str, dict[str, Operations]]:
    """Mount point -> operation -> its counts, of the NFS mounts in /proc/<pid>/mountstats (statvers=1.1).

    Lines of an operation: NAME: operations, requests, time-outs, bytes sent, bytes received, ms queued, ms round trip,
    ms in all. Damaged lines are left out.
    """
    found: dict[str, dict[str, Operations]] = {}
    point = ""
    for line in text.splitlines():
        fields = line.split()
        if line.startswith("device "):
            nfs = "fstype" in fields and fields[fields.index("fstype") + 1].startswith("nfs")
            point = unescape(fields[fields.index("on") + 1]) if nfs and "on" in fields else ""
            if point:
                found[point] = {}
        elif point and len(fields) >= 9 and fields[0].rstrip(":") in _JUDGED and all(map(str.isdigit, fields[1:9])):
            numbers = [int(field) for field in fields[1:9]]
            found[point][fields[0].rstrip(":")] = Operations(numbers[0], numbers[1], numbers[2], numbers[6])
    return found


def _mountstats(host: Host) -> str:
    try:
        return host.read(host.proc / "1/mountstats")
    except Unreadable:
        return host.read(host.proc / "self/mountstats")


CHECK = Check(
    name="nfs_latency",
    run=run,
    config=Config,
    metrics={
        "nfs_round_trip_seconds": "Mean round trip of operations since the last look.",
        "nfs_operations": "Operations since the last look.",
    },
)
