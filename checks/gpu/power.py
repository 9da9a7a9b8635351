"""A power limit that was lowered, by a person or by the platform, slows one GPU and with it the whole job."""

from collections.abc import Iterator
from typing import Annotated

import msgspec

from checks.base import Check, CheckConfig, Finding, Memory, Status
from checks.gpu.answers import Missing
from checks.gpu.nvml import Gpu, each_gpu
from checks.host import Host


class Config(CheckConfig, frozen=True, kw_only=True):
    """min_share: of its default limit, below which a GPU's limit in force is said. Set it to what your site caps to.

    NVML's enforced limit is the lowest of all that apply (the user's, the platform's, the brake's).
    """

    consecutive: Annotated[int, msgspec.Meta(ge=1)] = 2
    min_share: Annotated[float, msgspec.Meta(gt=0, le=1)] = 0.95


def run(host: Host, config: Config, memory: Memory) -> Iterator[Finding]:
    """`gpu/N` for every GPU with a power limit."""

    def judge(gpu: Gpu) -> Iterator[Finding]:
        enforced, default = gpu.integer("power_limit_enforced"), gpu.integer("power_limit_default")
        now = gpu.ask("power")
        values = {"power_limit_watts": enforced / 1e3}
        if not isinstance(now, Missing):
            values["power_watts"] = now / 1e3
        summary = f"limit {enforced / 1e3:.0f} W of {default / 1e3:.0f} W"
        if enforced >= config.min_share * default:
            yield Finding(component=gpu.component, status=Status.OK, summary=summary, values=values)
            return
        asked = gpu.optional("power_limit")
        by_user = asked is not None and asked <= enforced
        yield Finding(
            component=gpu.component,
            status=Status.WARN,
            cause="gpu.thermal_power",
            kind="limit",
            summary=f"{summary}, {'set by a user' if by_user else 'enforced by the platform'}",
            evidence=f"{gpu.model} at {gpu.pci}: asked for {'?' if asked is None else asked / 1e3} W",
            advice=f"`nvidia-smi -i {gpu.index} -pl {default // 1000}` if nobody meant it"
            if by_user
            else "check power supplies and the rack's power limit",
            values=values,
        )

    yield from each_gpu(host.nvml, judge)


CHECK = Check(
    name="power",
    run=run,
    config=Config,
    metrics={
        "power_limit_watts": "Power limit of this GPU that is in force.",
        "power_watts": "Power that this GPU draws.",
    },
)
