"""From hits to one cause: every rule of precedence on its own."""

from typing import Any

import pytest

from classifiers.attribution import First, attribute
from classifiers.base import Evidence, Hit, Role


def hit(cause: str, order: int, weight: int = 70, role: Role = Role.ROOT, **more: Any) -> Hit:
    rank = more.get("rank")
    evidence = Evidence(file=more.pop("file", f"{rank}.log"), line=order, text=f"{cause} {order}")
    return Hit(rule=f"{cause}-{role}", cause=cause, role=role, weight=weight, evidence=evidence, order=order, **more)


def test_nothing_is_no_failure() -> None:
    found = attribute([])
    assert (found.cause, found.rank, found.cascades) == ("none", None, [])


def test_a_cascade_never_beats_a_root_however_heavy_or_early() -> None:
    found = attribute([hit("net.peer_lost", 1, 99, Role.CASCADE), hit("program.python", 9, 20)])
    assert (found.cause, [one.cause for one in found.cascades]) == ("program.python", ["net.peer_lost"])


def test_a_hint_alone_is_no_failure_and_explains_one() -> None:
    hint = hit("net.infiniband", 1, 80, Role.HINT)
    assert attribute([hint]).cause == "none"
    assert attribute([hint, hit("net.collective_timeout", 2, 48, Role.CASCADE)]).cause == "net.infiniband"


def test_a_weightier_root_wins_by_a_whole_step_and_the_earlier_within_one() -> None:
    early, late = hit("program.python", 1, 71), hit("storage.disk_full", 2, 79)
    assert attribute([late, early]).cause == "program.python"
    assert attribute([early, hit("storage.disk_full", 2, 80)]).cause == "storage.disk_full"


def test_between_sources_the_clock_decides_where_it_can() -> None:
    first = hit("program.python", 1, rank=0, time=1000.0)
    assert attribute([first, hit("storage.disk_full", 2, rank=1, time=990.0)]).rank == 1
    assert attribute([first, hit("storage.disk_full", 2, rank=1, time=999.0)]).rank == 0
    assert attribute([first, hit("storage.disk_full", 2, rank=1)]).rank == 0


def test_what_was_recovered_from_is_no_failure() -> None:
    lost = hit("storage.object_store", 1, 60, file="a")
    back = hit("none", 2, 80, Role.RECOVERY, file="a", clears=("*",))
    assert attribute([lost, back]).cause == "none"
    assert attribute([lost, hit("none", 2, 80, Role.RECOVERY, file="b", clears=("*",))]).cause == "storage.object_store"
    assert attribute([hit("gpu.lost", 1, 94, file="a"), back]).cause == "gpu.lost"
    assert attribute([lost, hit("none", 2, 80, Role.RECOVERY, file="a", clears=("net.socket",))]).cause == lost.cause


def test_a_link_that_came_back_and_failed_after_all_is_the_cause_from_its_first_word() -> None:
    down = hit("net.infiniband", 1, 88, Role.HINT, file="a")
    up = hit("none", 2, 60, Role.RECOVERY, file="a", clears=("net.infiniband",))
    assert attribute([down, up]).cause == "none"
    found = attribute([down, up, hit("net.infiniband", 3, 88, file="a")])
    assert found.chosen is not None
    assert found.chosen.order == 1


def test_watchdogs_that_wait_for_different_collectives_are_a_disagreement() -> None:
    def waits(rank: int, seq: str, pg: str = "0") -> Hit:
        fields = {"seq": seq, "op": "ALLREDUCE", "numel": "8", "pg": pg}
        return hit("net.collective_timeout", rank, 48, Role.CASCADE, rank=rank, fields=fields)

    found = attribute([waits(0, "7"), waits(1, "7"), waits(2, "9"), waits(3, "7")])
    assert (found.cause, found.rank) == ("program.collective_mismatch", 2)
    assert attribute([waits(0, "7"), waits(1, "7")]).cause == "net.collective_timeout"
    assert attribute([waits(0, "7", "1"), waits(1, "9", "2")]).cause == "net.collective_timeout"


def test_the_rank_that_most_others_name_is_the_odd_one() -> None:
    def names(rank: int, peer: int) -> Hit:
        return hit("program.collective_mismatch", rank, 87, rank=rank, fields={"peer": str(peer)})

    assert attribute([names(0, 2), names(1, 2), names(2, 0), names(3, 2)]).rank == 2
    assert attribute([names(0, 1), names(1, 0)]).rank == 0


@pytest.mark.parametrize(("seen", "rank"), [({0, 1, 2}, 2), ({0, 1, 2, 3}, None), ({0, 1}, None)])
def test_the_only_silent_rank_is_whom_the_others_waited_for(seen: set[int], rank: int | None) -> None:
    waiting = [hit("net.collective_timeout", rank, 48, Role.CASCADE, rank=rank) for rank in (0, 1)]
    assert attribute(waiting, seen=seen).rank == rank


def test_the_launcher_names_the_rank_where_the_line_does_not() -> None:
    found = attribute([hit("program.python", 1)], [First(5, "n7")])
    assert (found.rank, found.host) == (5, "n7")


def test_another_cause_beside_it_lowers_the_confidence_and_is_listed() -> None:
    alone = attribute([hit("gpu.lost", 1, 94)])
    two = attribute([hit("gpu.lost", 1, 94), hit("storage.disk_full", 2, 84)])
    assert (alone.confidence, two.confidence) == (0.94, 0.84)
    assert [one.cause for one in two.also] == ["storage.disk_full"]


def test_every_hit_has_a_fate() -> None:
    hits = [hit("gpu.lost", 1, 94), hit("net.peer_lost", 2, 42, Role.CASCADE), hit("none", 3, 0, Role.NOTE)]
    assert sorted(fate for _, fate in attribute(hits).fates) == [
        "a consequence, and there is a root",
        "chosen",
        "no failure",
    ]
