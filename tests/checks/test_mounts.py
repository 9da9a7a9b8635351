"""mounts: missing, read-only, hung and stale file systems, each told apart."""

from pathlib import Path

import pytest
from recorded_node import Node, look, told, troubles

from checks.base import Memory
from checks.storage.mounts import CHECK


@pytest.fixture
def node(tmp_path: Path) -> Node:
    return Node(tmp_path / "n1", "h100_host_healthy")


def table(node: Node) -> str:
    return (node.root / "proc/1/mountinfo").read_text()


def test_healthy_node(node: Node) -> None:
    assert told(look(CHECK, node)) == [
        ("mount/", "ok", "", "ext4, writable, answers"),
        ("mount/boot/efi", "ok", "", "vfat, writable, answers"),
        ("mount/data", "ok", "", "nfs4, writable, answers"),
        ("mount/raid", "ok", "", "xfs, writable, answers"),
        ("mount/run", "ok", "", "tmpfs, writable, answers"),
    ]


def test_missing_by_fstab_fails_and_with_nofail_warns(node: Node) -> None:
    kept = [line for line in table(node).splitlines() if " /data " not in line and " /raid " not in line]
    node.write({"proc/1/mountinfo": "\n".join(kept)})
    assert troubles(look(CHECK, node)) == [
        ("mount/raid", "warn", "missing", "/raid: not mounted"),
        ("mount/data", "fail", "missing", "/data: not mounted"),
    ]


def test_missing_by_configuration(node: Node) -> None:
    found = look(CHECK, node, expected=("/checkpoints",))
    assert troubles(found) == [("mount/checkpoints", "fail", "missing", "/checkpoints: not mounted")]
    assert found[0].evidence == "checks.mounts.expected"


def test_fstab_can_be_left_out_of_it(node: Node) -> None:
    node.write({"proc/1/mountinfo": "28 1 259:2 / / rw - ext4 /dev/nvme0n1p2 rw"})
    assert troubles(look(CHECK, node, use_fstab=False)) == []


def test_super_block_that_turned_read_only_after_an_error(node: Node) -> None:
    node.write({"proc/1/mountinfo": table(node).replace("/dev/nvme0n1p2 rw,", "/dev/nvme0n1p2 ro,")})
    (found,) = [finding for finding in look(CHECK, node) if finding.status != "ok"]
    assert told([found]) == [
        ("mount/", "fail", "read_only", "/: read-only: the kernel stopped writing to it after an error")
    ]
    assert found.evidence == "/dev/nvme0n1p2 on / type ext4 (errors=remount-ro,ro)"
    assert found.advice == "find its error: `dmesg | grep -i nvme0n1p2`; it needs a file system check"


def test_emergency_read_only_of_newer_kernels(node: Node) -> None:
    node.write({"proc/1/mountinfo": table(node).replace("errors=remount-ro", "emergency_ro")})
    assert [line[:3] for line in troubles(look(CHECK, node))] == [("mount/", "fail", "read_only")]


def test_remounted_read_only_by_hand_is_told_against_fstab_or_an_earlier_look(node: Node) -> None:
    memory: Memory = {}
    look(CHECK, node, memory)
    text = (
        table(node).replace("/run rw,", "/run ro,").replace("tmpfs tmpfs rw,size=211356024k", "tmpfs tmpfs ro,size=1k")
    )
    node.write({"proc/1/mountinfo": text})
    said = [("mount/run", "fail", "read_only", "/run: read-only, and it was writable")]
    assert troubles(look(CHECK, node)) == []  # at a first look it may be meant so
    assert troubles(look(CHECK, node, memory)) == said
    assert troubles(look(CHECK, node, memory)) == said  # and it stays told
    node.reboot()
    assert troubles(look(CHECK, node, memory)) == []  # mounted so at boot, it is meant so


def test_hung_server(node: Node) -> None:
    node.answer(sizes={"/data": None})
    said = "/data: hangs: mount:/data does not answer: probe 4242 has hung in it for 60 s and cannot be killed"
    found = [finding for finding in look(CHECK, node) if finding.status != "ok"]
    assert told(found) == [("mount/data", "fail", "hung", said)]
    assert (
        found[0].advice == "see whether the server of filer01:/data answers from other nodes; remount it once it does"
    )


def test_mount_point_with_a_space_and_bytes_that_are_no_text(node: Node) -> None:
    text = table(node) + "50 28 0:99 / /scratch\\040two rw - nfs4 f:/s rw\n"
    node.write({"proc/1/mountinfo": text.encode() + b"51 28 0:98 / /odd\xff rw - nfs4 f:/o rw\n"})
    assert troubles(look(CHECK, node)) == [
        ("mount/odd\\xff", "fail", "no_answer", "/odd\\xff: does not answer: /odd\\xff: no such file or directory"),
        (
            "mount/scratch two",
            "fail",
            "no_answer",
            "/scratch two: does not answer: /scratch two: no such file or directory",
        ),
    ]


def test_own_mount_namespace_is_read_when_that_of_pid_1_is_not_allowed(node: Node) -> None:
    text = table(node)
    node.write({"proc/1/mountinfo": None, "proc/self/mountinfo": text})
    assert len(look(CHECK, node)) == 5
