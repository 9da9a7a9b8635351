"""disk_filler: whose files, how fast, for how long still; looks nowhere that is not getting full; walks for real."""

import os
from pathlib import Path

import pytest
from needs import need
from recorded_node import Node, look, size, told, troubles

from checks.base import Memory
from checks.host import Host
from checks.owners import Walk, walk
from checks.storage.disk_filler import CHECK

GB = 10**9
TB = 10**12


@pytest.fixture
def node(tmp_path: Path) -> Node:
    return Node(tmp_path / "n1", "h100_host_healthy")


def fill(node: Node, available: int, alice: int, whole: bool = True) -> None:
    owners = {"alice": alice, "bob": 4 * TB, "root": 1 * TB}
    directories = {"/raid/alice/runs": alice, "/raid/bob": 4 * TB}
    node.answer(
        sizes={"/raid": size(28 * TB, available)},
        walks={"/raid": Walk(owners=owners, directories=directories, whole=whole)},
    )


def test_healthy_node_is_not_walked_and_network_file_systems_never_are(node: Node) -> None:
    assert told(look(CHECK, node)) == [
        ("mount/", "ok", "", "22 % used, not walked"),
        ("mount/boot/efi", "ok", "", "7 % used, not walked"),
        ("mount/raid", "ok", "", "68 % used, not walked"),
        ("mount/run", "ok", "", "0 % used, not walked"),
    ]


def test_names_the_owners_and_the_places(node: Node) -> None:
    fill(node, 100 * GB, 22 * TB)
    (found,) = [finding for finding in look(CHECK, node) if finding.status != "ok"]
    said = "/raid is 100 % full: alice 22 TB, bob 4 TB, root 1 TB"
    assert told([found]) == [("mount/raid", "warn", "filler", said)]
    assert found.evidence == "/raid/alice/runs 22 TB, /raid/bob 4 TB"
    assert found.advice == "ask alice to clean up: /raid/alice/runs 22 TB, /raid/bob 4 TB"


def test_much_that_is_free_is_information_and_no_warning(node: Node) -> None:
    fill(node, 2 * TB, 20 * TB)
    assert told(look(CHECK, node))[2] == (
        "mount/raid",
        "ok",
        "",
        "/raid is 93 % full: alice 20 TB, bob 4 TB, root 1 TB",
    )


def test_names_who_grew_since_the_last_walk_and_when_it_is_full(node: Node) -> None:
    memory: Memory = {}
    fill(node, 4 * TB, 18 * TB)
    look(CHECK, node, memory)
    node.clock.advance(3600)
    fill(node, 2 * TB, 20 * TB)
    said = "/raid is 93 % full: alice 20 TB, bob 4 TB, root 1 TB; alice grew by 2 TB since the last walk; full in 1.0 h"
    assert troubles(look(CHECK, node, memory))[0][3] == f"{said} at this pace"


def test_walk_that_was_cut_short_says_so_and_is_not_compared(node: Node) -> None:
    memory: Memory = {}
    fill(node, 100 * GB, 10 * TB, whole=False)
    said = "/raid is 100 % full: alice 10 TB, bob 4 TB, root 1 TB (of 15 TB that the walk had time for)"
    assert troubles(look(CHECK, node, memory))[0][3] == said
    assert memory["walks"] == {"/raid": {}}


def test_walk_that_hangs_is_unknown(node: Node) -> None:
    node.answer(sizes={"/raid": size(28 * TB, TB)}, walks={"/raid": None})
    found = troubles(look(CHECK, node))
    assert [line[:3] for line in found] == [("mount/raid", "unknown", "no_answer")]


def test_a_real_tree_is_summed_by_owner_and_directory(tmp_path: Path) -> None:
    (tmp_path / "a/b/c").mkdir(parents=True)
    (tmp_path / "a/b/c/one").write_bytes(b"x" * 1_000_000)
    (tmp_path / "a/two").write_bytes(b"x" * 500_000)
    os.link(tmp_path / "a/two", tmp_path / "a/again")  # the same file is counted once
    (tmp_path / "a/link").symlink_to("/")
    host = Host()
    try:
        found = host.walk(str(tmp_path), 5.0, 20.0)
    finally:
        host.close()
    assert found.whole
    (total,) = found.owners.values()
    assert 1_500_000 <= total < 1_700_000
    assert set(found.directories) == {str(tmp_path / "a"), str(tmp_path / "a/b")}
    assert 1_000_000 <= found.directories[str(tmp_path / "a/b")] < 1_100_000


def test_real_owners_have_names(tmp_path: Path) -> None:
    need("root")
    (tmp_path / "theirs").write_bytes(b"x" * 100_000)
    (tmp_path / "nobodys").write_bytes(b"x" * 200_000)
    os.chown(tmp_path / "nobodys", 54321, 54321)
    found = walk(str(tmp_path), 5.0)
    assert list(found["owners"]) == ["uid 54321", "root"]  # type: ignore[call-overload]


def test_walk_stops_when_its_time_is_over(tmp_path: Path) -> None:
    (tmp_path / "a").mkdir()
    assert walk(str(tmp_path), -1.0)["whole"] is False
