"""ib_firmware: mixed on one node, too old, known to be bad."""

from pathlib import Path

import pytest
from recorded_node import Node, look, told, troubles

from checks.fabric.ib_firmware import CHECK

CARD = "sys/class/infiniband/mlx5_0"


@pytest.fixture
def node(tmp_path: Path) -> Node:
    found = Node(tmp_path / "n1", "h100_host_healthy")
    found.copy(CARD, "sys/class/infiniband/mlx5_3")
    return found


def test_same_firmware_is_well(node: Node) -> None:
    assert {line[1] for line in told(look(CHECK, node))} == {"ok"}


def test_the_odd_one_out_is_named(node: Node) -> None:
    node.write({f"{CARD}/fw_ver": "28.36.1010"})
    said = "mlx5_0: firmware 28.36.1010, 2 others of its board (MT_0000000838) have 28.39.2048"
    assert troubles(look(CHECK, node)) == [("ib/mlx5_0", "warn", "mixed", said)]


def test_minimum_by_board_and_by_type_compares_numbers_not_text(node: Node) -> None:
    assert troubles(look(CHECK, node, minimum={"MT4129": "28.9.9999"})) == []
    found = troubles(look(CHECK, node, minimum={"MT_0000000838": "28.40.1000", "MT4129": "28.1.1"}))
    assert [line[:3] for line in found] == [(f"ib/mlx5_{n}", "warn", "old") for n in (0, 1, 3)]
    assert found[0][3] == "mlx5_0: firmware 28.39.2048, want 28.40.1000 or later (MT_0000000838)"


def test_bad_versions(node: Node) -> None:
    found = troubles(look(CHECK, node, bad=["22.39.2048"]))
    said = "mlx5_2: firmware 22.39.2048 is known to be bad (checks.ib_firmware.bad)"
    assert found == [("ib/mlx5_2", "fail", "bad", said)]


def test_unreadable_card_is_unknown_alone(node: Node) -> None:
    node.write({f"{CARD}/fw_ver": None})
    (node.root / CARD / "fw_ver").mkdir()
    assert [line[1] for line in told(look(CHECK, node))] == ["unknown", "ok", "ok", "ok"]


def test_none_is_skipped(node: Node) -> None:
    node.write({"sys/class/infiniband": None})
    assert told(look(CHECK, node))[0][:2] == ("ib", "skipped")
