"""Why an attempt failed, from what it left: hooks, launcher's summary, logs of the ranks."""

from daemons.supervisor.failure import Ending, LauncherSaid, LogCause, RankEnd, judge, launcher_said
from daemons.supervisor.frames import Frame, innermost_users, last_traceback

SUMMARY = """
============================================================
train.py FAILED
------------------------------------------------------------
Failures:
[1]:
  time      : 2026-11-25_10:14:19
  host      : localhost
  rank      : 0 (local_rank: 0)
  exitcode  : -15 (pid: 22081)  (SIGTERM)
------------------------------------------------------------
Root Cause (first observed failure):
[0]:
  time      : 2026-11-25_10:14:19
  host      : n7
  rank      : {rank} (local_rank: 3)
  exitcode  : {code} (pid: 22086)
  error_file: <N/A>
============================================================
"""
PEER = "RuntimeError: [gloo/transport/tcp/pair.cc:553] Connection closed by peer [127.0.0.1]:4509."
HOSTS = {0: "n1", 1: "n1", 2: "n1", 3: "n1"}


def end(rank: int, at: float, kind: str, message: str, line: int) -> RankEnd:
    frames = [Frame("/v/lib/python3.11/site-packages/torch/x.py", 1, "f"), Frame("/home/u/train.py", line, "step")]
    return RankEnd(rank=rank, pid=rank, time=at, type=kind, message=message, frames=frames)


def test_the_launchers_summary_is_read() -> None:
    assert launcher_said(SUMMARY.format(rank=3, code=-9)) == LauncherSaid(rank=3, code=-9, host="n7")
    assert launcher_said("nothing of the kind") is None


def test_the_first_exception_that_names_no_peer_is_the_root() -> None:
    ends = [end(0, 10.0, "RuntimeError", PEER, 33), end(3, 10.1, "KeyError", "'boom'", 18)]
    ending = Ending(code=1, launcher_log=SUMMARY.format(rank=0, code=1), ends=ends, hosts=HOSTS)
    verdict = judge(ending)
    assert (verdict.kind, verdict.ranks, verdict.host) == ("failed", [3], "n1")
    assert (verdict.file, verdict.line, verdict.function) == ("/home/u/train.py", 18, "step")
    assert (verdict.cause, verdict.doing) == ("program.python", "python")
    assert verdict.summary == "rank 3 ended with KeyError: 'boom'"


def test_a_rank_that_was_killed_is_blamed_and_not_the_ones_that_lost_it() -> None:
    ends = [end(0, 10.0, "RuntimeError", PEER, 33)]
    verdict = judge(Ending(code=1, launcher_log=SUMMARY.format(rank=2, code=-9), ends=ends, hosts=HOSTS))
    assert (verdict.ranks, verdict.doing, verdict.summary) == ([2], "dead", "rank 2 was ended by SIGKILL")


def test_the_out_of_memory_killer_is_the_cause_where_the_kernel_says_so() -> None:
    verdict = judge(Ending(code=1, launcher_log=SUMMARY.format(rank=2, code=-9), killed_for_memory=[2], hosts=HOSTS))
    assert (verdict.cause, verdict.ranks) == ("host.out_of_memory", [2])


def test_a_crash_in_native_code_has_the_line_that_called_it() -> None:
    log = """Fatal Python error: Segmentation fault

Current thread 0x00007f (most recent call first):
  File "/usr/lib/python3.11/ctypes/__init__.py", line 519 in string_at
  File "/home/u/train.py", line 22 in step
  File "/home/u/train.py", line 50 in main

Thread 0x00007e (most recent call first):
  File "/usr/lib/python3.11/threading.py", line 324 in wait
"""
    ending = Ending(code=1, launcher_log=SUMMARY.format(rank=3, code=-11), rank_logs={3: log}, hosts=HOSTS)
    verdict = judge(ending)
    assert (verdict.ranks, verdict.line, verdict.function) == ([3], 22, "step")


def test_ranks_in_different_collectives_are_told_apart_by_where_they_were() -> None:
    logs = {0: "terminate called: op.preamble.length <= op.nbytes. 4160 vs 4"}
    ends = [end(1, 10.0, "RuntimeError", PEER, 33), end(3, 10.0, "RuntimeError", PEER, 30)]
    ending = Ending(
        code=1,
        launcher_log=SUMMARY.format(rank=0, code=-6),
        rank_logs=logs,
        ends=ends,
        last_stacks={0: [Frame("/home/u/train.py", 30, "step")], 2: [Frame("/home/u/train.py", 30, "step")]},
        hosts=HOSTS,
    )
    verdict = judge(ending)
    assert (verdict.cause, verdict.doing) == ("program.collective_mismatch", "collective")
    assert (verdict.ranks, verdict.line) == ([1], 33)


def test_the_logs_cause_is_taken_unless_it_is_only_a_symptom() -> None:
    full = LogCause(cause="storage.disk_full", confidence=0.9)
    ends = [end(0, 1.0, "OSError", "[Errno 28] No space left on device", 61)]
    verdict = judge(Ending(code=1, ends=ends, log_cause=full, hosts=HOSTS))
    assert (verdict.cause, verdict.doing, verdict.line) == ("storage.disk_full", "storage", 61)
    lost = LogCause(cause="net.peer_lost", confidence=0.9)
    assert judge(Ending(code=1, ends=ends, log_cause=lost, hosts=HOSTS)).cause == "storage.disk_full"


def test_nothing_known_is_said_to_be_unknown() -> None:
    verdict = judge(Ending(code=3))
    assert (verdict.cause, verdict.ranks, verdict.summary) == ("unknown", [], "the job ended with exit code 3")


def test_only_the_users_own_lines_count() -> None:
    text = """[rank1]: Traceback (most recent call last):
[rank1]:   File "/home/u/train.py", line 42, in <module>
[rank1]:     main()
[rank1]:   File "/v/lib/python3.11/site-packages/torch/_tensor.py", line 623, in backward
[rank1]:     torch.autograd.backward(
[rank1]: RuntimeError: x
"""
    assert innermost_users(last_traceback(text)) == Frame("/home/u/train.py", 42, "<module>")


def test_an_exit_that_somebody_caught_is_no_end() -> None:
    ends = [
        end(0, 5.0, "SystemExit", "sys.exit(2)", 12),
        end(3, 9.0, "KeyError", "'boom'", 18),
    ]
    verdict = judge(Ending(code=1, launcher_log=SUMMARY.format(rank=3, code=1), ends=ends, hosts=HOSTS))
    assert (verdict.ranks, verdict.line) == ([3], 18)
    verdict = judge(Ending(code=1, launcher_log=SUMMARY.format(rank=0, code=2), ends=ends[:1], hosts=HOSTS))
    assert (verdict.ranks, verdict.line, verdict.summary) == ([0], 12, "rank 0 ended with SystemExit: sys.exit(2)")
