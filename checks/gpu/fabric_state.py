"""GPUs on an NVSwitch board need the fabric manager before CUDA starts at all (error 802), and nothing else reports it.

A fabric manager that was down went unseen for twenty days on one cluster (NVSentinel, issue 883).
"""

from collections.abc import Iterator
from typing import Annotated

import msgspec

from checks.base import Check, CheckConfig, Finding, Memory, Status
from checks.gpu.nvml import Gpu, each_gpu
from checks.host import CommandError, Host, Unreadable

_UNIT = "nvidia-fabricmanager"
# nvml.h: nvmlGpuFabricState_t and the two-bit fields of healthMask, with the value that means trouble.
_STATES = ("not supported", "not started", "in progress", "completed")
_HEALTH = (
    (0, 0x3, (1,), "degraded bandwidth"),
    (2, 0x3, (1,), "route recovery in progress"),
    (4, 0x3, (1,), "unhealthy route"),
    (6, 0x3, (1,), "access timeout recovery in progress"),
    (8, 0xF, (2, 3, 4, 5, 6, 7, 8), "incorrect configuration"),
)


class Config(CheckConfig, frozen=True, kw_only=True):
    """The fabric is set up within minutes of boot; ten of them are borne, and three runs in a row."""

    consecutive: Annotated[int, msgspec.Meta(ge=1)] = 3
    boot_grace: Annotated[float, msgspec.Meta(ge=0)] = 600.0


def run(host: Host, config: Config, memory: Memory) -> Iterator[Finding]:
    """`fabric_manager` where this node has NVSwitches, `gpu/N` for every GPU that belongs to a fabric."""
    if _switches(host):
        yield _service(host)
    yield from each_gpu(host.nvml, _gpu)


def _gpu(gpu: Gpu) -> Iterator[Finding]:
    state, status, health = gpu.integers("fabric")
    if state == 0:
        yield Finding(component=gpu.component, status=Status.SKIPPED, summary="this GPU belongs to no fabric")
        return
    wrong = [word for shift, mask, bad, word in _HEALTH if (health >> shift) & mask in bad]
    word = _STATES[state] if state < len(_STATES) else f"state {state}"
    if state == 3 and status == 0 and not wrong:
        yield Finding(component=gpu.component, status=Status.OK, summary=f"fabric {word}")
        return
    detail = f", error {status}" if status else ""
    yield Finding(
        component=gpu.component,
        status=Status.FAIL,
        cause="gpu.nvlink",
        kind="fabric",
        summary=f"fabric {word}{detail}" + (f": {', '.join(wrong)}" if wrong else ""),
        evidence=f"{gpu.model} at {gpu.pci}: state {state}, status {status}, health mask {health:#x}",
        advice=f"`journalctl -u {_UNIT}`; restart it with no job running, else reboot the node",
    )


def _switches(host: Host) -> list[str]:
    """PCI addresses of NVSwitches: NVIDIA's, class 0x0680 (other bridge)."""
    devices = host.sys / "bus/pci/devices"
    found = []
    for device in sorted(devices.iterdir()) if devices.is_dir() else []:
        try:
            if host.read(device / "vendor") == "0x10de" and host.read(device / "class").startswith("0x0680"):
                found.append(device.name)
        except Unreadable:
            continue
    return found


def _service(host: Host) -> Finding:
    try:
        done = host.run(
            ("systemctl", "show", _UNIT, "--property=LoadState,ActiveState,SubState,NRestarts"), deadline=5.0
        )
    except CommandError as error:
        return Finding(
            component="fabric_manager",
            status=Status.UNKNOWN,
            kind="no_systemctl",
            summary=f"cannot ask for {_UNIT}: {error}",
            advice="run the agent on the host, or see that the fabric manager runs by other means",
        )
    words = dict(line.partition("=")[::2] for line in done.stdout.splitlines())
    if words.get("ActiveState") == "active":
        return Finding(component="fabric_manager", status=Status.OK, summary=f"{_UNIT} is active")
    missing = words.get("LoadState") == "not-found"
    return Finding(
        component="fabric_manager",
        status=Status.FAIL,
        cause="gpu.nvlink",
        kind="service",
        summary=f"{_UNIT} is {'not installed' if missing else words.get('ActiveState') or 'in an unknown state'}",
        evidence=" ".join(done.stdout.split()) or done.stderr.strip(),
        advice=f"install the {_UNIT} of the driver's version"
        if missing
        else f"`systemctl status {_UNIT}`, then start it",
    )


CHECK = Check(name="fabric_state", run=run, config=Config)
