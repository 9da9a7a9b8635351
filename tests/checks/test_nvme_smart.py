"""nvme_smart: wear, warnings and errors by either tool; without a tool the state alone."""

import json
from pathlib import Path

import pytest
from recorded_node import Node, look, told, troubles

from checks.base import Memory
from checks.storage.nvme_smart import CHECK

CLI = "nvme smart-log /dev/nvme0 --output-format=json"
CTL = "smartctl --json --all /dev/nvme0"
WELL = {
    "critical_warning": 0, "temperature": 310, "avail_spare": 100, "spare_thresh": 10, "percent_used": 3,
    "media_errors": 0, "num_err_log_entries": 12,
}  # fmt: skip


@pytest.fixture
def node(tmp_path: Path) -> Node:
    node = Node(tmp_path / "n1", "h100_host_healthy")
    disk = "sys/class/nvme/nvme0"
    node.write({f"{disk}/state": "live\n", f"{disk}/transport": "pcie\n", f"{disk}/serial": "S1  \n"})
    node.write({"sys/class/nvme/nvme9/state": "live", "sys/class/nvme/nvme9/transport": "tcp"})
    smart(node)
    return node


def smart(node: Node, **fields: object) -> None:
    node.answer(commands={CLI: [0, json.dumps(WELL | fields), ""]})


def test_healthy_and_disks_behind_a_fabric_are_left_out(node: Node) -> None:
    (found,) = look(CHECK, node)
    assert told([found]) == [("nvme/nvme0", "ok", "", "3 % used, 100 % spare, 37 C")]
    assert set(found.values) == set(CHECK.metrics)


UNRELIABLE = "critical warning 0x04: it is unreliable: too many media or internal errors"
TWO_BITS = "critical warning 0x09: spare blocks are below their threshold; it turned read-only"


@pytest.mark.parametrize(
    ("fields", "status", "kind", "said"),
    [
        ({"critical_warning": 4}, "fail", "critical", UNRELIABLE),
        ({"critical_warning": 9}, "fail", "critical", TWO_BITS),
        ({"critical_warning": 64}, "fail", "critical", "critical warning 0x40: unknown bit"),
        ({"avail_spare": 9}, "fail", "spare", "9 % spare blocks left, its threshold is 10 %"),
        ({"percent_used": 85}, "warn", "worn", "85 % of its endurance is used"),
        ({"percent_used": 130}, "fail", "worn", "130 % of its endurance is used"),
    ],
)
def test_troubles(node: Node, fields: dict[str, object], status: str, kind: str, said: str) -> None:
    smart(node, **fields)
    assert troubles(look(CHECK, node)) == [("nvme/nvme0", status, kind, f"nvme0: {said}")]


def test_media_errors_are_told_when_they_rise(node: Node) -> None:
    memory: Memory = {}
    smart(node, media_errors=40)
    assert troubles(look(CHECK, node, memory)) == []  # of a time before anybody looked
    smart(node, media_errors=42)
    said = "nvme0: 2 more media errors, 42 in all"
    assert troubles(look(CHECK, node, memory)) == [("nvme/nvme0", "warn", "media_errors", said)]
    assert troubles(look(CHECK, node, memory)) == []


def test_smartctl_stands_in(node: Node) -> None:
    page = {
        "critical_warning": 0, "temperature": 41, "available_spare": 99, "available_spare_threshold": 5,
        "percentage_used": 7, "media_errors": 0,
    }  # fmt: skip
    tree = json.loads((node.root / "answers.json").read_text())
    del tree["commands"][CLI]
    (node.root / "answers.json").write_text(json.dumps(tree))
    node.answer(commands={CTL: [0, json.dumps({"nvme_smart_health_information_log": page}), ""]})
    assert told(look(CHECK, node)) == [("nvme/nvme0", "ok", "", "7 % used, 99 % spare, 41 C")]


def test_without_a_tool_the_remedy_is_named_and_a_dead_controller_still_seen(node: Node) -> None:
    tree = json.loads((node.root / "answers.json").read_text())
    del tree["commands"][CLI]
    (node.root / "answers.json").write_text(json.dumps(tree))
    said = "live; wear and errors are not known: install nvme-cli or smartmontools (apt install nvme-cli)"
    assert told(look(CHECK, node)) == [("nvme/nvme0", "skipped", "", said)]
    node.write({"sys/class/nvme/nvme0/state": "dead"})
    assert troubles(look(CHECK, node)) == [("nvme/nvme0", "fail", "state", "nvme0: controller is dead, not live")]


@pytest.mark.parametrize("text", ["", "{", "[]", "{}", '{"critical_warning": "N/A"}'])
def test_answers_that_are_none_are_unknown(node: Node, text: str) -> None:
    node.answer(commands={CLI: [1, text, "NVMe status: Permission denied"]})
    said = "nvme of /dev/nvme0: exit 1: NVMe status: Permission denied"
    assert troubles(look(CHECK, node)) == [("nvme/nvme0", "unknown", "unreadable", said)]


def test_no_disk_is_skipped(node: Node) -> None:
    node.write({"sys/class/nvme": None})
    assert told(look(CHECK, node)) == [("nvme", "skipped", "", "no NVMe disk here")]
