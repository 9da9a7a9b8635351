"""limits: what the system has left, and what the daemons that start jobs hand on."""

from pathlib import Path

import pytest
from recorded_node import Node, look, told, troubles

from checks.host import Unreadable
from checks.system.limits import CHECK

SLURMD = "proc/2100/limits"


@pytest.fixture
def node(tmp_path: Path) -> Node:
    return Node(tmp_path / "n1", "h100_host_healthy")


def change(node: Node, old: str, new: str) -> None:
    text = (node.root / SLURMD).read_text()
    assert old in text
    node.write({SLURMD: text.replace(old, new)})


def test_healthy(node: Node) -> None:
    assert told(look(CHECK, node)) == [
        ("limits/open_files", "ok", "", "48832 of 9223372036854775807 in use (0 %)"),
        ("limits/pids", "ok", "", "3120 of 4194304 in use (0 %)"),
        ("limits/threads", "ok", "", "3120 of 16511872 in use (0 %)"),
        ("limits/jobs/slurmd", "ok", "", "open files 131072, locked memory unlimited"),
    ]


def test_system_wide_limits_used_up(node: Node) -> None:
    node.write({"proc/sys/fs/file-nr": "81000\t0\t100000", "proc/sys/kernel/pid_max": "3200"})
    found = look(CHECK, node)
    assert troubles(found) == [
        ("limits/open_files", "warn", "used_up", "open files: 81000 of 100000 in use (81 %)"),
        ("limits/pids", "fail", "used_up", "pids: 3120 of 3200 in use (98 %)"),
    ]
    assert found[0].values == {"limit_used_ratio": 0.81}


def test_open_files_of_jobs(node: Node) -> None:
    change(node, "131072               131072 ", "1024                 4096   ")
    assert troubles(look(CHECK, node)) == [
        ("limits/jobs/slurmd", "warn", "open_files", "jobs started by slurmd get open files 4096, want 65536")
    ]


def test_locked_memory_matters_where_there_is_an_rdma_device(node: Node) -> None:
    change(
        node,
        "Max locked memory         unlimited            unlimited",
        "Max locked memory         65536                8388608  ",
    )
    node.write({"sys/class/infiniband/mlx5_0/node_type": "1: CA"})
    said = "jobs started by slurmd get locked memory 8388608 B, want unlimited"
    assert troubles(look(CHECK, node)) == [("limits/jobs/slurmd", "warn", "locked_memory", said)]
    assert troubles(look(CHECK, node, locked_memory=False)) == []
    node.write({"sys/class/infiniband": None})
    assert troubles(look(CHECK, node)) == []


def test_tasks_of_the_daemons_own_cgroup(node: Node) -> None:
    group = "sys/fs/cgroup/system.slice/slurmd.service"
    node.write({f"{group}/pids.max": "4915", f"{group}/pids.current": "4900"})
    said = "jobs started by slurmd get 4900 of 4915 tasks of its cgroup in use"
    assert troubles(look(CHECK, node)) == [("limits/jobs/slurmd", "warn", "tasks", said)]


def test_no_launcher_is_skipped_with_the_reason(node: Node) -> None:
    node.write({"proc/2100": None})
    assert told(look(CHECK, node))[-1][:2] == ("limits/jobs", "skipped")


def test_damaged_answers_are_unreadable(node: Node) -> None:
    node.write({SLURMD: "Limit\nnonsense"})
    with pytest.raises(Unreadable, match=r"/proc/2100/limits: no 'Max open files'"):
        look(CHECK, node)
