"""PCIe repeats what arrived damaged: a rising count is a riser, cable or slot that is about to take the GPU away."""

from collections.abc import Iterator
from typing import Annotated

import msgspec

from checks.base import Check, CheckConfig, Finding, Memory, Status
from checks.counters import observe
from checks.gpu.nvml import Gpu, each_gpu
from checks.host import Host


class Config(CheckConfig, frozen=True, kw_only=True):
    """warn_per_hour, fail_per_hour: replays of one GPU in an hour.

    A good link replays next to nothing, and peers export the count without judging it. One a minute, one a second: our
    judgement, not measured on hardware.
    """

    warn_per_hour: Annotated[int, msgspec.Meta(ge=0)] = 60
    fail_per_hour: Annotated[int, msgspec.Meta(ge=0)] = 3600


def run(host: Host, config: Config, memory: Memory) -> Iterator[Finding]:
    """`gpu/N` for every GPU that counts replays."""
    boot, at = host.boot_id(), host.clock.monotonic()

    def judge(gpu: Gpu) -> Iterator[Finding]:
        count = gpu.integer("pcie_replays")
        rise = observe(memory, gpu.pci or gpu.component, count, at=at, boot=boot)
        values = {"pcie_replays_total": float(count)}
        summary = f"{rise.recent} PCIe replays in the last hour, {count} since driver load"
        if rise.recent <= config.warn_per_hour:
            yield Finding(component=gpu.component, status=Status.OK, summary=summary, values=values)
            return
        yield Finding(
            component=gpu.component,
            status=Status.FAIL if rise.recent > config.fail_per_hour else Status.WARN,
            cause="host.kernel",
            kind="replays",
            summary=summary,
            evidence=f"{gpu.model} at {gpu.pci}: nvmlDeviceGetPcieReplayCounter",
            advice="see AER lines in the kernel log and pcie_link; reseat the GPU or its riser at the next drain",
            values=values,
        )

    yield from each_gpu(host.nvml, judge)


CHECK = Check(
    name="pcie_replay",
    run=run,
    config=Config,
    metrics={"pcie_replays_total": "PCIe replays of this GPU since driver load."},
)
