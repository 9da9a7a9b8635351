"""One interface with a smaller MTU than its peers drops or fragments what they send, and RoCE halves its payload."""

from collections import Counter
from collections.abc import Iterator
from pathlib import Path

from msgspec import field

from checks.base import Check, CheckConfig, Finding, Memory, Status
from checks.devices import look
from checks.host import Host, Unreadable, printable

# RoCE carries at most the power of two that fits beside its headers: 4,096 needs an Ethernet MTU of 4,200.
_ROCE_FULL = 4200
_ETHERNET, _INFINIBAND = 1, 32


class Config(CheckConfig, frozen=True, kw_only=True):
    """expected: interface -> MTU in bytes. exclude: interfaces left out.

    Without expectations, interfaces of one driver and speed are held to what most of them have. roce: say when an
    interface that carries RoCE has less than 4,200, the least for the full RDMA payload of 4,096 (NVIDIA's RoCE guide).
    """

    interval: float = 300.0
    expected: dict[str, int] = field(default_factory=dict)
    exclude: tuple[str, ...] = ()
    roce: bool = True


def run(host: Host, config: Config, memory: Memory) -> Iterator[Finding]:
    """One finding per interface with hardware that is in use, on `net/<interface>`."""
    ports = {printable(path.name): path for path in host.devices("net") if _in_use(host, path)}
    ports = {name: path for name, path in ports.items() if name not in config.exclude}
    kinds = {name: _kind(host, path) for name, path in ports.items()}
    sizes = {name: size for name, path in ports.items() if (size := _mtu(host, path)) is not None}
    for name, path in ports.items():
        yield from look(f"net/{name}", _port(host, name, path, kinds, sizes, config))
    for name in sorted(set(config.expected) - set(ports)):
        said = f"{name} has an expected MTU, and is not in use"
        yield Finding(component=f"net/{name}", status=Status.UNKNOWN, kind="missing", summary=said)
    if not ports and not config.expected:
        yield Finding(component="net", status=Status.SKIPPED, summary="no network hardware in use here")


def _port(
    host: Host, name: str, path: Path, kinds: dict[str, str], sizes: dict[str, int], config: Config
) -> Iterator[Finding]:
    size = host.count(path / "mtu")
    alike = Counter(other for peer, other in sizes.items() if kinds[peer] == kinds[name])
    common, number = alike.most_common(1)[0] if alike else (size, 1)
    want = config.expected.get(name)
    if want is not None and size != want:
        yield _trouble(name, "expected", f"MTU {size}, want {want} (checks.mtu.expected)", want)
    elif want is None and size != common and number > alike[size]:
        yield _trouble(name, "other", f"MTU {size}, {number} interfaces of its kind have {common}", common)
    elif want is None and config.roce and size < _ROCE_FULL and _carries_roce(host, path):
        said = f"MTU {size}: RoCE needs {_ROCE_FULL} for its full payload of 4096"
        yield _trouble(name, "roce", said, 9000)
    else:
        yield Finding(component=f"net/{name}", status=Status.OK, summary=f"MTU {size}")


def _trouble(name: str, kind: str, said: str, want: int) -> Finding:
    return Finding(
        component=f"net/{name}",
        status=Status.WARN,
        cause="net.socket",
        kind=kind,
        summary=f"{name}: {said}",
        evidence=said,
        advice=f"`ip link set {name} mtu {want}`, in the network's configuration too; the switch must allow it",
    )


def _in_use(host: Host, path: Path) -> bool:
    try:
        kind = host.integer(path / "type")
        return kind in (_ETHERNET, _INFINIBAND) and (path / "device").exists() and host.integer(path / "carrier") == 1
    except Unreadable:
        return False  # an interface that is switched off answers EINVAL


def _carries_roce(host: Host, path: Path) -> bool:
    """Its card has an RDMA device, and it is Ethernet: mlx5 makes one for each port whether it is used or not, so only
    fast ports count (100 Gb/s and more are bought for the fabric)."""
    try:
        fast = host.integer(path / "speed") >= 100_000
        return fast and (path / "device/infiniband").is_dir() and host.integer(path / "type") == _ETHERNET
    except Unreadable:
        return False


def _kind(host: Host, path: Path) -> str:
    try:
        driver = host.link(path / "device/driver")
    except Unreadable:
        driver = "?"
    try:
        return f"{driver} {host.read(path / 'type')} {host.read(path / 'speed')}"
    except Unreadable:
        return f"{driver} {host.read(path / 'type')}"


def _mtu(host: Host, path: Path) -> int | None:
    try:
        return host.count(path / "mtu")
    except Unreadable:
        return None


CHECK = Check(name="mtu", run=run, config=Config)
