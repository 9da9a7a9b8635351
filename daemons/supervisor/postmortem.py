"""Gathers what is left of an attempt that failed, and has it judged."""

import re
from pathlib import Path
from typing import TYPE_CHECKING

from daemons.supervisor.failure import Ending, LogCause, judge
from daemons.supervisor.frames import Frame, last_traceback
from daemons.supervisor.notes import rank_ends
from daemons.supervisor.record import Verdict

if TYPE_CHECKING:
    from daemons.supervisor.attempt import Plan
    from daemons.supervisor.launch import Job
    from daemons.supervisor.logs import Follower
    from daemons.supervisor.watch import Watch

# The end of a log that is read for a verdict: a failure's own words stand there.
_TAIL_BYTES = 1 << 20


def verdict_of(
    plan: "Plan", path: Path | None, scratch: Path, follower: "Follower", job: "Job", watch: "Watch"
) -> Verdict:
    """The verdict on an attempt that ended by itself and not well."""
    logs = rank_logs(path)
    ending = Ending(
        code=job.exit if job.exit is not None else -9,
        launcher_log=follower.text("stderr"),
        rank_logs=logs or ranks_by_prefix(follower.text("stderr")),
        ends=rank_ends(scratch / "hook"),
        last_stacks=last_stacks(scratch / "hook", watch.pids),
        killed_for_memory=watch.killed_for_memory(),
        hosts=dict.fromkeys(watch.pids, plan.host) or {-1: plan.host},
        log_cause=log_cause(path, follower, job.exit if job.exit is not None else -9),
    )
    return judge(ending)


def tail(path: Path) -> str:
    """The end of a text file, empty when it cannot be read."""
    try:
        with path.open("rb") as file:
            file.seek(0, 2)
            file.seek(max(0, file.tell() - _TAIL_BYTES))
            return file.read().decode("utf-8", "replace")
    except OSError:
        return ""


def rank_logs(path: Path | None) -> dict[int, str]:
    """What each rank wrote to its standard error in its last incarnation, as torchrun has kept it."""
    found: dict[int, tuple[float, str]] = {}
    for file in sorted((path / "ranks").glob("*/attempt_*/*/stderr.log")) if path else []:
        rank, when = int(file.parent.name), file.stat().st_mtime
        if when >= found.get(rank, (0.0, ""))[0]:
            found[rank] = (when, tail(file))
    return {rank: text for rank, (_, text) in found.items()}


_PREFIX = re.compile(r"^\[(?:rank|[a-z]*)(\d+)\]:\s?(.*)$")


def ranks_by_prefix(text: str) -> dict[int, str]:
    """The same from lines that begin with [rank3]: or [default3]:, where nothing was kept per rank."""
    found: dict[int, list[str]] = {}
    for line in text.splitlines():
        if match := _PREFIX.match(line):
            found.setdefault(int(match[1]), []).append(match[2])
    return {rank: "\n".join(lines) for rank, lines in found.items()}


def last_stacks(hook: Path, pids: dict[int, int]) -> dict[int, list[Frame]]:
    """Where each rank's main thread was when its launcher told it to end."""
    return {rank: frames for rank, pid in pids.items() if (frames := main_thread(tail(hook / f"last-{pid}.txt")))}


def main_thread(text: str) -> list[Frame]:
    """The main thread's frames in a dump of faulthandler's, which prints that thread last."""
    return last_traceback("\n\n".join(text.rstrip().split("\n\n")[-1:]))


def log_cause(path: Path | None, follower: "Follower", code: int) -> LogCause:
    """What the classifier makes of the logs: of each rank's own where they were kept, of the whole output else."""
    from classifiers.engine import Engine

    session = Engine.load().session()
    files = kept_logs(path)
    for rank, file in files:
        session.feed(str(file), tail(file).encode(), rank)
    launcher = follower.text("stderr")
    if files:
        # The launcher repeats what the ranks have said; what they have not said is its own.
        launcher = "\n".join(line for line in launcher.splitlines() if not _PREFIX.match(line))
    else:
        session.feed("stdout", follower.text("stdout").encode())
    session.feed("stderr", launcher.encode())
    session.ended("stderr", code, None)
    found = session.verdict()
    return LogCause(
        cause=found.cause,
        confidence=found.confidence,
        rank=found.rank,
        host=found.host,
        advice=found.advice,
        evidence=found.evidence.text if found.evidence else "",
    )


def kept_logs(path: Path | None) -> list[tuple[int, Path]]:
    """The logs of the ranks' last incarnation as torchrun has kept them, with their ranks."""
    if path is None:
        return []
    runs = sorted((path / "ranks").glob("*/attempt_*"), key=lambda run: run.stat().st_mtime)
    return [(int(file.parent.name), file) for file in sorted(runs[-1].glob("*/std*.log"))] if runs else []
