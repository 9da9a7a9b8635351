"""A network port that is down, slow or flapping delays rendezvous, storage and every job that talks TCP."""

from collections.abc import Iterator
from pathlib import Path
from typing import Annotated

from msgspec import Meta, field
from msgspec.structs import replace

from checks.base import Check, CheckConfig, Finding, Memory, Status
from checks.counters import Rise, forget, observe
from checks.devices import look
from checks.host import Host, Unreadable, printable

Count = Annotated[int, Meta(ge=1)]
_IFF_UP = 0x1
_ARPHRD_ETHER = 1
# What a bad cable, transceiver or port leaves behind. rx_dropped is not here: the kernel counts every frame of a
# protocol nobody asked for (LLDP, spanning tree) as dropped.
_ERRORS = {
    "receive": ("rx_errors", "rx_missed_errors"),
    "transmit": ("tx_errors",),
}


class Config(CheckConfig, frozen=True, kw_only=True):
    """expected: interfaces that must have a link. exclude: interfaces left out.

    speeds: interface -> Mb/s it must have; others are judged against the best they had, and said to be.
    warn_errors: errors an hour: a clean 100GBASE link makes none (IEEE 802.3 asks for a bit error rate below 1e-12,
    some 360 bits an hour at 100 Gb/s before error correction, none after); 100 leaves room for a re-plugged cable.
    warn_flaps, fail_flaps: times the link went away within an hour.
    """

    interval: float = 30.0
    consecutive: int = 2
    boot_grace: float = 120.0
    expected: tuple[str, ...] = ()
    exclude: tuple[str, ...] = ()
    speeds: dict[str, int] = field(default_factory=dict)
    warn_errors: Count = 100
    warn_flaps: Count = 2
    fail_flaps: Count = 5


def run(host: Host, config: Config, memory: Memory) -> Iterator[Finding]:
    """One finding or more per Ethernet port with hardware behind it, on `net/<interface>`."""
    boot, now = host.boot_id(), host.clock.monotonic()
    ports = [port for port in host.devices("net") if _hardware(host, port) and port.name not in config.exclude]
    names = {printable(port.name) for port in ports}
    for missing in sorted(set(config.expected) - names):
        yield _trouble(missing, Status.FAIL, "missing", "expected, and the kernel has no such interface", "see `lspci`")
    for port in ports:
        yield from look(f"net/{printable(port.name)}", _port(host, port, config, memory, now, boot))
    memory["best"] = {name: speed for name, speed in memory.get("best", {}).items() if name in names}
    forget(memory, "", {f"{name}/{what}" for name in names for what in ("changes", *_ERRORS)})
    if not ports and not config.expected:
        yield Finding(component="net", status=Status.SKIPPED, summary="no Ethernet hardware here")


def _port(host: Host, port: Path, config: Config, memory: Memory, now: float, boot: str) -> Iterator[Finding]:
    name = printable(port.name)
    if not int(host.read(port / "flags"), 16) & _IFF_UP:
        if name in config.expected:
            yield _trouble(name, Status.FAIL, "down", "expected, and switched off", f"`ip link set {name} up`")
        else:
            yield Finding(component=f"net/{name}", status=Status.SKIPPED, summary="switched off, not in use")
        return
    came_and_went = host.count(port / "carrier_changes")
    changes = observe(memory, f"{name}/changes", came_and_went, at=now, boot=boot)
    rises = {what: _errors(host, port, what, memory, now, boot) for what in _ERRORS}
    speed = _speed(host, port)
    values = {f"ethernet_{what}_errors_total": float(total) for what, (total, _) in rises.items()}
    values |= {"ethernet_carrier_changes_total": float(came_and_went)}
    values |= {"ethernet_speed_bytes_per_second": speed * 1e6 / 8} if speed else {}
    if not host.integer(port / "carrier"):
        yield replace(_without_link(host, port, name, config), values=values)
        return
    troubles = [
        *_judge_speed(name, speed, _half_duplex(host, port), config, memory),
        *_judge_flaps(name, changes, config),
        *_judge_errors(name, {what: rise for what, (_, rise) in rises.items()}, config),
    ]
    if not troubles:
        said = f"up, {speed / 1000:g} Gb/s" if speed else "up, speed not reported"
        said += ", first look at its counters" if changes.first else ", counters quiet for an hour"
        troubles = [Finding(component=f"net/{name}", status=Status.OK, summary=said)]
    yield replace(troubles[0], values=values)
    yield from troubles[1:]


def _hardware(host: Host, port: Path) -> bool:
    """Ethernet with a device behind it: no loopback, bridge, veth, tunnel, and no InfiniBand (type 32)."""
    try:
        return (port / "device").exists() and host.integer(port / "type") == _ARPHRD_ETHER
    except Unreadable:
        return False  # bonding_masters is a file, and an interface may go while one looks


def _without_link(host: Host, port: Path, name: str, config: Config) -> Finding:
    """No carrier: a trouble when it is expected or once had one in this boot, else an empty socket."""
    try:
        had_one = host.integer(port / "carrier_up_count") > 0
    except Unreadable:
        had_one = host.integer(port / "carrier_changes") > 1
    if not had_one and name not in config.expected:
        return Finding(component=f"net/{name}", status=Status.SKIPPED, summary="nothing plugged in since boot")
    said = "lost its link" if had_one else "expected, and has had no link since boot"
    return _trouble(name, Status.FAIL, "down", said, f"see cable, transceiver and switch port: `ethtool -m {name}`")


def _speed(host: Host, port: Path) -> int:
    """Mb/s, 0 when the driver does not say (virtual ports say -1, some refuse)."""
    try:
        return max(host.integer(port / "speed"), 0)
    except Unreadable:
        return 0


def _half_duplex(host: Host, port: Path) -> bool:
    try:
        return host.read(port / "duplex") == "half"
    except Unreadable:
        return False


def _judge_speed(name: str, speed: int, half: bool, config: Config, memory: Memory) -> Iterator[Finding]:
    best = max(memory.setdefault("best", {}).get(name, 0), speed)
    memory["best"][name] = best
    want = config.speeds.get(name, best)
    against = (
        "configured" if name in config.speeds else "the best it had; checks.ethernet.speeds sets what it must have"
    )
    advice = f"see `ethtool {name}` on both ends; a link that trained lower wants its cable or transceiver replaced"
    if name in config.speeds and not speed:
        said = f"speed not reported, want {want / 1000:g} Gb/s"
        yield Finding(component=f"net/{name}", status=Status.UNKNOWN, kind="speed", summary=said, advice=advice)
    elif speed < want:
        said = f"runs at {speed / 1000:g} Gb/s, want {want / 1000:g} Gb/s ({against})"
        yield _trouble(name, Status.WARN, "speed", said, advice)
    if half:
        yield _trouble(name, Status.WARN, "duplex", "runs half duplex", f"set auto-negotiation on both ends of {name}")


def _judge_flaps(name: str, changes: Rise, config: Config) -> Iterator[Finding]:
    flaps = changes.recent // 2  # a change down and one up
    if flaps < config.warn_flaps:
        return
    status = Status.FAIL if flaps >= config.fail_flaps else Status.WARN
    advice = "reseat the cable or transceiver, then replace it, then try another switch port"
    yield _trouble(name, status, "flapping", f"lost its link {flaps} times within the hour", advice)


def _judge_errors(name: str, rises: dict[str, Rise], config: Config) -> Iterator[Finding]:
    for what, rise in rises.items():
        if rise.recent >= config.warn_errors:
            said = f"{rise.recent} {what} errors within the hour"
            advice = f"see which: `ethtool -S {name} | grep -v ': 0$'`; clean or replace the cable or transceiver"
            yield _trouble(name, Status.WARN, f"{what}_errors", said, advice)


def _errors(host: Host, port: Path, what: str, memory: Memory, now: float, boot: str) -> tuple[int, Rise]:
    total = sum(host.count(port / "statistics" / counter) for counter in _ERRORS[what])
    return total, observe(memory, f"{printable(port.name)}/{what}", total, at=now, boot=boot)


def _trouble(name: str, status: Status, kind: str, said: str, advice: str) -> Finding:
    return Finding(
        component=f"net/{name}",
        status=status,
        cause="net.socket",
        kind=kind,
        summary=f"{name}: {said}",
        evidence=said,
        advice=advice,
    )


CHECK = Check(
    name="ethernet",
    run=run,
    config=Config,
    metrics={
        "ethernet_speed_bytes_per_second": "Speed that the port trained to, where it says.",
        "ethernet_receive_errors_total": "Frames that came in damaged or could not be taken.",
        "ethernet_transmit_errors_total": "Frames that could not be sent.",
        "ethernet_carrier_changes_total": "Times the link came or went.",
    },
)
