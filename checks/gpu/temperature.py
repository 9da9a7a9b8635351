"""A GPU near its slowdown temperature is about to be slowed; one whose memory is too hot is about to lose data."""

from collections.abc import Iterator
from typing import Annotated

import msgspec

from checks.base import Check, CheckConfig, Finding, Memory, Status
from checks.gpu.nvml import Gpu, each_gpu
from checks.host import Host

# No silicon runs hotter: what is above is a placeholder (dcgm-exporter's README shows 9223372036854775794).
_HIGHEST_CELSIUS = 150


class Config(CheckConfig, frozen=True, kw_only=True):
    """warn_margin: degrees below the GPU's own slowdown temperature from which on it is said.

    The limits are NVML's, by GPU: slowdown, shutdown, memory maximum (HBM: 95 °C on A100 and H100). A fixed limit as
    of a peer (sichek: 75 °C) is wrong for every model but one.
    """

    consecutive: Annotated[int, msgspec.Meta(ge=1)] = 2
    warn_margin: Annotated[int, msgspec.Meta(ge=0)] = 3


def run(host: Host, config: Config, memory: Memory) -> Iterator[Finding]:
    """`gpu/N` for every GPU."""

    def judge(gpu: Gpu) -> Iterator[Finding]:
        core = _celsius(gpu, "temperature")
        if core is None:
            gpu.integer("temperature")
            yield _unread(gpu)
            return
        slowdown, memory_now = _celsius(gpu, "temperature_slowdown"), _celsius(gpu, "temperature_memory")
        memory_most = _celsius(gpu, "temperature_memory_max")
        margin = gpu.optional("temperature_margin")
        if margin is None and slowdown is not None:
            margin = slowdown - core
        values = {"temperature_celsius": float(core)}
        if memory_now is not None:
            values["memory_temperature_celsius"] = float(memory_now)
        hot_memory = memory_now is not None and memory_most is not None and memory_now >= memory_most
        summary = f"{core} °C" + ("" if memory_now is None else f", memory {memory_now} °C")
        if margin is None:
            yield Finding(
                component=gpu.component,
                status=Status.SKIPPED,
                summary=f"{summary}; this GPU gives no slowdown temperature to judge it by",
                values=values,
            )
        elif margin > config.warn_margin and not hot_memory:
            told = f"{summary}, {margin} below slowdown"
            yield Finding(component=gpu.component, status=Status.OK, summary=told, values=values)
        else:
            yield Finding(
                component=gpu.component,
                status=Status.FAIL if margin <= 0 or hot_memory else Status.WARN,
                cause="gpu.thermal_power",
                kind="hot_memory" if hot_memory else "hot",
                summary=f"{summary} of {memory_most} °C" if hot_memory else f"{summary}, {margin} below slowdown",
                evidence=f"{gpu.model} at {gpu.pci}",
                advice="check inlet temperature, fans or coolant flow; compare with the other GPUs of the node",
                values=values,
            )

    yield from each_gpu(host.nvml, judge)


def _celsius(gpu: Gpu, question: str) -> int | None:
    value = gpu.optional(question)
    return value if value is not None and 0 < value <= _HIGHEST_CELSIUS else None


def _unread(gpu: Gpu) -> Finding:
    return Finding(
        component=gpu.component,
        status=Status.UNKNOWN,
        kind="no_temperature",
        summary=f"temperature: {gpu.ask('temperature')} is no temperature",
        advice="compare with `nvidia-smi -q -d TEMPERATURE`",
    )


CHECK = Check(
    name="temperature",
    run=run,
    config=Config,
    metrics={
        "temperature_celsius": "Core temperature of this GPU.",
        "memory_temperature_celsius": "Memory temperature of this GPU.",
    },
)
