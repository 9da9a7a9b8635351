"""A daemon that jobs need (slurmd, fabric manager, a mount helper) is down, or starts over and over."""

from collections.abc import Iterator
from typing import Annotated

from msgspec import Meta

from checks.base import Check, CheckConfig, Finding, Memory, Status
from checks.counters import forget, observe
from checks.host import Host, Unreadable

_PROPERTIES = "Id,LoadState,ActiveState,SubState,Result,NRestarts"


class Config(CheckConfig, frozen=True, kw_only=True):
    """units: systemd units that must be active, as `slurmd.service` or `slurmd`; none by default: sites differ.

    warn_restarts: times within an hour that systemd had to start one again; 3 is no longer chance (our judgement).
    """

    interval: float = 30.0
    consecutive: int = 2
    boot_grace: float = 300.0
    units: tuple[str, ...] = ()
    warn_restarts: Annotated[int, Meta(ge=1)] = 3


def run(host: Host, config: Config, memory: Memory) -> Iterator[Finding]:
    """One finding per configured unit, on `service/<unit>`."""
    if not config.units:
        summary = "no unit is configured: checks.services.units = ['slurmd']"
        yield Finding(component="service", status=Status.SKIPPED, summary=summary)
        return
    units = [unit if "." in unit else f"{unit}.service" for unit in config.units]
    answer = host.run(("systemctl", "show", f"--property={_PROPERTIES}", *units), 5.0)
    if answer.returncode != 0:
        raise Unreadable(f"systemctl: {(answer.stderr or answer.stdout).strip()[:200] or 'no answer'}")
    blocks = [_properties(block) for block in answer.stdout.strip().split("\n\n")]
    if len(blocks) != len(units):
        raise Unreadable(f"systemctl told of {len(blocks)} units, asked for {len(units)}")
    for unit, properties in zip(units, blocks, strict=True):
        yield _judge(host, unit, properties, config, memory)
    forget(memory, "", set(units))


def _judge(host: Host, unit: str, properties: dict[str, str], config: Config, memory: Memory) -> Finding:
    active, state = properties.get("ActiveState", "?"), properties.get("SubState", "?")
    if properties.get("LoadState") == "not-found":
        return _trouble(unit, Status.FAIL, "missing", "no such unit is installed", properties)
    if active not in ("active", "reloading"):
        said = f"{active} ({state}, result {properties.get('Result', '?')})"
        # Between two attempts it is `activating`: not up, and nobody knows yet whether it will be.
        return _trouble(unit, Status.WARN if active == "activating" else Status.FAIL, "down", said, properties)
    restarts = properties.get("NRestarts", "0")
    rise = observe(
        memory, unit, int(restarts) if restarts.isdigit() else 0, at=host.clock.monotonic(), boot=host.boot_id()
    )
    if rise.recent >= config.warn_restarts:
        said = f"active, and was started again {rise.recent} times within the hour"
        return _trouble(unit, Status.WARN, "restarts", said, properties)
    return Finding(component=f"service/{unit}", status=Status.OK, summary=f"{active} ({state})")


def _properties(block: str) -> dict[str, str]:
    return {name: value for name, _, value in (line.partition("=") for line in block.splitlines())}


def _trouble(unit: str, status: Status, kind: str, said: str, properties: dict[str, str]) -> Finding:
    return Finding(
        component=f"service/{unit}",
        status=status,
        cause="host.kernel",
        kind=kind,
        summary=f"{unit}: {said}",
        evidence=", ".join(f"{name}={value}" for name, value in properties.items() if value),
        advice=f"see why: `systemctl status {unit}`, `journalctl -u {unit} -n 50`",
    )


CHECK = Check(name="services", run=run, config=Config)
