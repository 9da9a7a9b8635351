"""The driver says itself what a GPU needs to be well again; a job that starts before that fails sooner or later.

NVML's field NVML_FI_DEV_GET_GPU_RECOVERY_ACTION (driver 560 and later) lasts until it is done, while the XID 154 that
tells of the change may have been logged before muster was there.
"""

from collections.abc import Iterator

from checks.base import Check, CheckConfig, Finding, Memory, Status
from checks.gpu.nvml import Gpu, each_gpu
from checks.gpu.xid_rules import RECOVERY
from checks.host import Host

# nvml.h: nvmlDeviceGpuRecoveryAction_t
_ACTIONS = (
    "none",
    "gpu reset",
    "node reboot",
    "drain p2p",
    "drain and reset",
    "recover imex domain",
    "bus reset",
    "system reboot",
)


class Config(CheckConfig, frozen=True, kw_only=True):
    """What is asked for is a failure from the first sighting on: the driver does not take it back by itself."""


def run(host: Host, config: Config, memory: Memory) -> Iterator[Finding]:
    """`gpu/N` for every GPU whose driver knows the field."""

    def judge(gpu: Gpu) -> Iterator[Finding]:
        number = gpu.integer("recovery_action")
        if number >= len(_ACTIONS):
            yield Finding(
                component=gpu.component,
                status=Status.FAIL,
                cause="gpu.driver",
                kind="recovery",
                summary=f"the driver asks for recovery action {number}, which muster does not know",
                advice="see `nvidia-smi -q -d HEALTH` and the driver's release notes; update muster",
            )
            return
        status, advice = RECOVERY[_ACTIONS[number]]
        if status is Status.OK:
            yield Finding(component=gpu.component, status=status, summary="the driver asks for nothing")
            return
        yield Finding(
            component=gpu.component,
            status=status,
            cause="gpu.nvlink" if number in (3, 5) else "gpu.driver",
            kind="recovery",
            summary=f"the driver asks for: {_ACTIONS[number]}",
            evidence=f"{gpu.model} at {gpu.pci}: NVML_FI_DEV_GET_GPU_RECOVERY_ACTION is {number}",
            advice=advice,
        )

    yield from each_gpu(host.nvml, judge)


CHECK = Check(name="recovery_action", run=run, config=Config)
