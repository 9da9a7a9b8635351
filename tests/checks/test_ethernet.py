"""ethernet: links that are gone, slow, flapping or dirty; sockets without a cable are none of them."""

import os
from pathlib import Path

import pytest
from recorded_node import Node, look, told, troubles

from checks.base import Memory
from checks.fabric.ethernet import CHECK

PORT = "sys/class/net/eno1"


@pytest.fixture
def node(tmp_path: Path) -> Node:
    return Node(tmp_path / "n1", "h100_host_healthy")


def test_healthy_first_and_second_look(node: Node) -> None:
    memory: Memory = {}
    found = look(CHECK, node, memory)
    assert told(found) == [
        ("net/eno1", "ok", "", "up, 100 Gb/s, first look at its counters"),
        ("net/eno2", "skipped", "", "switched off, not in use"),
    ]
    assert found[0].values == {
        "ethernet_speed_bytes_per_second": 1.25e10,
        "ethernet_receive_errors_total": 0.0,
        "ethernet_transmit_errors_total": 0.0,
        "ethernet_carrier_changes_total": 2.0,
    }
    assert told(look(CHECK, node, memory))[0][3] == "up, 100 Gb/s, counters quiet for an hour"


def test_link_lost(node: Node) -> None:
    node.write({f"{PORT}/carrier": "0"})
    (found, _) = look(CHECK, node)
    assert told([found]) == [("net/eno1", "fail", "down", "eno1: lost its link")]
    assert found.values["ethernet_carrier_changes_total"] == 2.0


def test_socket_without_a_cable_is_skipped_unless_expected(node: Node) -> None:
    node.write({f"{PORT}/carrier": "0", f"{PORT}/carrier_up_count": "0"})
    assert told(look(CHECK, node))[0] == ("net/eno1", "skipped", "", "nothing plugged in since boot")
    assert troubles(look(CHECK, node, expected=("eno1", "eno2", "eno9"))) == [
        ("net/eno9", "fail", "missing", "eno9: expected, and the kernel has no such interface"),
        ("net/eno1", "fail", "down", "eno1: expected, and has had no link since boot"),
        ("net/eno2", "fail", "down", "eno2: expected, and switched off"),
    ]


def test_speed_against_configuration_and_against_its_own_best(node: Node) -> None:
    memory: Memory = {}
    assert troubles(look(CHECK, node, memory, speeds={"eno1": 200_000})) == [
        ("net/eno1", "warn", "speed", "eno1: runs at 100 Gb/s, want 200 Gb/s (configured)")
    ]
    node.write({f"{PORT}/speed": "25000"})
    said = "eno1: runs at 25 Gb/s, want 100 Gb/s (the best it had; checks.ethernet.speeds sets what it must have)"
    assert troubles(look(CHECK, node, memory)) == [("net/eno1", "warn", "speed", said)]
    assert troubles(look(CHECK, node)) == []  # alone, it has nothing to be judged by


@pytest.mark.parametrize("speed", ["-1", "N/A", None])
def test_speed_not_reported(node: Node, speed: str | None) -> None:
    node.write({f"{PORT}/speed": speed})
    assert told(look(CHECK, node))[0][3] == "up, speed not reported, first look at its counters"
    found = troubles(look(CHECK, node, speeds={"eno1": 100_000}))
    assert found == [("net/eno1", "unknown", "speed", "speed not reported, want 100 Gb/s")]


def test_half_duplex(node: Node) -> None:
    node.write({f"{PORT}/duplex": "half"})
    assert troubles(look(CHECK, node)) == [("net/eno1", "warn", "duplex", "eno1: runs half duplex")]


def test_flaps_within_the_hour_and_quiet_after_it(node: Node) -> None:
    memory: Memory = {}
    look(CHECK, node, memory)
    for changes, status in ((4, []), (6, ["warn"]), (12, ["fail"])):
        node.clock.advance(120)
        node.write({f"{PORT}/carrier_changes": str(changes)})
        assert [line[1] for line in troubles(look(CHECK, node, memory))] == status
    assert troubles(look(CHECK, node, memory))[0][3] == "eno1: lost its link 5 times within the hour"
    node.clock.advance(3600)
    assert troubles(look(CHECK, node, memory)) == []


def test_errors_are_judged_by_the_hour_and_a_reset_is_no_error(node: Node) -> None:
    memory: Memory = {}
    node.write({f"{PORT}/statistics/rx_errors": "5000000"})
    assert troubles(look(CHECK, node, memory)) == []  # history of nobody knows when
    node.clock.advance(60)
    node.write({f"{PORT}/statistics/rx_errors": "5000150"})
    assert troubles(look(CHECK, node, memory)) == [
        ("net/eno1", "warn", "receive_errors", "eno1: 150 receive errors within the hour")
    ]
    node.clock.advance(3601)
    node.write({f"{PORT}/statistics/rx_errors": "3"})
    assert troubles(look(CHECK, node, memory)) == []


def test_reboot_starts_counters_anew(node: Node) -> None:
    memory: Memory = {}
    look(CHECK, node, memory)
    node.reboot()
    node.write({f"{PORT}/statistics/rx_errors": "900"})
    assert troubles(look(CHECK, node, memory)) == []


@pytest.mark.parametrize("text", ["N/A", "-5", "", "18446744073709551615 x"])
def test_port_that_cannot_be_read_costs_only_its_own_answer(node: Node, text: str) -> None:
    node.copy(PORT, "sys/class/net/eno0")
    node.write({"sys/class/net/eno0/statistics/rx_errors": text})
    found = told(look(CHECK, node))
    assert [line[:3] for line in found[:2]] == [("net/eno0", "unknown", "unreadable"), ("net/eno1", "ok", "")]


def test_port_that_vanishes_while_read(node: Node) -> None:
    node.write({f"{PORT}/statistics": None})
    said = "/sys/class/net/eno1/statistics/rx_errors: No such file or directory"
    assert troubles(look(CHECK, node)) == [("net/eno1", "unknown", "unreadable", said)]


def test_name_that_is_no_text(node: Node) -> None:
    node.copy(PORT, os.fsdecode(b"sys/class/net/e\xff1"))
    assert [line[:2] for line in told(look(CHECK, node))] == [
        ("net/eno1", "ok"),
        ("net/eno2", "skipped"),
        ("net/e\\xff1", "ok"),
    ]


def test_no_hardware_is_skipped(node: Node) -> None:
    node.write({"sys/class/net/eno1": None, "sys/class/net/eno2": None})
    assert told(look(CHECK, node)) == [("net", "skipped", "", "no Ethernet hardware here")]


def test_memory_of_ports_that_went_is_dropped(node: Node) -> None:
    memory: Memory = {}
    look(CHECK, node, memory)
    node.write({PORT: None})
    look(CHECK, node, memory)
    assert memory == {"counters": {}, "best": {}}
