"""A clock that runs free makes logs of different nodes impossible to line up, and in the end breaks authentication."""

from collections.abc import Iterator
from typing import Annotated

from msgspec import Meta

from checks.adjtimex import KernelClock
from checks.base import Check, CheckConfig, Finding, Memory, Status
from checks.host import CommandError, Host, Unreadable

Seconds = Annotated[float, Meta(ge=0)]
_CHRONY = ("chronyc", "-c", "-n", "tracking")


class Config(CheckConfig, frozen=True, kw_only=True):
    """warn_seconds, fail_seconds: how far the clock may be off its servers.

    NTP on a LAN holds a millisecond, PTP a microsecond; sichek warns at 1 ms and is critical at 10 ms, for PTP sites.
    Logs are lined up to about 0.1 s, so 0.05 s warns; at 1 s leases and time-outs between nodes go wrong.
    required: say so when nobody keeps the clock even in a virtual machine, whose hypervisor usually does.
    """

    interval: float = 60.0
    consecutive: int = 3
    boot_grace: float = 300.0
    warn_seconds: Seconds = 0.05
    fail_seconds: Seconds = 1.0
    required: bool = False


def run(host: Host, config: Config, memory: Memory) -> Iterator[Finding]:
    """One finding on `clock`."""
    kernel = host.kernel_clock()
    offset = _chrony_offset(host)
    if offset is None and not kernel.synchronised:
        yield _free(host, kernel, config)
        return
    keeper = "chrony" if offset is not None else "the kernel's time discipline"
    yield _judge(kernel.offset if offset is None else offset, keeper, config)


def _judge(offset: float, keeper: str, config: Config) -> Finding:
    said = f"{abs(offset) * 1000:.3f} ms {'fast' if offset > 0 else 'slow'} by {keeper}"
    values = {"clock_offset_seconds": offset}
    if abs(offset) < config.warn_seconds:
        return Finding(component="clock", status=Status.OK, summary=said, values=values)
    return Finding(
        component="clock",
        status=Status.FAIL if abs(offset) >= config.fail_seconds else Status.WARN,
        cause="host.kernel",
        kind="offset",
        summary=f"the clock is {said}",
        evidence=f"offset {offset:.6f} s",
        advice="see `chronyc sources -v`; step it with `chronyc makestep` while no job runs",
        values=values,
    )


def _free(host: Host, kernel: KernelClock, config: Config) -> Finding:
    """What is to be said when nobody keeps the clock."""
    if _virtual(host) and not config.required:
        return Finding(
            component="clock",
            status=Status.SKIPPED,
            summary="no time daemon here; in a virtual machine the hypervisor keeps the clock"
            " (checks.clock_sync.required = true to demand one)",
        )
    return Finding(
        component="clock",
        status=Status.WARN,
        cause="host.kernel",
        kind="unsynchronised",
        summary="nobody keeps the clock: the kernel says it is not synchronised",
        evidence=f"adjtimex: not synchronised, maximum error {kernel.max_error:g} s",
        advice="start a time daemon (`systemctl enable --now chrony`) and see that it reaches its servers",
    )


def _chrony_offset(host: Host) -> float | None:
    """Seconds that chrony finds the clock fast (positive) or slow; None when chrony does not run or has no server.

    Needed beside the kernel's word: chronyd without `rtcsync` steers the clock and leaves it marked unsynchronised.
    """
    try:
        answer = host.run(_CHRONY, 2.0)
    except CommandError:
        return None
    fields = answer.stdout.strip().split(",")
    if answer.returncode != 0 or len(fields) < 14 or fields[-1] == "Not synchronised":
        return None
    try:
        return float(fields[4])
    except ValueError:
        return None


def _virtual(host: Host) -> bool:
    try:
        return " hypervisor" in host.read(host.proc / "cpuinfo").partition("\n\n")[0]
    except Unreadable:
        return False


CHECK = Check(
    name="clock_sync",
    run=run,
    config=Config,
    metrics={"clock_offset_seconds": "How far the clock is ahead of its servers, negative when behind."},
)
