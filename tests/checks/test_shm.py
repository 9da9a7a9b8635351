"""shm: small, full, absent."""

from pathlib import Path

import pytest
from recorded_node import Node, look, size, told

from checks.host import Unreadable
from checks.system.shm import CHECK

GB = 10**9


@pytest.fixture
def node(tmp_path: Path) -> Node:
    return Node(tmp_path / "n1", "h100_host_healthy")


def test_healthy(node: Node) -> None:
    assert told(look(CHECK, node)) == [("shm", "ok", "", "1 TB of 1 TB free")]


@pytest.mark.parametrize(
    ("total", "available", "status", "kind", "said"),
    [
        (67_108_864, 67_108_864, "warn", "small", "/dev/shm has only 67 MB"),
        (1000 * GB, 150 * GB, "warn", "full", "/dev/shm is 85 % full: 150 GB of 1 TB free"),
        (1000 * GB, 20 * GB, "fail", "full", "/dev/shm is 98 % full: 20 GB of 1 TB free"),
    ],
)
def test_troubles(node: Node, total: int, available: int, status: str, kind: str, said: str) -> None:
    node.answer(sizes={"/dev/shm": size(total, available)})
    assert told(look(CHECK, node)) == [("shm", status, kind, said)]


def test_absent_is_not_well(node: Node) -> None:
    node.write({"proc/1/mountinfo": "28 1 259:2 / / rw - ext4 /dev/sda rw"})
    with pytest.raises(Unreadable, match="/dev/shm is not mounted"):
        look(CHECK, node)
