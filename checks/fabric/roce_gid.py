"""A RoCE port without a routable GID, or with it at another index than its peers, fails only when NCCL connects."""

from collections import Counter
from collections.abc import Iterator

from checks import infiniband
from checks.base import Check, CheckConfig, Finding, Memory, Status
from checks.devices import look
from checks.host import Host, Unreadable
from checks.infiniband import Port

_NONE = "0000:0000:0000:0000:0000:0000:0000:0000"


class Config(CheckConfig, frozen=True, kw_only=True):
    """exclude: ports left out. same_index: demand that the first routable RoCE v2 GID of every port has the same index.

    NCCL_IB_GID_INDEX is one number for all ports of a job: a port whose index differs cannot connect. NCCL 2.21 and
    later choose by themselves when it is not set.
    """

    interval: float = 300.0
    consecutive: int = 2
    boot_grace: float = 180.0
    exclude: tuple[str, ...] = ()
    same_index: bool = True


def run(host: Host, config: Config, memory: Memory) -> Iterator[Finding]:
    """One finding per active RoCE port, on `ib/<device>/<port>`."""
    ports = [port for port in infiniband.ports(host) if port.layer == "Ethernet" and port.name not in config.exclude]
    indices = {port.name: index for port in ports if (index := _index(host, port)) is not None}
    for port in ports:
        yield from look(port.component, _port(host, port, indices, config))
    if not ports:
        yield Finding(component="ib", status=Status.SKIPPED, summary="no RoCE port here")


def _port(host: Host, port: Port, indices: dict[str, int], config: Config) -> Iterator[Finding]:
    if infiniband.state(host, port) != "ACTIVE":
        yield Finding(component=port.component, status=Status.SKIPPED, summary="not active")
        return
    index = indices.get(port.name)
    if index is None:
        said = f"{port.name} has no RoCE v2 GID with a routable address"
        advice = "give its interface an IPv4 or global IPv6 address, and see `show_gids`"
        yield _trouble(port, Status.FAIL, "no_gid", said, advice)
        return
    common, number = Counter(indices.values()).most_common(1)[0]
    if config.same_index and index != common and number > 1:
        said = f"{port.name} has its RoCE v2 GID at index {index}, {number} other ports at {common}"
        advice = "leave NCCL_IB_GID_INDEX unset (NCCL 2.21 or later), or give its interface one address as the others"
        yield _trouble(port, Status.WARN, "other_index", said, advice)
        return
    yield Finding(component=port.component, status=Status.OK, summary=f"RoCE v2 GID at index {index}")


def _index(host: Host, port: Port) -> int | None:
    """The index of the first RoCE v2 GID with a routable address."""
    try:
        names = sorted((path.name for path in host.entries(port.path / "gids")), key=lambda name: (len(name), name))
    except Unreadable:
        return None
    for name in names:
        try:
            gid = host.read(port.path / "gids" / name)
            if gid == _NONE or gid.startswith("fe80:") or not name.isdigit():
                continue
            if host.read(port.path / "gid_attrs/types" / name) == "RoCE v2":
                return int(name)
        except Unreadable:
            continue  # an unused entry answers EINVAL
    return None


def _trouble(port: Port, status: Status, kind: str, said: str, advice: str) -> Finding:
    return Finding(
        component=port.component,
        status=status,
        cause="net.nccl_config",
        kind=kind,
        summary=said,
        evidence=said,
        advice=advice,
    )


CHECK = Check(name="roce_gid", run=run, config=Config, door=infiniband.DOOR)
