"""ib_fabric: answers of the tools as recorded; test_ib_simulated.py has them for real."""

from pathlib import Path

import pytest
from recorded_node import Node, look, told, troubles

from checks.base import Memory
from checks.fabric.ib_fabric import CHECK, parse_errors
from checks.host import CommandError, Unreadable

UP = (
    '0xb8599f0300a00100 "                         leaf2"      3    1[  ] ==( 4X        53.125 Gbps Active/  LinkUp)==>'
    '  0xb8599f0300b00051      9    1[  ] "node5 mlx5_0" ( )\n'
    '0xb8599f0300a00100 "                         leaf2"      3   17[  ] ==( 4X        53.125 Gbps Active/  LinkUp)==>'
    '  0xb8599f0300a00200      4    3[  ] "spine1" (Could be 12X )\n'
)
FAR = (
    '0xb8599f0300a00200 "                        spine1"      4    3[  ] ==( 4X        53.125 Gbps Active/  LinkUp)==>'
    '  0xb8599f0300a00100      3   17[  ] "leaf2" ( )\n'
    '0xb8599f0300a00200 "                        spine1"      4    5[  ] ==( 4X        53.125 Gbps Active/  LinkUp)==>'
    '  0xb8599f0300a00300      5    1[  ] "leaf3" ( )\n'
)
NOWHERE = '{} "{}"      4    {}[  ] ==(                Down/ Polling)==>             [  ] "" ( )\n'
UP += "".join(NOWHERE.format("0xb8599f0300a00100", "leaf2", port) for port in range(20, 26))
FAR += "".join(NOWHERE.format("0xb8599f0300a00200", "spine1", port) for port in range(20, 26))
CLEAN = "\n## Summary: 12 nodes checked, 0 bad nodes found\n"
BAD = (
    'Errors for 0xb8599f0300a00100 "leaf2"\n'
    "   GUID 0xb8599f0300a00100 port ALL: [LinkDownedCounter == 300]\n"
    "   GUID 0xb8599f0300a00100 port 17: [LinkDownedCounter == {downed}] [PortXmitWait == 99999]\n"
)


@pytest.fixture
def node(tmp_path: Path) -> Node:
    node = Node(tmp_path / "n1", "h100_host_healthy")
    answer(node)
    return node


def answer(node: Node, links: str = UP + FAR, errors: str = CLEAN) -> None:
    node.answer(commands={"iblinkinfo -l": [0, links, ""], "ibqueryerrors": [int("Errors" in errors), errors, ""]})


def test_off_unless_this_node_is_to_look(node: Node) -> None:
    assert told(look(CHECK, node))[0][:2] == ("fabric", "skipped")


def test_healthy(node: Node) -> None:
    memory: Memory = {}
    said = "3 links, all at the rate of their kind"
    assert told(look(CHECK, node, memory, look=True)) == [("fabric", "ok", "", f"{said}, first look at its counters")]
    assert told(look(CHECK, node, memory, look=True)) == [("fabric", "ok", "", said)]


def test_links_that_are_gone_and_come_back_or_are_forgotten(node: Node) -> None:
    memory: Memory = {}
    look(CHECK, node, memory, look=True)
    answer(node, FAR)
    assert troubles(look(CHECK, node, memory, look=True)) == [
        ("fabric/leaf2/1", "warn", "gone", "leaf2/1: link to node5 mlx5_0/1 is gone")
    ]
    answer(node, UP)
    assert troubles(look(CHECK, node, memory, look=True)) == [
        ("fabric/leaf3/1", "warn", "gone", "leaf3/1: link to spine1/5 is gone")
    ]
    node.clock.advance(8 * 86_400)
    assert troubles(look(CHECK, node, memory, look=True)) == []


def test_errors_of_a_first_look_are_history_and_rise_from_then_on(node: Node) -> None:
    memory: Memory = {}
    answer(node, errors=BAD.format(downed=200) + CLEAN)
    assert troubles(look(CHECK, node, memory, look=True)) == []
    answer(node, errors=BAD.format(downed=215) + CLEAN)
    said = "leaf2/17: link_downed rose by 15 within the hour, limit 10"
    assert ("fabric/leaf2/17", "warn", "link_downed", said) in troubles(look(CHECK, node, memory, look=True))


def test_counters_by_port() -> None:
    assert parse_errors(BAD.format(downed=7)) == {"leaf2/17": {"link_downed": 7}}


@pytest.mark.parametrize("text", ["", "ibwarn: [1] mad_rpc_open_port: can't open UMAD port ((null):0)\n"])
def test_tools_that_fail_are_unknown(node: Node, text: str) -> None:
    node.answer(commands={"iblinkinfo -l": [255, "", text]})
    with pytest.raises(Unreadable, match=r"iblinkinfo: exit 255: (no answer|ibwarn: .*)"):
        look(CHECK, node, look=True)


def test_tools_that_are_not_installed(tmp_path: Path) -> None:
    with pytest.raises(CommandError, match="iblinkinfo: not found"):
        look(CHECK, Node(tmp_path / "n2", "h100_host_healthy"), look=True)
