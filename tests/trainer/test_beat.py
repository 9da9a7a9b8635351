"""The beat: what a rank says is read whole, survives full disks and forks, and costs nothing where nobody asked."""

import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from trainer.beat import muster_beat
from trainer.beat.muster_beat import Beat, read, read_file

BEAT_DIRECTORY = Path(muster_beat.__file__).parent


class Clock:
    def __init__(self) -> None:
        self.now = 100.0

    def __call__(self) -> float:
        return self.now


def job(code: str, directory: Path | None, **environ: str) -> subprocess.CompletedProcess[str]:
    """Run `code` as a user's process would: a bare interpreter with only the beat's directory on its path."""
    env = {"PATH": os.environ["PATH"], "PYTHONPATH": str(BEAT_DIRECTORY), **environ}
    if directory is not None:
        env["MUSTER_BEAT_DIR"] = str(directory)
    return subprocess.run(
        [sys.executable, "-c", code], env=env, capture_output=True, text=True, timeout=60, check=False
    )


def test_everything_said_is_read_back(tmp_path: Path) -> None:
    clock = Clock()
    beat = Beat(tmp_path, rank=5, world_size=8, clock=clock, wall=lambda: 1700000000.0)
    clock.now = 101.0
    beat.beat(step=7, phase="train", tokens=4096, loss=2.5, step_seconds=0.25, data_seconds=0.01)
    clock.now = 102.0
    beat.beat()
    record = read(tmp_path)[5]
    assert (record.rank, record.pid, record.world_size) == (5, os.getpid(), 8)
    assert (record.step, record.tokens, record.loss) == (7, 4096, 2.5)
    assert (record.step_seconds, record.data_seconds) == (0.25, 0.01)
    assert (record.phase, record.phases) == ("train", ("train",))
    assert (record.started, record.step_changed, record.phase_changed, record.changed) == (100.0, 101.0, 101.0, 102.0)
    assert record.time == 1700000000.0
    assert record.beats == 2


def test_what_was_never_said_is_none_and_not_zero(tmp_path: Path) -> None:
    Beat(tmp_path, rank=0).beat(phase="start")
    record = read(tmp_path)[0]
    assert (record.step, record.tokens, record.loss, record.step_seconds, record.data_seconds) == (None,) * 5


def test_a_nan_loss_is_a_value(tmp_path: Path) -> None:
    Beat(tmp_path, rank=0).beat(step=0, loss=float("nan"))
    record = read(tmp_path)[0]
    assert record.step == 0
    assert record.loss is not None
    assert record.loss != record.loss


def test_phases_nest_and_a_failing_one_is_left(tmp_path: Path) -> None:
    beat = Beat(tmp_path, rank=0)
    beat.beat(phase="train")
    with beat.phase("eval"), beat.phase("checkpoint"):
        assert read(tmp_path)[0].phases == ("train", "eval", "checkpoint")
        assert read(tmp_path)[0].phase == "checkpoint"
    with pytest.raises(KeyError), beat.phase("eval"):
        raise KeyError("x")
    assert read(tmp_path)[0].phases == ("train",)


def test_spans_are_one_json_line_a_phase(tmp_path: Path) -> None:
    clock = Clock()
    beat = Beat(tmp_path, rank=3, spans=True, clock=clock, wall=lambda: 1700000000.0)
    beat.beat(phase="start")
    clock.now = 104.5
    beat.beat(step=1, phase="train")
    with pytest.raises(OSError, match="gone"), beat.phase("checkpoint"):
        clock.now = 106.0
        raise OSError("gone")
    lines = [json.loads(line) for line in (tmp_path / "rank-00003.spans.jsonl").read_text().splitlines()]
    common = {"rank": 3, "time": 1700000000.0}
    assert lines == [
        {"span": "start", "step": None, "begin": 100.0, "seconds": 4.5, **common},
        {"span": "checkpoint", "step": 1, "begin": 104.5, "seconds": 1.5, "error": "OSError", **common},
    ]


@pytest.mark.parametrize("at", [0, 8, 20, 300])
def test_a_half_written_record_is_never_shown(tmp_path: Path, at: int) -> None:
    beat = Beat(tmp_path, rank=0)
    for step in (1, 2, 3):
        beat.beat(step=step)
    path = tmp_path / "rank-00000.beat"
    data = bytearray(path.read_bytes())
    data[512 + at] ^= 0xFF  # the third record went to the second slot
    path.write_bytes(data)
    record = read_file(path)
    assert record is not None
    assert record.step == 2


def test_files_that_are_not_ours_are_left_out(tmp_path: Path) -> None:
    (tmp_path / "rank-00001.beat").write_bytes(b"\0" * 1024)
    (tmp_path / "rank-00002.beat").write_bytes(b"hello")
    (tmp_path / "rank-00003.beat").mkdir()
    Beat(tmp_path, rank=4).beat()
    assert list(read(tmp_path)) == [4]
    assert read(tmp_path / "nowhere") == {}


HAMMER = """
import muster_beat
for step in range(10**9):
    muster_beat.beat(step=step, tokens=step * 3, loss=float(step), phase="p" * (step % 90))
"""


def test_a_reader_beside_a_hammering_writer_sees_whole_records_that_only_grow(tmp_path: Path) -> None:
    env = {**os.environ, "PYTHONPATH": str(BEAT_DIRECTORY), "MUSTER_BEAT_DIR": str(tmp_path), "RANK": "0"}
    seen: set[int] = set()
    with subprocess.Popen([sys.executable, "-c", HAMMER], env=env) as writer:
        try:
            last = -1
            while len(seen) < 500:
                assert writer.poll() is None
                record = read(tmp_path).get(0)
                if record is None:
                    assert last == -1, "a record that was there is gone"
                    continue
                assert record.step is not None
                assert (record.tokens, record.loss) == (record.step * 3, float(record.step))
                assert record.phase == "p" * (record.step % 90)
                assert record.step >= last
                last = record.step
                seen.add(last)
        finally:
            writer.send_signal(signal.SIGKILL)
    record = read(tmp_path)[0]
    assert record.step is not None
    assert record.step >= last, "killed in the midst of writing, the last whole record stays"


def test_a_full_disk_stops_neither_the_job_nor_a_beat_that_had_its_room(tmp_path: Path) -> None:
    """RLIMIT_FSIZE 0 refuses any growth as a full disk does; writing in place goes on."""
    code = """
import resource, signal, sys, muster_beat
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
if sys.argv[1:] == []: muster_beat.beat(step=1)
"""
    early = code + "resource.setrlimit(resource.RLIMIT_FSIZE, (1024, 1024)); muster_beat.beat(step=2); print('trained')"
    done = job(early, tmp_path, RANK="0", MUSTER_BEAT_SPANS="1")
    assert (done.stdout, done.stderr) == ("trained\n", "")
    assert read(tmp_path)[0].step == 2
    late = code.replace("if sys", "resource.setrlimit(resource.RLIMIT_FSIZE, (0, 0))\nif sys")
    done = job(late + "muster_beat.beat(step=2); print('trained')", tmp_path, RANK="1")
    assert done.stdout == "trained\n"
    assert done.returncode == 0
    assert done.stderr == (
        f"muster_beat: cannot write to {tmp_path}: [Errno 27] File too large; "
        "training goes on, supervision sees no progress\n"
    )
    assert list(read(tmp_path)) == [0]


def test_a_target_that_cannot_be_made_is_said_once_and_tried_again(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    clock = Clock()
    (tmp_path / "d").write_text("a file stands in the way")
    beat = Beat(tmp_path / "d", rank=0, clock=clock)
    for clock.now in (101.0, 101.5, 102.0):
        beat.beat(step=1)
    assert beat.failures == 2, "tried once a second, not at every beat"
    assert len(capsys.readouterr().err.splitlines()) == 1
    (tmp_path / "d").unlink()
    clock.now = 103.0
    beat.beat(step=2)
    assert read(tmp_path / "d")[0].step == 2


def test_a_wrong_value_does_not_stop_training(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    beat = Beat(tmp_path, rank=0)
    beat.beat(step="seven")  # type: ignore[arg-type]
    beat.beat(step=1 << 70)
    assert beat.failures == 2
    beat.beat(step=3)
    assert read(tmp_path)[0].step == 3
    assert capsys.readouterr().err.count("muster_beat:") == 1


@pytest.mark.parametrize(
    ("environ", "rank"),
    [
        ({"RANK": "9", "SLURM_PROCID": "1"}, 9),
        ({"SLURM_PROCID": "4"}, 4),
        ({"OMPI_COMM_WORLD_RANK": "3", "SLURM_PROCID": "0"}, 3),
        ({"PMI_RANK": "2"}, 2),
        ({"HOROVOD_RANK": "6"}, 6),
        ({"RANK": "", "PMIX_RANK": "8"}, 8),
        ({}, None),
    ],
)
def test_the_rank_is_found_in_any_launcher(environ: dict[str, str], rank: int | None) -> None:
    assert muster_beat.environment_rank(environ) == rank


def test_the_module_works_alone_on_a_path(tmp_path: Path) -> None:
    done = job("import muster_beat as m; m.beat(step=1, phase='train')", tmp_path, SLURM_PROCID="2", SLURM_NTASKS="4")
    assert (done.returncode, done.stderr) == (0, "")
    record = read(tmp_path)[2]
    assert (record.step, record.phase, record.world_size) == (1, "train", 4)


def test_without_a_directory_nothing_is_written_and_nothing_is_opened() -> None:
    code = """
import os, muster_beat as m
before = sorted(os.listdir("/proc/self/fd"))
m.beat(step=1)
with m.phase("checkpoint"): m.beat(step=2)
assert sorted(os.listdir("/proc/self/fd")) == before
assert m._beat is None
"""
    done = job(code, None, RANK="0")
    assert (done.returncode, done.stderr) == (0, "")


def test_a_forked_worker_does_not_speak_for_the_rank(tmp_path: Path) -> None:
    code = """
import os, muster_beat as m
m.beat(step=1)
child = os.fork()
if child == 0:
    m.beat(step=99)
    with m.phase("data"): pass
    os._exit(0)
os.waitpid(child, 0)
m.beat(step=2)
print(os.getpid())
"""
    done = job(code, tmp_path, RANK="0")
    record = read(tmp_path)[0]
    assert (record.step, record.pid, record.beats) == (2, int(done.stdout), 2)


def test_a_spawned_worker_does_not_speak_for_the_rank(tmp_path: Path) -> None:
    code = """
import subprocess, sys, muster_beat as m
m.beat(step=1)
subprocess.run([sys.executable, "-c", "import muster_beat as m; m.beat(step=99)"], check=True)
"""
    assert job(code, tmp_path, RANK="0").returncode == 0
    assert read(tmp_path)[0].step == 1


def test_the_next_attempt_takes_over_while_a_worker_of_the_last_one_lingers(tmp_path: Path) -> None:
    code = """
import os, time, muster_beat as m
m.beat(step=40); m.beat(step=41)
if os.fork() == 0:
    m.beat()
    print(os.getpid(), flush=True)
    os.close(1); os.close(2)
    time.sleep(60)
"""
    first = job(code, tmp_path, RANK="0")
    lingering = int(first.stdout)
    try:
        Beat(tmp_path, rank=0).beat(step=0, phase="start")
        record = read(tmp_path)[0]
        assert (record.step, record.phase, record.pid) == (0, "start", os.getpid())
    finally:
        os.kill(lingering, signal.SIGKILL)


def test_a_launcher_that_forks_its_ranks_leaves_them_free_to_speak(tmp_path: Path) -> None:
    code = """
import os, muster_beat as m
for rank in ("0", "1"):
    if os.fork() == 0:
        os.environ["RANK"] = rank
        m.beat(step=5)
        os._exit(0)
os.wait(); os.wait()
"""
    assert job(code, tmp_path).returncode == 0
    assert sorted(read(tmp_path)) == [0, 1]


def test_a_beat_inside_a_signal_handler_does_not_block(tmp_path: Path) -> None:
    code = """
import signal, muster_beat as m
signal.signal(signal.SIGALRM, lambda *_: m.beat(tokens=1))
signal.setitimer(signal.ITIMER_REAL, 0.001, 0.001)
for step in range(20000): m.beat(step=step)
signal.setitimer(signal.ITIMER_REAL, 0)
"""
    done = job(code, tmp_path, RANK="0")
    assert (done.returncode, done.stderr) == (0, "")
    assert read(tmp_path)[0].step == 19999
