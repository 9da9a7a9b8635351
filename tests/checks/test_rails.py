"""rails: devices that vanished, cards without a driver, GPUs whose own card is missing."""

from pathlib import Path

import pytest
from recorded_node import Node, look, told, troubles

from checks.base import Memory
from checks.fabric.rails import CHECK


@pytest.fixture
def node(tmp_path: Path) -> Node:
    """Four GPUs, each behind a PCIe switch with its own card; two to a socket, as an HGX board has them."""
    node = Node(tmp_path / "n1", "h100_host_healthy")
    node.write({"sys/class/infiniband": None, "sys/bus/pci/devices": None})
    for rail, bus in enumerate(("1a", "3b", "9a", "bb")):
        switch = f"sys/devices/pci0000:{bus}/0000:{bus}:01.0/0000:{int(bus, 16) + 1:02x}:00.0"
        numa = f"{rail // 2}"
        gpu, card = f"0000:{int(bus, 16) + 2:02x}:00.0", f"0000:{int(bus, 16) + 3:02x}:00.0"
        for address, vendor, kind in ((gpu, "0x10de", "0x030200"), (card, "0x15b3", "0x020700")):
            path = f"{switch}/{switch.rsplit('/', 1)[1][:-4]}{'10' if address == gpu else '11'}.0/{address}"
            node.write({f"{path}/vendor": vendor, f"{path}/class": kind, f"{path}/numa_node": numa})
            node.link(f"{path}/driver", "/sys/bus/pci/drivers/mlx5_core")
            node.link(f"sys/bus/pci/devices/{address}", f"../../../../{path}")
            (node.root / path / "driver").unlink()
            node.write({f"{path}/driver/uevent": ""})
        node.write({f"sys/class/infiniband/mlx5_{rail}/ports/1/link_layer": "InfiniBand"})
        node.link(f"sys/class/infiniband/mlx5_{rail}/device", f"../../../../{path}")
    return node


def test_healthy(node: Node) -> None:
    assert told(look(CHECK, node)) == [
        ("ib", "ok", "", "4 RDMA devices"),
        ("pci/0000:1c:00.0", "ok", "", "nearest RDMA device mlx5_0: below the same PCIe switch"),
        ("pci/0000:3d:00.0", "ok", "", "nearest RDMA device mlx5_1: below the same PCIe switch"),
        ("pci/0000:9c:00.0", "ok", "", "nearest RDMA device mlx5_2: below the same PCIe switch"),
        ("pci/0000:bd:00.0", "ok", "", "nearest RDMA device mlx5_3: below the same PCIe switch"),
    ]


def test_vanished_device_is_known_from_earlier_looks_and_its_gpu_is_far_from_all_others(node: Node) -> None:
    memory: Memory = {}
    look(CHECK, node, memory)
    node.write({"sys/class/infiniband/mlx5_1": None})
    node.reboot()
    far = "GPU 0000:3d:00.0: nearest RDMA device mlx5_0: on the same NUMA node; most GPUs here have one below the same"
    assert troubles(look(CHECK, node, memory)) == [
        ("ib/mlx5_1", "fail", "vanished", "mlx5_1 is not there, it was at an earlier look"),
        ("pci/0000:3d:00.0", "warn", "far", f"{far} PCIe switch"),
    ]
    assert [line[2] for line in troubles(look(CHECK, node, memory))] == ["vanished", "far"]  # it stays told
    assert troubles(look(CHECK, node, memory, exclude=("mlx5_1",), affinity=False)) == []


def test_expected_by_name(node: Node) -> None:
    found = troubles(look(CHECK, node, expected=("mlx5_0", "mlx5_7")))
    assert found == [("ib/mlx5_7", "fail", "vanished", "mlx5_7 is not there, it is expected")]


def test_card_without_a_driver(node: Node) -> None:
    card = next((node.root / "sys/devices/pci0000:bb").rglob("0000:be:00.0"))
    (card / "driver/uevent").unlink()
    (card / "driver").rmdir()
    found = troubles(look(CHECK, node))
    said = "network card 0000:be:00.0 is on PCI, and no driver has it"
    assert found == [("pci/0000:be:00.0", "warn", "unbound", said)]


def test_node_without_gpus_has_no_affinity_to_judge(tmp_path: Path) -> None:
    found = told(look(CHECK, Node(tmp_path / "n2", "h100_host_healthy")))
    assert found == [("ib", "ok", "", "3 RDMA devices")]


def test_no_device_and_none_expected_is_skipped(node: Node) -> None:
    node.write({"sys/class/infiniband": None, "sys/bus/pci/devices": None})
    assert told(look(CHECK, node))[0][:2] == ("ib", "skipped")


def test_garbage_in_pci_files_is_no_device(node: Node) -> None:
    for path in (node.root / "sys/devices/pci0000:1a").rglob("vendor"):
        path.write_bytes(b"\xff\xfe")
    assert len(look(CHECK, node)) == 4
