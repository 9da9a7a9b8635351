"""nfs_latency: the kernel's own timing, between two looks."""

from pathlib import Path

import pytest
from recorded_node import Node, look, told, troubles

from checks.base import Memory
from checks.storage.nfs_latency import CHECK, Operations, parse

STATS = """device rootfs mounted on / with fstype ext4
device filer01:/data mounted on /data\\040two\\040words with fstype nfs4 statvers=1.1
\topts:\trw,vers=4.2,rsize=1048576
\tage:\t3600
\txprt:\ttcp 0 0 2 0 10 12345 12345 0 12345 0 2 0 0
\tper-op statistics
\t        NULL: 1 1 0 44 24 0 0 0 0
\t        READ: {reads} {sent} {timeouts} 1000 1000 12 {ms} 3100 0
\t     GETATTR: 5000 5000 0 1000 1000 12 2500 3100 0
\t       WRITE: N/A - nonsense
"""


@pytest.fixture
def node(tmp_path: Path) -> Node:
    node = Node(tmp_path / "n1", "h100_host_healthy")
    stats(node)
    return node


def stats(node: Node, reads: int = 1000, sent: int = 1000, timeouts: int = 0, ms: int = 3000) -> None:
    node.write({"proc/1/mountstats": STATS.format(reads=reads, sent=sent, timeouts=timeouts, ms=ms)})


MOUNT = "mount/data two words"


def test_first_look_then_a_fast_filer(node: Node) -> None:
    memory: Memory = {}
    assert told(look(CHECK, node, memory)) == [(MOUNT, "ok", "", "first look at its counts")]
    stats(node, reads=2000, sent=2000, ms=5000)
    (found,) = look(CHECK, node, memory)
    assert told([found]) == [(MOUNT, "ok", "", "READ is slowest, 2.0 ms on average")]
    assert found.values == {"nfs_operations": 1000.0, "nfs_round_trip_seconds": 0.002}


@pytest.mark.parametrize(("ms", "status"), [(103_000, "warn"), (1_003_000, "fail")])
def test_slow_filer(node: Node, ms: int, status: str) -> None:
    memory: Memory = {}
    look(CHECK, node, memory)
    stats(node, reads=2000, sent=2000, ms=ms)
    mean = (ms - 3000) // 1000
    said = f"/data two words: READ takes {mean} ms on average over 1000 operations"
    assert troubles(look(CHECK, node, memory)) == [(MOUNT, status, "slow", said)]


def test_timeouts_and_retransmissions(node: Node) -> None:
    memory: Memory = {}
    look(CHECK, node, memory)
    stats(node, reads=1100, sent=1103, timeouts=2, ms=3100)
    assert troubles(look(CHECK, node, memory))[0][2:] == (
        "timeouts",
        "/data two words: 2 requests timed out since the last look",
    )
    stats(node, reads=1200, sent=1213, timeouts=2, ms=3200)
    assert troubles(look(CHECK, node, memory))[0][2:] == (
        "retransmits",
        "/data two words: 9.1 % of 110 requests were sent more than once",
    )


def test_few_operations_are_not_judged(node: Node) -> None:
    memory: Memory = {}
    look(CHECK, node, memory)
    stats(node, reads=1003, sent=1003, ms=900_000)
    assert told(look(CHECK, node, memory))[0][3] == "3 operations since the last look: too few to judge"


def test_mounted_anew_is_a_first_look(node: Node) -> None:
    memory: Memory = {}
    look(CHECK, node, memory)
    node.write({"proc/1/mountstats": STATS.format(reads=1, sent=1, timeouts=0, ms=1).replace("5000 5000", "1 1")})
    assert told(look(CHECK, node, memory))[0][3] == "first look at its counts"


def test_damaged_lines_are_left_out() -> None:
    found = parse(STATS.format(reads=7, sent=7, timeouts=0, ms=1) + "device x\n\t READ: 1 1 1 1 1 1 1 1\n")
    assert found["/data two words"]["READ"] == Operations(7, 7, 0, 1)
    assert set(found["/data two words"]) == {"READ", "GETATTR"}


def test_no_nfs_is_skipped(node: Node) -> None:
    node.write({"proc/1/mountstats": "device rootfs mounted on / with fstype ext4\n"})
    assert told(look(CHECK, node)) == [("nfs", "skipped", "", "no NFS mount here")]
