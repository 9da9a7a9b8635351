"""Asks NVML, in a killable child and nowhere else: every question of answers.py as one function over pynvml.

nvmlInit is called once for a child's life (on a node without persistence mode it takes seconds) and again after an
answer that says that the driver or a GPU has gone. While it lives the child holds /dev/nvidiactl open, as every NVML
client does: `nvidia-smi --gpu-reset` and `rmmod nvidia` want the agent stopped first.
"""

from collections.abc import Callable, Iterator
from functools import partial
from typing import Any

import pynvml as nv

from checks.gpu.answers import GROUPS, Missing, Reason

Handle = Any
Plain = Any

_REASONS = {
    nv.NVML_ERROR_NOT_SUPPORTED: Reason.NOT_SUPPORTED,
    nv.NVML_ERROR_FUNCTION_NOT_FOUND: Reason.NOT_SUPPORTED,
    nv.NVML_ERROR_ARGUMENT_VERSION_MISMATCH: Reason.NOT_SUPPORTED,
    nv.NVML_ERROR_DEPRECATED: Reason.NOT_SUPPORTED,
    nv.NVML_ERROR_NO_PERMISSION: Reason.NO_PERMISSION,
    nv.NVML_ERROR_GPU_IS_LOST: Reason.LOST,
    nv.NVML_ERROR_RESET_REQUIRED: Reason.LOST,
    nv.NVML_ERROR_GPU_NOT_FOUND: Reason.LOST,
    nv.NVML_ERROR_NOT_FOUND: Reason.NOT_FOUND,
    nv.NVML_ERROR_NO_DATA: Reason.NOT_FOUND,
    nv.NVML_ERROR_LIBRARY_NOT_FOUND: Reason.NO_LIBRARY,
    nv.NVML_ERROR_DRIVER_NOT_LOADED: Reason.NO_DRIVER,
    nv.NVML_ERROR_LIB_RM_VERSION_MISMATCH: Reason.MISMATCH,
}
# After these the session is worth nothing: the next call begins with nvmlInit again.
_SPOILT = (Reason.LOST, Reason.NO_DRIVER, Reason.NO_LIBRARY, Reason.MISMATCH)
_SENTINELS = (
    0xFFFFFFFF,  # NVML_VALUE_NOT_AVAILABLE as unsigned int
    0xFFFFFFFFFFFFFFFF,  # the same as unsigned long long
    0x7FFFFFFFFFFFFFF0,  # DCGM's four "blank" numbers, seen passed on as temperatures (dcgm-exporter README)
    0x7FFFFFFFFFFFFFF1,
    0x7FFFFFFFFFFFFFF2,
    0x7FFFFFFFFFFFFFF3,
)
_MAX_LINKS = 36  # NVML_NVLINK_MAX_LINKS

_open = False


def open_driver() -> dict[str, Plain]:
    """The driver as a whole, or {"driver": Missing}; begins a session unless there is one."""
    if (missing := _begin()) is not None:
        return {"driver": _plain(missing)}
    return {name: _plain(_ask(ask)) for name, ask in _SYSTEM.items()}


def read_gpu(index: int, group: str) -> dict[str, Plain]:
    """Every answer of that group about the GPU with that NVML index."""
    if (missing := _begin()) is not None:
        return {question: _plain(missing) for question in GROUPS[group]}
    handle = _ask(partial(nv.nvmlDeviceGetHandleByIndex, index))
    answers = {
        question: handle if isinstance(handle, Missing) else _ask(partial(_GPU[question], handle))
        for question in GROUPS[group]
    }
    if any(isinstance(answer, Missing) and answer.missing in _SPOILT for answer in answers.values()):
        _end()
    return {question: _plain(answer) for question, answer in answers.items()}


def _begin() -> Missing | None:
    global _open
    if not _open:
        started = _ask(nv.nvmlInit)
        if isinstance(started, Missing):
            return started
        _open = True
    return None


def _end() -> None:
    global _open
    _open = False
    _ask(nv.nvmlShutdown)


def _ask(question: Callable[[], Plain]) -> Plain:
    try:
        answer = question()
    except nv.NVMLError as error:
        return Missing(_REASONS.get(error.value, Reason.ERROR), str(error))
    except UnicodeDecodeError as error:
        return Missing(Reason.ERROR, f"not UTF-8: {error.object!r}")
    for part in answer if isinstance(answer, list) else [answer]:
        if part in _SENTINELS if isinstance(part, int) else part in ("N/A", "[N/A]", ""):
            return Missing(Reason.SENTINEL, f"NVML's placeholder {part!r}")
    return answer


def _plain(answer: Plain) -> Plain:
    return {"missing": str(answer.missing), "text": answer.text} if isinstance(answer, Missing) else answer


def _cuda() -> str:
    version = nv.nvmlSystemGetCudaDriverVersion_v2()
    return f"{version // 1000}.{version % 1000 // 10}"


def _confidential() -> list[int]:
    state = nv.nvmlSystemGetConfComputeState()
    return [state.environment, state.ccFeature, state.devToolsMode]


def _pci(handle: Handle) -> str:
    """The address as sysfs spells it: 0000:3b:00.0."""
    info = nv.nvmlDeviceGetPciInfo(handle)
    return f"{info.domain:04x}:{info.bus:02x}:{info.device:02x}.0"


def _field(field: int, handle: Handle, scope: int = 0) -> int:
    return _field_values(handle, [(field, scope)])[0]


def _field_values(handle: Handle, wanted: list[tuple[int, int]]) -> list[int]:
    """Field values as integers. Raises NVMLError of the first that has none."""
    values = []
    for value in nv.nvmlDeviceGetFieldValues(handle, wanted):
        if value.nvmlReturn != 0:
            raise nv.NVMLError(value.nvmlReturn)
        unsigned = value.valueType in (nv.NVML_VALUE_TYPE_UNSIGNED_INT, nv.NVML_VALUE_TYPE_SIGNED_INT)
        values.append(int(value.value.uiVal if unsigned else value.value.ullVal))
    return values


def _counter(life: int, kind: int, where: int, handle: Handle) -> int:
    return int(nv.nvmlDeviceGetMemoryErrorCounter(handle, kind, life, where))


def _sram_threshold(handle: Handle) -> bool:
    status = nv.c_nvmlEccSramErrorStatus_v1_t()
    nv.nvmlDeviceGetSramEccErrorStatus(handle, nv.byref(status))
    return bool(status.bThresholdExceeded)


def _histogram(handle: Handle) -> list[int]:
    found = nv.nvmlDeviceGetRowRemapperHistogram(handle)
    return [found.max, found.high, found.partial, found.low, found.none]


def _retired(handle: Handle) -> list[int]:
    return [len(nv.nvmlDeviceGetRetiredPages(handle, cause)) for cause in (0, 1)]


def _links(handle: Handle) -> Iterator[tuple[int, int | None]]:
    """Every link with its state; None for one that this GPU does not have."""
    for link in range(_MAX_LINKS):
        try:
            yield link, int(nv.nvmlDeviceGetNvLinkState(handle, link))
        except nv.NVMLError as error:
            if error.value == nv.NVML_ERROR_INVALID_ARGUMENT:
                return
            if error.value != nv.NVML_ERROR_NOT_SUPPORTED:
                raise
            yield link, None


def _nvlinks(handle: Handle) -> list[int | None]:
    states = [state for _, state in _links(handle)]
    while states and states[-1] is None:
        states.pop()
    if not states:
        raise nv.NVMLError(nv.NVML_ERROR_NOT_SUPPORTED)
    return states


def _nvlink_counter(counter: int, handle: Handle) -> list[int | None]:
    """The counter of every link that is up; a link that is down has none."""
    return [
        int(nv.nvmlDeviceGetNvLinkErrorCounter(handle, link, counter)) if state == 1 else None
        for link, state in enumerate(_nvlinks(handle))
    ]


def _fabric(handle: Handle) -> list[int]:
    try:
        info = nv.c_nvmlGpuFabricInfo_v2_t()
        nv.nvmlDeviceGetGpuFabricInfoV(handle, nv.byref(info))
    except nv.NVMLError as error:
        if error.value not in (nv.NVML_ERROR_FUNCTION_NOT_FOUND, nv.NVML_ERROR_ARGUMENT_VERSION_MISMATCH):
            raise
        info = nv.c_nvmlGpuFabricInfo_t()
        nv.nvmlDeviceGetGpuFabricInfo(handle, nv.byref(info))
        return [info.state, info.status, 0]
    return [info.state, info.status, info.healthMask]


def _p2p(capability: int, handle: Handle) -> list[int | None]:
    statuses: list[int | None] = []
    for index in range(nv.nvmlDeviceGetCount()):
        try:
            other = nv.nvmlDeviceGetHandleByIndex(index)
        except nv.NVMLError:
            statuses.append(None)  # a GPU that is lost is told of by gpu_count
            continue
        same = nv.nvmlDeviceGetPciInfo(other).busId == nv.nvmlDeviceGetPciInfo(handle).busId
        statuses.append(None if same else int(nv.nvmlDeviceGetP2PStatus(handle, other, capability)))
    if len(statuses) < 2:
        raise nv.NVMLError(nv.NVML_ERROR_NOT_SUPPORTED)  # a GPU alone has no pair
    return statuses


def _mig_devices(handle: Handle) -> int:
    """How many MIG instances there are."""
    number = 0
    for index in range(nv.nvmlDeviceGetMaxMigDeviceCount(handle)):
        try:
            nv.nvmlDeviceGetMigDeviceHandleByIndex(handle, index)
        except nv.NVMLError as error:
            if error.value == nv.NVML_ERROR_NOT_FOUND:
                continue
            raise
        number += 1
    return number


def _utilization(handle: Handle) -> list[int]:
    rates = nv.nvmlDeviceGetUtilizationRates(handle)
    return [rates.gpu, rates.memory]


def _memory(handle: Handle) -> list[int]:
    info = nv.nvmlDeviceGetMemoryInfo(handle)
    return [info.total, info.used]


def _processes(handle: Handle) -> list[list[int | None]]:
    return sorted([p.pid, p.usedGpuMemory] for p in nv.nvmlDeviceGetComputeRunningProcesses(handle))


_SYSTEM: dict[str, Callable[[], Plain]] = {
    "driver_version": nv.nvmlSystemGetDriverVersion,
    "library_version": nv.nvmlSystemGetNVMLVersion,
    "cuda_version": _cuda,
    "confidential_computing": _confidential,
    "gpus": nv.nvmlDeviceGetCount,
}

_ECC: dict[str, Callable[[Handle], Plain]] = {
    f"ecc_{life}_{kind}_{where}": partial(_counter, life_number, kind_number, where_number)
    for life, life_number in (("volatile", 0), ("aggregate", 1))
    for kind, kind_number in (("corrected", 0), ("uncorrected", 1))
    for where, where_number in (("sram", nv.NVML_MEMORY_LOCATION_SRAM), ("dram", nv.NVML_MEMORY_LOCATION_DRAM))
}

_GPU: dict[str, Callable[[Handle], Plain]] = {
    "name": nv.nvmlDeviceGetName,
    "uuid": nv.nvmlDeviceGetUUID,
    "serial": nv.nvmlDeviceGetSerial,
    "pci": _pci,
    "vbios": nv.nvmlDeviceGetVbiosVersion,
    "ecc_mode": lambda handle: list(nv.nvmlDeviceGetEccMode(handle)),
    **_ECC,
    "sram_threshold_exceeded": _sram_threshold,
    "remapped_rows": lambda handle: list(nv.nvmlDeviceGetRemappedRows(handle)),
    "row_histogram": _histogram,
    "retired_pages": _retired,
    "retired_pending": lambda handle: bool(nv.nvmlDeviceGetRetiredPagesPendingStatus(handle)),
    "recovery_action": partial(_field, nv.NVML_FI_DEV_GET_GPU_RECOVERY_ACTION),
    "nvlinks": _nvlinks,
    "nvlink_crc": partial(_nvlink_counter, nv.NVML_NVLINK_ERROR_DL_CRC_FLIT),
    "nvlink_replay": partial(_nvlink_counter, nv.NVML_NVLINK_ERROR_DL_REPLAY),
    "nvlink_recovery": partial(_nvlink_counter, nv.NVML_NVLINK_ERROR_DL_RECOVERY),
    "fabric": _fabric,
    "pcie_now": lambda h: [nv.nvmlDeviceGetCurrPcieLinkGeneration(h), nv.nvmlDeviceGetCurrPcieLinkWidth(h)],
    "pcie_max": lambda h: [nv.nvmlDeviceGetMaxPcieLinkGeneration(h), nv.nvmlDeviceGetMaxPcieLinkWidth(h)],
    "pcie_replays": nv.nvmlDeviceGetPcieReplayCounter,
    # pynvml's own NVML_P2P_CAPS_INDEX_READ is a tuple by a stray comma, hence the numbers of nvml.h here.
    "p2p_nvlink": partial(_p2p, 2),
    "p2p_read": partial(_p2p, 0),
    "clock_sm": lambda handle: nv.nvmlDeviceGetClockInfo(handle, nv.NVML_CLOCK_SM),
    "clock_memory": lambda handle: nv.nvmlDeviceGetClockInfo(handle, nv.NVML_CLOCK_MEM),
    "clock_sm_max": lambda handle: nv.nvmlDeviceGetMaxClockInfo(handle, nv.NVML_CLOCK_SM),
    "throttle_reasons": nv.nvmlDeviceGetCurrentClocksThrottleReasons,
    "pstate": nv.nvmlDeviceGetPerformanceState,
    "temperature": lambda handle: nv.nvmlDeviceGetTemperature(handle, 0),
    "temperature_slowdown": lambda handle: nv.nvmlDeviceGetTemperatureThreshold(handle, 1),
    "temperature_shutdown": lambda handle: nv.nvmlDeviceGetTemperatureThreshold(handle, 0),
    "temperature_memory": partial(_field, nv.NVML_FI_DEV_MEMORY_TEMP),
    "temperature_memory_max": lambda handle: nv.nvmlDeviceGetTemperatureThreshold(handle, 2),
    "temperature_margin": nv.nvmlDeviceGetMarginTemperature,
    "power": nv.nvmlDeviceGetPowerUsage,
    "power_limit": nv.nvmlDeviceGetPowerManagementLimit,
    "power_limit_default": nv.nvmlDeviceGetPowerManagementDefaultLimit,
    "power_limit_enforced": nv.nvmlDeviceGetEnforcedPowerLimit,
    "utilization": _utilization,
    "memory": _memory,
    "pcie_bytes": lambda h: _field_values(
        h, [(nv.NVML_FI_DEV_PCIE_COUNT_TX_BYTES, 0), (nv.NVML_FI_DEV_PCIE_COUNT_RX_BYTES, 0)]
    ),
    "persistence": lambda handle: bool(nv.nvmlDeviceGetPersistenceMode(handle)),
    "mig_mode": nv.nvmlDeviceGetMigMode,
    "mig_devices": _mig_devices,
    "processes": _processes,
}
