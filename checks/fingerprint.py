"""What a node is made of, as names and values: two nodes that differ in one of them train differently, or not at all.

Only what is equal on equal nodes: no serials, no addresses, nothing that changes while the node runs.
"""

import re
from collections import Counter
from collections.abc import Iterator, Mapping
from pathlib import Path

import msgspec

from checks.host import CommandError, Host, Unreadable

_DEADLINE = 5.0
Facts = dict[str, str]


class Drift(msgspec.Struct, frozen=True, kw_only=True):
    """One value of one node that is not what most nodes have. share: of the nodes that have the majority's, 0 to 1."""

    node: str
    name: str
    value: str
    majority: str
    share: float


def take(host: Host) -> Facts:
    """Everything that could be read, sorted by name; what is not there has no entry."""
    found: Facts = {}
    for reader in (_kernel, _processor, _gpus, _fabric, _libraries):
        for name, value in reader(host):
            if value:
                found[name] = value
    return dict(sorted(found.items()))


def differences(one: Mapping[str, str], other: Mapping[str, str]) -> list[tuple[str, str, str]]:
    """(name, value of one, value of the other) of everything that differs; "" where one does not have it."""
    names = sorted(one.keys() | other.keys())
    return [(name, one.get(name, ""), other.get(name, "")) for name in names if one.get(name) != other.get(name)]


def drift(nodes: Mapping[str, Mapping[str, str]]) -> list[Drift]:
    """Where single nodes differ from most; a value without a majority (more than half) accuses nobody."""
    found = []
    for name in sorted({name for facts in nodes.values() for name in facts}):
        counts = Counter(facts.get(name, "") for facts in nodes.values())
        majority, many = counts.most_common(1)[0]
        if many * 2 <= len(nodes):
            continue
        found += [
            Drift(node=node, name=name, value=facts.get(name, ""), majority=majority, share=many / len(nodes))
            for node, facts in sorted(nodes.items())
            if facts.get(name, "") != majority
        ]
    return found


def _kernel(host: Host) -> Iterator[tuple[str, str]]:
    yield "kernel", _read(host, host.proc / "sys/kernel/osrelease")
    release = re.search(r'^PRETTY_NAME="?([^"\n]+)', _read(host, host.etc / "os-release"), re.MULTILINE)
    yield "os", release[1] if release else ""
    yield "kernel.cmdline", _cmdline(_read(host, host.proc / "cmdline"))
    yield "image", _read(host, host.etc / "image-id")


def _cmdline(text: str) -> str:
    """Without what differs between equal nodes: where they boot from."""
    return " ".join(word for word in text.split() if not word.startswith(("root=", "BOOT_IMAGE=", "ip=", "nfsroot=")))


def _processor(host: Host) -> Iterator[tuple[str, str]]:
    text = _read(host, host.proc / "cpuinfo")
    model = re.search(r"^model name\s*:\s*(.+)$", text, re.MULTILINE)
    yield "cpu", model[1] if model else ""
    yield "cpus", str(len(re.findall(r"^processor\s*:", text, re.MULTILINE)) or "")
    yield "microcode", (re.findall(r"^microcode\s*:\s*(\S+)", text, re.MULTILINE) or [""])[0]
    memory = re.search(r"^MemTotal:\s*(\d+) kB", _read(host, host.proc / "meminfo"), re.MULTILINE)
    # The firmware keeps back some megabytes, not the same on every boot: whole gigabytes are compared.
    yield "memory", f"{round(int(memory[1]) / 1024**2)} GiB" if memory else ""


def _gpus(host: Host) -> Iterator[tuple[str, str]]:
    version = re.search(r"Kernel Module\s+(?:for \S+\s+)?([\d.]+)", _read(host, host.proc / "driver/nvidia/version"))
    yield "nvidia.driver", version[1] if version else ""
    models: Counter[str] = Counter()
    bios: Counter[str] = Counter()
    for path in _directories(host.proc / "driver/nvidia/gpus"):
        text = _read(host, path / "information")
        models[_field(text, "Model")] += 1
        bios[_field(text, "Video BIOS")] += 1
    yield "gpus", _counted(models)
    yield "gpu.vbios", _counted(bios)
    yield "nvidia.fabricmanager", _command(host, "nv-fabricmanager", "--version")


def _fabric(host: Host) -> Iterator[tuple[str, str]]:
    boards: Counter[str] = Counter()
    firmware: Counter[str] = Counter()
    for path in _directories(host.sys / "class/infiniband"):
        boards[f"{_read(host, path / 'hca_type')} {_read(host, path / 'board_id')}".strip()] += 1
        firmware[_read(host, path / "fw_ver")] += 1
    yield "hcas", _counted(boards)
    yield "hca.firmware", _counted(firmware)
    yield "mlx5_core", _read(host, host.sys / "module/mlx5_core/version")
    yield "ofed", _command(host, "ofed_info", "-s").rstrip(":")


def _libraries(host: Host) -> Iterator[tuple[str, str]]:
    cuda = _read(host, host.root / "usr/local/cuda/version.json")
    found = re.search(r'"cuda"\s*:\s*\{[^}]*"version"\s*:\s*"([^"]+)"', cuda)
    yield "cuda", found[1] if found else ""
    nccl = re.findall(r"libnccl\.so\.([\d.]+)", _command(host, "ldconfig", "-p", whole=True))
    yield "nccl", max(nccl, default="", key=len)
    for name, path in (("python", "python3"), ("slurm", "sinfo"), ("docker", "docker"), ("enroot", "enroot")):
        flag = "version" if path == "enroot" else "--version"
        yield name, _command(host, path, flag)


def _read(host: Host, path: Path) -> str:
    try:
        return host.read(path)
    except Unreadable:
        return ""


def _directories(path: Path) -> list[Path]:
    try:
        return sorted(path.iterdir())
    except OSError:
        return []


def _command(host: Host, *command: str, whole: bool = False) -> str:
    """The first line of what a program says of itself, "" when it is not there or fails."""
    try:
        done = host.run(command, _DEADLINE)
    except CommandError:
        return ""
    text = done.stdout.strip() if done.returncode == 0 else ""
    return text if whole else text.partition("\n")[0]


def _field(text: str, name: str) -> str:
    found = re.search(rf"^{name}:\s*(.+)$", text, re.MULTILINE)
    return found[1].strip() if found else ""


def _counted(values: Counter[str]) -> str:
    return ", ".join(f"{count} x {value}" for value, count in sorted(values.items()) if value)
