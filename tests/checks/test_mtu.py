"""mtu: expected, odd one out, RoCE with too little."""

from pathlib import Path

import pytest
from recorded_node import Node, look, told, troubles

from checks.fabric.mtu import CHECK


@pytest.fixture
def node(tmp_path: Path) -> Node:
    return Node(tmp_path / "n1", "h100_host_healthy")


def test_healthy(node: Node) -> None:
    assert told(look(CHECK, node)) == [("net/eno1", "ok", "", "MTU 9000"), ("net/ib0", "ok", "", "MTU 4092")]


def test_expected(node: Node) -> None:
    found = troubles(look(CHECK, node, expected={"eno1": 1500, "eth9": 9000}))
    assert found == [
        ("net/eno1", "warn", "expected", "eno1: MTU 9000, want 1500 (checks.mtu.expected)"),
        ("net/eth9", "unknown", "missing", "eth9 has an expected MTU, and is not in use"),
    ]


def test_the_odd_one_out(node: Node) -> None:
    for name in ("ib1", "ib2"):
        node.copy("sys/class/net/ib0", f"sys/class/net/{name}")
    node.write({"sys/class/net/ib1/mtu": "2044"})
    said = "ib1: MTU 2044, 2 interfaces of its kind have 4092"
    assert troubles(look(CHECK, node)) == [("net/ib1", "warn", "other", said)]


def test_roce_below_its_full_payload(node: Node) -> None:
    node.write({"sys/class/net/eno1/mtu": "1500"})
    said = "eno1: MTU 1500: RoCE needs 4200 for its full payload of 4096"
    assert troubles(look(CHECK, node)) == [("net/eno1", "warn", "roce", said)]
    assert troubles(look(CHECK, node, roce=False)) == []
    node.write({"sys/class/net/eno1/speed": "25000"})  # a management port of the same family
    assert troubles(look(CHECK, node)) == []


@pytest.mark.parametrize("text", ["", "N/A", "-1"])
def test_garbage_costs_one_interface(node: Node, text: str) -> None:
    node.write({"sys/class/net/eno1/mtu": text})
    assert [line[1] for line in told(look(CHECK, node))] == ["unknown", "ok"]


def test_nothing_in_use_is_skipped(node: Node) -> None:
    node.write({"sys/class/net/eno1/carrier": "0", "sys/class/net/ib0": None})
    assert told(look(CHECK, node)) == [("net", "skipped", "", "no network hardware in use here")]
