"""ib_port: down, trained low, unknown boards, and files that lie."""

from pathlib import Path

import pytest
from recorded_node import Node, look, told, troubles

from checks.base import Memory
from checks.fabric.ib_port import CHECK, models

PORT = "sys/class/infiniband/mlx5_0/ports/1"
OTHER = "sys/class/infiniband/mlx5_1/ports/1"


@pytest.fixture
def node(tmp_path: Path) -> Node:
    return Node(tmp_path / "n1", "h100_host_healthy")


def down(node: Node, port: str = PORT, physical: str = "2: Polling", state: str = "1: DOWN") -> None:
    node.write({f"{port}/state": state, f"{port}/phys_state": physical})


def test_healthy(node: Node) -> None:
    found = look(CHECK, node)
    assert told(found) == [
        ("ib/mlx5_0/1", "ok", "", "active, 400 Gb/s"),
        ("ib/mlx5_1/1", "ok", "", "active, 400 Gb/s"),
        ("ib/mlx5_2/1", "ok", "", "active, 100 Gb/s, its board is not in the table"),
    ]
    assert found[0].values == {"infiniband_port_active": 1.0, "infiniband_port_rate_bytes_per_second": 5e10}


def test_down_warns_by_its_peers_and_fails_once_it_was_active(node: Node) -> None:
    memory: Memory = {}
    down(node)
    said = "mlx5_0/1 is DOWN, physical state Polling; mlx5_1/1 of the same board are active"
    assert troubles(look(CHECK, node)) == [("ib/mlx5_0/1", "warn", "down", said)]
    node.write({f"{PORT}/state": "4: ACTIVE", f"{PORT}/phys_state": "5: LinkUp"})
    look(CHECK, node, memory)
    down(node)
    said = "mlx5_0/1 is DOWN, physical state Polling; it was active"
    assert troubles(look(CHECK, node, memory)) == [("ib/mlx5_0/1", "fail", "down", said)]


SWITCHED_OFF = "somebody switched it off: `ibportstate -D 0 1 enable`, or the switch port"
NO_MANAGER = "the link is up and no subnet manager took it in: see `sminfo` and that one runs (opensm, UFM, switch)"
HEARS_NOTHING = "it hears nothing from the other end: see cable, transceiver and switch port (`mlxlink -d mlx5_0 -m`)"


@pytest.mark.parametrize(
    ("state", "physical", "advice"),
    [
        ("2: INIT", "5: LinkUp", NO_MANAGER),
        ("1: DOWN", "3: Disabled", SWITCHED_OFF),
        ("1: DOWN", "2: Polling", HEARS_NOTHING),
        ("1: DOWN", "7: Sleep", "see cable, transceiver and switch port: `mlxlink -d mlx5_0 -m`"),
    ],
)
def test_advice_by_the_physical_state(node: Node, state: str, physical: str, advice: str) -> None:
    down(node, physical=physical, state=state)
    assert look(CHECK, node)[0].advice == advice


def test_empty_socket_is_skipped_unless_expected(node: Node) -> None:
    down(node, "sys/class/infiniband/mlx5_2/ports/1")
    said = "mlx5_2/1 is DOWN, physical state Polling: not in use (no port of its board is active, and it never was)"
    assert told(look(CHECK, node))[2] == ("ib/mlx5_2/1", "skipped", "", said)
    found = troubles(look(CHECK, node, expected=("mlx5_2/1", "mlx5_9/1")))
    assert [line[:3] for line in found] == [("ib/mlx5_9/1", "fail", "missing"), ("ib/mlx5_2/1", "fail", "down")]


def test_rate_below_the_boards(node: Node) -> None:
    node.write({f"{PORT}/rate": "200 Gb/sec (2X NDR)", f"{OTHER}/rate": "200 Gb/sec (2X NDR)"})
    said = "{} runs at 200 Gb/s, want 400 Gb/s (ConnectX-7 MCX75310AAS-NEAT, NDR/400GbE, OSFP)"
    assert troubles(look(CHECK, node)) == [
        ("ib/mlx5_0/1", "fail", "rate", said.format("mlx5_0/1")),
        ("ib/mlx5_1/1", "fail", "rate", said.format("mlx5_1/1")),
    ]


def test_unknown_board_is_judged_by_peers_and_by_itself(node: Node) -> None:
    memory: Memory = {}
    for name in ("mlx5_0", "mlx5_1"):
        node.write({f"sys/class/infiniband/{name}/board_id": "XX_1"})
    look(CHECK, node, memory)
    node.write({f"{PORT}/rate": "100 Gb/sec (4X EDR)"})
    peer = (
        "mlx5_0/1 runs at 100 Gb/s, want 400 Gb/s (as mlx5_1/1 of the same board; the board XX_1 is not in the table)"
    )
    assert troubles(look(CHECK, node)) == [("ib/mlx5_0/1", "fail", "rate", peer)]
    node.write({f"{OTHER}/rate": "100 Gb/sec (4X EDR)"})
    assert troubles(look(CHECK, node)) == []
    own = "mlx5_0/1 runs at 100 Gb/s, want 400 Gb/s (what it had before; the board XX_1 is not in the table)"
    assert troubles(look(CHECK, node, memory))[0] == ("ib/mlx5_0/1", "fail", "rate", own)


def test_boards_of_the_configuration_win(node: Node) -> None:
    mine = {"board_id": "MT_0000000838", "board": "ours, cabled to HDR", "gigabits": 200, "source": "site"}
    node.write({f"{PORT}/rate": "200 Gb/sec (4X HDR)"})
    assert troubles(look(CHECK, node, models=[mine])) == []


@pytest.mark.parametrize("text", ["", "N/A", "-1", "4", "\x00\x01"])
def test_garbage_in_one_port_leaves_the_others(node: Node, text: str) -> None:
    node.write({f"{PORT}/state": text})
    found = told(look(CHECK, node))
    assert [line[1] for line in found] == ["unknown", "ok", "ok"]
    assert found[0][3] == f"/{PORT}/state: {text.strip()[:40]!r} is no state"


def test_port_that_vanishes(node: Node) -> None:
    node.write({f"{PORT}/rate": None})
    assert told(look(CHECK, node))[0][3] == f"/{PORT}/rate: No such file or directory"


def test_no_device_is_skipped(node: Node) -> None:
    node.write({"sys/class/infiniband": None})
    assert told(look(CHECK, node)) == [("ib", "skipped", "", "no InfiniBand or RoCE device here")]


def test_every_board_of_the_table_has_a_source() -> None:
    assert len({model.board_id for model in models()}) == len(models())
    assert all(model.source and model.gigabits in (100, 200, 400, 800) for model in models())
