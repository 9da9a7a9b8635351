"""`muster run` with jobs of a few lines of shell: exit codes, logs, restarts, ends, and no process left behind."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

MUSTER = [sys.executable, "-I", "-m", "daemons", "run"]


def start(tmp_path: Path, *arguments: str, **options: Any) -> subprocess.Popen[str]:
    command = [*MUSTER, "--dir", str(tmp_path / "jobs"), "--record", str(tmp_path / "record.json"), *arguments]
    return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, **options)


def run(tmp_path: Path, *arguments: str) -> tuple[int, str, str, dict[str, Any]]:
    job = start(tmp_path, *arguments)
    out, err = job.communicate(timeout=60)
    return job.returncode, out, err, json.loads((tmp_path / "record.json").read_text())


def alive(pid: int) -> bool:
    try:
        state = Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[0]
    except OSError:
        return False
    return state != "Z"


def wait_for(path: Path) -> str:
    for _ in range(600):
        if path.exists() and path.read_text().endswith("\n"):
            return path.read_text()
        time.sleep(0.05)
    raise AssertionError(f"{path} was never written")


def gone(pids: list[int]) -> bool:
    for _ in range(600):
        if not any(alive(pid) for pid in pids):
            return True
        time.sleep(0.05)
    return False


def test_a_job_that_ends_well_is_finished_and_its_output_kept(tmp_path: Path) -> None:
    code, out, _, record = run(tmp_path, "--name", "j1", "--", "sh", "-c", "echo to out; echo to err >&2")
    assert (code, out) == (0, "to out\n")
    assert record["job"] == "j1"
    assert record["exit"] == 0
    (attempt,) = record["attempts"]
    assert attempt["exit"] == 0
    assert attempt["verdict"]["kind"] == "finished"
    assert attempt["verdict"]["cause"] == "none"
    assert (tmp_path / "jobs/j1/attempt-0/stdout.log").read_text() == "to out\n"
    assert (tmp_path / "jobs/j1/attempt-0/stderr.log").read_text() == "to err\n"


def test_the_record_holds_exactly_the_keys_of_the_contract(tmp_path: Path) -> None:
    record = run(tmp_path, "--", "false")[3]
    assert sorted(record) == ["attempts", "exit", "job"]
    (attempt,) = record["attempts"]
    assert sorted(attempt) == ["exit", "seconds", "verdict"]
    keys = "bundle cause confidence detected_after_seconds doing file function host kind line ranks"
    assert " ".join(sorted(attempt["verdict"])) == keys


@pytest.mark.parametrize(
    ("script", "code", "recorded"), [("exit 7", 7, 7), ("kill -SEGV $$", 139, -11), ("kill -KILL $$", 137, -9)]
)
def test_exit_codes_and_signals_are_told_apart(tmp_path: Path, script: str, code: int, recorded: int) -> None:
    returned, _, _, record = run(tmp_path, "--", "sh", "-c", script)
    assert (returned, record["exit"]) == (code, code)
    assert record["attempts"][0]["exit"] == recorded
    assert record["attempts"][0]["verdict"]["kind"] == "failed"


def test_a_command_that_does_not_exist_is_one_line(tmp_path: Path) -> None:
    code, _, err, record = run(tmp_path, "--max-restarts", "3", "--", "no-such-program")
    assert (code, err) == (127, "muster: run: no-such-program: No such file or directory\n")
    assert [a["exit"] for a in record["attempts"]] == [127]


def test_restarts_until_it_works(tmp_path: Path) -> None:
    script = f'echo x >> {tmp_path}/starts; test "$(wc -l < {tmp_path}/starts)" -ge 2'
    code, _, _, record = run(tmp_path, "--max-restarts", "5", "--", "sh", "-c", script)
    assert code == 0
    assert [a["verdict"]["kind"] for a in record["attempts"]] == ["failed", "finished"]


def test_exit_93_is_handed_on_and_not_restarted(tmp_path: Path) -> None:
    code, _, _, record = run(tmp_path, "--max-restarts", "5", "--", "sh", "-c", "exit 93")
    assert (code, len(record["attempts"])) == (93, 1)


# A job whose second process has left its session and ignores SIGTERM, as a stray data loader might.
STRAY = "setsid sh -c 'trap \"\" TERM; echo $$ > {pid}; while :; do sleep 0.2; done' & {then}"


def test_what_a_job_leaves_behind_is_ended_with_it(tmp_path: Path) -> None:
    script = STRAY.format(pid=tmp_path / "stray", then=f"while [ ! -s {tmp_path}/stray ]; do sleep 0.05; done; exit 0")
    code, *_ = run(tmp_path, "--", "sh", "-c", script)
    assert code == 0
    assert gone([int((tmp_path / "stray").read_text())])


@pytest.mark.slow
def test_no_orphan_is_left_when_the_supervisor_is_killed(tmp_path: Path) -> None:
    job = start(tmp_path, "--", "sh", "-c", STRAY.format(pid=tmp_path / "stray", then="wait"))
    stray = int(wait_for(tmp_path / "stray"))
    job.kill()
    job.communicate()
    assert gone([stray])


def test_no_orphan_is_left_when_the_guardian_is_killed(tmp_path: Path) -> None:
    job = start(tmp_path, "--", "sh", "-c", STRAY.format(pid=tmp_path / "stray", then="wait"))
    stray = int(wait_for(tmp_path / "stray"))
    (guardian,) = Path(f"/proc/{job.pid}/task/{job.pid}/children").read_text().split()
    os.kill(int(guardian), signal.SIGKILL)
    job.communicate(timeout=30)
    assert not alive(stray)
    assert job.returncode == 137


def test_sigterm_lets_the_job_end_in_its_own_way(tmp_path: Path) -> None:
    script = f"trap 'echo saved > {tmp_path}/saved; exit 0' TERM; echo > {tmp_path}/up; while :; do sleep 0.1; done"
    job = start(tmp_path, "--", "sh", "-c", script)
    wait_for(tmp_path / "up")
    job.send_signal(signal.SIGTERM)
    job.communicate(timeout=30)
    assert (tmp_path / "saved").read_text() == "saved\n"
    record = json.loads((tmp_path / "record.json").read_text())
    assert record["attempts"][0]["verdict"]["kind"] == "stopped"


def test_a_job_that_ignores_sigterm_is_killed_after_the_grace(tmp_path: Path) -> None:
    script = f"trap '' TERM; echo > {tmp_path}/up; while :; do sleep 0.1; done"
    job = start(tmp_path, "--stop-grace", "1", "--", "sh", "-c", script)
    wait_for(tmp_path / "up")
    job.send_signal(signal.SIGTERM)
    job.communicate(timeout=30)
    assert job.returncode == 137


def test_a_directory_that_cannot_be_written_costs_the_logs_not_the_job(tmp_path: Path) -> None:
    (tmp_path / "jobs").write_text("in the way")
    code, out, err, _ = run(tmp_path, "--name", "j", "--", "echo", "hello")
    assert (code, out) == (0, "hello\n")
    told = [line for line in err.splitlines() if "kept on disk" in line]
    assert len(told) == 1
    assert told[0].endswith(f"nothing of this job is kept on disk: {tmp_path}/jobs/j: Not a directory")


def test_a_paused_job_stands_still_until_it_is_resumed(tmp_path: Path) -> None:
    script = f"echo > {tmp_path}/up; while [ ! -e {tmp_path}/end ]; do sleep 0.1; date +%N > {tmp_path}/tick; done"
    job = start(tmp_path, "--name", "p", "--", "sh", "-c", script)
    wait_for(tmp_path / "up")
    wait_for(tmp_path / "tick")
    pause = [*MUSTER[:-1], "pause", "--dir", str(tmp_path / "jobs")]
    done = subprocess.run(pause, capture_output=True, text=True, check=True)
    assert done.stdout.startswith("p: ")
    (tmp_path / "end").touch()
    time.sleep(1.0)
    assert job.poll() is None
    subprocess.run([*pause, "p", "--resume"], check=True, capture_output=True)
    assert job.communicate(timeout=30)[0] == ""
    assert job.returncode == 0


def test_pausing_what_does_not_run_is_one_line(tmp_path: Path) -> None:
    pause = [*MUSTER[:-1], "pause", "--dir", str(tmp_path / "jobs"), "x"]
    done = subprocess.run(pause, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (2, "muster: pause: x: running here: none\n")
