"""A GPU whose own network card is missing sends over its neighbour's, and both go at half the pace."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from checks import infiniband
from checks.base import Check, CheckConfig, Finding, Memory, Status
from checks.host import Host, Unreadable, printable

_NVIDIA, _MELLANOX = "0x10de", "0x15b3"
_GPU_CLASSES = ("0x0300", "0x0302")
_NIC_CLASSES = ("0x0207", "0x0200")


class Config(CheckConfig, frozen=True, kw_only=True):
    """expected: RDMA devices that must be there, by name (mlx5_0). Others are remembered: one that was there at an
    earlier look and is not now has vanished; that memory outlives reboots, until the device is taken out by
    `exclude`. affinity: demand that every GPU has as near a device as its neighbours have.
    """

    interval: float = 300.0
    consecutive: int = 2
    boot_grace: float = 180.0
    expected: tuple[str, ...] = ()
    exclude: tuple[str, ...] = ()
    affinity: bool = True


@dataclass(frozen=True, slots=True)
class Place:
    """Where a PCI function sits. chain: its bridges from the root down, itself last. numa: -1 when not told."""

    chain: tuple[str, ...]
    numa: int


def run(host: Host, config: Config, memory: Memory) -> Iterator[Finding]:
    """One finding on `ib` for the devices there are, one per GPU on `pci/<address>`, and what the driver left out."""
    devices = {d.name: d for d in infiniband.devices(host) if d.name not in config.exclude and d.driver != "efa"}
    known = set(memory.get("known", [])) - set(config.exclude)
    missing = sorted((known | set(config.expected)) - set(devices))
    memory["known"] = sorted(known | set(devices))
    pci = _functions(host)
    unbound = sorted(address for address in _idle_cards(host, pci))
    if not devices and not missing and not unbound:
        yield Finding(component="ib", status=Status.SKIPPED, summary="no RDMA device here, and none is expected")
        return
    for name in missing:
        yield _missing(name, name in config.expected)
    for address in unbound:
        yield _unbound(address)
    if devices and not missing:
        yield Finding(
            component="ib",
            status=Status.OK,
            summary=f"{len(devices)} RDMA devices",
            values={"rdma_devices": float(len(devices))},
        )
    cards = {infiniband.address(host, device): name for name, device in devices.items()}
    if config.affinity:
        yield from _affinity(host, pci, {address: name for address, name in cards.items() if address in pci})


def _missing(name: str, expected: bool) -> Finding:
    return Finding(
        component=f"ib/{name}",
        status=Status.FAIL,
        cause="net.infiniband",
        kind="vanished",
        summary=f"{name} is not there, {'it is expected' if expected else 'it was at an earlier look'}",
        evidence=f"/sys/class/infiniband/{name}: no such device",
        advice="see `lspci -d 15b3:` and `dmesg | grep mlx5`; if it was taken out on purpose: checks.rails.exclude",
    )


def _unbound(address: str) -> Finding:
    return Finding(
        component=f"pci/{address}",
        status=Status.WARN,
        cause="net.infiniband",
        kind="unbound",
        summary=f"network card {address} is on PCI, and no driver has it",
        evidence=f"/sys/bus/pci/devices/{address}: no driver",
        advice=f"see `dmesg | grep {address}`; bind it: `modprobe mlx5_core`",
    )


def _affinity(host: Host, pci: Mapping[str, Path], cards: Mapping[str, str]) -> Iterator[Finding]:
    """For every GPU the nearest card; a GPU that is worse off than most has lost its own."""
    gpus = sorted(a for a, path in pci.items() if _is(host, path, _NVIDIA, _GPU_CLASSES))
    if not gpus or not cards:
        return
    places = {address: place(host, pci[address]) for address in (*gpus, *cards)}
    nearest = {gpu: max((_nearness(places[gpu], places[card]), card) for card in cards) for gpu in gpus}
    usual = sorted(near for near, _ in nearest.values())[len(gpus) // 2]
    for gpu in gpus:
        near, card = nearest[gpu]
        said = f"nearest RDMA device {cards[card]}: {_WORDS[near]}"
        if near < usual:
            yield Finding(
                component=f"pci/{gpu}",
                status=Status.WARN,
                cause="net.infiniband",
                kind="far",
                summary=f"GPU {gpu}: {said}; most GPUs here have one {_WORDS[usual]}",
                evidence=f"{gpu} below {places[gpu].chain[0]}, NUMA node {places[gpu].numa}",
                advice="its own card is missing, unbound or in another slot: see `nvidia-smi topo -m`",
            )
        else:
            yield Finding(component=f"pci/{gpu}", status=Status.OK, summary=said)


_WORDS = ("on another NUMA node", "on the same NUMA node", "below the same root port", "below the same PCIe switch")


def _nearness(gpu: Place, card: Place) -> int:
    """3 same switch, 2 same root port, 1 same NUMA node, 0 farther."""
    shared = 0
    for ours, theirs in zip(gpu.chain[:-1], card.chain[:-1], strict=False):
        if ours != theirs:
            break
        shared += 1
    if shared >= 3:  # host bridge, root port, and at least the upstream port of one switch
        return 3
    if shared == 2:
        return 2
    return int(gpu.numa == card.numa and gpu.numa >= 0)


def place(host: Host, path: Path) -> Place:
    """Where a function of /sys/bus/pci/devices sits, by the directory that its link leads to."""
    parts = path.resolve().parts
    chain = tuple(printable(part) for part in parts if part.startswith("pci") or part.count(":") == 2)
    try:
        numa = host.integer(path / "numa_node")
    except Unreadable:
        numa = -1
    return Place(chain, numa)


def _functions(host: Host) -> dict[str, Path]:
    directory = host.sys / "bus/pci/devices"
    return {printable(path.name): path for path in host.entries(directory)} if directory.is_dir() else {}


def _idle_cards(host: Host, pci: Mapping[str, Path]) -> Iterator[str]:
    """NVIDIA (Mellanox) network cards without a driver; one given to a virtual machine has vfio-pci."""
    for address, path in pci.items():
        if _is(host, path, _MELLANOX, _NIC_CLASSES) and not (path / "driver").exists():
            yield address


def _is(host: Host, path: Path, vendor: str, classes: tuple[str, ...]) -> bool:
    try:
        return host.read(path / "vendor") == vendor and host.read(path / "class").startswith(classes)
    except Unreadable:
        return False


CHECK = Check(
    name="rails",
    run=run,
    config=Config,
    door=infiniband.DOOR,
    metrics={"rdma_devices": "RDMA devices (HCAs) that the kernel shows."},
)
