"""RDMA devices and their ports as the kernel shows them below /sys/class/infiniband."""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from checks.host import Host, Unreadable, printable

# Every read below /sys/class/infiniband asks the card's firmware, and a sick card answers after a minute or never:
# checks that read it run in a child behind this door.
DOOR = "rdma"


@dataclass(frozen=True, slots=True, kw_only=True)
class Device:
    """One RDMA device (HCA). driver: "" where the kernel names none (soft-RoCE)."""

    name: str
    path: Path
    driver: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Port:
    """One port of an RDMA device. layer: "InfiniBand" or "Ethernet" (RoCE)."""

    device: Device
    number: str
    path: Path
    layer: str

    @property
    def name(self) -> str:
        return f"{self.device.name}/{self.number}"

    @property
    def component(self) -> str:
        return f"ib/{self.name}"


def devices(host: Host) -> list[Device]:
    """All RDMA devices, by name; a link that leads nowhere is a device that is going."""
    return [
        Device(name=printable(path.name), path=path, driver=_driver(host, path))
        for path in host.devices("infiniband")
        if path.is_dir()
    ]


def ports(host: Host) -> list[Port]:
    """The ports of InfiniBand and RoCE devices. AWS's EFA is no such thing: the check `efa` looks at it."""
    return [
        Port(device=device, number=printable(path.name), path=path, layer=_layer(host, path))
        for device in devices(host)
        if device.driver != "efa"
        for path in _entries(host, device.path / "ports")
    ]


def state(host: Host, port: Port) -> str:
    """ACTIVE, INIT, ARMED or DOWN. Raises Unreadable."""
    return _word(host, port.path / "state")


def physical_state(host: Host, port: Port) -> str:
    """LinkUp, Polling, Disabled, ... Raises Unreadable."""
    return _word(host, port.path / "phys_state")


def gigabits(host: Host, port: Port) -> float:
    """The rate it trained to, from `400 Gb/sec (4X NDR)`. Raises Unreadable."""
    text = host.read(port.path / "rate")
    number = text.split(" ")[0]
    try:
        return float(number)
    except ValueError as error:
        raise Unreadable(f"{host.name(port.path / 'rate')}: {text[:40]!r} is no rate") from error


def board(host: Host, device: Device) -> str:
    """Its board id, or its type where the driver has none; "" when it has neither."""
    for name in ("board_id", "hca_type"):
        try:
            if text := host.read(device.path / name):
                return text
        except Unreadable:
            continue
    return ""


def address(host: Host, device: Device) -> str:
    """Its PCI address; "" for one that is not on PCI."""
    try:
        return host.link(device.path / "device")
    except Unreadable:
        return ""


def _word(host: Host, path: Path) -> str:
    """`ACTIVE` of `4: ACTIVE`."""
    text = host.read(path)
    number, separator, word = text.partition(":")
    if not separator or not number.isdigit() or not word.strip():
        raise Unreadable(f"{host.name(path)}: {text[:40]!r} is no state")
    return word.strip()


def _layer(host: Host, path: Path) -> str:
    try:
        return host.read(path / "link_layer")
    except Unreadable:
        return ""


def _driver(host: Host, path: Path) -> str:
    try:
        return host.link(path / "device/driver")
    except Unreadable:
        return ""


def _entries(host: Host, path: Path) -> Iterator[Path]:
    try:
        yield from host.entries(path)
    except Unreadable:
        return
