"""One card with other firmware than its seven neighbours is the one that behaves differently under load."""

from collections import Counter
from collections.abc import Iterator

from msgspec import field

from checks import infiniband
from checks.base import Check, CheckConfig, Finding, Memory, Status
from checks.devices import look
from checks.host import Host, Unreadable
from checks.infiniband import Device


class Config(CheckConfig, frozen=True, kw_only=True):
    """minimum: board id or type (MT4129) -> lowest firmware version that is good here. bad: versions known to be bad.

    Both are a site's own knowledge: release notes differ by board and switch firmware. What needs no knowledge is that
    cards of the same board id on one node carry the same firmware.
    """

    interval: float = 3600.0
    minimum: dict[str, str] = field(default_factory=dict)
    bad: tuple[str, ...] = ()


def run(host: Host, config: Config, memory: Memory) -> Iterator[Finding]:
    """One finding per device, on `ib/<device>`."""
    devices = [device for device in infiniband.devices(host) if device.driver == "mlx5_core" or not device.driver]
    devices = [device for device in devices if (device.path / "fw_ver").exists()]
    versions = {device.name: _version(host, device) for device in devices}
    boards = {device.name: infiniband.board(host, device) for device in devices}
    for device in devices:
        yield from look(f"ib/{device.name}", _device(host, device, versions, boards, config))
    if not devices:
        yield Finding(component="ib", status=Status.SKIPPED, summary="no device with firmware of its own here")


def _device(
    host: Host, device: Device, versions: dict[str, str], boards: dict[str, str], config: Config
) -> Iterator[Finding]:
    version, board = host.read(device.path / "fw_ver"), boards[device.name]
    kin = Counter(other for name, other in versions.items() if other and boards[name] == board)
    common, number = kin.most_common(1)[0]
    least = config.minimum.get(board) or config.minimum.get(_type(host, device), "")
    if version in config.bad:
        yield _trouble(device, Status.FAIL, "bad", f"firmware {version} is known to be bad (checks.ib_firmware.bad)")
    elif least and _parts(version) < _parts(least):
        yield _trouble(device, Status.WARN, "old", f"firmware {version}, want {least} or later ({board})")
    elif version != common and number > kin[version]:
        said = f"firmware {version}, {number} others of its board ({board or '?'}) have {common}"
        yield _trouble(device, Status.WARN, "mixed", said)
    else:
        yield Finding(component=f"ib/{device.name}", status=Status.OK, summary=f"firmware {version}")


def _trouble(device: Device, status: Status, kind: str, said: str) -> Finding:
    return Finding(
        component=f"ib/{device.name}",
        status=status,
        cause="net.infiniband",
        kind=kind,
        summary=f"{device.name}: {said}",
        evidence=said,
        advice=f"drain the node and burn the right one: `mlxfwmanager -d {device.name} -u`, then reset the card",
    )


def _version(host: Host, device: Device) -> str:
    """Its firmware version, "" when it cannot be read; the look at the device itself says why."""
    try:
        return host.read(device.path / "fw_ver")
    except Unreadable:
        return ""


def _type(host: Host, device: Device) -> str:
    return host.read(device.path / "hca_type") if (device.path / "hca_type").exists() else ""


def _parts(version: str) -> tuple[int, ...]:
    """`28.39.1002` in an order in which 28.9 comes before 28.39."""
    return tuple(int(part) if part.isdigit() else 0 for part in version.split("."))


CHECK = Check(name="ib_firmware", run=run, config=Config, door=infiniband.DOOR)
