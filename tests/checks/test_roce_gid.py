"""roce_gid: no routable GID, another index than the peers, ports that are not RoCE or not up."""

from pathlib import Path

import pytest
from recorded_node import Node, look, told, troubles

from checks.fabric.roce_gid import CHECK

PORT = "sys/class/infiniband/mlx5_2/ports/1"
NONE = "0000:0000:0000:0000:0000:0000:0000:0000"


@pytest.fixture
def node(tmp_path: Path) -> Node:
    return Node(tmp_path / "n1", "h100_host_healthy")


def test_healthy_and_infiniband_ports_are_left_out(node: Node) -> None:
    assert told(look(CHECK, node)) == [("ib/mlx5_2/1", "ok", "", "RoCE v2 GID at index 3")]


def test_link_local_alone_is_not_routable(node: Node) -> None:
    node.write({f"{PORT}/gids/2": NONE, f"{PORT}/gids/3": NONE})
    said = "mlx5_2/1 has no RoCE v2 GID with a routable address"
    assert troubles(look(CHECK, node)) == [("ib/mlx5_2/1", "fail", "no_gid", said)]


def test_version_one_alone_is_not_enough(node: Node) -> None:
    node.write({f"{PORT}/gid_attrs/types/3": "IB/RoCE v1"})
    assert [line[2] for line in troubles(look(CHECK, node))] == ["no_gid"]


def test_another_index_than_the_peers(node: Node) -> None:
    for name in ("mlx5_3", "mlx5_4"):
        node.copy("sys/class/infiniband/mlx5_2", f"sys/class/infiniband/{name}")
    odd = "sys/class/infiniband/mlx5_3/ports/1"
    node.write({f"{odd}/gids/5": "0000:0000:0000:0000:0000:ffff:0a00:0012", f"{odd}/gid_attrs/types/5": "RoCE v2"})
    node.write({f"{odd}/gids/3": NONE})
    said = "mlx5_3/1 has its RoCE v2 GID at index 5, 2 other ports at 3"
    assert troubles(look(CHECK, node)) == [("ib/mlx5_3/1", "warn", "other_index", said)]
    assert troubles(look(CHECK, node, same_index=False)) == []


def test_port_that_is_down_is_skipped(node: Node) -> None:
    node.write({f"{PORT}/state": "1: DOWN"})
    assert told(look(CHECK, node)) == [("ib/mlx5_2/1", "skipped", "", "not active")]


def test_unused_entries_that_cannot_be_read_are_passed_over(node: Node) -> None:
    node.write({f"{PORT}/gid_attrs/types/2": None, f"{PORT}/gids/junk": "\x00"})
    assert told(look(CHECK, node))[0][1] == "ok"


def test_none_is_skipped(node: Node) -> None:
    node.write({"sys/class/infiniband/mlx5_2": None})
    assert told(look(CHECK, node)) == [("ib", "skipped", "", "no RoCE port here")]
