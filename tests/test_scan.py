"""scan: checks side by side, told in their order; nodes that are well, dark, silent or full of garbage."""

import json
import os
import subprocess
import sys
from pathlib import Path

from recorded_node import NODES, Node

from checks.host import Host
from checks.registry import CHECKS, by_name
from daemons.cli.side_by_side import run_all
from daemons.config import parse


def scan(*arguments: str) -> "subprocess.CompletedProcess[str]":
    command = [sys.executable, "-I", "-m", "daemons", "scan", "--json", *arguments]
    return subprocess.run(command, capture_output=True, text=True, check=False, timeout=60)


def test_healthy_node_is_ok_and_answers_in_the_order_of_the_registry() -> None:
    done = scan("--replay", str(NODES / "h100_host_healthy"))
    report = json.loads(done.stdout)
    assert [f for f in report["findings"] if f["status"] not in ("ok", "skipped")] == []
    assert (done.returncode, report["status"], report["node"]) == (0, "ok", "n1")
    order = [check.name for check in CHECKS]
    sources = list(dict.fromkeys(finding["source"] for finding in report["findings"]))
    assert sources == [name for name in order if name in sources]


def test_every_check_answers_on_a_node_where_nothing_can_be_read(tmp_path: Path) -> None:
    (tmp_path / "answers.json").write_text('{"node": "dark", "now": 1700000000}')
    report = json.loads(scan("--replay", str(tmp_path)).stdout)
    answered = {finding["source"]: finding["status"] for finding in report["findings"]}
    assert set(answered) == {check.name for check in CHECKS}
    assert {name for name, status in answered.items() if status == "ok"} == set()


def test_every_check_answers_on_a_node_where_every_file_holds_garbage(tmp_path: Path) -> None:
    node = Node(tmp_path / "n1", "h100_host_healthy")
    for directory, _, files in os.walk(node.root):
        for name in files:
            if name != "answers.json":
                Path(directory, name).write_bytes(b"\xff N/A -1\n")
    done = scan("--replay", str(node.root))
    answered = {finding["source"] for finding in json.loads(done.stdout)["findings"]}
    assert answered == {check.name for check in CHECKS}
    assert done.stderr == ""


def test_silent_device_is_waited_for_once_and_costs_the_others_nothing(tmp_path: Path) -> None:
    node = Node(tmp_path / "n1", "h100_host_healthy")
    state = "sys/class/infiniband/mlx5_0/ports/1/state"
    node.write({state: None})
    os.mkfifo(node.root / state)  # opening it blocks for ever, as the read of a card that died does
    names = ("memory", "ib_port", "ib_flap", "roce_gid", "ib_firmware")
    config = parse("[checks]\n" + "".join(f"{name}.deadline = 0.5\n" for name in names[1:]), "test")
    host = Host(root=node.root, node="n1")  # not as a recording: those are read without a child
    try:
        outcomes = run_all([by_name(name) for name in names], host, config)
    finally:
        host.close()
    assert [(o.check.name, str(o.status), o.findings[0].summary) for o in outcomes] == [
        ("memory", "ok", "90 % available of 2164 GB"),
        ("ib_port", "unknown", "rdma gave no answer within 0.5 s"),
        ("ib_flap", "unknown", "not asked, rdma is silent: rdma gave no answer within 0.5 s"),
        ("roce_gid", "unknown", "not asked, rdma is silent: rdma gave no answer within 0.5 s"),
        ("ib_firmware", "unknown", "not asked, rdma is silent: rdma gave no answer within 0.5 s"),
    ]
    assert host.prober.pids() == []


def test_small_virtual_machine_is_well_and_quiet() -> None:
    done = scan("--replay", str(NODES / "vm_healthy"))
    report = json.loads(done.stdout)
    assert [f["summary"] for f in report["findings"] if f["status"] not in ("ok", "skipped")] == []
    assert done.returncode == 0
    looked = {finding["component"] for finding in report["findings"] if finding["status"] == "ok"}
    assert looked & {"mount/snap/core/1", "mount/var/lib/docker/overlay2/ab/merged", "net/veth9", "net/lo"} == set()


def test_sick_node_tells_every_trouble_once() -> None:
    done = scan("--replay", str(NODES / "h100_host_sick"))
    report = json.loads(done.stdout)
    sick = [finding for finding in report["findings"] if finding["status"] not in ("ok", "skipped")]
    assert [(f["source"], f["component"], f["status"], f["kind"]) for f in sick] == [
        ("ib_port", "ib/mlx5_0/1", "warn", "down"),
        ("ib_port", "ib/mlx5_1/1", "fail", "rate"),
        ("ib_port", "ib/mlx5_2/1", "unknown", "unreadable"),
        ("ib_counters", "ib/mlx5_1/1", "warn", "saturated"),
        ("roce_gid", "ib/mlx5_2/1", "fail", "no_gid"),
        ("ethernet", "net/eno1", "fail", "down"),
        ("space", "mount/data", "unknown", "no_answer"),
        ("space", "mount/raid", "fail", "bytes"),
        ("mounts", "mount/", "fail", "read_only"),
        ("mounts", "mount/data", "fail", "hung"),
        ("nvme_smart", "nvme/nvme0", "fail", "state"),
        ("disk_filler", "mount/raid", "warn", "filler"),
        ("reboot", "node", "warn", "crashed"),
        ("kernel_log", "disk/nvme0n1p2", "fail", "filesystem_error"),
        ("kernel_log", "process/pt_data_worker", "warn", "oom_kill"),
        ("kernel_log", "nvme/nvme0", "fail", "nvme"),
        ("cpu", "cpu/governor", "warn", "governor"),
        ("edac", "memory/mc0", "fail", "uncorrected"),
        ("memory", "memory", "fail", "low"),
        ("shm", "shm", "warn", "small"),
        ("limits", "limits/pids", "fail", "used_up"),
        ("clock_sync", "clock", "warn", "unsynchronised"),
    ]
    assert (done.returncode, report["status"]) == (2, "fail")
    assert all(f["cause"] and f["advice"] and f["fingerprint"] for f in sick if f["status"] in ("warn", "fail"))
    assert len({finding["fingerprint"] for finding in sick}) == len(sick)
