"""A GPU replaces bad rows of its memory with spare ones, at its next reset; when spares run out it has to go."""

from collections.abc import Iterator

from checks.base import Check, CheckConfig, Finding, Memory, Status
from checks.gpu.answers import Missing
from checks.gpu.nvml import Gpu, each_gpu
from checks.host import Host


class Config(CheckConfig, frozen=True, kw_only=True):
    """warn_banks_low: banks with few spare rows left (NVML's "low" or "none") above which it is said.

    A failed remapping is NVIDIA's criterion for replacement; a pending one asks for a reset; the number of remapped
    rows alone is none (gpud and DCGM dropped such a rule), so it is a metric only.
    """

    warn_banks_low: int = 0


def run(host: Host, config: Config, memory: Memory) -> Iterator[Finding]:
    """`gpu/N` for every GPU that remaps rows (Ampere and later)."""

    def judge(gpu: Gpu) -> Iterator[Finding]:
        corrected, uncorrected, pending, failed = gpu.integers("remapped_rows")
        values = {"rows_remapped_corrected": float(corrected), "rows_remapped_uncorrected": float(uncorrected)}
        summary = f"{corrected + uncorrected} rows remapped, {uncorrected} for uncorrectable errors"
        if failed:
            yield _trouble(
                gpu,
                Status.FAIL,
                "failed",
                f"a bad row could not be remapped; {summary}",
                "take the GPU out of service and open a case: NVIDIA replaces a GPU whose remapping failed",
                values,
            )
        if pending:
            yield _trouble(
                gpu,
                Status.WARN,
                "pending",
                f"a row waits to be remapped at the next reset; {summary}",
                "drain the node when its job is done and reset the GPU",
                values,
            )
        low = _banks_low(gpu)
        if low > config.warn_banks_low:
            yield _trouble(
                gpu,
                Status.WARN,
                "spares",
                f"{low} memory banks have few spare rows left or none; {summary}",
                "plan the GPU's replacement: the next bad row in such a bank cannot be remapped",
                values,
            )
        elif not failed and not pending:
            yield Finding(component=gpu.component, status=Status.OK, summary=summary, values=values)

    yield from each_gpu(host.nvml, judge)


def _banks_low(gpu: Gpu) -> int:
    banks = gpu.ask("row_histogram")
    return 0 if isinstance(banks, Missing) else int(banks[3] + banks[4])


def _trouble(gpu: Gpu, status: Status, kind: str, summary: str, advice: str, values: dict[str, float]) -> Finding:
    return Finding(
        component=gpu.component,
        status=status,
        cause="gpu.memory_ecc",
        kind=kind,
        summary=summary,
        evidence=f"{gpu.model} at {gpu.pci}: nvmlDeviceGetRemappedRows",
        advice=advice,
        values=values,
    )


CHECK = Check(
    name="remapped_rows",
    run=run,
    config=Config,
    metrics={
        "rows_remapped_corrected": "Rows of this GPU remapped because of corrected errors.",
        "rows_remapped_uncorrected": "Rows of this GPU remapped because of uncorrectable errors.",
    },
)
