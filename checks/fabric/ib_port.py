"""A fabric port that is down or trained low slows every collective of every job on the node to its pace."""

import functools
import tomllib
from collections.abc import Iterator
from pathlib import Path
from typing import Annotated

import msgspec

from checks import infiniband
from checks.base import Check, CheckConfig, Finding, Memory, Status
from checks.devices import look
from checks.host import Host, Unreadable
from checks.infiniband import Port

MODELS = Path(__file__).with_name("hca_models.toml")


class Model(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What a board can do; see hca_models.toml."""

    board_id: str
    board: str
    gigabits: Annotated[float, msgspec.Meta(gt=0)]
    source: str


class Config(CheckConfig, frozen=True, kw_only=True):
    """expected: ports that must be active, as `mlx5_0/1`. exclude: ports left out.

    models: boards besides those of hca_models.toml, or in their place. A port is judged against its board's rate; an
    unknown board against the fastest port of the same board id here and the best rate it had itself.
    """

    interval: float = 30.0
    consecutive: int = 2
    boot_grace: float = 180.0
    expected: tuple[str, ...] = ()
    exclude: tuple[str, ...] = ()
    models: tuple[Model, ...] = ()


def run(host: Host, config: Config, memory: Memory) -> Iterator[Finding]:
    """One finding per port, on `ib/<device>/<port>`."""
    ports = [port for port in infiniband.ports(host) if port.name not in config.exclude]
    for name in sorted(set(config.expected) - {port.name for port in ports}):
        yield _trouble(f"ib/{name}", "missing", f"{name}: expected, and the kernel has no such port", "see `lspci`")
    peers = _peers(host, ports)
    for port in ports:
        yield from look(port.component, _port(host, port, peers, config, memory))
    if not ports and not config.expected:
        yield Finding(component="ib", status=Status.SKIPPED, summary="no InfiniBand or RoCE device here")


def _port(
    host: Host, port: Port, peers: dict[str, dict[str, float]], config: Config, memory: Memory
) -> Iterator[Finding]:
    state, physical = infiniband.state(host, port), infiniband.physical_state(host, port)
    board = infiniband.board(host, port.device)
    best = memory.setdefault("best", {})
    if state != "ACTIVE":
        neighbours = [name for name in peers.get(board, {}) if name != port.name]
        yield _inactive(port, state, physical, port.name in best, neighbours, config)
        return
    rate = infiniband.gigabits(host, port)
    best[port.name] = max(best.get(port.name, 0.0), rate)
    yield _judge_rate(port, rate, _expected_rate(board, port, peers, best, config))


def _inactive(
    port: Port, state: str, physical: str, was_active: bool, neighbours: list[str], config: Config
) -> Finding:
    said = f"{port.name} is {state}, physical state {physical}"
    values = {"infiniband_port_active": 0.0}
    if not (was_active or neighbours or port.name in config.expected):
        # An empty socket of a two-port card, or a card nobody cabled: nothing here says that it should be up.
        summary = f"{said}: not in use (no port of its board is active, and it never was)"
        return Finding(component=port.component, status=Status.SKIPPED, summary=summary, values=values)
    why = "it was active" if was_active else f"{', '.join(neighbours[:3])} of the same board are active"
    sure = was_active or port.name in config.expected
    return Finding(
        component=port.component,
        status=Status.FAIL if sure else Status.WARN,
        cause="net.infiniband",
        kind="down",
        summary=f"{said}; {'it is expected' if port.name in config.expected else why}",
        evidence=f"state: {state}, phys_state: {physical}",
        advice=_ADVICE.get(physical, "see cable, transceiver and switch port: `mlxlink -d {device} -m`").format(
            device=port.device.name
        ),
        values=values,
    )


_ADVICE = {
    "LinkUp": "the link is up and no subnet manager took it in: see `sminfo` and that one runs (opensm, UFM, switch)",
    "Disabled": "somebody switched it off: `ibportstate -D 0 1 enable`, or the switch port",
    "Polling": "it hears nothing from the other end: see cable, transceiver and switch port (`mlxlink -d {device} -m`)",
}


def _expected_rate(
    board: str, port: Port, peers: dict[str, dict[str, float]], best: dict[str, float], config: Config
) -> tuple[float, str]:
    """Gb/s that it should have, and by whose word."""
    model = ({model.board_id: model for model in (*models(), *config.models)}).get(board)
    if model:
        return model.gigabits, model.board
    rate = max(peers.get(board, {}).values(), default=0.0)
    name = max(peers.get(board, {}), key=peers[board].__getitem__, default=port.name)
    if best[port.name] > rate:
        return best[port.name], f"what it had before; the board {board or '?'} is not in the table"
    return rate, f"as {name} of the same board; the board {board or '?'} is not in the table"


def _judge_rate(port: Port, rate: float, expected: tuple[float, str]) -> Finding:
    want, word = expected
    values = {"infiniband_port_active": 1.0, "infiniband_port_rate_bytes_per_second": rate * 1e9 / 8}
    if rate >= want:
        known = "" if "not in the table" not in word else ", its board is not in the table"
        summary = f"active, {rate:g} Gb/s{known}"
        return Finding(component=port.component, status=Status.OK, summary=summary, values=values)
    return Finding(
        component=port.component,
        status=Status.FAIL,
        cause="net.infiniband",
        kind="rate",
        summary=f"{port.name} runs at {rate:g} Gb/s, want {want:g} Gb/s ({word})",
        evidence=f"rate: {rate:g} Gb/s",
        advice="it trained low: reseat, then replace cable or transceiver; see that the switch port allows the rate",
        values=values,
    )


def _peers(host: Host, ports: list[Port]) -> dict[str, dict[str, float]]:
    """Board -> its active ports -> Gb/s. A port that cannot be read is nobody's peer; its own look says why."""
    found: dict[str, dict[str, float]] = {}
    for port in ports:
        try:
            if infiniband.state(host, port) == "ACTIVE":
                found.setdefault(infiniband.board(host, port.device), {})[port.name] = infiniband.gigabits(host, port)
        except Unreadable:
            continue
    return found


def _trouble(component: str, kind: str, said: str, advice: str) -> Finding:
    return Finding(
        component=component, status=Status.FAIL, cause="net.infiniband", kind=kind, summary=said, advice=advice
    )


@functools.cache
def models() -> tuple[Model, ...]:
    """The boards of hca_models.toml."""
    return tuple(msgspec.convert(tomllib.loads(MODELS.read_text(encoding="utf-8"))["model"], tuple[Model, ...]))


CHECK = Check(
    name="ib_port",
    run=run,
    config=Config,
    door=infiniband.DOOR,
    metrics={
        "infiniband_port_active": "1 while the port is active.",
        "infiniband_port_rate_bytes_per_second": "Rate that the port trained to.",
    },
)
