"""Silences that are fine and silences that are not, as they unfold."""

import pytest
from job_looks import FUTEX, RUNNING, SITE, SLEEP, STOPPED, flight, look, rank, users

from daemons.supervisor.config import RunConfig
from daemons.supervisor.frames import Frame
from daemons.supervisor.judge import judge, next_look
from daemons.supervisor.progress import Stillness
from daemons.supervisor.snapshot import Look, RankLook

CONFIG = RunConfig()
BEHIND = flight(25, 25)


def still(seconds: float, limit: float = 10.0, phase: str = "train", begun: bool = True) -> Stillness:
    return Stillness(seconds=seconds, limit=limit, phase=phase, begun=begun)


def guilty(at: float, *odd: RankLook, silence: Stillness, earlier: float = 5.0) -> list[int] | None:
    looks = [look(at - earlier, *odd), look(at, *odd)]
    found = judge(silence, looks, 4, CONFIG).blame
    return None if found is None else found.ranks


ASLEEP = rank(2, users(6, "load_batch"), SLEEP, flight=BEHIND)


def test_a_silence_over_the_limit_with_two_identical_looks_is_a_hang() -> None:
    assert guilty(100.0, ASLEEP, silence=still(10.5)) == [2]


def test_no_silence_below_the_limit_is() -> None:
    assert guilty(100.0, ASLEEP, silence=still(9.5)) is None
    assert guilty(100.0, ASLEEP, silence=still(30.0, limit=40.0)) is None


def test_one_look_is_not_enough() -> None:
    assert guilty(100.0, ASLEEP, silence=still(60.0), earlier=2.0) is None


@pytest.mark.parametrize(
    ("function", "inner"),
    [
        ("evaluate", None),
        ("run_validation", None),
        ("save_checkpoint", None),
        ("forward", Frame(f"{SITE}/_dynamo/convert_frame.py", 5, "compile_inner")),
        ("forward", Frame(f"{SITE}/_inductor/codecache.py", 5, "load")),
        ("write", Frame(f"{SITE}/serialization.py", 900, "save")),
    ],
)
def test_a_stack_that_shows_a_long_phase_gets_its_grace(function: str, inner: Frame | None) -> None:
    odd = rank(0, users(70, function, *([inner] if inner else [])), SLEEP, flight=BEHIND)
    assert guilty(100.0, odd, silence=still(900.0)) is None
    assert guilty(100.0, odd, silence=still(1900.0)) == [0]


def test_a_function_that_holds_the_whole_loop_gives_no_grace() -> None:
    odd = rank(2, [*users(6, "load_batch")[:1], Frame("/home/u/t.py", 9, "train_and_evaluate")], SLEEP, flight=BEHIND)
    assert guilty(100.0, odd, silence=still(10.5)) == [2]


def test_what_cannot_resolve_by_itself_needs_no_grace_to_be_over() -> None:
    stopped = rank(1, users(33, "step"), STOPPED)
    assert guilty(100.0, stopped, silence=still(12.0, limit=1800.0, phase="eval")) == [1]


def test_stacks_that_move_are_a_sign_of_life() -> None:
    def moving(at: float, function: str) -> Look:
        return look(at, rank(2, users(6, function), RUNNING, flight=BEHIND))

    looks = [moving(95.0, "one"), moving(100.0, "two")]
    assert judge(still(60.0), looks, 4, CONFIG).blame is None
    found = judge(still(400.0), looks, 4, CONFIG).blame
    assert found is not None
    assert found.sure < 0.5


def test_unreadable_stacks_cost_patience_and_confidence() -> None:
    blind = RankLook(rank=2, host="n1", pid=102, activity=FUTEX, flight=BEHIND)
    looks = [look(95.0, blind), look(100.0, blind)]
    assert judge(still(20.0), looks, 4, CONFIG).blame is None
    found = judge(still(31.0), looks, 4, CONFIG).blame
    assert found is not None
    assert (found.ranks, found.doing) == ([2], "collective")
    assert found.sure < 0.5


@pytest.mark.parametrize(
    ("silence", "last", "due"),
    [
        (still(4.0), None, False),
        (still(4.6), None, True),
        (still(15.0, limit=40.0), None, False),
        (still(34.6, limit=40.0), None, True),
        (still(7.0), 98.0, False),
        (still(7.3), 97.0, True),
        (still(400.0, limit=600.0, phase="start", begun=False), 50.0, False),
        (still(400.0, limit=600.0, phase="start", begun=False), -5.0, True),
    ],
)
def test_looks_come_before_the_limit_and_become_rare_in_a_grace(
    silence: Stillness, last: float | None, due: bool
) -> None:
    assert next_look(silence, last, 100.0, 0.0) is due


def test_ranks_that_are_on_their_way_out_are_given_time() -> None:
    leaving = [rank(r, [], RUNNING, flight=BEHIND) for r in range(4)]
    assert guilty(100.0, *leaving, silence=still(60.0)) is None


def test_all_ranks_at_one_place_of_their_own_may_be_at_a_long_piece_of_work() -> None:
    together = [rank(r, users(6, "index"), RUNNING, flight=BEHIND) for r in range(4)]
    assert guilty(100.0, *together, silence=still(40.0)) is None
    assert guilty(100.0, *together, silence=still(61.0)) == [0, 1, 2, 3]
