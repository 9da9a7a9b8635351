"""A link with CRC errors repeats its packets and slows down long before it goes down."""

from collections.abc import Iterator
from typing import Annotated

import msgspec

from checks.base import Check, CheckConfig, Finding, Memory, Status
from checks.counters import observe
from checks.gpu.answers import Missing, NoAnswer
from checks.gpu.nvml import Gpu, each_gpu
from checks.host import Host

Rate = Annotated[float, msgspec.Meta(ge=0)]


class Config(CheckConfig, frozen=True, kw_only=True):
    """warn_crc_per_hour, warn_replays_per_hour: rises of one link in an hour that are said.

    fail_recoveries_per_hour: link recoveries (retraining under traffic) in an hour that are a failure. Peers take any
    error at all (gcm, sichek), which a healthy link has now and then; these rates are our judgement, not measured on
    hardware.
    """

    warn_crc_per_hour: Rate = 100.0
    warn_replays_per_hour: Rate = 100.0
    fail_recoveries_per_hour: Rate = 5.0


def run(host: Host, config: Config, memory: Memory) -> Iterator[Finding]:
    """`gpu/N/nvlink/L` for each link with errors, `gpu/N` when it has none."""
    boot, at = host.boot_id(), host.clock.monotonic()
    told: dict[str, bool] = memory.setdefault("told", {})
    limits = (
        ("recovery", config.fail_recoveries_per_hour, Status.FAIL),
        ("crc", config.warn_crc_per_hour, Status.WARN),
        ("replay", config.warn_replays_per_hour, Status.WARN),
    )

    def judge(gpu: Gpu) -> Iterator[Finding]:
        values = {}
        troubled: set[int] = set()
        for word, limit, status in limits:
            counts = gpu.ask(f"nvlink_{word}")
            if isinstance(counts, Missing):
                continue
            values[f"nvlink_{word}_errors_total"] = float(sum(count or 0 for count in counts))
            for link, count in enumerate(counts):
                if count is None:
                    continue
                rise = observe(memory, f"{gpu.pci}/{link}/{word}", count, at=at, boot=boot)
                if rise.recent > limit and link not in troubled:
                    troubled.add(link)
                    yield _trouble(gpu, link, word, rise.recent, status)
        if not values:
            missing = gpu.ask("nvlink_crc")
            raise NoAnswer("nvlink_errors", missing)
        if not troubled:
            yield Finding(component=gpu.component, status=Status.OK, summary="no link above its rates", values=values)
        told.update(dict.fromkeys((f"{gpu.pci}/{link}" for link in troubled), True))
        links = gpu.ask("nvlinks")
        for link, state in enumerate(links if isinstance(links, list) else []):
            if state == 1 and link not in troubled and f"{gpu.pci}/{link}" in told:
                yield Finding(component=f"{gpu.component}/nvlink/{link}", status=Status.OK, summary="within its rates")

    yield from each_gpu(host.nvml, judge)


_WORDS = {"recovery": "recoveries", "crc": "CRC errors", "replay": "replays"}


def _trouble(gpu: Gpu, link: int, word: str, rose: int, status: Status) -> Finding:
    return Finding(
        component=f"{gpu.component}/nvlink/{link}",
        status=status,
        cause="gpu.nvlink",
        kind=word,
        summary=f"{rose} {_WORDS[word]} in the last hour",
        evidence=f"{gpu.model} at {gpu.pci}, link {link}",
        advice="the link slows its GPU: drain the node and reset the GPUs; if it comes back, have the board checked",
    )


CHECK = Check(
    name="nvlink_errors",
    run=run,
    config=Config,
    metrics={
        "nvlink_recovery_errors_total": "Recoveries of this GPU's links that are up.",
        "nvlink_crc_errors_total": "CRC errors of this GPU's links that are up.",
        "nvlink_replay_errors_total": "Replays of this GPU's links that are up.",
    },
)
