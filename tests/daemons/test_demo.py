"""The demonstration's story: what is told, in which order, with which times."""

import pytest

from daemons.demo.story import Chapter, Story, of_job, resumed_at, steps_of, verdict_text


def test_times_are_since_the_start_until_there_is_a_fault_and_since_the_fault_from_then_on() -> None:
    story = Story(began=100.0)
    assert story.happened(Chapter.TRAINING, 109.25)
    assert story.line(Chapter.TRAINING, "first step done") == "  start +  9.2 s  training   first step done"
    assert story.happened(Chapter.FAULT, 115.0)
    assert story.happened(Chapter.DETECTED, 115.5)
    assert not story.happened(Chapter.DETECTED, 130.0)
    assert story.line(Chapter.DETECTED, "x") == "  fault +  0.5 s  detected   x"
    assert story.summary() == "the demonstration was ended before its story was"
    story.happened(Chapter.RESTARTED, 127.0)
    story.happened(Chapter.FINISHED, 140.0)
    assert story.summary() == (
        "one rank was killed: detected after 0.5 s, restarted after 12.0 s, finished after 25.0 s; 40 s in all"
    )


def test_steps_done_twice_are_seen_and_half_a_line_is_not_there_yet() -> None:
    log = '{"step": 9, "loss": 3.5}\n{"step": 10, "loss": 3.4}\n{"step": 11, "lo'
    assert steps_of(log) == [9, 10]
    assert steps_of("") == []


@pytest.mark.parametrize(
    ("steps", "at"),
    [([9, 10, 11, 12, 13], None), ([9, 10], None), ([], None), ([9, 10, 11], 11), ([9, 10, 11, 12, 13, 14], 11)],
)
def test_training_goes_on_once_a_step_after_the_checkpoint_is_done_anew(steps: list[int], at: int | None) -> None:
    assert resumed_at(steps, killed_at=13, checkpoint=10) == at


@pytest.mark.parametrize(
    ("verdict", "said"),
    [
        (
            {"kind": "failed", "cause": "host.preempted", "ranks": [1], "host": "n1"},
            "failed: host.preempted, rank 1 on n1",
        ),
        ({"kind": "stuck", "cause": "unknown", "ranks": [], "host": ""}, "stuck: unknown, no rank on this machine"),
    ],
)
def test_a_verdict_in_a_few_words(verdict: dict[str, object], said: str) -> None:
    assert verdict_text(verdict) == said


def test_the_incident_of_the_job_is_found_among_others() -> None:
    other = {"id": "a", "members": [{"component": "gpu/3"}]}
    mine = {"id": "b", "members": [{"component": "job/demo-7/rank/1"}]}
    assert of_job([other, mine], "demo-7") is mine
    assert of_job([other], "demo-7") is None
