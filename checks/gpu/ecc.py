"""Uncorrectable memory errors kill jobs and corrupt results; a flood of corrected ones comes before them."""

from collections.abc import Iterator

from checks.base import Check, CheckConfig, ClearRule, Finding, Memory, Status
from checks.counters import observe
from checks.gpu.answers import Missing
from checks.gpu.nvml import Gpu, each_gpu
from checks.host import Host


class Config(CheckConfig, frozen=True, kw_only=True):
    """corrected_warn_per_hour: corrected errors in an hour above which it is said.

    Corrected errors are harmless one by one and peers set lifetime totals (10 to 50 million) that a long-lived GPU
    reaches; a rate says what happens now. 10 000 an hour is three a second: our judgement, not measured on hardware.
    sram_aggregate_fail: uncorrectable SRAM errors in the GPU's life above which it is to be replaced (sichek: 4), used
    where NVML does not say itself whether the threshold is exceeded.
    """

    corrected_warn_per_hour: int = 10_000
    sram_aggregate_fail: int = 4


def run(host: Host, config: Config, memory: Memory) -> Iterator[Finding]:
    """`gpu/N` for every GPU that has ECC."""
    boot, at = host.boot_id(), host.clock.monotonic()

    def judge(gpu: Gpu) -> Iterator[Finding]:
        mode = gpu.value("ecc_mode")
        values = _counters(gpu)
        troubles = list(_troubles(gpu, config, memory, values, boot, at))
        if mode[0] == 0:
            troubles.append(_disabled(gpu, mode))
        yield from troubles
        if not troubles:
            yield Finding(component=gpu.component, status=Status.OK, summary=_summary(values), values=values)

    yield from each_gpu(host.nvml, judge)


def _counters(gpu: Gpu) -> dict[str, float]:
    """Metric name -> count, of those that this GPU has."""
    found = {}
    for life in ("volatile", "aggregate"):
        for kind in ("corrected", "uncorrected"):
            for where in ("sram", "dram"):
                count = gpu.optional(f"ecc_{life}_{kind}_{where}")
                if count is not None and count >= 0:
                    found[f"ecc_{life}_{kind}_{where}_errors"] = float(count)
    if not found:
        gpu.integer("ecc_volatile_uncorrected_dram")  # says why there is none
    return found


def _troubles(
    gpu: Gpu, config: Config, memory: Memory, values: dict[str, float], boot: str, at: float
) -> Iterator[Finding]:
    uncorrected = {where: int(values.get(f"ecc_volatile_uncorrected_{where}_errors", 0)) for where in ("sram", "dram")}
    if any(uncorrected.values()):
        yield Finding(
            component=gpu.component,
            status=Status.FAIL,
            cause="gpu.memory_ecc",
            kind="uncorrected",
            clear=ClearRule.CLEAN_RUNS,  # the counter is volatile: it goes back to zero at the reset that cures it
            summary=f"{uncorrected['dram']} uncorrectable DRAM and {uncorrected['sram']} SRAM errors since driver load",
            evidence=_summary(values),
            advice="drain the node and reset the GPU (rows are remapped then); see remapped_rows and xid",
            values=values,
        )
    exceeded = gpu.ask("sram_threshold_exceeded")
    lifetime = int(values.get("ecc_aggregate_uncorrected_sram_errors", 0))
    if exceeded is True or (isinstance(exceeded, Missing) and lifetime > config.sram_aggregate_fail):
        yield Finding(
            component=gpu.component,
            status=Status.FAIL,
            cause="gpu.memory_ecc",
            kind="sram_threshold",
            summary=f"{lifetime} uncorrectable SRAM errors in its life: over the vendor's threshold",
            evidence=_summary(values),
            advice="take the GPU out of service and open a case: SRAM cannot be remapped",
            values=values,
        )
    corrected = sum(int(v) for k, v in values.items() if k.startswith("ecc_volatile_corrected"))
    rise = observe(memory, gpu.pci or gpu.component, corrected, at=at, boot=boot)
    if rise.recent > config.corrected_warn_per_hour:
        yield Finding(
            component=gpu.component,
            status=Status.WARN,
            cause="gpu.memory_ecc",
            kind="corrected",
            summary=f"{rise.recent} corrected errors in the last hour",
            evidence=_summary(values),
            advice="watch it: such a rate comes before uncorrectable errors; run the vendor's diagnostics",
            values=values,
        )


def _disabled(gpu: Gpu, mode: list[int]) -> Finding:
    pending = ", on again after the next reboot" if mode[1] else ""
    return Finding(
        component=gpu.component,
        status=Status.WARN,
        cause="gpu.memory_ecc",
        kind="disabled",
        summary=f"ECC is off{pending}: memory errors go unseen",
        advice="`nvidia-smi --ecc-config=1`, then reset the GPU",
    )


def _summary(values: dict[str, float]) -> str:
    total = sum(values.values())
    if not total:
        return "no ECC error"
    named = (
        f"{name.removeprefix('ecc_').removesuffix('_errors')} {value:.0f}" for name, value in values.items() if value
    )
    return ", ".join(named).replace("_", " ")


_WHERE = {"sram": "on-chip memory", "dram": "device memory"}
_LIFE = {"volatile": "since driver load", "aggregate": "in the GPU's life"}

CHECK = Check(
    name="ecc",
    run=run,
    config=Config,
    metrics={
        f"ecc_{life}_{kind}_{where}_errors": f"{kind.capitalize()} errors of {_WHERE[where]} {_LIFE[life]}."
        for life in _LIFE
        for kind in ("corrected", "uncorrected")
        for where in _WHERE
    },
)
