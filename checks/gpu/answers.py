"""What NVML can answer: a value, or a typed reason why there is none, so that no check takes an absence for health."""

import enum
from collections.abc import Mapping
from typing import Any

import msgspec


class Reason(enum.StrEnum):
    """Why there is no answer."""

    NOT_SUPPORTED = "not_supported"  # this GPU, or this driver, has no such thing
    NO_PERMISSION = "no_permission"
    LOST = "lost"  # the GPU is gone or must be reset
    NOT_FOUND = "not_found"
    SENTINEL = "sentinel"  # a number that NVML uses for "no value"
    NO_LIBRARY = "no_library"
    NO_DRIVER = "no_driver"
    MISMATCH = "mismatch"  # library and kernel module are of different drivers
    HUNG = "hung"  # the call did not return
    ERROR = "error"  # any other error of NVML


class Missing(msgspec.Struct, frozen=True):
    """No answer. missing: why. text: in words."""

    missing: Reason
    text: str = ""


class NoAnswer(Exception):
    """A question that a check cannot go on without has no answer."""

    def __init__(self, question: str, missing: Missing) -> None:
        super().__init__(f"{question}: {missing.text}")
        self.question = question
        self.missing = missing


# What there is to ask of a GPU, in groups that are read in one go. All values are plain JSON.
# Units: MHz, degrees Celsius, milliwatts, bytes, percent; counters count from driver load, aggregate ones for ever.
GROUPS: Mapping[str, tuple[str, ...]] = {
    "identity": ("name", "uuid", "serial", "pci", "vbios"),
    "health": (
        "ecc_mode",  # [now, after the next reboot]
        *(
            f"ecc_{life}_{kind}_{where}"
            for life in ("volatile", "aggregate")
            for kind in ("corrected", "uncorrected")
            for where in ("sram", "dram")
        ),
        "sram_threshold_exceeded",
        "remapped_rows",  # [for corrected, for uncorrected, pending, failed]
        "row_histogram",  # banks by spare rows left: [all, most, some, few, none]
        "retired_pages",  # [for corrected, for uncorrected]
        "retired_pending",
        "recovery_action",  # 0 none 1 reset 2 reboot 3 drain P2P 4 drain and reset 5 IMEX 6 bus reset 7 system reboot
    ),
    "links": (
        "nvlinks",  # 1 up, 0 down, null not there, by link
        "nvlink_crc",  # by link
        "nvlink_replay",
        "nvlink_recovery",
        "fabric",  # [state, status, health mask]
        "pcie_now",  # [generation, width]
        "pcie_max",
        "pcie_replays",
        "p2p_nvlink",  # status towards every other GPU, by index; null for itself
        "p2p_read",
    ),
    "load": (
        "clock_sm",
        "clock_memory",
        "clock_sm_max",
        "throttle_reasons",
        "pstate",
        "temperature",
        "temperature_slowdown",
        "temperature_shutdown",
        "temperature_memory",
        "temperature_memory_max",
        "temperature_margin",
        "power",
        "power_limit",
        "power_limit_default",
        "power_limit_enforced",
        "utilization",  # [SM, memory]
        "memory",  # [total, used]
        "pcie_bytes",  # [sent, received] since driver load
        "persistence",
        "mig_mode",  # [now, after the next reset]
        "mig_devices",
        "processes",  # [[pid, bytes or null]]
    ),
}
GROUP_OF: Mapping[str, str] = {question: group for group, questions in GROUPS.items() for question in questions}

# What there is to ask of the driver as a whole; gpus: how many it counts.
SYSTEM = ("driver_version", "library_version", "cuda_version", "confidential_computing", "gpus")


def decode(value: Any) -> Any:
    """A plain value as it came from a child or a recording: Missing where it says so."""
    return msgspec.convert(value, Missing) if isinstance(value, dict) and "missing" in value else value
