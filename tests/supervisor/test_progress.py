"""What is learnt of a job's habits, and what never is."""

import pytest
from job_looks import sample

from daemons.supervisor.config import RunConfig
from daemons.supervisor.progress import Progress, Stillness, phase_of, turns
from daemons.supervisor.snapshot import HostSample

CONFIG = RunConfig()


class Player:
    """Plays a job to Progress, a second at a time."""

    def __init__(self) -> None:
        self.now = 1000.0
        self.progress = Progress(CONFIG, self.now)
        self.last: Stillness | None = None

    def second(self, *hosts: HostSample) -> Stillness:
        self.now += 1.0
        self.last = self.progress.see(self.now, hosts)
        return self.last

    def steps(self, first: int, count: int, seconds: float) -> Stillness:
        """Steps of that length, seen once a second."""
        found = None
        for tick in range(int(count * seconds)):
            done = int((tick + 1) / seconds)
            found = self.second(sample(first + done, age=(tick + 1) - done * seconds))
        assert found is not None
        return found


@pytest.mark.parametrize(("seconds", "limit"), [(0.05, 10.0), (1.0, 10.0), (5.0, 20.0), (60.0, 240.0)])
def test_the_limit_is_four_medians_and_never_below_ten_seconds(seconds: float, limit: float) -> None:
    player = Player()
    assert player.steps(0, 10 if seconds > 1 else 200, seconds).limit == pytest.approx(limit, rel=0.02)


def test_before_training_has_begun_the_start_has_its_grace() -> None:
    player = Player()
    still = player.second(sample())
    assert (still.phase, still.limit, still.begun) == ("start", CONFIG.start_grace, False)


def test_a_first_step_a_hundred_times_slower_is_not_what_steps_are_like() -> None:
    player = Player()
    player.second(sample(0))
    for tick in range(100):
        player.second(sample(0, age=tick + 1.0))
    assert player.steps(1, 30, 1.0).limit == 10.0


def test_growing_steps_take_the_limit_along() -> None:
    player, step = Player(), 0
    seconds = 3.0
    while seconds < 40:
        for _ in range(8):
            for tick in range(int(seconds)):
                still = player.second(sample(step, age=float(tick)))
                assert still.seconds < still.limit or not still.begun
            step += 1
        seconds *= 1.3
    assert player.last is not None
    assert player.last.limit > 60


@pytest.mark.parametrize("phase", ["eval", "checkpoint", "compile", "validation", "save_ckpt"])
def test_long_phases_have_their_own_grace_even_around_inner_ones(phase: str) -> None:
    player = Player()
    player.steps(0, 60, 1.0)
    for tick in range(300):
        still = player.second(sample(60, phases=("train", phase), age=float(tick)))
    assert still.limit == 1800.0


def test_an_expired_outer_phase_is_not_masked_by_inner_ones_that_come_and_go() -> None:
    player = Player()
    player.steps(0, 60, 1.0)
    for tick in range(30):
        still = player.second(sample(60, phases=("train", f"attempt-{tick}"), age=float(tick)))
    assert still.seconds > still.limit


def test_a_hang_is_never_learnt() -> None:
    player = Player()
    limit = player.steps(0, 60, 1.0).limit
    for tick in range(100):
        player.second(sample(59, age=float(tick)))
    for tick in range(30):
        still = player.second(sample(60 + tick))
    assert still.limit == limit


def test_a_rank_that_was_started_anew_brings_nothing_with_it() -> None:
    player = Player()
    player.steps(0, 60, 1.0)
    import msgspec

    host = sample(3)
    anew = msgspec.structs.replace(host, ranks=[msgspec.structs.replace(r, pid=r.pid + 500) for r in host.ranks])
    still = player.second(anew)
    assert (still.begun, still.phase) == (False, "start")


def test_collectives_that_are_counted_on_are_progress_without_a_beat() -> None:
    player = Player()
    for tick in range(20):
        still = player.second(sample(collectives={"0": 10 * tick}))
    assert still.seconds == 0.0
    for _ in range(7):
        still = player.second(sample(collectives={"0": 189}))
    assert still.seconds == 7.0


def test_a_pause_by_the_operator_is_nobodys_silence() -> None:
    player = Player()
    player.steps(0, 60, 1.0)
    for tick in range(600):
        still = player.second(sample(60, age=float(tick), paused=True))
        assert still.paused
    assert player.second(sample(60, age=600.0)).seconds < 2.0


def test_a_job_stopped_as_a_whole_is_paused_too() -> None:
    player = Player()
    assert player.second(sample(1, state="T")).paused


def test_time_in_which_the_supervisor_itself_was_stopped_does_not_count() -> None:
    player = Player()
    player.steps(0, 60, 1.0)
    player.now += 3600
    assert player.second(sample(59, age=3600.0)).seconds < 3.0


@pytest.mark.parametrize(
    ("names", "phase"),
    [
        ((), "train"),
        (("train", "data"), "train"),
        (("train", "evaluate"), "eval"),
        (("train", "checkpoint", "upload"), "checkpoint"),
        (("setup",), "start"),
    ],
)
def test_phase_names(names: tuple[str, ...], phase: str) -> None:
    assert phase_of(names) == phase


def test_turns_take_the_rarest_reduction_that_repeats_for_the_step() -> None:
    layers = [step + layer * 0.01 for step in (0.0, 2.0, 4.0, 6.0) for layer in range(8)]
    assert turns({"layer": layers, "head": [0.5, 2.5, 4.5, 6.5], "once": [0.1]}) == (32, 2.0)
    assert turns({"a": [0.0, 1.0]}) == (2, 0.0)
