"""One NVLink down in eight GPUs slows every collective of the node, and NCCL says nothing about it."""

from collections import Counter
from collections.abc import Iterator
from typing import Annotated

import msgspec

from checks.base import Check, CheckConfig, Finding, Memory, Status
from checks.gpu.models import model
from checks.gpu.nvml import Gpu, each_gpu
from checks.host import Host

# So many links of a GPU have a finding each; when more are down it is the GPU or its board, and one finding says so.
_FEW = 2


class Config(CheckConfig, frozen=True, kw_only=True):
    """expected: links that are up on every GPU; 0 takes the model's number, else what most GPUs of the node have.

    Links train for minutes after boot, and every alarm of that kind that NVSentinel counted on 288 nodes in three weeks
    was such a one (its issue 1701): ten minutes of grace, and three runs in a row.
    """

    consecutive: Annotated[int, msgspec.Meta(ge=1)] = 3
    boot_grace: Annotated[float, msgspec.Meta(ge=0)] = 600.0
    expected: Annotated[int, msgspec.Meta(ge=0, le=36)] = 0


def run(host: Host, config: Config, memory: Memory) -> Iterator[Finding]:
    """`gpu/N` for the links together, `gpu/N/nvlink/L` for one or two that are down."""
    common = _common(host)
    # Only a link that was told of is told to be well again: 144 links that never were down need no word each.
    told: dict[str, bool] = memory.setdefault("told", {})

    def judge(gpu: Gpu) -> Iterator[Finding]:
        states: list[int | None] = gpu.value("nvlinks")
        up = sum(1 for state in states if state == 1)
        known = model(gpu.model)
        expected = config.expected or (known.nvlinks if known else 0)
        by = "configured" if config.expected else "of this model"
        if not expected:
            expected, by = common, "like most GPUs of this node, the model is unknown"
        values = {"nvlinks_up": float(up)}
        down = [link for link, state in enumerate(states) if state == 0 and expected]
        yield from _links(gpu, states, down if len(down) <= _FEW else [], told)
        summary = f"{up} of {expected} NVLinks up ({by})" if expected else "no NVLink in use"
        if up >= expected:
            yield Finding(component=gpu.component, status=Status.OK, summary=summary, values=values)
        elif 0 < len(down) <= _FEW and up + len(down) >= expected:
            told_of = f"{summary}: see its links"
            yield Finding(component=gpu.component, status=Status.SKIPPED, summary=told_of, values=values)
        else:
            yield _short(gpu, summary, states, values)

    yield from each_gpu(host.nvml, judge)


def _links(gpu: Gpu, states: list[int | None], down: list[int], told: dict[str, bool]) -> Iterator[Finding]:
    """A finding on each link that is down, and `ok` on those that were told of and are up again."""
    for link in down:
        told[f"{gpu.pci}/{link}"] = True
        yield Finding(
            component=f"{gpu.component}/nvlink/{link}",
            status=Status.FAIL,
            cause="gpu.nvlink",
            kind="down",
            summary=f"NVLink {link} of {gpu.model} at {gpu.pci} is down",
            advice="see nvlink_errors and XID 74; drain the node and reset the GPUs or reboot",
        )
    for link, state in enumerate(states):
        if state == 1 and f"{gpu.pci}/{link}" in told:
            yield Finding(component=f"{gpu.component}/nvlink/{link}", status=Status.OK, summary="up again")


def _short(gpu: Gpu, summary: str, states: list[int | None], values: dict[str, float]) -> Finding:
    return Finding(
        component=gpu.component,
        status=Status.FAIL,
        cause="gpu.nvlink",
        kind="links",
        summary=summary,
        evidence="states by link: " + " ".join("-" if state is None else str(state) for state in states),
        advice="see the fabric manager's log and XID 74; drain the node and reset the GPUs or reboot",
        values=values,
    )


def _common(host: Host) -> int:
    """The number of links that most GPUs of the node have up."""
    counts: Counter[int] = Counter()
    for gpu in host.nvml.gpus():
        states = gpu.ask("nvlinks") if gpu.missing is None else None
        if isinstance(states, list):
            counts[sum(1 for state in states if state == 1)] += 1
    return max(counts, key=lambda up: (counts[up], up), default=0)


CHECK = Check(name="nvlink_state", run=run, config=Config, metrics={"nvlinks_up": "NVLinks of this GPU that are up."})
