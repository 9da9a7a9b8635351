"""A GPU that is held and does little is paid for and starved: what starves it shows in who else is idle."""

from collections.abc import Iterator
from typing import Annotated

import msgspec

from checks.base import Check, CheckConfig, Finding, Memory, Status
from checks.gpu.nvml import Gpu, each_gpu
from checks.gpu.window import sample, spans
from checks.host import Host

Percent = Annotated[float, msgspec.Meta(ge=0, le=100)]


class Config(CheckConfig, frozen=True, kw_only=True):
    """window_minutes: what is averaged. idle_percent, low_percent: average SM use below which a held GPU is said to be
    idle, or used little.

    An hour, so that evaluation and checkpoints do not count; NVML's use is the share of time in which any kernel runs,
    however small, so 30 % of it is little: our judgement, not measured on hardware. Turn it off on nodes for
    interactive work or serving.
    """

    window_minutes: Annotated[float, msgspec.Meta(ge=5)] = 60.0
    idle_percent: Percent = 1.0
    low_percent: Percent = 30.0


def run(host: Host, config: Config, memory: Memory) -> Iterator[Finding]:
    """`gpu/N` for every GPU."""
    boot, at, seconds = host.boot_id(), host.clock.monotonic(), config.window_minutes * 60.0
    idle_elsewhere: list[float] = []

    def judge(gpu: Gpu) -> Iterator[Finding]:
        busy, memory_busy = gpu.integers("utilization")
        held = len(gpu.value("processes"))
        values = {"gpu_utilization_ratio": busy / 100.0, "gpu_memory_utilization_ratio": memory_busy / 100.0}
        key = gpu.pci or gpu.component
        # Only time under a job counts: a new job begins a new window.
        seen = sample(memory, key, busy if held else -1.0, at=at, boot=boot, seconds=seconds)
        average = sum(seen) / len(seen)
        idle_elsewhere.append(average)
        judged = held and min(seen) >= 0 and spans(memory, key, seconds)
        if not judged or average >= config.low_percent:
            state = f"{busy} % busy" + ("" if held else ", not in use")
            yield Finding(component=gpu.component, status=Status.OK, summary=state, values=values)
            return
        idle = average < config.idle_percent
        yield Finding(
            component=gpu.component,
            status=Status.WARN,
            cause="data.loader" if not idle else "net.collective_timeout",
            kind="idle" if idle else "low",
            summary=f"held by {held} processes and {'idle' if idle else f'{average:.0f} % busy'} for "
            f"{config.window_minutes:g} minutes",
            evidence=f"{gpu.model} at {gpu.pci}: average {average:.1f} % over {len(seen)} samples",
            advice="if only this node is so, its data loading starves it (CPU, storage); if every node of the job is, "
            "the network does; if nothing moves at all, the job hangs: `py-spy dump --pid PID`",
            values=values,
        )

    yield from each_gpu(host.nvml, judge)


CHECK = Check(
    name="utilization",
    run=run,
    config=Config,
    metrics={
        "gpu_utilization_ratio": "Share of time in which a kernel ran on this GPU (NVML's last sample).",
        "gpu_memory_utilization_ratio": "Share of time in which this GPU's memory was read or written.",
    },
)
