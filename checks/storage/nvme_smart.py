"""A worn or failing NVMe disk takes the dataset cache, the checkpoint and often the node with it."""

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Annotated, Any

import msgspec
from msgspec import Meta

from checks.base import Check, CheckConfig, Finding, Memory, Status
from checks.devices import look
from checks.host import CommandError, Host, Unreadable, printable

Percent = Annotated[float, Meta(ge=0)]
_KELVIN = 273
# Bits of Critical Warning, NVM Express Base Specification 2.0, figure 207.
_WARNINGS = {
    0: "spare blocks are below their threshold",
    1: "its temperature is out of range",
    2: "it is unreliable: too many media or internal errors",
    3: "it turned read-only",
    4: "its volatile memory backup failed",
    5: "its persistent memory region is unreliable",
}


class Config(CheckConfig, frozen=True, kw_only=True):
    """warn_used_percent, fail_used_percent: endurance used by the vendor's estimate; 80 and 100, as gcm.

    Any critical warning of the disk itself fails, as do spare blocks below the disk's own threshold; media errors that
    rise since an earlier look warn: one unreadable block is one broken file.
    """

    interval: float = 600.0
    deadline: float = 20.0
    warn_used_percent: Percent = 80.0
    fail_used_percent: Percent = 100.0


class Health(msgspec.Struct, frozen=True, kw_only=True):
    """The SMART / Health Information log page. temperature: degrees Celsius; shares in percent."""

    warning: int
    used: float
    spare: float
    threshold: float
    media_errors: int
    temperature: float


def run(host: Host, config: Config, memory: Memory) -> Iterator[Finding]:
    """One finding per NVMe disk on PCI, on `nvme/<controller>`."""
    disks = [path for path in host.devices("nvme") if _on_pci(host, path)]
    errors: dict[str, int] = {}
    for path in disks:
        name = printable(path.name)
        yield from look(f"nvme/{name}", _disk(host, path, config, memory.get("media_errors", {}), errors))
    memory["media_errors"] = {**memory.get("media_errors", {}), **errors} if disks else {}
    if not disks:
        yield Finding(component="nvme", status=Status.SKIPPED, summary="no NVMe disk here")


def _disk(host: Host, path: Path, config: Config, before: dict[str, int], after: dict[str, int]) -> Iterator[Finding]:
    name = printable(path.name)
    state = host.read(path / "state")
    if state != "live":
        yield _trouble(name, Status.FAIL, "state", f"controller is {state}, not live", {})
        return
    health = _health(host, name)
    if health is None:
        summary = "live; wear and errors are not known: install nvme-cli or smartmontools (apt install nvme-cli)"
        yield Finding(component=f"nvme/{name}", status=Status.SKIPPED, summary=summary)
        return
    serial = host.read(path / "serial") if (path / "serial").exists() else name
    after[serial] = health.media_errors
    yield judge(name, health, before.get(serial, health.media_errors), config)


def judge(name: str, health: Health, errors_before: int, config: Config) -> Finding:
    """What is to be said of a disk. errors_before: media errors at an earlier look."""
    values = {
        "nvme_used_ratio": health.used / 100.0,
        "nvme_spare_ratio": health.spare / 100.0,
        "nvme_media_errors_total": float(health.media_errors),
        "nvme_temperature_celsius": health.temperature,
    }
    if health.warning:
        meant = [text for bit, text in _WARNINGS.items() if health.warning >> bit & 1] or ["unknown bit"]
        said = f"critical warning 0x{health.warning:02x}: {'; '.join(meant)}"
        return _trouble(name, Status.FAIL, "critical", said, values)
    if health.spare < health.threshold:
        said = f"{health.spare:.0f} % spare blocks left, its threshold is {health.threshold:.0f} %"
        return _trouble(name, Status.FAIL, "spare", said, values)
    if health.used >= config.warn_used_percent:
        status = Status.FAIL if health.used >= config.fail_used_percent else Status.WARN
        return _trouble(name, status, "worn", f"{health.used:.0f} % of its endurance is used", values)
    if health.media_errors > errors_before:
        said = f"{health.media_errors - errors_before} more media errors, {health.media_errors} in all"
        return _trouble(name, Status.WARN, "media_errors", said, values)
    summary = f"{health.used:.0f} % used, {health.spare:.0f} % spare, {health.temperature:.0f} C"
    return Finding(component=f"nvme/{name}", status=Status.OK, summary=summary, values=values)


def _trouble(name: str, status: Status, kind: str, said: str, values: dict[str, float]) -> Finding:
    return Finding(
        component=f"nvme/{name}",
        status=status,
        cause="storage.filesystem",
        kind=kind,
        summary=f"{name}: {said}",
        evidence=said,
        advice=f"save what is on it and replace it; its own word: `nvme smart-log /dev/{name}`",
        values=values,
    )


def _health(host: Host, name: str) -> Health | None:
    """The disk's health by the first tool that is installed; None without one. Raises Unreadable."""
    device = f"/dev/{name}"
    tools: tuple[tuple[tuple[str, ...], Callable[[Any], Health]], ...] = (
        (("nvme", "smart-log", device, "--output-format=json"), _of_nvme_cli),
        (("smartctl", "--json", "--all", device), _of_smartctl),
    )
    missing = 0
    for command, convert in tools:
        try:
            answer = host.run(command, 5.0)
        except CommandError as error:
            if "not " not in str(error):
                raise Unreadable(str(error)) from error
            missing += 1
            continue
        try:
            return convert(msgspec.json.decode(answer.stdout))
        except (msgspec.DecodeError, KeyError, TypeError, ValueError) as error:
            said = (answer.stderr or answer.stdout).strip()[:120]
            raise Unreadable(f"{command[0]} of {device}: exit {answer.returncode}: {said or 'no answer'}") from error
    assert missing == len(tools)
    return None


def _of_nvme_cli(tree: Any) -> Health:
    used = tree["percent_used"] if "percent_used" in tree else tree["percentage_used"]
    return Health(
        warning=int(tree["critical_warning"]),
        used=float(used),
        spare=float(tree["avail_spare"]),
        threshold=float(tree["spare_thresh"]),
        media_errors=int(tree["media_errors"]),
        temperature=float(tree["temperature"]) - _KELVIN,
    )


def _of_smartctl(tree: Any) -> Health:
    page = tree["nvme_smart_health_information_log"]
    return Health(
        warning=int(page["critical_warning"]),
        used=float(page["percentage_used"]),
        spare=float(page["available_spare"]),
        threshold=float(page["available_spare_threshold"]),
        media_errors=int(page["media_errors"]),
        temperature=float(page["temperature"]),
    )


def _on_pci(host: Host, path: Path) -> bool:
    """NVMe over fabrics has no health of its own to read here."""
    try:
        return host.read(path / "transport") == "pcie"
    except Unreadable:
        return True  # kernels before 4.8 do not say, and had nothing else


CHECK = Check(
    name="nvme_smart",
    run=run,
    config=Config,
    metrics={
        "nvme_used_ratio": "Endurance used by the vendor's estimate; may pass 1.",
        "nvme_spare_ratio": "Spare blocks left.",
        "nvme_media_errors_total": "Unrecovered data integrity errors over the disk's life.",
        "nvme_temperature_celsius": "Composite temperature.",
    },
)
