"""A link that goes and comes back looks well at every look; each time it goes, the jobs that use it stall or die."""

from collections.abc import Iterator
from typing import Annotated, Any

from msgspec import Meta

from checks import infiniband
from checks.base import Check, CheckConfig, Finding, Memory, Status
from checks.devices import look
from checks.host import Host, Unreadable
from checks.infiniband import Port

Count = Annotated[int, Meta(ge=1)]
Seconds = Annotated[float, Meta(gt=0)]
_DAY = 86_400.0
_MOST_EVENTS = 200  # more say nothing new, and the series is kept for every port
_LINK_DOWNED_STOPS_AT = 0xFF


class Config(CheckConfig, frozen=True, kw_only=True):
    """exclude: ports left out. drop_seconds: a port that was active and is down for longer has dropped (gpud: 4 min).

    warn_flaps: times within a day that the link went and came back: gpud takes 3. fail_flaps: 10 (Nebius' NVSentinel
    rule: link_downed risen by more than 10). The series survives restarts and reboots; a reboot itself is no flap.
    """

    interval: float = 15.0
    boot_grace: float = 180.0
    exclude: tuple[str, ...] = ()
    drop_seconds: Seconds = 240.0
    warn_flaps: Count = 3
    fail_flaps: Count = 10


def run(host: Host, config: Config, memory: Memory) -> Iterator[Finding]:
    """One finding per port, on `ib/<device>/<port>`."""
    ports = [port for port in infiniband.ports(host) if port.name not in config.exclude]
    series = memory.setdefault("ports", {})
    boot, now = host.boot_id(), host.clock.now()
    for port in ports:
        yield from look(port.component, _port(host, port, series, boot, now, config))
    for gone in set(series) - {port.name for port in ports}:
        if now - series[gone]["at"] > _DAY:
            del series[gone]
    if not ports:
        yield Finding(component="ib", status=Status.SKIPPED, summary="no InfiniBand or RoCE device here")


def _port(host: Host, port: Port, series: dict[str, Any], boot: str, now: float, config: Config) -> Iterator[Finding]:
    active = infiniband.state(host, port) == "ACTIVE"
    before = series.get(port.name)
    after = advance(before, active=active, downed=_link_downed(host, port), boot=boot, now=now)
    series[port.name] = after
    flaps = sum(number for _, number in after["flaps"])
    down = now - after["down_since"] if after["down_since"] else 0.0
    values = {"infiniband_port_flaps": float(flaps)}
    if down >= config.drop_seconds:
        said = f"{port.name} dropped: down for {down / 60:.0f} min, it was active before"
        yield _trouble(port, Status.FAIL, "dropped", said, values)
    elif flaps >= config.warn_flaps:
        status = Status.FAIL if flaps >= config.fail_flaps else Status.WARN
        yield _trouble(port, status, "flapping", f"{port.name} lost its link {flaps} times within a day", values)
    else:
        summary = "first look" if before is None else f"{flaps} times down within a day"
        yield Finding(component=port.component, status=Status.OK, summary=summary, values=values)


def advance(before: dict[str, Any] | None, *, active: bool, downed: int, boot: str, now: float) -> dict[str, Any]:
    """The series of a port after one more look; `before` is the series until now, None at the first look.

    A flap is a rise of the card's link_downed counter, or, where that stands at its end or cannot be read (-1), a port
    that is seen active after it was seen down. down_since: wall time since which a port that was active is down, else
    0. flaps: [wall time, how many]. Pure.
    """
    if before is None:
        return _series(active=active, was_active=active, downed=downed, boot=boot, now=now, down_since=0.0, flaps=[])
    flaps = [[at, number] for at, number in before["flaps"] if now - at < _DAY]
    same_boot = before["boot"] == boot
    rise = downed - before["downed"] if same_boot and downed >= before["downed"] >= 0 else 0
    came_back = same_boot and active and not before["active"] and before["was_active"]
    blind = downed < 0 or before["downed"] >= _LINK_DOWNED_STOPS_AT
    if rise or (came_back and blind):
        flaps = [*flaps, [now, max(rise, 1)]][-_MOST_EVENTS:]
    was_active = active or before["was_active"]
    down_since = 0.0 if active or not was_active else (before["down_since"] or now)
    return _series(
        active=active, was_active=was_active, downed=downed, boot=boot, now=now, down_since=down_since, flaps=flaps
    )


def _series(*, now: float, **fields: object) -> dict[str, Any]:
    return {"at": now, **fields}


def _link_downed(host: Host, port: Port) -> int:
    try:
        return host.count(port.path / "counters/link_downed")
    except Unreadable:
        return -1


def _trouble(port: Port, status: Status, kind: str, said: str, values: dict[str, float]) -> Finding:
    return Finding(
        component=port.component,
        status=status,
        cause="net.infiniband",
        kind=kind,
        summary=said,
        evidence=said,
        advice=f"reseat cable and transceiver, then replace them (`mlxlink -d {port.device.name} -m`), then the port",
        values=values,
    )


CHECK = Check(
    name="ib_flap",
    run=run,
    config=Config,
    door=infiniband.DOOR,
    metrics={"infiniband_port_flaps": "Times within the last day that the link went away."},
)
