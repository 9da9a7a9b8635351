"""A GPU that is slowed down by heat or a power brake holds up every rank of its job, and reports no error."""

from collections.abc import Iterator
from typing import Annotated

import msgspec

from checks.base import Check, CheckConfig, Finding, Memory, Status
from checks.gpu.nvml import Gpu, each_gpu
from checks.gpu.window import sample
from checks.host import Host

# nvml.h: nvmlClocksThrottleReason*. Power cap, application clocks and idle are no trouble: full work is capped.
_REASONS = (
    (0x40, "hardware thermal slowdown", Status.FAIL),
    (0x80, "hardware power brake", Status.FAIL),
    (0x08, "hardware slowdown", Status.FAIL),
    (0x20, "software thermal slowdown", Status.WARN),
)


class Config(CheckConfig, frozen=True, kw_only=True):
    """window_minutes, share: a reason that stood in so large a share of the window's samples is said.

    gpud's rule for hardware slowdown (6 of 10 one-minute samples); one sample alone (sichek) is no finding here, since
    a job's power spike engages the brake for milliseconds.
    """

    interval: float = 30.0
    window_minutes: Annotated[float, msgspec.Meta(ge=1)] = 10.0
    share: Annotated[float, msgspec.Meta(gt=0, le=1)] = 0.6


_LEAST_SAMPLES = 6


def run(host: Host, config: Config, memory: Memory) -> Iterator[Finding]:
    """`gpu/N` with every reason that lasts."""
    boot, at = host.boot_id(), host.clock.monotonic()

    def judge(gpu: Gpu) -> Iterator[Finding]:
        now = gpu.integer("throttle_reasons")
        key = gpu.pci or gpu.component
        seen = sample(memory, key, now, at=at, boot=boot, seconds=config.window_minutes * 60.0)
        lasting = [
            (word, status, share)
            for bit, word, status in _REASONS
            if len(seen) >= _LEAST_SAMPLES
            and (share := sum(bool(int(x) & bit) for x in seen) / len(seen)) >= config.share
        ]
        if not lasting:
            yield Finding(component=gpu.component, status=Status.OK, summary=_moment(now))
        for word, status, share in lasting[:1]:
            yield Finding(
                component=gpu.component,
                status=status,
                cause="gpu.thermal_power",
                kind="throttle",
                summary=f"{word} in {share:.0%} of the last {config.window_minutes:g} minutes",
                evidence=f"{gpu.model} at {gpu.pci}: reasons now {now:#x}, {_temperature(gpu)}",
                advice="check inlet temperature, fans or coolant flow"
                if "thermal" in word
                else "check power supplies, cables and the rack's power limit",
            )

    yield from each_gpu(host.nvml, judge)


def _moment(reasons: int) -> str:
    words = [word for bit, word, _ in _REASONS if reasons & bit]
    return f"{words[0]} at this moment" if words else "not slowed down"


def _temperature(gpu: Gpu) -> str:
    celsius = gpu.optional("temperature")
    return f"{celsius} °C" if celsius is not None else "temperature not given"


CHECK = Check(name="throttle", run=run, config=Config)
