"""processes: who is stuck in the kernel for long, who left zombies, and who merely waits for a busy disk."""

from pathlib import Path

import pytest
from recorded_node import Node, look, told, troubles

from checks.base import Memory
from checks.processes import parse
from checks.system.processes import CHECK


@pytest.fixture
def node(tmp_path: Path) -> Node:
    return Node(tmp_path / "n1", "h100_host_healthy")


def process(
    node: Node, pid: int, name: str, state: str, parent: int = 2100, switches: int = 7, wchan: str = "0"
) -> None:
    stat = f"{pid} ({name}) {state} {parent} 1 1 0 -1 0 0 0 0 0 1 2 0 0 20 0 1 0 5000 0 0"
    status = f"Name:\t{name}\nvoluntary_ctxt_switches:\t{switches}\nnonvoluntary_ctxt_switches:\t1\n"
    node.write({f"proc/{pid}/stat": stat, f"proc/{pid}/status": status, f"proc/{pid}/wchan": wchan})


def test_healthy(node: Node) -> None:
    assert told(look(CHECK, node)) == [
        ("processes/blocked", "ok", "", "5 processes, none waits in the kernel for 120 s or longer"),
        ("processes/zombies", "ok", "", "0 zombies older than 300 s"),
    ]


def test_first_look_does_not_know_for_how_long(node: Node) -> None:
    process(node, 700, "python3", "D")
    said = "6 processes, 1 wait in the kernel, 0 zombies; first look, for how long is not known"
    assert told(look(CHECK, node)) == [("processes", "ok", "", said)]


@pytest.mark.parametrize(
    ("wchan", "cause"),
    [
        ("rpc_wait_bit_killable", "storage.filesystem"),
        ("nv_wait_event", "gpu.driver"),
        ("uvm_va_space_mm", "gpu.driver"),
        ("jbd2_log_wait_commit", "host.kernel"),
        ("invalidate_mapping", "host.kernel"),
        ("0", "host.kernel"),
    ],
)
def test_stuck_in_the_kernel(node: Node, wchan: str, cause: str) -> None:
    memory: Memory = {}
    process(node, 700, "pt main (x) thread", "D", wchan=wchan)
    look(CHECK, node, memory)
    node.clock.advance(119)
    assert troubles(look(CHECK, node, memory)) == []
    node.clock.advance(1)
    place = "?" if wchan == "0" else wchan
    said = f"1 stuck in the kernel (D state): pt main (x) thread[700] for 120 s in {place}"
    (found,) = [finding for finding in look(CHECK, node, memory) if finding.status != "ok"]
    assert told([found]) == [("processes/blocked", "warn", "blocked", said)]
    assert (found.cause, found.values) == (cause, {"processes_blocked": 1.0})
    node.clock.advance(480)
    assert troubles(look(CHECK, node, memory))[0][1] == "fail"


def test_one_that_ran_in_between_is_busy_not_stuck(node: Node) -> None:
    memory: Memory = {}
    for switches in range(40):
        process(node, 700, "python3", "D", switches=switches)
        assert troubles(look(CHECK, node, memory)) == []
        node.clock.advance(30)


def test_a_pid_used_again_is_another_process(node: Node) -> None:
    memory: Memory = {}
    process(node, 700, "python3", "D")
    look(CHECK, node, memory)
    node.clock.advance(1000)
    path = node.root / "proc/700/stat"
    path.write_text(path.read_text().replace(" 5000 0 0", " 90000 0 0"))
    assert troubles(look(CHECK, node, memory)) == []


def test_zombies_name_the_parent_that_does_not_fetch_them(node: Node) -> None:
    memory: Memory = {}
    for pid in range(5000, 5100):
        process(node, pid, "sh", "Z", parent=2100 if pid < 5090 else 1)
    look(CHECK, node, memory)
    node.clock.advance(300)
    said = "100 zombies for over 300 s, 90 of slurmd[2100]"
    assert troubles(look(CHECK, node, memory)) == [("processes/zombies", "warn", "zombies", said)]


@pytest.mark.parametrize(
    "text", ["", "12", "x (y) S 1", "7 (a) S 1 2 3", "7 a S 1 1 1 0 -1 0 0 0 0 0 1 2 0 0 20 0 1 0 5000 0"]
)
def test_damaged_stat_lines_are_no_processes(text: str) -> None:
    assert parse(text) is None


def test_processes_that_end_meanwhile_are_left_out(node: Node) -> None:
    node.write({"proc/2100/stat": None, "proc/777/comm": "gone"})
    assert "4 processes" in told(look(CHECK, node))[0][3]
