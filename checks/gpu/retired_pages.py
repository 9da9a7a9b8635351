"""GPUs before Ampere set bad pages of their memory aside at driver load; too many mean that the memory is going."""

from collections.abc import Iterator
from typing import Annotated

import msgspec

from checks.base import Check, CheckConfig, Finding, Memory, Status
from checks.gpu.nvml import Gpu, each_gpu
from checks.host import Host


class Config(CheckConfig, frozen=True, kw_only=True):
    """fail_pages: retired pages at which the GPU is to be replaced.

    60 is NVIDIA's criterion for replacement (Dynamic Page Retirement, 64 being the most that it can retire).
    """

    fail_pages: Annotated[int, msgspec.Meta(ge=1)] = 60


def run(host: Host, config: Config, memory: Memory) -> Iterator[Finding]:
    """`gpu/N` for every GPU that retires pages (Volta and before)."""

    def judge(gpu: Gpu) -> Iterator[Finding]:
        single, double = gpu.integers("retired_pages")
        pending = gpu.value("retired_pending")
        values = {"pages_retired": float(single + double)}
        summary = f"{single + double} pages retired, {double} for uncorrectable errors"
        if single + double < config.fail_pages and not pending:
            yield Finding(component=gpu.component, status=Status.OK, summary=summary, values=values)
            return
        worn = single + double >= config.fail_pages
        yield Finding(
            component=gpu.component,
            status=Status.FAIL if worn else Status.WARN,
            cause="gpu.memory_ecc",
            kind="worn" if worn else "pending",
            summary=summary if worn else f"a page waits to be retired at the next driver load; {summary}",
            advice="take the GPU out of service and open a case" if worn else "drain the node and reset the GPU",
            values=values,
        )

    yield from each_gpu(host.nvml, judge)


CHECK = Check(
    name="retired_pages",
    run=run,
    config=Config,
    metrics={"pages_retired": "Memory pages of this GPU that were retired."},
)
