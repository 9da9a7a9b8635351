"""A GPU on half its PCIe lanes moves half its data, with no error anywhere; so does one behind such a bridge."""

import re
from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path
from typing import Annotated

import msgspec

from checks.base import Check, CheckConfig, Finding, Memory, Status
from checks.gpu.nvml import Gpu, each_gpu
from checks.host import Host, Unreadable

_ADDRESS = re.compile(r"^[0-9a-f]{4,}:[0-9a-f]{2}:[0-9a-f]{2}\.[0-7]$")


class Config(CheckConfig, frozen=True, kw_only=True):
    """A link is judged against the most that its two ends can do, as NVML and sysfs give it; no model table is needed.

    Lanes are judged always. The generation is judged under load only (P0 and busy), because an idle GPU lowers it to
    save power. Three runs in a row, for the moment in which a link trains.
    """

    consecutive: Annotated[int, msgspec.Meta(ge=1)] = 3


def run(host: Host, config: Config, memory: Memory) -> Iterator[Finding]:
    """`gpu/N` for the GPU's own link, `gpu/N/pci/ADDRESS` for every link above it that is degraded."""

    def judge(gpu: Gpu) -> Iterator[Finding]:
        generation, lanes = gpu.integers("pcie_now")
        most_generation, most_lanes = gpu.integers("pcie_max")
        load = _under_load(gpu)
        values = {"pcie_lanes": float(lanes), "pcie_generation": float(generation)}
        slow = load and generation < most_generation
        above = list(_above(host, gpu, load))
        yield from above
        summary = f"PCIe Gen{generation} x{lanes} of Gen{most_generation} x{most_lanes}"
        if lanes >= most_lanes and not slow:
            yield Finding(component=gpu.component, status=Status.OK, summary=summary, values=values)
            return
        yield Finding(
            component=gpu.component,
            status=Status.FAIL,
            cause="host.kernel",
            kind="lanes" if lanes < most_lanes else "generation",
            summary=summary if lanes < most_lanes else f"{summary} under load",
            evidence=f"{gpu.model} at {gpu.pci}",
            advice="drain the node and reboot it; if it comes back, reseat the GPU or its riser; see pcie_replay",
            values=values,
        )

    yield from each_gpu(host.nvml, judge)


def _under_load(gpu: Gpu) -> bool:
    busy = gpu.ask("utilization")
    return gpu.optional("pstate") == 0 and isinstance(busy, list) and busy[0] > 0


def _above(host: Host, gpu: Gpu, load: bool) -> Iterator[Finding]:
    """Every link between the GPU and the root that runs below what its two ends can do."""
    chain = _chain(host, gpu.pci)
    for device, parent in pairwise(chain[1:]):
        try:
            lanes, speed = _link(host, device, "current")
            ends = [_link(host, end, "max") for end in (device, parent)]
        except Unreadable:
            continue  # a bridge without a link of its own (inside a switch or a virtual machine)
        most_lanes, most_speed = min(end[0] for end in ends), min(end[1] for end in ends)
        component = f"{gpu.component}/pci/{device.name}"
        summary = f"bridge {device.name} above the GPU: x{lanes} at {speed:g} GT/s of x{most_lanes} at {most_speed:g}"
        if lanes >= most_lanes and (speed >= most_speed or not load):
            yield Finding(component=component, status=Status.OK, summary=summary)
            continue
        yield Finding(
            component=component,
            status=Status.FAIL,
            cause="host.kernel",
            kind="lanes" if lanes < most_lanes else "generation",
            summary=summary,
            evidence=f"{host.name(device)}/current_link_width, current_link_speed",
            advice="all devices below this bridge are slowed: drain the node, reboot it, then have the board checked",
        )


def _chain(host: Host, pci: str) -> list[Path]:
    """The GPU's device directory and those of the bridges above it, the root port last."""
    device = (host.sys / "bus/pci/devices" / pci).resolve()
    chain = [device] if device.exists() else []
    while chain and _ADDRESS.match(chain[-1].parent.name):
        chain.append(chain[-1].parent)
    return chain


def _link(host: Host, device: Path, which: str) -> tuple[int, float]:
    """(lanes, GT/s). Raises Unreadable, also for a bridge that has no link ("Unknown", 0 lanes)."""
    lanes = host.integer(device / f"{which}_link_width")
    speed = host.read(device / f"{which}_link_speed").split()
    if not 0 < lanes <= 32 or not speed or not speed[0].replace(".", "", 1).isdigit():
        raise Unreadable(f"{host.name(device)}: no link of its own")
    return lanes, float(speed[0])


CHECK = Check(
    name="pcie_link",
    run=run,
    config=Config,
    metrics={
        "pcie_lanes": "PCIe lanes that this GPU uses now.",
        "pcie_generation": "PCIe generation that this GPU uses now; an idle GPU lowers it.",
    },
)
