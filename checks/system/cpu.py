"""Processors that are offline, throttled or saving power feed the GPUs too slowly, and nothing reports an error."""

from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Annotated

from msgspec import Meta

from checks.base import Check, CheckConfig, Finding, Memory, Status
from checks.counters import observe
from checks.host import Host, Unreadable


class Config(CheckConfig, frozen=True, kw_only=True):
    """governor: the frequency governor that is wanted, "" for any. sichek and gcm want `performance`; a driver that
    steers by energy preference (intel_pstate, amd_pstate in active mode) does the same with `performance` there.

    warn_throttled: times within an hour that a package was slowed for its heat. A node that is cooled well is never; a
    burst at a job's start is borne (our judgement).
    """

    interval: float = 300.0
    governor: str = "performance"
    warn_throttled: Annotated[int, Meta(ge=1)] = 10


def run(host: Host, config: Config, memory: Memory) -> Iterator[Finding]:
    """Findings on `cpu/online`, `cpu/governor` and `cpu/throttle`."""
    base = host.sys / "devices/system/cpu"
    yield _online(host, base)
    numbers = [path for path in host.entries(base) if path.name[:3] == "cpu" and path.name[3:].isdigit()]
    yield _governor(host, numbers, config)
    yield _throttle(host, numbers, config, memory)


def _online(host: Host, base: Path) -> Finding:
    present, online = count(host.read(base / "present")), count(host.read(base / "online"))
    off = present - online
    values = {"cpus_present": float(present), "cpus_online": float(online)}
    # With SMT switched off, the second thread of every core is offline, and meant to be.
    meant = _threads_off(host, base) and off * 2 <= present
    if off <= 0 or meant:
        summary = f"{online} of {present} online{' (SMT is off)' if off > 0 else ''}"
        return Finding(component="cpu/online", status=Status.OK, summary=summary, values=values)
    return Finding(
        component="cpu/online",
        status=Status.WARN,
        cause="host.kernel",
        kind="offline",
        summary=f"{off} of {present} processors are offline",
        evidence=f"offline: {host.read(base / 'offline')}",
        advice="see why in `dmesg | grep -i cpu`; `echo 1 > /sys/devices/system/cpu/cpuN/online` brings one back",
        values=values,
    )


def _governor(host: Host, numbers: list[Path], config: Config) -> Finding:
    found = Counter(word for path in numbers if (word := _policy(host, path)))
    wrong = {word: number for word, number in found.items() if word != config.governor}
    if not found or not config.governor:
        summary = "no frequency governor here (virtual machine, or the firmware steers)"
        return Finding(component="cpu/governor", status=Status.SKIPPED, summary=summary)
    if not wrong:
        return Finding(component="cpu/governor", status=Status.OK, summary=f"{config.governor} on {found.total()}")
    said = ", ".join(f"{word} on {number}" for word, number in sorted(wrong.items()))
    return Finding(
        component="cpu/governor",
        status=Status.WARN,
        cause="host.kernel",
        kind="governor",
        summary=f"{said} processors, want {config.governor}",
        evidence=said,
        advice=f"`cpupower frequency-set -g {config.governor}`, and keep it with a tuned profile (hpc-compute)",
    )


def _policy(host: Host, path: Path) -> str:
    """The governor, or `performance` for one that is told so by its energy preference; "" without one."""
    try:
        governor = host.read(path / "cpufreq/scaling_governor")
    except Unreadable:
        return ""
    try:
        preference = host.read(path / "cpufreq/energy_performance_preference")
    except Unreadable:
        return governor
    return "performance" if preference == "performance" else governor


def _throttle(host: Host, numbers: list[Path], config: Config, memory: Memory) -> Finding:
    totals: dict[str, int] = {}
    for path in numbers:
        try:
            package = host.read(path / "topology/physical_package_id")
            throttled = host.count(path / "thermal_throttle/package_throttle_count")
        except Unreadable:
            continue  # AMD and virtual machines have no such count
        totals[package] = max(totals.get(package, 0), throttled)
    if not totals:
        summary = "the processor does not count it"
        return Finding(component="cpu/throttle", status=Status.SKIPPED, summary=summary)
    boot, now = host.boot_id(), host.clock.monotonic()
    rises = {package: observe(memory, package, total, at=now, boot=boot) for package, total in totals.items()}
    values = {"cpu_throttles_total": float(sum(totals.values()))}
    worst = max(rises, key=lambda package: rises[package].recent)
    if rises[worst].recent < config.warn_throttled:
        summary = "first look at its counts" if rises[worst].first else "not slowed for its heat within the hour"
        return Finding(component="cpu/throttle", status=Status.OK, summary=summary, values=values)
    said = f"package {worst} was slowed for its heat {rises[worst].recent} times within the hour"
    return Finding(
        component="cpu/throttle",
        status=Status.WARN,
        cause="gpu.thermal_power",
        kind="throttled",
        summary=said,
        evidence=f"package_throttle_count: {totals[worst]}",
        advice="see fans and inlet temperature: `ipmitool sdr type temperature`; compare with its rack",
        values=values,
    )


def count(ranges: str) -> int:
    """How many a list such as `0-3,8,10-11` names. Raises Unreadable for anything else."""
    total = 0
    for part in filter(None, ranges.split(",")):
        first, _, last = part.partition("-")
        if not first.isdigit() or (last and not last.isdigit()):
            raise Unreadable(f"{ranges[:40]!r} is no list of processors")
        total += int(last or first) - int(first) + 1
    return total


def _threads_off(host: Host, base: Path) -> bool:
    try:
        return host.read(base / "smt/control") in ("off", "forceoff")
    except Unreadable:
        return False


CHECK = Check(
    name="cpu",
    run=run,
    config=Config,
    metrics={
        "cpus_present": "Processors that the machine has.",
        "cpus_online": "Processors that are in use.",
        "cpu_throttles_total": "Times that packages were slowed for their heat, since boot.",
    },
)
