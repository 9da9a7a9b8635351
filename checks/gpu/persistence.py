"""Without persistence mode the driver lets go of a GPU between jobs: starts take seconds, ECC counts are lost."""

from collections.abc import Iterator
from typing import Annotated

import msgspec

from checks.base import Check, CheckConfig, Finding, Memory, Status
from checks.gpu.models import model
from checks.gpu.nvml import Gpu, each_gpu
from checks.host import Host


class Config(CheckConfig, frozen=True, kw_only=True):
    """Asked of models that muster knows as data centre GPUs only; a workstation's GPU is held by its display."""

    consecutive: Annotated[int, msgspec.Meta(ge=1)] = 2
    boot_grace: Annotated[float, msgspec.Meta(ge=0)] = 300.0


def run(host: Host, config: Config, memory: Memory) -> Iterator[Finding]:
    """`gpu/N` for every GPU."""

    def judge(gpu: Gpu) -> Iterator[Finding]:
        on = gpu.value("persistence")
        if on:
            yield Finding(component=gpu.component, status=Status.OK, summary="persistence mode is on")
        elif model(gpu.model) is None:
            summary = f"off; {gpu.model} is no data centre model that muster knows"
            yield Finding(component=gpu.component, status=Status.SKIPPED, summary=summary)
        else:
            yield Finding(
                component=gpu.component,
                status=Status.WARN,
                cause="gpu.driver",
                kind="off",
                summary="persistence mode is off",
                evidence=f"{gpu.model} at {gpu.pci}",
                advice="`systemctl enable --now nvidia-persistenced`",
            )

    yield from each_gpu(host.nvml, judge)


CHECK = Check(name="persistence", run=run, config=Config)
