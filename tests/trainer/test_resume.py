"""A run that was cut off and resumed is the run that was not, to the last bit of every loss."""

import json
from pathlib import Path

import pytest
from needs import need

need("torch")

from trainer_runs import SMALL, Run, curve, finish, text  # noqa: E402 (after the check for torch)

pytestmark = [pytest.mark.torch, pytest.mark.slow]


def arguments(directory: Path, data: Path, *more: str) -> list[str]:
    kept = ["--checkpoint-dir", str(directory / "checkpoints"), "--log-file", str(directory / "log.jsonl")]
    return [*SMALL, "--data", str(data), *kept, *more]


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return text(tmp_path_factory.mktemp("data"))


@pytest.fixture(scope="module")
def unbroken(tmp_path_factory: pytest.TempPathFactory, data: Path) -> list[tuple[int, float, float, int]]:
    """Forty steps on two ranks in one go: more than a pass over the data."""
    directory = tmp_path_factory.mktemp("unbroken")
    code, output = finish(directory, 2, arguments(directory, data, "--steps", "40", "--checkpoint-every", "40"))
    assert code == 0, output
    lines = curve(directory / "log.jsonl")
    assert [step for step, *_ in lines] == list(range(1, 41))
    assert lines[-1][1] < lines[0][1] - 1, "it learns"
    return lines


def test_forty_steps_equal_twenty_kill_9_and_twenty(
    tmp_path: Path, data: Path, unbroken: list[tuple[int, float, float, int]]
) -> None:
    options = arguments(tmp_path, data, "--steps", "40", "--checkpoint-every", "10")
    run = Run(tmp_path, 2, options)
    run.wait_step(21, ranks=2)
    run.kill()
    before = curve(tmp_path / "log.jsonl")
    code, output = finish(tmp_path, 2, options)
    assert code == 0, output
    assert "resuming at step" in output
    assert curve(tmp_path / "log.jsonl") == unbroken
    assert before == unbroken[: len(before)]
    assert (tmp_path / "checkpoints/latest").read_text() == "step-00000040\n"


def test_a_resumed_run_on_one_rank_sees_the_same_samples(
    tmp_path: Path, data: Path, unbroken: list[tuple[int, float, float, int]]
) -> None:
    code, output = finish(tmp_path, 2, arguments(tmp_path, data, "--steps", "20", "--checkpoint-every", "20"))
    assert code == 0, output
    code, output = finish(tmp_path, 0, arguments(tmp_path, data, "--steps", "40", "--workers", "3"))
    assert code == 0, output
    assert "(saved by 2 ranks)" in output
    mine = curve(tmp_path / "log.jsonl")
    assert mine[:20] == unbroken[:20]
    # Other ranks, other order of the sums: the same numbers to fp32, where another sample would be off by tenths.
    assert [loss for _, loss, _, _ in mine[20:]] == pytest.approx([loss for _, loss, _, _ in unbroken[20:]], abs=2e-3)
    facts = json.loads((tmp_path / "checkpoints/step-00000040/manifest.json").read_text())["facts"]
    assert (facts["step"], facts["samples"], facts["tokens"], facts["world_size"]) == (40, 160, 40 * 4 * 16, 1)
