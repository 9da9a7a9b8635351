"""Fabric errors that hardware retries hide: the job goes on, slower and slower, until one retry is one too many."""

import errno
from collections.abc import Iterator
from typing import Annotated

from msgspec import Meta, field
from msgspec.structs import replace

from checks import infiniband
from checks.base import Check, CheckConfig, Finding, Memory, Status
from checks.counters import Rise, forget, observe
from checks.devices import look
from checks.host import Host, Unreadable
from checks.infiniband import Port

Count = Annotated[int, Meta(ge=1)]

# counters/ of the port: file -> (its largest value, errors an hour that are too many). Widths: InfiniBand Architecture
# Specification 1, PortCounters (16.1.3.5); drivers that answer from the extended counters go beyond, which is no
# saturation. Limits: error_thresholds of infiniband-diags 44, there for the whole life of a counter, here for an hour.
_PORT = {
    "symbol_error": (0xFFFF, 10),
    "link_error_recovery": (0xFF, 10),
    "link_downed": (0xFF, 10),
    "port_rcv_errors": (0xFFFF, 10),
    "port_rcv_remote_physical_errors": (0xFFFF, 100),
    "port_rcv_switch_relay_errors": (0xFFFF, 100),
    "port_xmit_discards": (0xFFFF, 100),
    "port_xmit_constraint_errors": (0xFF, 100),
    "port_rcv_constraint_errors": (0xFF, 100),
    "local_link_integrity_errors": (0xF, 10),
    "excessive_buffer_overrun_errors": (0xF, 10),
    "VL15_dropped": (0xFFFF, 100),
}
# hw_counters/ of the port, 64 bits wide. They count retries by which a job survives; a clean fabric makes none, a lossy
# RoCE network some thousands an hour. NVIDIA names them as signs of loss ("Understanding mlx5 Linux Counters"); the
# limit of 1,000 an hour is our judgement.
_HARDWARE = {
    "local_ack_timeout_err": 1000,
    "packet_seq_err": 1000,
    "out_of_sequence": 1000,
    "rnr_nak_retry_err": 1000,
    "rx_icrc_encapsulated": 100,
}
LIMITS = {counter: limit for counter, (_, limit) in _PORT.items()} | _HARDWARE
WIDTHS = {counter: most for counter, (most, _) in _PORT.items()}
_HARD = frozenset(("link_downed", "link_error_recovery", "port_rcv_errors", "local_link_integrity_errors"))


class Config(CheckConfig, frozen=True, kw_only=True):
    """exclude: ports left out, as `mlx5_0/1`. limits: counter -> rises within an hour that are too many, in place of
    the built-in ones (infiniband-diags' error_thresholds: 10 for errors of the link, 100 for discards).

    fail_factor: so many times its limit is a failure rather than a warning. port_xmit_wait is congestion, not an error,
    and is not judged.
    """

    interval: float = 30.0
    exclude: tuple[str, ...] = ()
    limits: dict[str, Count] = field(default_factory=dict)
    fail_factor: Annotated[float, Meta(ge=1)] = 10.0


def run(host: Host, config: Config, memory: Memory) -> Iterator[Finding]:
    """One finding per port, on `ib/<device>/<port>`; one more for each counter that rises too fast."""
    boot = host.boot_id()
    if memory.get("boot") != boot:
        memory["boot"], memory["refused"] = boot, []
    ports = [port for port in infiniband.ports(host) if port.name not in config.exclude]
    for port in ports:
        yield from look(port.component, _port(host, port, config, memory, boot))
    names = {port.name for port in ports}
    forget(memory, "", {key for key in memory.get("counters", {}) if key.rpartition("/")[0] in names})
    if not ports:
        yield Finding(component="ib", status=Status.SKIPPED, summary="no InfiniBand or RoCE device here")


def _port(host: Host, port: Port, config: Config, memory: Memory, boot: str) -> Iterator[Finding]:
    rises, values = {}, {}
    for counter, value, most in _read(host, port, memory):
        values[f"infiniband_{counter.lower()}_total"] = float(value)
        rises[counter] = observe(
            memory, f"{port.name}/{counter}", value, at=host.clock.monotonic(), boot=boot, maximum=most
        )
    if not rises:
        raise Unreadable(f"{host.name(port.path / 'counters')}: no counter can be read")
    troubles = [*_judge(port, rises, config)]
    stuck = sorted(counter for counter, rise in rises.items() if rise.stuck)
    if stuck:
        troubles.append(_stuck(port, stuck))
    first = all(rise.first for rise in rises.values())
    said = f"{len(rises)} error counters, {'first look' if first else 'no rise that matters within the hour'}"
    worst, *rest = troubles or [Finding(component=port.component, status=Status.OK, summary=said)]
    yield replace(worst, values=values)
    yield from rest


def _read(host: Host, port: Port, memory: Memory) -> Iterator[tuple[str, int, int | None]]:
    """Counter, value, and the value at which it saturates (None: it does not).

    A counter that the card refuses (EINVAL) is not asked for again in this boot: each try makes mlx5 write an
    ACCESS_REG line to the kernel log.
    """
    sources = [("counters", counter, most) for counter, (most, _) in _PORT.items()]
    sources += [("hw_counters", counter, 0) for counter in _HARDWARE]
    for directory, counter, most in sources:
        path, key = port.path / directory / counter, f"{port.name}/{counter}"
        if key in memory["refused"] or not path.exists():
            continue
        try:
            value = host.count(path)
        except Unreadable as error:
            cause = error.__cause__
            if not isinstance(cause, OSError) or cause.errno != errno.EINVAL:
                raise
            memory["refused"].append(key)
            continue
        yield counter, value, most if value <= most and most else None


def _judge(port: Port, rises: dict[str, Rise], config: Config) -> Iterator[Finding]:
    limits = LIMITS | config.limits
    for counter, rise in rises.items():
        limit = limits[counter]
        if rise.recent < limit:
            continue
        least = "at least " if rise.reset or rise.stuck else ""
        yield Finding(
            component=port.component,
            status=Status.FAIL if counter in _HARD and rise.recent >= limit * config.fail_factor else Status.WARN,
            cause="net.infiniband",
            kind=counter,
            summary=f"{port.name}: {counter} rose by {least}{rise.recent} within the hour, limit {limit}",
            evidence=f"{counter}: +{rise.now} in the last {rise.seconds:.0f} s",
            advice=_advice(port, counter),
        )


def _advice(port: Port, counter: str) -> str:
    if counter in _HARDWARE:
        return "packets are lost on the way: see `ib_counters` of the other ports on its switch, and PFC/ECN for RoCE"
    if counter == "port_xmit_discards":
        return "the other end does not take what is sent: look for a congested or slow port behind it (`iblinkinfo`)"
    return f"clean or reseat its cable, then replace it: `mlxlink -d {port.device.name} -c -m` says which end"


def _stuck(port: Port, counters: list[str]) -> Finding:
    return Finding(
        component=port.component,
        status=Status.WARN,
        cause="net.infiniband",
        kind="saturated",
        summary=f"{port.name}: {', '.join(counters)} stands at its largest value: further errors would not be seen",
        evidence=", ".join(counters),
        advice="note them down and reset them: `perfquery -R`",
    )


CHECK = Check(
    name="ib_counters",
    run=run,
    config=Config,
    door=infiniband.DOOR,
    metrics={
        f"infiniband_{counter.lower()}_total": f"The port's counter {counter}, as the card has it."
        for counter in (*_PORT, *_HARDWARE)
    },
)
