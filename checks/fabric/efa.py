"""On AWS a job's collectives go over EFA: a device that is missing or retransmits slows all of them."""

import functools
import tomllib
from collections.abc import Iterator
from pathlib import Path
from typing import Annotated

from msgspec import Meta
from msgspec.structs import replace

from checks import infiniband
from checks.base import Check, CheckConfig, Finding, Memory, Status
from checks.counters import Rise, forget, observe
from checks.devices import look
from checks.host import Host, Unreadable
from checks.infiniband import Device

Count = Annotated[int, Meta(ge=0)]
INSTANCES = Path(__file__).with_name("efa_instances.toml")
# Of hw_counters: what says that a peer or the device itself is in trouble. Retransmission is how SRD works, and is
# judged by its share of what was sent.
_TROUBLES = (
    "impaired_remote_conn_events",
    "unresponsive_remote_events",
    "rdma_read_wr_err",
    "rdma_write_wr_err",
    "rx_drops",
    "cmds_err",
)
_SENT, _AGAIN = "tx_bytes", "retrans_bytes"


class Config(CheckConfig, frozen=True, kw_only=True):
    """devices: how many there must be; 0 takes the number of the instance type (efa_instances.toml), where it is known.

    warn_events: events of one kind within an hour: AWS documents these counters without a limit; ten is our judgement:
    one peer that ended leaves a few. warn_retransmit_percent: share of the bytes sent again since the last look; SRD
    sprays packets over many paths and resends below one percent in normal use (our judgement).
    """

    interval: float = 30.0
    consecutive: int = 2
    boot_grace: float = 180.0
    devices: Count = 0
    warn_events: Annotated[int, Meta(ge=1)] = 10
    warn_retransmit_percent: Annotated[float, Meta(gt=0)] = 5.0


def run(host: Host, config: Config, memory: Memory) -> Iterator[Finding]:
    """One finding on `efa` for how many there are, and one per device on `efa/<device>`."""
    devices = [device for device in infiniband.devices(host) if device.driver == "efa"]
    want, word = (config.devices, "checks.efa.devices") if config.devices else _by_instance(host)
    if not devices and not want:
        yield Finding(component="efa", status=Status.SKIPPED, summary="no EFA device here")
        return
    yield _number(len(devices), want, word)
    boot = host.boot_id()
    for device in devices:
        yield from look(f"efa/{device.name}", _device(host, device, config, memory, boot))
    names = {device.name for device in devices}
    forget(memory, "", {key for key in memory.get("counters", {}) if key.partition("/")[0] in names})


def _number(found: int, want: int, word: str) -> Finding:
    values = {"efa_devices": float(found)}
    if found >= want:
        return Finding(component="efa", status=Status.OK, summary=f"{found} devices", values=values)
    return Finding(
        component="efa",
        status=Status.FAIL,
        cause="net.infiniband",
        kind="missing",
        summary=f"{found} EFA devices, want {want} ({word})",
        evidence=f"/sys/class/infiniband: {found} devices of the driver efa",
        advice="see that every network card of the instance has an interface of type efa; else stop and start it",
        values=values,
    )


def _device(host: Host, device: Device, config: Config, memory: Memory, boot: str) -> Iterator[Finding]:
    component = f"efa/{device.name}"
    counters = device.path / "ports/1/hw_counters"
    now = host.clock.monotonic()
    values, rises = {}, {}
    for counter in (*_TROUBLES, _SENT, _AGAIN):
        if (counters / counter).exists():  # older drivers have fewer
            value = host.count(counters / counter)
            values[f"efa_{counter}_total"] = float(value)
            rises[counter] = observe(memory, f"{device.name}/{counter}", value, at=now, boot=boot)
    if not rises:
        raise Unreadable(f"{host.name(counters)}: no counter can be read")
    troubles = [*_judge(component, rises, config)]
    first = all(rise.first for rise in rises.values())
    said = "first look at its counters" if first else "no event that matters within the hour"
    worst, *rest = troubles or [Finding(component=component, status=Status.OK, summary=said)]
    yield replace(worst, values=values)
    yield from rest


def _judge(component: str, rises: dict[str, Rise], config: Config) -> Iterator[Finding]:
    for counter in _TROUBLES:
        rise = rises.get(counter)
        if rise and rise.recent >= config.warn_events:
            said = f"{counter} rose by {rise.recent} within the hour, limit {config.warn_events}"
            yield _trouble(component, counter, said, "see whether its peers are well: the event is about the other end")
    sent, again = rises.get(_SENT), rises.get(_AGAIN)
    # Below 1 GB since the last look a share says nothing.
    if sent and again and sent.now >= 1e9 and 100.0 * again.now / sent.now >= config.warn_retransmit_percent:
        said = f"{100.0 * again.now / sent.now:.1f} % of {sent.now / 1e9:.0f} GB were sent again"
        yield _trouble(component, "retransmits", said, "compare with other nodes: one alone is to be replaced")


def _trouble(component: str, kind: str, said: str, advice: str) -> Finding:
    return Finding(
        component=component,
        status=Status.WARN,
        cause="net.infiniband",
        kind=kind,
        summary=f"{component.partition('/')[2]}: {said}",
        evidence=said,
        advice=advice,
    )


def _by_instance(host: Host) -> tuple[int, str]:
    """How many devices the instance type has, 0 when this is none that is known."""
    try:
        name = host.read(host.sys / "class/dmi/id/product_name")
    except Unreadable:
        return 0, ""
    return _instances().get(name, 0), f"as {name} has"


@functools.cache
def _instances() -> dict[str, int]:
    return dict(tomllib.loads(INSTANCES.read_text(encoding="utf-8"))["devices"])


CHECK = Check(
    name="efa",
    run=run,
    config=Config,
    door=infiniband.DOOR,
    metrics={
        "efa_devices": "EFA devices that the driver shows.",
        **{f"efa_{counter}_total": f"The device's counter {counter}." for counter in (*_TROUBLES, _SENT, _AGAIN)},
    },
)
