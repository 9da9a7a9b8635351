"""The small decisions of the trainer: when to save, when the loss is lost, what to keep, what to say."""

import io
import itertools
import json
import math
from collections.abc import Iterator
from pathlib import Path
from typing import cast

import pytest
from needs import need

need("torch")

import torch  # noqa: E402 (after the check for torch)
from torch.distributed import ProcessGroup  # noqa: E402
from torch.distributed.device_mesh import DeviceMesh  # noqa: E402

from trainer import errors, metrics  # noqa: E402
from trainer.checkpoint import Checkpoints, checksum, steps, superseded, write_durably  # noqa: E402
from trainer.config import Every, parse  # noqa: E402
from trainer.distributed import World  # noqa: E402
from trainer.fingerprint import environment, git  # noqa: E402
from trainer.interval import FIRST_AUTO, Interval, daly  # noqa: E402
from trainer.numerics import Numerics  # noqa: E402
from trainer.progress import Figures, Reporter, Step, line  # noqa: E402
from trainer.rate import rate  # noqa: E402

DAY = 86_400.0


# When to save


def test_dalys_interval_has_youngs_as_its_first_term() -> None:
    assert daly(30.0, DAY) == pytest.approx(math.sqrt(2 * 30 * DAY), rel=0.01)
    # By hand: sqrt(2*60*7200) = 929.516; ratio 60/14400; 929.516*(1 + 0.0645497/3 + 0.0041667/9) - 60.
    assert daly(60.0, 7200.0) == pytest.approx(889.947, abs=0.01)
    assert daly(100.0, 50.0) == 50.0, "where a save costs more than there is between failures, one between failures"


def test_steps_are_due_by_the_step_and_never_by_the_clock() -> None:
    rule = Interval(every=Every(steps=10), between_failures=DAY)
    assert [step for step in range(1, 31) if rule.step_due(step)] == [10, 20, 30]
    assert not rule.time_due(1e9, 0.0, 1.0, 1.0)


def test_seconds_are_due_by_the_clock() -> None:
    rule = Interval(every=Every(seconds=90), between_failures=DAY)
    assert not rule.step_due(90)
    assert [rule.time_due(now, 100.0, 1.0, 1.0) for now in (189.9, 190.0)] == [False, True]


def test_auto_measures_first_then_takes_the_least_loss_but_not_more_than_it_can_write() -> None:
    rule = Interval(every=Every(), between_failures=DAY)
    assert rule.seconds(0.0, 0.0) == FIRST_AUTO
    assert rule.seconds(0.5, 20.0) == pytest.approx(daly(0.5, DAY))
    assert rule.seconds(0.001, 300.0) == 600.0
    assert rule.seconds(1e-9, 0.1) == 10.0


# When the loss is lost


def follow(numerics: Numerics, losses: list[float]) -> Iterator[str | None]:
    for step, loss in enumerate(losses, 1):
        yield numerics.follow(step, loss, 1.0)


def test_not_finite_steps_are_said_and_end_the_run_only_in_a_row() -> None:
    numerics = Numerics(3, 3.0)
    said = list(follow(numerics, [2.0, math.nan, math.inf, 2.0, math.nan]))
    assert said[0] is None
    assert said[1] == "step 2: loss nan grad_norm 1.0, the update was skipped (1 in a row)"
    assert said[4] == "step 5: loss nan grad_norm 1.0, the update was skipped (1 in a row)"
    assert numerics.follow(6, 2.0, math.inf) == "step 6: loss 2.0 grad_norm inf, the update was skipped (2 in a row)"
    with pytest.raises(errors.NonFiniteError) as lost:
        numerics.follow(7, math.nan, math.nan)
    assert str(lost.value) == (
        "step 7: loss nan grad_norm nan, the update was skipped (3 in a row) (cause program.numerics)"
    )


def test_spikes_are_measured_against_the_recent_level_and_do_not_raise_it() -> None:
    numerics = Numerics(2, 3.0)
    assert list(follow(numerics, [9.0, 2.0, 2.0, 2.0, 2.0, 2.0, 2.0, 2.0])) == [None] * 8
    assert numerics.follow(9, 6.0, 1.0) is None, "three times the level is not above it"
    assert numerics.follow(10, 6.1, 1.0) == "step 10: loss 6.1000 is over 3 times the recent 2.0000 (1 in a row)"
    assert numerics.follow(11, 2.0, 1.0) is None
    assert numerics.follow(12, 70.0, 1.0) is not None
    with pytest.raises(errors.LossSpikeError):
        numerics.follow(13, 70.0, 1.0)


def test_the_first_steps_have_no_level_to_spike_from() -> None:
    assert list(follow(Numerics(1, 3.0), [0.1, 50.0, 0.1, 50.0])) == [None] * 4


# What to keep


def test_the_newest_and_every_nth_are_kept(tmp_path: Path) -> None:
    for step in (10, 20, 30, 40, 50, 60):
        (tmp_path / f"step-{step:08}").mkdir()
    for name in ("step-00000070.partial", "step-00000005.damaged", "lock"):
        (tmp_path / name).mkdir()
    assert steps(tmp_path) == [10, 20, 30, 40, 50, 60]
    assert [path.name for path in superseded(tmp_path, 2, 0)] == [f"step-{s:08}" for s in (10, 20, 30, 40)]
    assert [path.name for path in superseded(tmp_path, 2, 20)] == ["step-00000010", "step-00000030"]
    assert superseded(tmp_path, 6, 0) == []


def alone() -> World:
    """A world of one, whose rank needs no group to ask itself."""
    return World(
        rank=0,
        local_rank=0,
        size=1,
        local_size=1,
        device=torch.device("cpu"),
        mesh=cast(DeviceMesh, None),
        control=cast(ProcessGroup, None),
        saves=cast(ProcessGroup, None),
    )


def test_a_directory_that_another_run_holds_is_refused(tmp_path: Path) -> None:
    first = Checkpoints(tmp_path, alone(), 2, 0, 1, print)
    first.open()
    now = itertools.count(0.0, 15.0)
    second = Checkpoints(tmp_path, alone(), 2, 0, 1, print, clock=lambda: next(now))
    with pytest.raises(errors.CheckpointBusyError, match=f"--checkpoint-dir {tmp_path}: another run is writing there"):
        second.open()
    first.close()
    third = Checkpoints(tmp_path, alone(), 2, 0, 1, print)
    third.open()
    third.close()


def test_opening_clears_what_an_interrupted_save_left(tmp_path: Path) -> None:
    for name in ("step-00000010", "step-00000020.partial", "step-00000010.old", "step-00000005.damaged"):
        (tmp_path / name).mkdir()
    made = Checkpoints(tmp_path, alone(), 2, 0, 1, print)
    made.open()
    made.close()
    assert sorted(path.name for path in tmp_path.iterdir()) == ["lock", "step-00000005.damaged", "step-00000010"]


def test_a_run_must_not_end_as_if_its_last_step_were_saved(tmp_path: Path) -> None:
    made = Checkpoints(tmp_path, alone(), 2, 0, 1, print, saved=20)
    made.require(20)
    with pytest.raises(errors.CheckpointTargetError, match="step 21 is trained and could not be saved"):
        made.require(21)


def test_a_durable_write_replaces_whole_and_leaves_nothing_beside(tmp_path: Path) -> None:
    write_durably(tmp_path / "latest", "one\n")
    write_durably(tmp_path / "latest", "two\n")
    assert [path.name for path in tmp_path.iterdir()] == ["latest"]
    assert (tmp_path / "latest").read_text() == "two\n"
    # The check value of CRC-32 (ISO-HDLC), published with the algorithm.
    (tmp_path / "check").write_bytes(b"123456789")
    assert checksum(tmp_path / "check") == (9, 0xCBF43926)


# The learning rate


def test_the_rate_warms_up_and_stays_unless_told_to_decay() -> None:
    level = parse(["--rate", "1", "--warmup-steps", "4"])
    assert [rate(step, level) for step in (1, 2, 4, 5, 10**6)] == [0.25, 0.5, 1.0, 1.0, 1.0]
    falling = parse(["--rate", "1", "--warmup-steps", "4", "--decay-steps", "12"])
    assert [round(rate(step, falling), 6) for step in (4, 8, 12, 100)] == [1.0, 0.55, 0.1, 0.1]


# What is said

STEP = Step(step=3, loss=2.5, grad_norm=1.25, tokens=1536, step_seconds=0.05, data_seconds=0.001)
FIGURES = Figures(tokens_per_second=10240.0, mfu=None, data_share=0.02, memory=2**30, stall=0.0)


def test_a_step_is_one_json_object_with_the_keys_of_the_contract() -> None:
    assert json.loads(STEP.json()) == {
        "step": 3,
        "loss": 2.5,
        "grad_norm": 1.25,
        "tokens": 1536,
        "step_seconds": 0.05,
        "data_seconds": 0.001,
    }
    bad = Step(step=4, loss=math.nan, grad_norm=math.inf, tokens=1, step_seconds=1.0, data_seconds=0.0)
    assert (json.loads(bad.json())["loss"], json.loads(bad.json())["grad_norm"]) == (None, None)


def test_a_line_says_unknown_and_never_guesses() -> None:
    assert line(STEP, 40, FIGURES) == (
        "step 3/40 loss 2.5000 grad_norm 1.250 50 ms 10,240 tokens/s mfu unknown data 2.0% memory 1.00 GiB"
    )


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def test_plain_lines_come_every_five_seconds_and_a_terminal_has_a_bar() -> None:
    now = [0.0]
    plain, terminal = io.StringIO(), Terminal()
    for out in (plain, terminal):
        reporter = Reporter(None, 3, out, lambda: now[0])
        for now[0], number in ((0.0, 1), (1.0, 2), (2.0, 3)):
            reporter.show(Step(step=number, loss=2.5, grad_norm=1.0, tokens=1, step_seconds=1, data_seconds=0), FIGURES)
    assert [text.split()[1] for text in plain.getvalue().splitlines()] == ["1/3", "3/3"], "the first and the last"
    assert terminal.getvalue().count("\r\x1b[K[") == 3
    assert terminal.getvalue().endswith("GiB\n")


def test_resuming_moves_the_lines_that_are_trained_again(tmp_path: Path) -> None:
    log = tmp_path / "log.jsonl"
    lines = [f'{{"step": {step}}}\n' for step in (1, 2, 3)]
    log.write_text("".join(lines) + '{"step": 4, "lo')
    Reporter(log, 9).begin(2)
    assert log.read_text() == "".join(lines[:2])
    assert (tmp_path / "log.jsonl.superseded").read_text() == lines[2] + '{"step": 4, "lo'


def test_a_log_that_cannot_be_written_is_said_once(tmp_path: Path) -> None:
    out = io.StringIO()
    (tmp_path / "file").write_text("")
    reporter = Reporter(tmp_path / "file" / "log", 9, out)
    reporter.begin(0)
    reporter.steps([STEP])
    assert len(out.getvalue().splitlines()) == 1
    assert "cannot be written, training goes on without it" in out.getvalue()


# Figures


def test_mfu_is_the_share_of_a_published_peak_or_nothing() -> None:
    assert metrics.mfu(989e12 / 6e9 / 2, 6e9, "NVIDIA H100 80GB HBM3", 1) == pytest.approx(0.5)
    assert metrics.mfu(989e12 / 6e9, 6e9, "NVIDIA H100 80GB HBM3", 8) == pytest.approx(1 / 8)
    assert metrics.mfu(1e6, 6e9, "NVIDIA H100", 1) is None
    assert metrics.mfu(1e6, 6e9, metrics.device_name(torch.device("cpu")), 1) is None


# Errors


@pytest.mark.parametrize(
    ("error", "cause"),
    [
        (RuntimeError("[gloo/transport/tcp/unbound_buffer.cc:81] Timed out waiting 5000ms"), "net.collective_timeout"),
        (RuntimeError("[../gloo/transport/tcp/pair.cc:534] Connection closed by peer [127.0.0.1]:5"), "net.peer_lost"),
        (OSError(28, "No space left on device"), "storage.disk_full"),
        (torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2 GiB"), "gpu.out_of_memory"),
        (errors.DataMissingError("x"), "data.missing"),
        (RuntimeError("mat1 and mat2 shapes cannot be multiplied"), None),
        (OSError(5, "Input/output error"), None),
    ],
)  # fmt: skip
def test_what_torch_raises_gets_its_cause_and_nothing_is_guessed(error: BaseException, cause: str | None) -> None:
    known = errors.typed(error)
    assert (known.cause if known is not None else None) == cause


def test_every_error_has_a_cause_of_the_vocabulary() -> None:
    domains = {"gpu", "net", "storage", "host", "data", "program"}
    kinds = [kind for kind in vars(errors).values() if isinstance(kind, type) and issubclass(kind, errors.TrainerError)]
    assert len(kinds) > 10
    assert {kind.__name__ for kind in kinds if kind.cause.split(".")[0] not in domains} == {"TrainerError"}


# Fingerprint


def test_the_fingerprint_tells_what_matters_and_no_secret() -> None:
    found = environment(
        {
            "NCCL_DEBUG": "INFO",
            "SLURM_JOB_ID": "8",
            "MUSTER_TOKEN": "abc",
            "NCCL_PROXY": "http://user:pw@proxy:80/",
            "AWS_SECRET_ACCESS_KEY": "abc",
            "HOME": "/root",
        }
    )
    assert found == {
        "MUSTER_TOKEN": "***",
        "NCCL_DEBUG": "INFO",
        "NCCL_PROXY": "http://***@proxy:80/",
        "SLURM_JOB_ID": "8",
    }


def test_outside_a_work_tree_the_commit_is_not_known(tmp_path: Path) -> None:
    assert git(tmp_path) == {"commit": None, "dirty": None}
