"""ib_flap: the stored series of a port, through every kind of step, restarts and reboots."""

from pathlib import Path

import msgspec
import pytest
from recorded_node import Node, look, told, troubles

from checks.base import Memory
from checks.fabric.ib_flap import CHECK, advance

PORT = "sys/class/infiniband/mlx5_0/ports/1"


@pytest.fixture
def node(tmp_path: Path) -> Node:
    return Node(tmp_path / "n1", "h100_host_healthy")


def state(node: Node, active: bool, downed: int | None = None) -> None:
    node.write({f"{PORT}/state": "4: ACTIVE" if active else "1: DOWN"})
    if downed is not None:
        node.write({f"{PORT}/counters/link_downed": str(downed)})


def test_first_look_and_a_healthy_day(node: Node) -> None:
    memory: Memory = {}
    assert told(look(CHECK, node, memory))[0] == ("ib/mlx5_0/1", "ok", "", "first look")
    for _ in range(50):
        node.clock.advance(1800)
        assert troubles(look(CHECK, node, memory)) == []


def test_flaps_between_looks_are_seen_by_the_counter(node: Node) -> None:
    memory: Memory = {}
    look(CHECK, node, memory)
    for downed, status in ((2, []), (3, ["warn"]), (9, ["warn"]), (10, ["fail"])):
        node.clock.advance(15)
        state(node, True, downed)
        assert [line[1] for line in troubles(look(CHECK, node, memory))] == status
    assert troubles(look(CHECK, node, memory)) == [
        ("ib/mlx5_0/1", "fail", "flapping", "mlx5_0/1 lost its link 10 times within a day")
    ]
    node.clock.advance(86_400)
    assert troubles(look(CHECK, node, memory)) == []


def test_drop_is_told_after_four_minutes_and_ends_with_the_link(node: Node) -> None:
    memory: Memory = {}
    look(CHECK, node, memory)
    state(node, False, 1)
    for seconds, expected in ((0, []), (239, []), (1, ["dropped"]), (600, ["dropped"])):
        node.clock.advance(seconds)
        assert [line[2] for line in troubles(look(CHECK, node, memory))] == expected
    assert troubles(look(CHECK, node, memory))[0][3] == "mlx5_0/1 dropped: down for 14 min, it was active before"
    state(node, True)
    assert troubles(look(CHECK, node, memory)) == []


def test_series_survives_a_restart_and_a_reboot_which_is_no_flap(node: Node) -> None:
    memory: Memory = {}
    look(CHECK, node, memory)
    state(node, True, 2)
    look(CHECK, node, memory)
    memory = msgspec.json.decode(msgspec.json.encode(memory))  # as the ledger keeps it
    node.reboot()
    state(node, False, 0)
    look(CHECK, node, memory)  # links train
    state(node, True, 0)
    assert troubles(look(CHECK, node, memory)) == []
    state(node, True, 1)
    assert [line[2] for line in troubles(look(CHECK, node, memory))] == ["flapping"]


def test_port_that_never_was_active_does_not_drop(node: Node) -> None:
    memory: Memory = {}
    state(node, False)
    for _ in range(5):
        assert troubles(look(CHECK, node, memory)) == []
        node.clock.advance(600)


def test_without_a_counter_that_counts_coming_back_is_a_flap() -> None:
    for downed in (-1, 255):
        series = None
        for step, active in enumerate((True, False, True, False, True)):
            series = advance(series, active=active, downed=downed, boot="a", now=step * 15.0)
        assert series is not None
        assert [number for _, number in series["flaps"]] == [1, 1]


def test_with_a_counter_that_counts_coming_back_is_counted_once() -> None:
    series = None
    for step, (active, downed) in enumerate(((True, 0), (False, 1), (True, 1))):
        series = advance(series, active=active, downed=downed, boot="a", now=step * 15.0)
    assert series is not None
    assert sum(number for _, number in series["flaps"]) == 1


def test_reset_of_the_counter_is_no_flap() -> None:
    first = advance(None, active=True, downed=200, boot="a", now=0.0)
    assert advance(first, active=True, downed=0, boot="a", now=15.0)["flaps"] == []


def test_series_of_a_storm_is_bounded(node: Node) -> None:
    series = None
    for step in range(5000):
        series = advance(series, active=True, downed=step % 200, boot="a", now=float(step))
    assert series is not None
    assert len(series["flaps"]) <= 200


def test_unreadable_state_is_unknown_and_keeps_the_series(node: Node) -> None:
    memory: Memory = {}
    look(CHECK, node, memory)
    before = memory["ports"]["mlx5_0/1"]
    node.write({f"{PORT}/state": None})
    assert told(look(CHECK, node, memory))[0][1] == "unknown"
    assert memory["ports"]["mlx5_0/1"] == before
