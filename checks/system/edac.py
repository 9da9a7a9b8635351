"""Memory errors that the hardware corrected announce the one that it cannot, which ends every job on the node."""

from collections.abc import Iterator
from pathlib import Path
from typing import Annotated

from msgspec import Meta
from msgspec.structs import replace

from checks.base import Check, CheckConfig, ClearRule, Finding, Memory, Status
from checks.counters import forget, observe
from checks.devices import look
from checks.host import Host, Unreadable, printable

_DAY = 86_400.0


class Config(CheckConfig, frozen=True, kw_only=True):
    """warn_corrected: corrected errors of one DIMM within a day. sichek warns at 100 ever, which an old node passes
    once and for all; so here 100 a day. Any uncorrected error since boot fails, until the reboot after the repair.
    """

    interval: float = 60.0
    warn_corrected: Annotated[int, Meta(ge=1)] = 100


def run(host: Host, config: Config, memory: Memory) -> Iterator[Finding]:
    """One finding per memory controller on `memory/<controller>`, and one per DIMM in trouble below it."""
    directory = host.sys / "devices/system/edac/mc"
    controllers = [p for p in host.entries(directory) if p.name.startswith("mc")] if directory.is_dir() else []
    boot = host.boot_id()
    for path in controllers:
        yield from look(f"memory/{printable(path.name)}", _controller(host, path, config, memory, boot))
    names = {printable(path.name) for path in controllers}
    forget(memory, "", {key for key in memory.get("counters", {}) if key.partition("/")[0] in names})
    if not controllers:
        summary = "no EDAC driver here: corrected memory errors cannot be seen (a virtual machine, or ECC is off)"
        yield Finding(component="memory", status=Status.SKIPPED, summary=summary)


def _controller(host: Host, path: Path, config: Config, memory: Memory, boot: str) -> Iterator[Finding]:
    name = printable(path.name)
    corrected, uncorrected = host.count(path / "ce_count"), host.count(path / "ue_count")
    values = {
        "memory_corrected_errors_total": float(corrected),
        "memory_uncorrected_errors_total": float(uncorrected),
    }
    troubles = []
    if uncorrected:
        troubles.append(_uncorrected(host, path, uncorrected))
    now = host.clock.monotonic()
    for label, key, count in _dimms(host, path, corrected):
        rise = observe(memory, f"{name}/{key}", count, at=now, boot=boot, window=_DAY)
        if rise.recent >= config.warn_corrected:
            said = f"{rise.recent} corrected errors within a day on {label}"
            advice = f"plan to replace {label}; run a memory test before the node is used again"
            troubles.append(_trouble(f"memory/{name}/{key}", Status.WARN, "corrected", said, advice))
    summary = f"{corrected} corrected and no uncorrected errors since boot"
    first, *rest = troubles or [Finding(component=f"memory/{name}", status=Status.OK, summary=summary)]
    yield replace(first, values=values)
    yield from rest


def _uncorrected(host: Host, path: Path, count: int) -> Finding:
    where = [label for label, _, number in _dimms(host, path, 0, "ue") if number]
    said = f"{count} uncorrected memory errors since boot{' on ' + ', '.join(where) if where else ''}"
    advice = "drain the node, replace the DIMM, reboot"
    found = _trouble(f"memory/{printable(path.name)}", Status.FAIL, "uncorrected", said, advice)
    return replace(found, clear=ClearRule.REBOOT)


def _dimms(host: Host, path: Path, total: int, kind: str = "ce") -> Iterator[tuple[str, str, int]]:
    """Label, directory and count of each DIMM; the controller itself where the driver knows no DIMMs."""
    known = False
    for dimm in host.entries(path):
        if not dimm.name.startswith(("dimm", "rank")) or not (dimm / f"dimm_{kind}_count").exists():
            continue
        known = True
        yield _label(host, dimm), printable(dimm.name), host.count(dimm / f"dimm_{kind}_count")
    if not known and kind == "ce":
        yield printable(path.name), "all", total


def _label(host: Host, dimm: Path) -> str:
    try:
        return host.read(dimm / "dimm_label") or printable(dimm.name)
    except Unreadable:
        return printable(dimm.name)


def _trouble(component: str, status: Status, kind: str, said: str, advice: str) -> Finding:
    return Finding(
        component=component,
        status=status,
        cause="host.kernel",
        kind=kind,
        summary=said,
        evidence=said,
        advice=advice,
    )


CHECK = Check(
    name="edac",
    run=run,
    config=Config,
    metrics={
        "memory_corrected_errors_total": "Memory errors of this controller that ECC corrected, since boot.",
        "memory_uncorrected_errors_total": "Memory errors of this controller that it could not correct, since boot.",
    },
)
