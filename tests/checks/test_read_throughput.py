"""read_throughput: judged by configuration or by what is usual, within a budget, never by bad samples; and for real."""

from pathlib import Path

import msgspec
import pytest
from recorded_node import Node, look, told, troubles

from checks.base import Memory
from checks.direct_io import PROBE_FILE, Throughput, measure
from checks.host import Host
from checks.prober import ProbeFailed
from checks.storage.read_throughput import CHECK

HALF_HOUR = 1800.0


@pytest.fixture
def node(tmp_path: Path) -> Node:
    return Node(tmp_path / "n1", "h100_host_healthy")


def answer(node: Node, mb_s: float, size: int = 16_000_000) -> None:
    found = Throughput(
        read_bytes=size, read_seconds=size / 1e6 / mb_s, written_bytes=size, written_seconds=0.02, direct=True
    )
    node.answer(throughput={"/data": found})


def probe(node: Node, memory: Memory, mb_s: float) -> list[tuple[str, str, str, str]]:
    answer(node, mb_s)
    node.clock.advance(HALF_HOUR)
    return told(look(CHECK, node, memory, directories=["/data"]))


def test_nothing_is_written_where_nobody_asked(node: Node) -> None:
    assert told(look(CHECK, node)) == [
        (
            "throughput",
            "skipped",
            "",
            "no directory is configured: checks.read_throughput.directories = ['/data']",
        )
    ]


def test_learns_what_is_usual_and_says_what_is_far_below_it(node: Node) -> None:
    memory: Memory = {}
    assert probe(node, memory, 2000) == [("mount/data", "ok", "", "reads at 2000 MB/s, 1 of 8 samples learned")]
    for _ in range(7):
        probe(node, memory, 2000)
    assert probe(node, memory, 700) == [("mount/data", "ok", "", "reads at 700 MB/s")]
    said = "/data: reads at 500 MB/s, 2000 MB/s is usual"
    for _ in range(50):  # however long it lasts, the bad is not learned
        assert probe(node, memory, 500) == [("mount/data", "warn", "slow", said)]
    assert probe(node, memory, 2000)[0][1] == "ok"


def test_least_by_configuration(node: Node) -> None:
    answer(node, 900)
    found = troubles(look(CHECK, node, directories=["/data"], least_mb_s={"/data": 1000}))
    said = "/data: reads at 900 MB/s, want 1000 MB/s (checks.read_throughput.least_mb_s)"
    assert found == [("mount/data", "warn", "below", said)]


def test_budget_leaves_a_slow_file_system_in_peace(node: Node) -> None:
    memory: Memory = {}
    answer(node, 4)  # 4 s for 16 MB
    least = {"/data": 100}
    first = told(look(CHECK, node, memory, directories=["/data"], least_mb_s=least))
    answer(node, 1000)
    node.clock.advance(4000)
    said = f"{first[0][3]} (by the last probe; the next one waits for its budget)"
    assert told(look(CHECK, node, memory, directories=["/data"], least_mb_s=least)) == [
        ("mount/data", "warn", "below", said)
    ]
    node.clock.advance(100)
    assert told(look(CHECK, node, memory, directories=["/data"], least_mb_s=least)) == [
        ("mount/data", "ok", "", "reads at 1000 MB/s")
    ]


def test_silence_is_unknown_and_rests_too(node: Node) -> None:
    memory: Memory = {}
    node.answer(throughput={"/data": None})
    found = troubles(look(CHECK, node, memory, directories=["/data", "/none"]))
    assert [line[:3] for line in found] == [
        ("mount/data", "unknown", "no_answer"),
        ("mount/none", "unknown", "no_answer"),
    ]
    assert memory["not_before"]["/data"] == node.clock.monotonic() + 4000


def test_a_real_directory_is_written_and_read_past_the_cache(tmp_path: Path) -> None:
    host = Host()
    try:
        found = host.throughput(str(tmp_path), 1 << 20, write=True, seconds=2.0, deadline=20.0)
        assert (found.read_bytes, found.written_bytes) == (1 << 20, 1 << 20)
        assert found.read_seconds > 0
        assert [path.name for path in tmp_path.iterdir()] == [PROBE_FILE]
        with pytest.raises(ProbeFailed, match="No such file or directory"):
            host.throughput(str(tmp_path / "none"), 1 << 20, write=True, seconds=2.0, deadline=20.0)
    finally:
        host.close()


def test_slow_file_system_is_asked_for_less(tmp_path: Path) -> None:
    found = msgspec.convert(measure(str(tmp_path), 1 << 30, True, 0.0), Throughput)
    assert (found.read_bytes, found.written_bytes) == (0, 0)


def test_without_leave_to_write_there_must_be_a_file_to_read(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError):
        measure(str(tmp_path), 1 << 20, False, 1.0)
    assert list(tmp_path.iterdir()) == []
