"""A GPU that has gone takes its metrics with it, and the job simply fails: count them against what the node had.

Three counts: what NVML gives, what PCI enumerates, and what is expected (configured, or learned from what was there).
A GPU that vanished keeps its identity: UUID, serial and PCI address as they were last seen.
"""

from collections.abc import Iterator
from typing import Annotated, Any

import msgspec

from checks.base import Check, CheckConfig, Finding, Memory, Status
from checks.gpu.answers import Missing, Reason
from checks.gpu.nvml import Gpu
from checks.host import Host


class Config(CheckConfig, frozen=True, kw_only=True):
    """expected: GPUs that the node should have; 0 learns it. After one was taken out on purpose set it to what is left.

    Two runs in a row, so that a driver reload or the reset of a GPU (both under a minute) is no finding; five minutes
    after boot, because drivers that are built or loaded late take that long.
    """

    consecutive: Annotated[int, msgspec.Meta(ge=1)] = 2
    boot_grace: Annotated[float, msgspec.Meta(ge=0)] = 300.0
    expected: Annotated[int, msgspec.Meta(ge=0)] = 0


Known = dict[str, dict[str, Any]]  # PCI address -> number, name, uuid, serial


def run(host: Host, config: Config, memory: Memory) -> Iterator[Finding]:
    """`gpu` for the count and the driver, `gpu/N` for every GPU there is or was."""
    known: Known = memory.setdefault("gpus", {})
    host.nvml.remember({pci: entry["number"] for pci, entry in known.items()})
    enumerated = host.gpu_addresses()
    missing = host.nvml.state()
    if missing is not None:
        yield _no_nvml(missing, enumerated, known, config, host)
        return
    visible = host.nvml.gpus()
    silent = host.nvml.silent()
    for gpu in visible:
        _learn(gpu, known)
        yield _visible(gpu, silent.get(gpu.component, ""))
    if config.expected and len(visible) >= config.expected:
        for pci in known.keys() - {gpu.pci for gpu in visible}:
            del known[pci]
    gone = sorted((known.keys() | set(enumerated)) - {gpu.pci for gpu in visible})
    for pci in gone:
        yield _gone(pci, known, enumerated, host)
    talking = [gpu for gpu in visible if gpu.missing is None and gpu.component not in silent]
    told_of = len(visible) - len(talking) + len(gone)
    expected = config.expected or len(known.keys() | set(enumerated))
    yield _count(len(talking), told_of, len(enumerated), expected)


def _learn(gpu: Gpu, known: Known) -> None:
    if gpu.missing is None and gpu.pci:
        words = {key: value for key in ("name", "uuid", "serial") if isinstance(value := gpu.ask(key), str)}
        known[gpu.pci] = {**words, "number": gpu.number}


def _visible(gpu: Gpu, silent: str) -> Finding:
    if silent:
        return Finding(
            component=gpu.component,
            status=Status.FAIL,
            cause="gpu.driver",
            kind="hung",
            summary=f"NVML does not answer about {_who(gpu)}",
            evidence=silent,
            advice="look for XIDs and for processes in D state; drain the node and reboot it if it stays silent",
        )
    if gpu.missing is None:
        return Finding(component=gpu.component, status=Status.OK, summary=_who(gpu))
    return Finding(
        component=gpu.component,
        status=Status.FAIL,
        cause="gpu.lost",
        kind="lost",
        summary=f"{_who(gpu)}: {gpu.missing.text}",
        evidence=f"NVML, GPU with index {gpu.index}: {gpu.missing.text}",
        advice="drain the node and reboot it; if it is lost again, reseat or replace the GPU",
    )


def _gone(pci: str, known: Known, enumerated: list[str], host: Host) -> Finding:
    entry = known.get(pci, {})
    where = "still on PCI" if pci in enumerated else "not on PCI either"
    identity = ", ".join(
        f"{word} {entry[key]}" for word, key in (("UUID", "uuid"), ("serial", "serial")) if key in entry
    )
    return Finding(
        component=f"gpu/{entry.get('number', host.nvml.number(pci))}",
        status=Status.FAIL,
        cause="gpu.lost",
        kind="lost",
        summary=f"{entry.get('name', 'GPU')} at {pci} has vanished from NVML, {where}",
        evidence=identity or "never seen by NVML since muster watches this node",
        advice="drain the node and reboot it; if it stays away, reseat or replace the GPU",
    )


def _count(visible: int, told_of: int, enumerated: int, expected: int) -> Finding:
    """On the number as a whole; told_of: GPUs that are not visible and have a finding of their own."""
    values = {"gpus_visible": float(visible), "gpus_expected": float(expected), "gpus_enumerated": float(enumerated)}
    summary = f"{visible} of {expected} GPUs visible, {enumerated} on PCI"
    if visible >= expected and visible:
        return Finding(component="gpu", status=Status.OK, summary=summary, values=values)
    if not expected and not enumerated:
        return Finding(component="gpu", status=Status.SKIPPED, summary="no NVIDIA GPU in this machine", values=values)
    if visible + told_of >= expected:
        return Finding(component="gpu", status=Status.SKIPPED, summary=f"{summary}: see the single GPUs", values=values)
    return Finding(
        component="gpu",
        status=Status.FAIL,
        cause="gpu.lost",
        kind="count",
        summary=summary,
        advice="look for it with `lspci -d 10de:` after a reboot; if it was taken out, set checks.gpu_count.expected",
        values=values,
    )


# Reason -> what is wrong, in words that tell one from the other, and what to do.
_DRIVER = {
    Reason.NO_DRIVER: (
        "no_driver",
        "the NVIDIA kernel module is not loaded",
        "`modprobe nvidia`, then `dmesg | grep NVRM`; rebuild the module (DKMS) if the kernel was updated",
    ),
    Reason.NO_LIBRARY: (
        "no_driver",
        "libnvidia-ml.so.1 is not installed",
        "install the NVIDIA driver; in a container, start it with the NVIDIA runtime",
    ),
    Reason.MISMATCH: (
        "mismatch",
        "library and kernel module are of different driver versions",
        "the driver was updated under a loaded module: drain and reboot the node, or reload the module",
    ),
    Reason.HUNG: (
        "hung",
        "the driver does not answer",
        "look for XIDs and for processes in D state; drain the node and reboot it",
    ),
}


def _no_nvml(missing: Missing, enumerated: list[str], known: Known, config: Config, host: Host) -> Finding:
    expected = config.expected or len(known) or len(enumerated)
    values = {"gpus_visible": 0.0, "gpus_expected": float(expected), "gpus_enumerated": float(len(enumerated))}
    absent = missing.missing in (Reason.NO_DRIVER, Reason.NO_LIBRARY)
    if absent and not expected:
        summary = "no NVIDIA GPU on PCI and no driver"
        return Finding(component="gpu", status=Status.SKIPPED, summary=summary, values=values)
    if missing.missing not in _DRIVER:
        return Finding(
            component="gpu",
            status=Status.UNKNOWN,
            kind="no_nvml",
            summary=f"NVML cannot be used: {missing.text}",
            advice="run the agent as root; compare with `nvidia-smi`",
            values=values,
        )
    kind, what, remedy = _DRIVER[missing.missing]
    if missing.missing is Reason.NO_LIBRARY and (host.proc / "driver/nvidia/version").exists():
        what = "the kernel module is loaded, but libnvidia-ml.so.1 is not installed"
    return Finding(
        component="gpu",
        status=Status.FAIL,
        cause="gpu.driver",
        kind=kind,
        summary=f"{expected} NVIDIA GPUs and none usable: {what}",
        evidence=missing.text,
        advice=remedy,
        values=values,
    )


def _who(gpu: Gpu) -> str:
    return f"{gpu.model or 'GPU'} at {gpu.pci or 'an unknown PCI address'}"


CHECK = Check(
    name="gpu_count",
    run=run,
    config=Config,
    metrics={
        "gpus_visible": "GPUs that NVML can talk to.",
        "gpus_expected": "GPUs that this node should have: configured, or learned.",
        "gpus_enumerated": "NVIDIA GPUs that PCI enumerates.",
    },
)
