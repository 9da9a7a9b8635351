"""Hosts that have lost each other, as the kernel's tables of connections show it."""

from daemons.supervisor.network import addresses, cut_off, lost_peers

# 10.77.0.1:29500 -> 10.77.0.3: six retransmissions, timer running; the same to .2, all well; a SYN to .3 sent again.
LINES = [
    "0: 01004D0A:733C 03004D0A:B0F2 01 00000200:00000000 01:00000412 00000006     0        0 41 4 ffff 20 4 30 10 -1",
    "1: 01004D0A:733C 02004D0A:B0F4 01 00000000:00000000 00:00000000 00000000     0        0 42 4 ffff 20 4 30 10 -1",
    "2: 01004D0A:9999 03004D0A:733C 02 00000001:00000000 01:00000412 00000003     0        0 43 4 ffff 20 4 30 10 -1",
    "3: 0100007F:9999 0100007F:733C 01 00000001:00000000 01:00000412 00000001     0        0 44 4 ffff 20 4 30 10 -1",
    "damaged line",
]


def test_peers_that_acknowledge_nothing_are_lost() -> None:
    assert lost_peers(LINES) == {"10.77.0.3": 2}


def test_addresses_of_both_ends() -> None:
    assert addresses(LINES, 1) == {"10.77.0.1"}
    assert addresses(LINES, 2) == {"10.77.0.2", "10.77.0.3"}


OWN = {"a": {"10.0.0.1"}, "b": {"10.0.0.2"}, "c": {"10.0.0.3"}}
ALL = {"a": {"10.0.0.2", "10.0.0.3"}, "b": {"10.0.0.1", "10.0.0.3"}, "c": {"10.0.0.1", "10.0.0.2"}}


def test_the_host_that_several_have_lost_is_the_one() -> None:
    lost = {"a": {"10.0.0.3": 1}, "b": {"10.0.0.3": 2}}
    assert cut_off(lost, {"a": OWN["a"], "b": OWN["b"]}, ALL) == ["10.0.0.3"]
    assert cut_off({**lost, "c": {"10.0.0.1": 1, "10.0.0.2": 1}}, OWN, ALL)[0] == "c"


def test_a_host_that_has_lost_everybody_accuses_itself() -> None:
    assert cut_off({"c": {"10.0.0.1": 1, "10.0.0.2": 1}}, {"c": OWN["c"]}, ALL)[0] == "c"


def test_two_that_have_lost_each_other_are_both_named() -> None:
    assert cut_off({"a": {"10.0.0.2": 1}, "b": {"10.0.0.1": 1}, "c": {}}, OWN, ALL) == ["a", "b"]


def test_nothing_lost_names_nobody() -> None:
    assert cut_off({"a": {}, "b": {}}, OWN, ALL) == []
    assert cut_off({"a": {"127.0.0.1": 3}}, OWN, ALL) == []
