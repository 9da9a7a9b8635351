"""How a run takes signals, sick disks, damaged checkpoints, lost ranks and lost numbers: real processes and faults."""

import contextlib
import json
import os
import resource
import signal
import subprocess
import sys
from pathlib import Path

import pytest
from needs import need

need("torch")

from trainer_runs import ROOT, SMALL, Run, curve, environment, finish, text  # noqa: E402 (after the check for torch)

pytestmark = [pytest.mark.torch, pytest.mark.slow]


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return text(tmp_path_factory.mktemp("data"))


def arguments(directory: Path, data: Path, *more: str) -> list[str]:
    kept = ["--checkpoint-dir", str(directory / "checkpoints"), "--log-file", str(directory / "log.jsonl")]
    return [*SMALL, "--data", str(data), *kept, *more]


def test_signals_save_one_and_go_on_then_save_one_and_leave(tmp_path: Path, data: Path) -> None:
    """SIGUSR1 and SIGTERM to one rank of two: both save the same step, and say with 143 that they are not done."""
    run = Run(tmp_path, 2, arguments(tmp_path, data, "--steps", "100000", "--checkpoint-every", "100000"))
    records = run.wait_step(3, ranks=2)
    latest = tmp_path / "checkpoints/latest"
    os.kill(records[1].pid, signal.SIGUSR1)
    run.wait_for(lambda _: latest.exists())
    first = int(latest.read_text().strip().removeprefix("step-"))
    asked = {rank: record.step for rank, record in run.ranks().items()}
    os.kill(records[1].pid, signal.SIGTERM)
    assert run.wait() == 1, "torchrun's own code for a rank that left with another than 0"
    assert "exitcode  : 143" in run.output.read_text()
    last = int(latest.read_text().strip().removeprefix("step-"))
    assert last > first
    assert last == curve(tmp_path / "log.jsonl")[-1][0], "the last step that was trained is the one saved"
    # The stated time: two steps and a save, and the steps that pass while the signal is on its way.
    assert last <= max(step or 0 for step in asked.values()) + 10
    phases = {record.phase for record in run.ranks().values()}
    assert phases == {"teardown"}


def test_sigterm_to_torchrun_is_handed_on_and_leaves_a_checkpoint(tmp_path: Path, data: Path) -> None:
    run = Run(tmp_path, 2, arguments(tmp_path, data, "--steps", "100000", "--checkpoint-every", "100000"))
    run.wait_step(2, ranks=2)
    run.process.send_signal(signal.SIGTERM)
    assert run.wait() != 0
    code, output = finish(tmp_path, 0, arguments(tmp_path, data, "--steps", "1"))
    assert code == 0
    assert output.startswith("resuming at step")


def test_a_run_without_a_launcher_leaves_with_143(tmp_path: Path, data: Path) -> None:
    run = Run(tmp_path, 0, arguments(tmp_path, data, "--steps", "100000"))
    run.wait_step(2)
    run.process.send_signal(signal.SIGTERM)
    assert run.wait() == 143
    assert (tmp_path / "checkpoints/latest").exists()


def test_damaged_checkpoints_are_passed_over_said_and_set_aside(tmp_path: Path, data: Path) -> None:
    options = arguments(tmp_path, data, "--checkpoint-every", "2")
    code, output = finish(tmp_path, 0, [*options, "--steps", "6"])
    assert code == 0, output
    whole = curve(tmp_path / "log.jsonl")
    checkpoints = tmp_path / "checkpoints"
    shard = checkpoints / "step-00000006/__0_0.distcp"
    content = bytearray(shard.read_bytes())
    content[len(content) // 2] ^= 1  # one bit of a weight: nothing but a checksum can tell
    shard.write_bytes(content)
    os.truncate(checkpoints / "step-00000004/.metadata", 100)
    code, output = finish(tmp_path, 0, [*options, "--steps", "6"])
    assert code == 0, output
    assert f"checkpoint {checkpoints}/step-00000006 is damaged (__0_0.distcp: its checksum is wrong)" in output
    assert f"checkpoint {checkpoints}/step-00000004 is damaged (.metadata: 100 bytes, " in output
    assert f"resuming at step 2 from {checkpoints}/step-00000002" in output
    assert curve(tmp_path / "log.jsonl") == whole, "trained again to the same numbers"
    assert sorted(path.name for path in checkpoints.glob("step-*")) == [
        "step-00000002",
        "step-00000004",
        "step-00000004.damaged",
        "step-00000006",
        "step-00000006.damaged",
    ]
    for path in checkpoints.glob("step-*[0-9]"):
        (path / "manifest.json").unlink()
    code, output = finish(tmp_path, 0, [*options, "--steps", "6"])
    assert code == 1
    assert "CheckpointDamagedError" in output.splitlines()[-1]
    assert output.splitlines()[-1].endswith("(cause storage.checkpoint)")


FULL_DISK = """
import resource, runpy, signal, sys
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
resource.setrlimit(resource.RLIMIT_FSIZE, (int(sys.argv.pop(1)), resource.RLIM_INFINITY))
sys.argv[0] = "trainer"
runpy.run_module("trainer", run_name="__main__", alter_sys=True)
"""


def test_a_full_disk_keeps_training_and_ends_it_at_the_limit(tmp_path: Path, data: Path) -> None:
    """A file-size limit refuses what a full disk refuses. Five saves fail, the run goes on; the sixth ends it."""
    options = arguments(tmp_path, data, "--steps", "50", "--checkpoint-every", "5", "--checkpoint-failures", "6")
    done = subprocess.run(
        [sys.executable, "-c", FULL_DISK, str(1 << 20), *options],
        env=environment(),
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert done.returncode == 1, done.stdout + done.stderr
    lines = curve(tmp_path / "log.jsonl")
    assert lines[-1][0] >= 30, "it trained on while saves failed"
    assert "checkpoint failed (1 in a row, 5 more end the run): " in done.stdout
    assert "checkpoint failed (6 in a row, 0 more end the run): " in done.stdout
    last = done.stderr.splitlines()[-1]
    assert last.startswith(f"trainer: CheckpointDiskFullError: {tmp_path}/checkpoints: 6 saves in a row failed")
    assert last.endswith("(cause storage.disk_full)")
    assert list((tmp_path / "checkpoints").glob("step-*")) == [], "nothing half written is left"
    assert resource.getrlimit(resource.RLIMIT_FSIZE)[0] != 1 << 20


def test_a_directory_that_cannot_be_made_stops_no_step_and_is_no_success(tmp_path: Path, data: Path) -> None:
    (tmp_path / "checkpoints").write_text("a file stands in the way")
    code, output = finish(tmp_path, 0, arguments(tmp_path, data, "--steps", "4", "--checkpoint-every", "3"))
    assert "checkpoint directory cannot be used for now, training goes on" in output
    assert [step for step, *_ in curve(tmp_path / "log.jsonl")] == [1, 2, 3, 4]
    assert code == 1, "all steps are done and none of them is kept"
    assert output.splitlines()[-1].endswith("step 4 is trained and could not be saved (cause storage.filesystem)")


def test_numbers_that_are_lost_for_good_end_the_run_typed(tmp_path: Path, data: Path) -> None:
    """A learning rate of 1e30 is a real divergence. torchelastic's error file has the same words."""
    lost = ["--steps", "50", "--rate", "1e30", "--warmup-steps", "1", "--bad-steps", "3"]
    file = tmp_path / "error.json"
    code, output = finish(tmp_path, 0, arguments(tmp_path, data, *lost), TORCHELASTIC_ERROR_FILE=str(file))
    assert code == 1
    last = output.splitlines()[-1]
    assert last.startswith("trainer: NonFiniteError: step ")
    assert last.endswith("the update was skipped (3 in a row) (cause program.numerics)")
    message = json.loads(file.read_text())["message"]["message"]
    assert message == last.removeprefix("trainer: ")


def test_a_rank_that_stands_still_is_noticed_in_the_short_time(tmp_path: Path, data: Path) -> None:
    """Until the first step ends a collective may take half an hour; from then on four seconds here."""
    run = Run(tmp_path, 2, arguments(tmp_path, data, "--steps", "100000", "--step-timeout", "4"))
    records = run.wait_step(3, ranks=2)
    os.kill(records[1].pid, signal.SIGSTOP)
    try:
        assert run.wait(60) == 1
    finally:
        with contextlib.suppress(ProcessLookupError):
            os.kill(records[1].pid, signal.SIGKILL)
    said = [words for words in run.output.read_text().splitlines() if words.startswith("trainer: ")]
    assert said[0].startswith("trainer: CollectiveTimeoutError: ")
    assert said[0].endswith("(cause net.collective_timeout)")


def test_missing_data_is_named_on_every_rank_and_nobody_waits(tmp_path: Path) -> None:
    code, output = finish(tmp_path, 2, [*SMALL, "--data", "/nowhere", "--steps", "3"])
    assert code == 1
    error = "trainer: DataMissingError: /nowhere: no such directory of training data (cause data.missing)"
    assert output.splitlines().count(error) == 2


def test_every_block_recomputed_evaluated_and_fingerprinted(tmp_path: Path, data: Path) -> None:
    """Activation checkpointing changes memory, not one bit of a loss; evaluation changes neither."""
    plain = arguments(tmp_path, data, "--steps", "4", "--eval-every", "2", "--eval-batches", "2")
    code, output = finish(tmp_path, 0, plain)
    assert code == 0, output
    lines = [json.loads(line) for line in (tmp_path / "log.jsonl").read_text().splitlines()]
    assert [line["step"] for line in lines if "eval_loss" in line] == [2, 4]
    assert 4 < lines[3]["eval_loss"] < 7
    (record,) = [json.loads(line) for line in (tmp_path / "checkpoints/fingerprint.jsonl").read_text().splitlines()]
    assert record["software"]["python"] == sys.version.split()[0]
    assert record["data"].startswith("bytes:")
    assert record["git"] == {"commit": None, "dirty": None}
    assert len(record["nodes"]) == 1
    other = tmp_path / "recomputed"
    other.mkdir()
    options = arguments(other, data, "--steps", "4", "--eval-every", "2", "--eval-batches", "2")
    code, output = finish(other, 0, [*options, "--activation-checkpoint", "--micro-batch", "4"])
    assert code == 0, output
    assert curve(other / "log.jsonl") == curve(tmp_path / "log.jsonl")


def test_it_runs_where_nothing_of_the_house_is_beside_it() -> None:
    """The trainer imports none of the other packages: only its own and torch's."""
    code = (
        "import sys, trainer.train\n"
        "print(sorted({name.split('.')[0] for name in sys.modules} & {'checks', 'classifiers', 'daemons', 'msgspec'}))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=ROOT, check=False)
    assert (done.returncode, done.stdout) == (0, "[]\n"), done.stderr
