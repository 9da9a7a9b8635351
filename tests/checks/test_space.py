"""space: exact findings on bytes, inodes, growth and file systems that do not answer."""

from pathlib import Path

import pytest
from recorded_node import Node, look, size, told, troubles

from checks.base import Memory
from checks.storage.space import CHECK

GB = 10**9


@pytest.fixture
def node(tmp_path: Path) -> Node:
    return Node(tmp_path / "n1", "h100_host_healthy")


def test_healthy_node_says_every_file_system_once(node: Node) -> None:
    assert told(look(CHECK, node)) == [
        ("mount/", "ok", "", "22 % used, 700 GB of 900 GB free"),
        ("mount/boot/efi", "ok", "", "7 % used, 500 MB of 536 MB free"),
        ("mount/data", "ok", "", "70 % used, 300 TB of 1.0 PB free"),
        ("mount/raid", "ok", "", "68 % used, 9 TB of 28 TB free"),
        ("mount/run", "ok", "", "0 % used, 215 GB of 216 GB free"),
    ]


def test_images_bind_mounts_and_kernel_interfaces_are_not_file_systems_to_fill(node: Node) -> None:
    points = {finding.component for finding in look(CHECK, node)}
    assert points & {"mount/snap/core20/2105", "mount/var/lib/docker", "mount/dev", "mount/run/user/1001"} == set()


@pytest.mark.parametrize(
    ("recorded", "status", "kind", "said"),
    [
        (size(900 * GB, 120 * GB), "warn", "bytes", "/: 87 % used, 120 GB of 900 GB free"),
        (size(900 * GB, 30 * GB), "fail", "bytes", "/: 97 % used, 30 GB of 900 GB free"),
        (size(900 * GB, 0), "fail", "bytes", "/: 100 % used, 0 B of 900 GB free"),
        (size(900 * GB, 450 * 10**6), "fail", "bytes", "/: 100 % used, 450 MB of 900 GB free"),
        (size(900 * GB, 700 * GB, 1000, 100), "warn", "inodes", "/: 90 % of 1000 inodes used, 100 free"),
        (size(900 * GB, 700 * GB, 1000, 0), "fail", "inodes", "/: 100 % of 1000 inodes used, 0 free"),
    ],
)
def test_too_full(node: Node, recorded: object, status: str, kind: str, said: str) -> None:
    node.answer(sizes={"/": recorded})
    assert troubles(look(CHECK, node)) == [("mount/", status, kind, said)]


def test_a_large_share_of_a_huge_file_system_is_not_full_while_much_is_free(node: Node) -> None:
    node.answer(sizes={"/data": size(10**15, 30_000 * GB)})  # 97 % used, 30 TB free
    assert troubles(look(CHECK, node)) == []


def test_network_file_system_without_inode_counts_is_judged_by_bytes_alone(node: Node) -> None:
    node.answer(sizes={"/data": size(10**12, 5 * 10**11, 0, 0)})
    assert troubles(look(CHECK, node)) == []


def test_growth_says_when_it_is_full_once_it_has_watched_half_an_hour(node: Node) -> None:
    memory: Memory = {}
    for minute in range(0, 61, 5):
        node.answer(sizes={"/raid": size(28_000 * GB, 9_000 * GB - minute * 50 * GB)})
        found = troubles(look(CHECK, node, memory))
        assert bool(found) == (minute >= 30), minute
        node.clock.advance(300)
    assert found == [
        (
            "mount/raid",
            "warn",
            "growth",
            "/raid: 79 % used, 6 TB of 28 TB free, full in 2.0 h at the growth of the last two hours",
        )
    ]


def test_growth_is_forgotten_with_the_boot(node: Node) -> None:
    memory: Memory = {}
    look(CHECK, node, memory)
    node.clock.advance(3600)
    node.reboot()
    node.answer(sizes={"/raid": size(28_000 * GB, 3_000 * GB)})
    assert troubles(look(CHECK, node, memory)) == []
    assert memory["samples"]["/raid"] == [[13600.0, 3000.0 * GB]]


def test_samples_stay_few_however_often_it_looks(node: Node) -> None:
    memory: Memory = {}
    for _ in range(500):
        look(CHECK, node, memory)
        node.clock.advance(60)
    assert len(memory["samples"]["/"]) == 31


def test_silent_file_system_is_unknown_and_the_others_are_still_told(node: Node) -> None:
    node.answer(sizes={"/data": None})
    found = look(CHECK, node)
    said = "/data: size not known: mount:/data does not answer: probe 4242 has hung in it for 60 s and cannot be killed"
    assert troubles(found) == [("mount/data", "unknown", "no_answer", said)]
    assert len(found) == 5


def test_values_are_the_numbers_behind_the_words(node: Node) -> None:
    (root, *_) = look(CHECK, node)
    assert root.values == {
        "filesystem_size_bytes": 900e9,
        "filesystem_available_bytes": 700e9,
        "filesystem_inodes": 1e8,
        "filesystem_available_inodes": 9e7,
    }
    assert set(root.values) == set(CHECK.metrics)


def test_damaged_mount_table_is_read_as_far_as_it_goes(node: Node) -> None:
    node.write({"proc/1/mountinfo": b"garbage\n28 1 259:2 / / rw - ext4 /dev/sda rw\n\xff\xfe - \n29 1\n"})
    assert [line[0] for line in told(look(CHECK, node))] == ["mount/"]
