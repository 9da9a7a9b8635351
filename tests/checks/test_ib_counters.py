"""ib_counters: rises by the hour, saturation, resets, refusals; a busy fabric and an old card are no trouble."""

from pathlib import Path

import pytest
from recorded_node import Node, look, told, troubles

from checks.base import Memory
from checks.fabric.ib_counters import CHECK

COUNTERS = "sys/class/infiniband/mlx5_0/ports/1/counters"
HARDWARE = "sys/class/infiniband/mlx5_0/ports/1/hw_counters"


@pytest.fixture
def node(tmp_path: Path) -> Node:
    return Node(tmp_path / "n1", "h100_host_healthy")


def after(node: Node, *values: tuple[str, int], memory: Memory | None = None, seconds: float = 60.0) -> list[object]:
    """Troubles of the look that follows the first by `seconds`, with counters changed in between."""
    memory = {} if memory is None else memory
    look(CHECK, node, memory)
    node.clock.advance(seconds)
    node.write({path: str(value) for path, value in values})
    return list(troubles(look(CHECK, node, memory)))


def test_healthy_first_and_later_looks(node: Node) -> None:
    memory: Memory = {}
    found = look(CHECK, node, memory)
    assert told(found)[0] == ("ib/mlx5_0/1", "ok", "", "17 error counters, first look")
    assert set(found[0].values) == set(CHECK.metrics)
    later = told(look(CHECK, node, memory))
    assert later[0] == ("ib/mlx5_0/1", "ok", "", "17 error counters, no rise that matters within the hour")


def test_symbol_errors(node: Node) -> None:
    said = "mlx5_0/1: symbol_error rose by 12 within the hour, limit 10"
    assert after(node, (f"{COUNTERS}/symbol_error", 12)) == [("ib/mlx5_0/1", "warn", "symbol_error", said)]


def test_many_link_recoveries_fail(node: Node) -> None:
    said = "mlx5_0/1: link_error_recovery rose by 100 within the hour, limit 10"
    assert after(node, (f"{COUNTERS}/link_error_recovery", 100)) == [
        ("ib/mlx5_0/1", "fail", "link_error_recovery", said)
    ]


def test_few_errors_and_congestion_are_no_trouble(node: Node) -> None:
    busy = [(f"{COUNTERS}/symbol_error", 9), (f"{COUNTERS}/port_xmit_wait", 1), (f"{HARDWARE}/out_of_sequence", 900)]
    assert after(node, *busy) == []


def test_reset_counts_what_came_since_and_says_at_least(node: Node) -> None:
    memory: Memory = {}
    node.write({f"{COUNTERS}/port_xmit_discards": "60000"})
    said = "mlx5_0/1: port_xmit_discards rose by at least 150 within the hour, limit 100"
    assert after(node, (f"{COUNTERS}/port_xmit_discards", 150), memory=memory) == [
        ("ib/mlx5_0/1", "warn", "port_xmit_discards", said)
    ]


def test_saturated_counters_are_blind_and_said_to_be(node: Node) -> None:
    node.write({f"{COUNTERS}/link_downed": "255", f"{COUNTERS}/symbol_error": "65535"})
    said = "mlx5_0/1: link_downed, symbol_error stands at its largest value: further errors would not be seen"
    assert troubles(look(CHECK, node)) == [("ib/mlx5_0/1", "warn", "saturated", said)]


def test_wider_counters_of_newer_cards_do_not_saturate(node: Node) -> None:
    node.write({f"{COUNTERS}/symbol_error": "70000"})
    assert troubles(look(CHECK, node)) == []
    assert after(node, (f"{COUNTERS}/symbol_error", 70005)) == []


def test_a_reboot_is_a_first_look(node: Node) -> None:
    memory: Memory = {}
    look(CHECK, node, memory)
    node.reboot()
    node.write({f"{COUNTERS}/symbol_error": "500"})
    assert told(look(CHECK, node, memory))[0][3] == "17 error counters, first look"


def test_limits_of_the_configuration(node: Node) -> None:
    memory: Memory = {}
    look(CHECK, node, memory)
    node.write({f"{COUNTERS}/symbol_error": "12"})
    assert troubles(look(CHECK, node, memory, limits={"symbol_error": 100})) == []


def test_hour_goes_by_and_it_is_quiet(node: Node) -> None:
    memory: Memory = {}
    assert len(after(node, (f"{COUNTERS}/symbol_error", 50), memory=memory)) == 1
    node.clock.advance(3601)
    assert troubles(look(CHECK, node, memory)) == []


@pytest.mark.parametrize("text", ["N/A", "-1", "0x", "\xff"])
def test_garbage_costs_one_port(node: Node, text: str) -> None:
    node.write({f"{COUNTERS}/symbol_error": text.encode("latin-1")})
    assert [line[:3] for line in told(look(CHECK, node))] == [
        ("ib/mlx5_0/1", "unknown", "unreadable"),
        ("ib/mlx5_1/1", "ok", ""),
        ("ib/mlx5_2/1", "ok", ""),
    ]


def test_older_drivers_have_fewer_counters(node: Node) -> None:
    node.write({HARDWARE: None, f"{COUNTERS}/VL15_dropped": None})
    assert told(look(CHECK, node))[0][3] == "11 error counters, first look"


def test_no_counter_at_all_is_unknown(node: Node) -> None:
    node.write({HARDWARE: None, COUNTERS: None})
    assert told(look(CHECK, node))[0][1:] == ("unknown", "unreadable", f"/{COUNTERS}: no counter can be read")


def test_memory_of_a_healthy_fabric_stays_small(node: Node) -> None:
    memory: Memory = {}
    for _ in range(300):
        look(CHECK, node, memory)
        node.clock.advance(30)
    assert {len(series["rises"]) for series in memory["counters"].values()} == {0}
    node.write({"sys/class/infiniband/mlx5_1": None})
    look(CHECK, node, memory)
    assert {key.partition("/")[0] for key in memory["counters"]} == {"mlx5_0", "mlx5_2"}
