"""Confidential computing slows transfers and limits tools: a node that has it by mistake is slow for no reason."""

from collections.abc import Iterator
from typing import Literal

from checks.base import Check, CheckConfig, Finding, Memory, Status
from checks.gpu.answers import Missing
from checks.gpu.nvml import unanswered
from checks.host import Host


class Config(CheckConfig, frozen=True, kw_only=True):
    """expected: whether this node shall have it: "off", "on", or "any"."""

    interval: float = 300.0
    expected: Literal["off", "on", "any"] = "off"


def run(host: Host, config: Config, memory: Memory) -> Iterator[Finding]:
    """`confidential_computing` for the node."""
    missing = host.nvml.state()
    if missing is not None:
        yield Finding(
            component="confidential_computing", status=Status.SKIPPED, summary=f"{missing.text}: see gpu_count"
        )
        return
    state = host.nvml.system("confidential_computing")
    if isinstance(state, Missing):
        yield unanswered("confidential_computing", "confidential_computing", state)
        return
    _, feature, developer = state
    word = "on" if feature else "off"
    if config.expected not in (word, "any"):
        yield _trouble("expected", f"confidential computing is {word}, want {config.expected}", "set it, then reboot")
    elif feature and developer:
        yield _trouble("developer", "confidential computing in developer mode: it protects nothing", "turn it off")
    else:
        summary = f"confidential computing is {word}"
        yield Finding(component="confidential_computing", status=Status.OK, summary=summary)


def _trouble(kind: str, summary: str, advice: str) -> Finding:
    return Finding(
        component="confidential_computing",
        status=Status.WARN,
        cause="gpu.driver",
        kind=kind,
        summary=summary,
        advice=f"{advice} (`nvidia-smi conf-compute -q` shows it)",
    )


CHECK = Check(name="confidential_computing", run=run, config=Config)
