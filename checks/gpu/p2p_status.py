"""Every port can say "enabled" while two GPUs cannot reach each other: ask for every pair (gpud issue 1085)."""

from collections.abc import Iterator
from typing import Annotated

import msgspec

from checks.base import Check, CheckConfig, Finding, Memory, Status
from checks.gpu.nvml import Gpu, each_gpu
from checks.host import Host

# nvml.h: nvmlGpuP2PStatus_t
_WORDS = {
    1: "chipset not supported",
    2: "GPU not supported",
    3: "topology not supported",
    4: "disabled in the driver's registry keys",
    5: "not supported",
    6: "unknown",
}


class Config(CheckConfig, frozen=True, kw_only=True):
    """Pairs are judged only where the GPU has NVLinks that are up: cards without NVLink reach each other over PCIe."""

    consecutive: Annotated[int, msgspec.Meta(ge=1)] = 2
    boot_grace: Annotated[float, msgspec.Meta(ge=0)] = 600.0


def run(host: Host, config: Config, memory: Memory) -> Iterator[Finding]:
    """`gpu/N` with the pairs that it cannot reach over NVLink."""
    numbers = {gpu.index: gpu.number for gpu in host.nvml.gpus()}

    def judge(gpu: Gpu) -> Iterator[Finding]:
        statuses: list[int | None] = gpu.value("p2p_nvlink")
        links = gpu.ask("nvlinks")
        broken = {numbers[index]: status for index, status in enumerate(statuses) if status not in (0, None)}
        reached = sum(1 for status in statuses if status == 0)
        if not isinstance(links, list) or not any(links):
            yield Finding(component=gpu.component, status=Status.SKIPPED, summary="no NVLink in use on this GPU")
        elif not broken:
            yield Finding(component=gpu.component, status=Status.OK, summary=f"reaches {reached} GPUs over NVLink")
        else:
            yield Finding(
                component=gpu.component,
                status=Status.FAIL,
                cause="gpu.nvlink",
                kind="p2p",
                summary=f"cannot reach {len(broken)} of {len(broken) + reached} GPUs over NVLink",
                evidence=", ".join(f"gpu/{n}: {_WORDS.get(s or 6, 'unknown')}" for n, s in sorted(broken.items())),
                advice="see the fabric manager (`systemctl status nvidia-fabricmanager`) and fabric_state; then reboot",
            )

    yield from each_gpu(host.nvml, judge)


CHECK = Check(name="p2p_status", run=run, config=Config)
