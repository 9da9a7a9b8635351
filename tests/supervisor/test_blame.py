"""Who holds the others up, at what and where: each kind of hang, as looks at a job of four ranks show it."""

import pytest
from job_looks import (
    ALL_REDUCE,
    DISK,
    FUTEX,
    IN_FILE,
    IN_OPEN,
    RUNNING,
    SITE,
    SLEEP,
    STOPPED,
    flight,
    look,
    rank,
    users,
)

from daemons.supervisor.blame import blame, frozen
from daemons.supervisor.frames import Frame
from daemons.supervisor.procfs import Activity
from daemons.supervisor.snapshot import RankLook, WorkerLook

MATCH = Frame("/usr/lib/python3.11/re/__init__.py", 166, "match")
QUEUE = Frame("/usr/lib/python3.11/queue.py", 171, "get")
LOADER = Frame(f"{SITE}/utils/data/dataloader.py", 1100, "_try_get_data")
BEHIND = flight(25, 25)


@pytest.mark.parametrize(
    ("odd", "doing", "line"),
    [
        (rank(2, users(6, "load_batch"), SLEEP, flight=BEHIND), "data", 6),
        (rank(2, users(6, "__getitem__"), SLEEP, flight=BEHIND), "data", 6),
        (rank(2, users(7, "step"), SLEEP, flight=BEHIND), "python", 7),
        (rank(2, users(13, "step", MATCH), RUNNING, flight=BEHIND), "python", 13),
        (rank(2, users(13, "load_batch", MATCH), RUNNING, flight=BEHIND), "python", 13),
        (rank(2, users(8, "load_batch"), IN_FILE, flight=BEHIND), "storage", 8),
        (rank(2, users(8, "step"), IN_OPEN, flight=BEHIND), "storage", 8),
        (rank(2, users(8, "step"), DISK, flight=BEHIND), "storage", 8),
        (rank(2, users(17, "step"), FUTEX, flight=BEHIND, source="lock.acquire()"), "lock", 17),
        (rank(2, users(17, "step"), FUTEX, flight=BEHIND, source="with self._lock:"), "lock", 17),
        (rank(2, users(5, "next_batch", QUEUE), FUTEX, flight=BEHIND, source="x = next_batch()"), "data", 5),
        (rank(2, users(33, "step"), STOPPED), "stopped", 33),
        (rank(2, None, FUTEX, gone=True, flight=None), "dead", 33),
        (
            rank(2, users(9, "step", Frame(f"{SITE}/cuda/__init__.py", 1, "synchronize")), FUTEX, flight=BEHIND),
            "gpu",
            9,
        ),
        (rank(2, users(9, "fetch", LOADER), FUTEX, flight=BEHIND), "data", 9),
    ],
)
def test_the_rank_that_is_not_in_the_collective_is_guilty(odd: RankLook, doing: str, line: int) -> None:
    found = blame(look(0.0, odd), 4)
    assert (found.ranks, found.doing) == ([2], doing)
    assert found.frame == Frame("/home/u/train.py", line, odd.stack[-2].function if odd.stack else "step")
    assert found.other == Frame("/home/u/train.py", 33, "step")


def test_a_stuck_worker_of_a_data_loader_lends_its_line_to_its_rank() -> None:
    busy = WorkerLook(pid=900, activity=SLEEP, stack=[Frame("/home/u/data.py", 71, "__getitem__")])
    idle = WorkerLook(pid=899, activity=FUTEX, stack=[QUEUE, Frame("/home/u/data.py", 5, "worker_init")])
    odd = rank(1, users(40, "main", LOADER), FUTEX, flight=BEHIND, workers=[idle, busy])
    found = blame(look(0.0, odd), 4)
    assert (found.ranks, found.doing, found.frame) == ([1], "data", Frame("/home/u/data.py", 71, "__getitem__"))


def test_different_collectives_blame_the_minority_and_name_both_call_sites() -> None:
    others = [rank(r, ALL_REDUCE, flight=flight(26, 25, size=3)) for r in (0, 2, 3)]
    found = blame(look(0.0, *others), 4)
    assert (found.ranks, found.doing, found.hard) == ([1], "collective", True)
    assert (found.frame, found.other) == (
        Frame("/home/u/train.py", 33, "step"),
        Frame("/home/u/train.py", 30, "step"),
    )
    assert found.words == (
        "collective 26: rank 1 called gloo:all_reduce[[64]]Float, the others gloo:all_reduce[[3]]Float"
    )


def test_the_first_rank_is_no_better_witness_than_any_other() -> None:
    found = blame(look(0.0, rank(0, ALL_REDUCE, flight=flight(26, 25, last="gloo:barrier"))), 4)
    assert (found.ranks, found.doing) == ([0], "collective")


def test_without_a_recorder_the_line_that_stands_out_is_blamed() -> None:
    ranks = [rank(r, flight=None) for r in (0, 1, 2)] + [rank(3, ALL_REDUCE, flight=None)]
    found = blame(look(0.0, *ranks), 4)
    assert (found.ranks, found.doing, found.frame) == ([3], "collective", Frame("/home/u/train.py", 30, "step"))


def test_all_in_one_collective_is_the_network_between_them() -> None:
    found = blame(look(0.0), 4)
    assert (found.ranks, found.doing) == ([], "network")


def test_a_rank_that_computes_in_its_backward_pass_does_not_wait() -> None:
    found = blame(look(0.0, rank(3, None, RUNNING, flight=flight(25, 25))), 4)
    assert found.ranks == [3]


def test_a_rank_nobody_has_seen_is_missed() -> None:
    shown = look(0.0)
    del shown.ranks[2]
    found = blame(shown, 4)
    assert (found.ranks, found.doing) == ([2], "dead")


def test_a_job_that_is_stopped_as_a_whole_accuses_nobody_of_it() -> None:
    found = blame(look(0.0, *(rank(r, activity=STOPPED) for r in range(4))), 4)
    assert found.doing != "stopped"


def test_frozen_is_the_same_stack_twice_whatever_line_a_loop_is_at() -> None:
    one = look(0.0, rank(1, users(12, "step"), RUNNING))
    two = look(5.0, rank(1, users(13, "step"), RUNNING))
    assert frozen(one, two, [1]) is True
    assert frozen(one, look(5.0, rank(1, users(13, "other"), RUNNING)), [1]) is False


def test_bytes_that_flow_are_a_sign_of_life() -> None:
    one = look(0.0, rank(1, users(12, "save"), Activity(written_bytes=0)))
    two = look(5.0, rank(1, users(12, "save"), Activity(written_bytes=50_000_000)))
    assert frozen(one, two, [1]) is False


def test_stacks_that_cannot_be_read_prove_nothing() -> None:
    blind = RankLook(rank=1, pid=101, activity=FUTEX)
    assert frozen(look(0.0, blind), look(5.0, blind), [1]) is None
