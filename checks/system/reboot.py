"""A node that boots without having been shut down lost power or crashed; one that does so again and again is sick."""

import struct
from collections.abc import Iterator
from typing import Annotated

from msgspec import Meta

from checks.base import Check, CheckConfig, ClearRule, Finding, Memory, Status
from checks.host import Host, Unreadable, printable

_DAY = 86_400.0
# utmp(5) of glibc on 64-bit machines: type, pid, line, id, user, host, exit status, session, seconds, microseconds, ...
_RECORD = struct.Struct("<hxxi32s4s32s256shhiii4i20x")
_RUN_LEVEL, _BOOT = 1, 2


class Config(CheckConfig, frozen=True, kw_only=True):
    """tell_seconds: for how long after it a boot is told of. keep_days: how far back boots are counted.

    fail_crashes: boots without a shutdown within that time that make the node one to look into. gpud takes two reboots
    that did not cure for the sign to inspect the hardware; three crashes in a week are the same said of crashes.
    """

    interval: float = 60.0
    quiet_seconds: float = 86_400.0
    tell_seconds: Annotated[float, Meta(gt=0)] = 3600.0
    keep_days: Annotated[float, Meta(gt=0)] = 7.0
    fail_crashes: Annotated[int, Meta(ge=2)] = 3


def run(host: Host, config: Config, memory: Memory) -> Iterator[Finding]:
    """One finding on `node`: how it last booted."""
    boot, now = host.boot_id(), host.clock.now()
    booted = now - host.uptime()
    boots = [entry for entry in memory.get("boots", []) if now - entry[0] < config.keep_days * _DAY]
    if memory.get("boot") != boot:
        boots.append([booted, _how(host, booted)])
        memory["boot"] = boot
    memory["boots"] = boots
    crashes = sum(how == "crashed" for _, how in boots)
    values = {"node_boot_timestamp_seconds": booted, "node_crashes": float(crashes)}
    how = boots[-1][1] if boots else "unknown"
    yield _say(how, now - booted, crashes, _panic(host), values, config)


def _say(how: str, since: float, crashes: int, panic: str, values: dict[str, float], config: Config) -> Finding:
    age = f"{since / 60:.0f} min" if since < 2 * 3600 else f"{since / 3600:.0f} h" if since < 2 * _DAY else ""
    said = f"up for {age or f'{since / _DAY:.0f} days'}, {_WORDS[how]}"
    if crashes >= config.fail_crashes:
        status, kind = Status.FAIL, "crashes"
        said += f"; {crashes} boots without a shutdown within {config.keep_days:.0f} days"
    elif how == "crashed" and since < config.tell_seconds:
        status, kind = Status.WARN, "crashed"
    else:
        return Finding(component="node", status=Status.OK, summary=said, values=values)
    return Finding(
        component="node",
        status=status,
        cause="host.kernel",
        kind=kind,
        summary=said,
        evidence=panic or "/var/log/wtmp: a boot, and no shutdown before it",
        advice="see the BMC's event log (`ipmitool sel list`) and /sys/fs/pstore for what ended it;"
        " what is still open in `muster incidents list` the reboot did not cure",
        values=values,
    )


_WORDS = {
    "shutdown": "was shut down before",
    "crashed": "was not shut down before: power loss, crash or reset",
    "unknown": "how it went down before is not recorded",
}


def _how(host: Host, booted: float) -> str:
    """`shutdown`, `crashed` or `unknown`: by the records before the boot at `booted` (seconds since the epoch)."""
    if _panic(host):
        return "crashed"
    try:
        records = parse((host.root / "var/log/wtmp").read_bytes())
    except OSError:
        return "unknown"
    down = [when for kind, when in records if kind == "shutdown" and when <= booted + 60]
    boots = [when for kind, when in records if kind == "boot" and when < booted - 120]
    if not boots:
        return "shutdown" if down else "unknown"
    return "shutdown" if down and down[-1] >= boots[-1] else "crashed"


def parse(raw: bytes) -> list[tuple[str, float]]:
    """`boot` and `shutdown` records of a wtmp file with their times, in its order; a torn last record is left out."""
    found = []
    for fields in _RECORD.iter_unpack(raw[: len(raw) // _RECORD.size * _RECORD.size]):
        kind, user, seconds = fields[0], fields[4].rstrip(b"\0"), fields[9]
        if kind == _BOOT:
            found.append(("boot", float(seconds)))
        elif kind == _RUN_LEVEL and user == b"shutdown":
            found.append(("shutdown", float(seconds)))
    return found


def _panic(host: Host) -> str:
    """The dump that the last kernel left when it panicked, if the firmware kept one."""
    directory = host.sys / "fs/pstore"
    try:
        names = [printable(path.name) for path in host.entries(directory)] if directory.is_dir() else []
    except Unreadable:
        return ""
    dumps = [name for name in names if name.startswith("dmesg-")]
    return f"{host.name(directory)}/{dumps[0]}" if dumps else ""


CHECK = Check(
    name="reboot",
    run=run,
    config=Config,
    clear=ClearRule.QUIET,
    metrics={
        "node_boot_timestamp_seconds": "When the node booted, since the epoch.",
        "node_crashes": "Boots without a shutdown before them, within the days that are kept.",
    },
)
