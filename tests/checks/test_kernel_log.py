"""kernel_log: every rule on its own lines, each line read once, across restarts, reboots and overruns."""

import uuid
from pathlib import Path

import pytest
from needs import need
from recorded_node import Node, look, told, troubles

from checks.base import Memory
from checks.clock import SystemClock
from checks.host import Host
from checks.system.kernel_log import CHECK, Rule, load, match

RULES = load()
XID = "NVRM: Xid (PCI:0000:3b:00): 79, pid=1, GPU has fallen off the bus."


@pytest.fixture
def node(tmp_path: Path) -> Node:
    return Node(tmp_path / "n1", "h100_host_healthy")


def add(node: Node, *lines: str) -> None:
    with (node.root / "dev/kmsg").open("a") as log:
        log.writelines(f"{line}\n" for line in lines)


@pytest.mark.parametrize("rule", RULES, ids=lambda rule: rule.id)
def test_rule_matches_its_examples_and_not_its_near_misses(rule: Rule) -> None:
    assert rule.examples and rule.misses
    hits = [(text, found[0].id if (found := match(text)) else None) for text in rule.examples]
    assert hits == [(text, rule.id) for text in rule.examples]
    wrong = [text for text in rule.misses if (found := match(text)) and found[0].id == rule.id]
    assert wrong == []


def test_rules_have_their_own_ids_and_causes_of_the_shared_list() -> None:
    assert len({rule.id for rule in RULES}) == len(RULES)
    assert {rule.cause.split(".")[0] for rule in RULES} <= {"gpu", "net", "storage", "host", "program"}


def test_xids_belong_to_another_check() -> None:
    assert match(XID) is None


def test_healthy_boot_tells_of_no_trouble(node: Node) -> None:
    assert told(look(CHECK, node)) == [("kernel_log", "ok", "", "6 new lines, none tells of trouble")]


def test_a_line_is_told_once_with_time_component_and_evidence(node: Node) -> None:
    memory: Memory = {}
    look(CHECK, node, memory)
    add(node, "3,6,863990000000,-;nvme nvme3: controller is down; will reset: CSTS=0xffffffff, PCI_STATUS=0x10")
    found, read = look(CHECK, node, memory)
    assert (found.component, found.status, found.cause, found.kind) == (
        "nvme/nvme3",
        "fail",
        "storage.filesystem",
        "nvme",
    )
    assert found.summary == "nvme nvme3: controller is down; will reset: CSTS=0xffffffff, PCI_STATUS=0x10"
    assert found.evidence == f"[863990.000000] {found.summary}"
    assert found.advice == "see `nvme smart-log /dev/nvme3`; a controller that goes down again is to be replaced"
    assert (found.first_seen, found.last_seen) == (1_700_000_000.0 - 10, 1_700_000_000.0 - 10)
    assert told([read]) == [("kernel_log", "ok", "", "1 new lines, 1 of them tell of trouble")]
    assert told(look(CHECK, node, memory)) == [("kernel_log", "ok", "", "nothing new")]


def test_a_storm_is_one_finding_with_its_count(node: Node) -> None:
    memory: Memory = {}
    look(CHECK, node, memory)
    line = "6,{},{},-;python3[{}]: segfault at 10 ip 00007f sp 00007f error 4 in libtorch_cuda.so[7f2b10000000+5000000]"
    add(node, *(line.format(6 + i, 863_000_000_000 + i * 1_000_000, 100 + i) for i in range(900)))
    found, _ = look(CHECK, node, memory)
    assert (found.component, found.count, found.last_seen - found.first_seen) == ("process/python3", 900, 899.0)


def test_first_look_leaves_out_what_is_older_than_a_day(node: Node) -> None:
    old = "4,6,100000000000,-;Out of memory: Killed process 1 (old) total-vm:1kB"
    new = "4,7,863000000000,-;Out of memory: Killed process 2 (new) total-vm:1kB"
    add(node, old, new)
    assert [line[0] for line in troubles(look(CHECK, node))] == ["process/new"]
    assert [line[0] for line in troubles(look(CHECK, node, first_look_hours=300.0))] == ["process/old", "process/new"]


def test_after_a_reboot_the_whole_new_log_is_read(node: Node) -> None:
    memory: Memory = {}
    look(CHECK, node, memory)
    node.reboot()
    node.write(
        {"dev/kmsg": "0,0,0,-;Linux version 5.15\n0,1,9000000,-;mce: [Hardware Error]: Machine check events logged\n"}
    )
    assert [line[:3] for line in troubles(look(CHECK, node, memory))] == [("cpu/mce", "fail", "mce")]
    assert troubles(look(CHECK, node, memory)) == []


def test_lines_lost_before_they_were_read_are_said(node: Node) -> None:
    memory: Memory = {}
    look(CHECK, node, memory)
    add(node, "6,500,863999000000,-;something")
    found = look(CHECK, node, memory)
    said = "494 lines were overwritten before they could be read: something floods the kernel log"
    assert troubles(found) == [("kernel_log", "warn", "lost", said)]
    assert troubles(look(CHECK, node, memory)) == []


def test_damaged_lines_cost_nothing_but_themselves(node: Node) -> None:
    with (node.root / "dev/kmsg").open("ab") as log:
        log.write(b"\xff\xfe\n,,,;\n3,x,y;z\n3,6,863000000000,-;nfs: server \xff01 not responding, still trying\n")
    assert troubles(look(CHECK, node)) == [
        ("nfs/\\xff01", "fail", "nfs", "nfs: server \\xff01 not responding, still trying")
    ]


def test_rules_can_be_ignored_by_configuration(node: Node) -> None:
    add(node, "3,6,863000000000,-;nfs: server f not responding, still trying")
    assert troubles(look(CHECK, node, ignore=("nfs",))) == []


def test_the_real_log_is_read_from_where_another_reader_left_off() -> None:
    """The lines are no trouble: the log is the machine's own, and what is written there stays."""
    need("kmsg")
    mark = f"muster test {uuid.uuid4().hex}"
    host = Host(clock=SystemClock())
    try:
        last = max(record.sequence for record in host.kernel_records(-1))
        with Path("/dev/kmsg").open("w") as log:
            log.write(f"<3>{mark} one\n")
            log.flush()
            log.write(f"<4>{mark} two\n")
        found = [record for record in host.kernel_records(last) if mark in record.text]
        assert [(record.level, record.text) for record in found] == [(3, f"{mark} one"), (4, f"{mark} two")]
        assert abs(found[0].seconds - host.uptime()) < 60
        assert [record for record in host.kernel_records(found[-1].sequence) if mark in record.text] == []
    finally:
        host.close()
    later = Host(clock=SystemClock())  # as after a restart of the agent
    try:
        assert [record for record in later.kernel_records(found[-1].sequence) if mark in record.text] == []
        assert [record.text for record in later.kernel_records(found[0].sequence) if mark in record.text] == [
            f"{mark} two"
        ]
    finally:
        later.close()


def test_two_readers_of_the_real_log_do_not_disturb_each_other() -> None:
    need("kmsg")
    host = Host(clock=SystemClock())
    try:
        newest = [record.sequence for record in host.kernel_records(-1)][-20:]
        one, other = host.kernel_records(newest[0] - 1), host.kernel_records(newest[0] - 1)
        pairs = [(next(one).sequence, next(other).sequence) for _ in newest]
        assert pairs == [(sequence, sequence) for sequence in newest]
    finally:
        host.close()
