"""scan: checks side by side, told in their order; nodes that are well, dark or full of garbage."""

import json
import os
import subprocess
import sys
from pathlib import Path

from recorded_node import NODES, Node

from checks.registry import CHECKS


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
