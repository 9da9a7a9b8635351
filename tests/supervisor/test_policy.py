"""Restart decisions: every way an attempt can end, with and without progress."""

import pytest

from daemons.supervisor.config import RunConfig
from daemons.supervisor.policy import DO_NOT_REQUEUE, Decision, Memory, backoff, decide, remember, used_restart
from daemons.supervisor.record import Verdict

PYTHON = Verdict(kind="failed", cause="program.python", ranks=[1], host="n1", file="train.py", line=7)
LINK = Verdict(kind="failed", cause="net.infiniband", ranks=[1], host="n1")
CONFIG = RunConfig(max_restarts=10, backoff=1.0, backoff_limit=8.0)


def after(endings: list[tuple[Verdict, bool]], config: RunConfig = CONFIG) -> list[Decision]:
    """The decisions on attempts that ended so, one after another, as long as the job is started again."""
    memory, decisions = Memory(), []
    for verdict, progressed in endings:
        memory = remember(memory, verdict, progressed)
        decisions.append(decide(memory, verdict, 1, config))
        if not decisions[-1].restart:
            break
        memory = used_restart(memory)
    return decisions


def test_finished_and_stopped_jobs_are_not_started_again() -> None:
    assert after([(Verdict(kind="finished"), True)]) == [Decision(restart=False, exit=0, why="finished")]
    assert after([(Verdict(kind="stopped"), True)]) == [Decision(restart=False, exit=1, why="stopped as asked")]


def test_a_program_error_that_comes_back_without_progress_is_tried_once_more_only() -> None:
    decisions = after([(PYTHON, False)] * 5)
    assert [d.restart for d in decisions] == [True, False]
    assert decisions[-1].exit == DO_NOT_REQUEUE
    assert decisions[-1].why == (
        "the same program.python at train.py:7 again, without progress: a restart cannot mend it"
    )


def test_a_program_error_after_progress_is_counted_anew() -> None:
    assert [d.restart for d in after([(PYTHON, False), (PYTHON, True), (PYTHON, True), (PYTHON, False)])] == [
        True,
        True,
        True,
        False,
    ]


def test_three_strikes_of_one_cause_end_it() -> None:
    decisions = after([(LINK, False)] * 5)
    assert [d.restart for d in decisions] == [True, True, False]
    assert decisions[-1].exit == DO_NOT_REQUEUE


def test_progress_resets_strikes() -> None:
    assert all(d.restart for d in after([(LINK, False), (LINK, False), (LINK, True), (LINK, False)]))


def test_exit_93_of_the_job_is_obeyed() -> None:
    memory = remember(Memory(), LINK, False)
    assert decide(memory, LINK, 93, CONFIG).exit == 93
    assert not decide(memory, LINK, 93, CONFIG).restart


def test_restarts_are_bounded_even_with_progress() -> None:
    config = RunConfig(max_restarts=2)
    decisions = after([(LINK, True)] * 5, config)
    assert [d.restart for d in decisions] == [True, True, False]
    assert (decisions[-1].exit, decisions[-1].why) == (1, "all 2 restarts are used up")


@pytest.mark.parametrize(("in_a_row", "wait"), [(0, 0.0), (1, 1.0), (2, 2.0), (3, 4.0), (4, 8.0), (5, 8.0), (400, 8.0)])
def test_backoff_doubles_up_to_its_limit(in_a_row: int, wait: float) -> None:
    assert backoff(in_a_row, CONFIG) == wait


def test_a_host_is_counted_only_for_what_hosts_do() -> None:
    memory = remember(remember(Memory(), LINK, False), PYTHON, False)
    assert memory.hosts == {"n1": 1}
