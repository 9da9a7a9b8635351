"""A collective that waits for a rank that is gone spins: the GPU claims 100 %, draws little power and moves no data."""

from collections.abc import Iterator
from typing import Annotated

import msgspec

from checks.base import Check, CheckConfig, Finding, Memory, Status
from checks.gpu.models import model
from checks.gpu.nvml import Gpu, each_gpu
from checks.host import Host

_PERCENT = Annotated[int, msgspec.Meta(ge=0, le=100)]


class Config(CheckConfig, frozen=True, kw_only=True):
    """min_sm_percent, max_memory_percent, max_pcie_bytes_per_second: what all must hold for a spin.

    sichek's indicators (SM above 95 %, memory below 5 %, power below 100 W, 160 W on H100 and H200, PCIe traffic below
    300 MB/s, clocks high), by eight runs in a row of fifteen seconds: two minutes. Power by model stands in
    models.toml; for an unknown model a quarter of its power limit is taken, and the finding says so.
    """

    interval: float = 15.0
    consecutive: Annotated[int, msgspec.Meta(ge=1)] = 8
    min_sm_percent: _PERCENT = 95
    max_memory_percent: _PERCENT = 5
    max_pcie_bytes_per_second: float = 300e6


def run(host: Host, config: Config, memory: Memory) -> Iterator[Finding]:
    """`gpu/N` for every GPU."""
    at = host.clock.monotonic()

    def judge(gpu: Gpu) -> Iterator[Finding]:
        busy, memory_busy = gpu.integers("utilization")
        watts = gpu.integer("power") / 1e3
        known = model(gpu.model)
        limit = known.hang_watts if known else gpu.integer("power_limit_default") / 4e3
        moved = _bytes_per_second(gpu, memory, at)
        spins = (
            busy >= config.min_sm_percent
            and memory_busy <= config.max_memory_percent
            and watts < limit
            and (moved is None or moved < config.max_pcie_bytes_per_second)
            and gpu.integer("clock_sm") >= gpu.integer("clock_sm_max") / 2
        )
        summary = f"{busy} % busy, memory {memory_busy} %, {watts:.0f} W"
        if not spins:
            yield Finding(component=gpu.component, status=Status.OK, summary=summary)
            return
        yield Finding(
            component=gpu.component,
            status=Status.WARN,
            cause="net.collective_timeout",
            kind="spin",
            summary=f"{summary}: spins without computing",
            evidence=f"below {limit:.0f} W" + ("" if known else f" (a quarter of its limit: {gpu.model} is unknown)"),
            advice="the job on it hangs in a collective: find the rank that left it (`muster run` does), "
            "and look for a lost GPU or link on the job's other nodes",
        )

    yield from each_gpu(host.nvml, judge)


def _bytes_per_second(gpu: Gpu, memory: Memory, at: float) -> float | None:
    """What went over PCIe since the last run, or None where the GPU does not count it."""
    counters = gpu.ask("pcie_bytes")
    if not isinstance(counters, list):
        return None
    total = sum(counters)
    series = memory.setdefault("pcie", {})
    before, series[gpu.pci] = series.get(gpu.pci), [at, total]
    if before is None or at <= before[0] or total < before[1]:
        return None
    return float(total - before[1]) / float(at - before[0])


CHECK = Check(name="spin_hang", run=run, config=Config)
