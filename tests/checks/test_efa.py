"""efa: number by instance type, events and retransmission as rates."""

from pathlib import Path

import pytest
from recorded_node import Node, look, told, troubles

from checks.base import Memory
from checks.fabric.efa import CHECK

COUNTERS = "sys/class/infiniband/rdmap0s6/ports/1/hw_counters"
NAMES = (
    "impaired_remote_conn_events", "unresponsive_remote_events", "rdma_read_wr_err", "rdma_write_wr_err", "rx_drops",
    "cmds_err", "tx_bytes", "retrans_bytes",
)  # fmt: skip


@pytest.fixture
def node(tmp_path: Path) -> Node:
    node = Node(tmp_path / "n1", "h100_host_healthy")
    node.write({"sys/class/infiniband": None, "sys/bus/pci/drivers/efa/uevent": ""})
    for number in range(6, 10):
        device = f"sys/class/infiniband/rdmap0s{number}"
        node.write({f"{device}/ports/1/hw_counters/{name}": "0" for name in NAMES})
        node.link(f"{device}/device/driver", "../../../../bus/pci/drivers/efa")
    node.write({"sys/class/dmi/id/product_name": "p4d.24xlarge\n"})
    return node


def test_healthy(node: Node) -> None:
    found = look(CHECK, node)
    assert told(found)[:2] == [
        ("efa", "ok", "", "4 devices"),
        ("efa/rdmap0s6", "ok", "", "first look at its counters"),
    ]
    assert {*found[0].values, *found[1].values} == set(CHECK.metrics)


def test_missing_by_the_instance_type_and_by_configuration(node: Node) -> None:
    node.write({"sys/class/infiniband/rdmap0s9": None})
    said = [("efa", "fail", "missing", "3 EFA devices, want 4 (as p4d.24xlarge has)")]
    assert troubles(look(CHECK, node)) == said
    node.write({"sys/class/infiniband": None})
    assert troubles(look(CHECK, node))[0][3] == "0 EFA devices, want 4 (as p4d.24xlarge has)"
    assert troubles(look(CHECK, node, devices=2))[0][3] == "0 EFA devices, want 2 (checks.efa.devices)"


def test_events_within_the_hour(node: Node) -> None:
    memory: Memory = {}
    look(CHECK, node, memory)
    node.clock.advance(60)
    node.write({f"{COUNTERS}/unresponsive_remote_events": "11"})
    said = "rdmap0s6: unresponsive_remote_events rose by 11 within the hour, limit 10"
    assert troubles(look(CHECK, node, memory)) == [("efa/rdmap0s6", "warn", "unresponsive_remote_events", said)]
    node.clock.advance(3601)
    assert troubles(look(CHECK, node, memory)) == []


def test_share_sent_again_counts_only_while_much_is_sent(node: Node) -> None:
    memory: Memory = {}
    look(CHECK, node, memory)
    node.write({f"{COUNTERS}/tx_bytes": "500", f"{COUNTERS}/retrans_bytes": "400"})
    assert troubles(look(CHECK, node, memory)) == []
    node.write({f"{COUNTERS}/tx_bytes": str(10**11), f"{COUNTERS}/retrans_bytes": str(7 * 10**9)})
    said = "rdmap0s6: 7.0 % of 100 GB were sent again"
    assert troubles(look(CHECK, node, memory)) == [("efa/rdmap0s6", "warn", "retransmits", said)]


@pytest.mark.parametrize("text", ["N/A", "-7", ""])
def test_garbage_costs_one_device(node: Node, text: str) -> None:
    node.write({f"{COUNTERS}/rx_drops": text})
    assert [line[1] for line in told(look(CHECK, node))] == ["ok", "unknown", "ok", "ok", "ok"]


def test_without_counters_a_device_is_unknown(node: Node) -> None:
    node.write({COUNTERS: None})
    assert told(look(CHECK, node))[1][3] == f"/{COUNTERS}: no counter can be read"


def test_elsewhere_it_is_skipped(tmp_path: Path) -> None:
    assert told(look(CHECK, Node(tmp_path / "n2", "h100_host_healthy"))) == [
        ("efa", "skipped", "", "no EFA device here")
    ]
