"""A GPU stuck at low clocks computes at a fraction of its speed with every health value green."""

from collections.abc import Iterator
from typing import Annotated

import msgspec

from checks.base import Check, CheckConfig, Finding, Memory, Status
from checks.gpu.nvml import Gpu, each_gpu
from checks.host import Host


class Config(CheckConfig, frozen=True, kw_only=True):
    """min_share: of the largest SM clock, below which a busy GPU is stuck low. busy_percent: what counts as busy.

    sichek takes 800 MHz of 1980 for 15 minutes while the GPU is in P0 and not idle; the share holds for every model.
    Fifteen runs of a minute in a row. A power cap that somebody set on purpose shows here too: see power.
    """

    consecutive: Annotated[int, msgspec.Meta(ge=1)] = 15
    min_share: Annotated[float, msgspec.Meta(gt=0, lt=1)] = 0.4
    busy_percent: Annotated[int, msgspec.Meta(ge=1, le=100)] = 50


def run(host: Host, config: Config, memory: Memory) -> Iterator[Finding]:
    """`gpu/N` for every GPU."""

    def judge(gpu: Gpu) -> Iterator[Finding]:
        clock, most = gpu.integer("clock_sm"), gpu.integer("clock_sm_max")
        busy = gpu.integers("utilization")[0] >= config.busy_percent
        values = {"sm_clock_hertz": clock * 1e6}
        summary = f"SM at {clock} of {most} MHz{'' if busy else ', not busy'}"
        if not busy or clock >= config.min_share * most:
            yield Finding(component=gpu.component, status=Status.OK, summary=summary, values=values)
            return
        reasons = gpu.optional("throttle_reasons")
        yield Finding(
            component=gpu.component,
            status=Status.FAIL,
            cause="gpu.thermal_power",
            kind="low_clock",
            summary=f"{summary} while busy",
            evidence=f"{gpu.model} at {gpu.pci}: throttle reasons {reasons if reasons is None else hex(reasons)}",
            advice="see throttle and power; `nvidia-smi -rgc` if clocks were locked; else drain and reset the GPU",
            values=values,
        )

    yield from each_gpu(host.nvml, judge)


CHECK = Check(name="clocks", run=run, config=Config, metrics={"sm_clock_hertz": "SM clock of this GPU."})
