"""A GPU left in MIG mode has no NVLink and no whole memory: a training job on it fails, or sees a slice."""

from collections.abc import Iterator
from typing import Literal

from checks.base import Check, CheckConfig, Finding, Memory, Status
from checks.gpu.nvml import Gpu, each_gpu
from checks.host import Host


class Config(CheckConfig, frozen=True, kw_only=True):
    """expected: whether the GPUs of this node shall be in MIG mode: "on", "off", or "any"."""

    interval: float = 300.0
    expected: Literal["on", "off", "any"] = "any"


def run(host: Host, config: Config, memory: Memory) -> Iterator[Finding]:
    """`gpu/N` for every GPU that can be split."""

    def judge(gpu: Gpu) -> Iterator[Finding]:
        now, pending = gpu.integers("mig_mode")
        word = "on" if now else "off"
        slices = gpu.optional("mig_devices") or 0
        values = {"mig_devices": float(slices)}
        if now != pending:
            summary = f"MIG is {word} and {'on' if pending else 'off'} after the next reset"
            yield _trouble(gpu, "pending", summary, "drain the node and reset the GPU", values)
        elif config.expected not in (word, "any"):
            yield _trouble(gpu, "expected", f"MIG is {word}, want {config.expected}", "`nvidia-smi -mig`", values)
        elif now and not slices:
            yield _trouble(gpu, "empty", "MIG is on and no instance exists", "make instances or turn MIG off", values)
        else:
            summary = f"MIG on, {slices} instances" if now else "MIG off"
            yield Finding(component=gpu.component, status=Status.OK, summary=summary, values=values)

    yield from each_gpu(host.nvml, judge)


def _trouble(gpu: Gpu, kind: str, summary: str, advice: str, values: dict[str, float]) -> Finding:
    return Finding(
        component=gpu.component,
        status=Status.WARN,
        cause="gpu.driver",
        kind=kind,
        summary=summary,
        evidence=f"{gpu.model} at {gpu.pci}",
        advice=advice,
        values=values,
    )


CHECK = Check(name="mig", run=run, config=Config, metrics={"mig_devices": "MIG instances of this GPU."})
