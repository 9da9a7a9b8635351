"""Why an attempt failed: which rank ended first, how, and at which line of the user's code.

Pure: texts and codes in, verdict out. The order of trust: what the rank itself wrote when an exception ended it, then
the launcher's summary, then the signals and exit codes, then the logs.
"""

import re
import signal
from collections import Counter
from collections.abc import Mapping

import msgspec

from daemons.supervisor.frames import Frame, innermost_users, last_traceback
from daemons.supervisor.record import Doing, Verdict


class RankEnd(msgspec.Struct, frozen=True, kw_only=True):
    """What a rank's hook wrote when an exception ended it; frames begin with the innermost."""

    rank: int
    pid: int
    time: float
    type: str
    message: str
    frames: list[Frame] = []


class LauncherSaid(msgspec.Struct, frozen=True, kw_only=True):
    """The launcher's own word on the rank that failed first; code is negative for a signal."""

    rank: int
    code: int
    host: str = ""


class LogCause(msgspec.Struct, frozen=True, kw_only=True):
    """What the classifier says of the logs."""

    cause: str = "unknown"
    confidence: float = 0.0
    rank: int | None = None
    host: str = ""
    advice: str = ""
    evidence: str = ""


class Ending(msgspec.Struct, frozen=True, kw_only=True):
    """Everything that is known of an attempt that did not end well.

    code: of the job's first process. rank_logs: the end of each rank's own log. launcher_log: of the launcher.
    last_stacks: where each rank was when it was told to end. killed_for_memory: ranks the kernel's OOM killer ended.
    hosts: rank -> host.
    """

    code: int
    launcher_log: str = ""
    rank_logs: Mapping[int, str] = {}
    ends: list[RankEnd] = []
    last_stacks: Mapping[int, list[Frame]] = {}
    killed_for_memory: list[int] = []
    hosts: Mapping[int, str] = {}
    log_cause: LogCause = LogCause()


_ROOT_CAUSE = re.compile(
    r"Root Cause \(first observed failure\):\s*\n\[\d+\]:\s*\n"
    r"(?:\s+\w+\s*:.*\n)*?\s+host\s*:\s*(?P<host>\S+)\s*\n\s+rank\s*:\s*(?P<rank>\d+).*\n\s+exitcode\s*:\s*(?P<code>-?\d+)"
)
# Gloo's and NCCL's words for a message that does not fit: two ranks were not in the same collective.
_MISMATCH = re.compile(
    r"op\.preamble\.length <= op\.nbytes|Received data size doesn't match|collective mismatch|mismatched collectives"
    r"|Detected mismatch between collectives"
)
# The other end went away: a symptom of somebody else's failure.
_PEER = re.compile(
    r"Connection (closed by|reset by) peer|remote worker|ncclRemoteError|Broken pipe|Connection refused|peer has closed"
    r"|failed to recv, got 0 bytes"
)
# What an exception says by its own words, where the logs say no more.
_SAID = (
    ("program.environment", re.compile(r"^(ModuleNotFoundError|ImportError)\b")),
    ("host.out_of_memory", re.compile(r"^MemoryError\b|Cannot allocate memory")),
    ("gpu.out_of_memory", re.compile(r"OutOfMemoryError|CUDA out of memory")),
    ("storage.disk_full", re.compile(r"\[Errno (28|122)\]|No space left on device|Disk quota exceeded")),
    ("storage.filesystem", re.compile(r"\[Errno (5|30|116)\]|Stale file handle|Read-only file system")),
    ("data.missing", re.compile(r"^FileNotFoundError\b")),
    ("data.loader", re.compile(r"DataLoader worker")),
    (
        "program.numerics",
        re.compile(r"^FloatingPointError|\b(nan|inf|not finite|diverged)\b", re.IGNORECASE),
    ),
    ("program.shape_dtype", re.compile(r"shapes? .*(cannot|mismatch|must match)|size of tensor|dtype", re.IGNORECASE)),
)
_DOING: dict[str, Doing] = {
    "storage": "storage",
    "data": "data",
    "gpu": "gpu",
    "net": "network",
    "program": "python",
    "host": "python",
}


def launcher_said(text: str) -> LauncherSaid | None:
    """torchrun's summary of the failure it saw first."""
    found = None
    for match in _ROOT_CAUSE.finditer(text):
        found = LauncherSaid(rank=int(match["rank"]), code=int(match["code"]), host=match["host"])
    return found


def judge(ending: Ending) -> Verdict:
    """The verdict on a failed attempt."""
    if mismatch := _mismatch(ending):
        return mismatch
    rank, code = _first(ending)
    frame, said = _where(ending, rank)
    cause, confidence, advice = _cause(ending, rank, code, said)
    signalled = code < 0
    area: Doing = _DOING.get(cause.split(".")[0], "python")
    doing: Doing = "dead" if signalled and area == "python" else area
    if cause == "program.collective_mismatch":
        doing = "collective"
    return Verdict(
        kind="failed",
        cause=cause,
        ranks=[] if rank is None else [rank],
        host=_host(ending, rank),
        file=frame.file if frame else "",
        line=frame.line if frame else 0,
        function=frame.function if frame else "",
        doing=doing,
        confidence=confidence,
        advice=advice,
        summary=_summary(ending, rank, code, said),
    )


def _host(ending: Ending, rank: int | None) -> str:
    if rank is not None and rank in ending.hosts:
        return ending.hosts[rank]
    return ending.log_cause.host or next(iter(ending.hosts.values()), "")


def _first(ending: Ending) -> tuple[int | None, int]:
    """The rank that failed first and its code."""
    said = launcher_said(ending.launcher_log)
    own = [end for end in sorted(ending.ends, key=lambda end: end.time) if _own(end, said)]
    if ending.killed_for_memory:
        return ending.killed_for_memory[0], -signal.SIGKILL
    # An exception that names no peer is nearer to the root than a rank that died because its peer had.
    if own and (said is None or said.code >= 0):
        return own[0].rank, 1
    if said is not None:
        return said.rank, said.code
    if ending.ends:
        return min(ending.ends, key=lambda end: end.time).rank, 1
    return ending.log_cause.rank, ending.code


def _own(end: RankEnd, said: LauncherSaid | None) -> bool:
    """Whether a rank's end is its own doing: no loss of a peer, no exit that somebody caught."""
    if end.type == "SystemExit":
        return said is None or said.rank == end.rank
    return not _PEER.search(end.message)


def _where(ending: Ending, rank: int | None) -> tuple[Frame | None, str]:
    """The user's line at which that rank ended, and what the exception said."""
    for end in ending.ends:
        if end.rank == rank:
            return innermost_users(end.frames), f"{end.type}: {end.message}" if end.message else end.type
    text = ending.rank_logs.get(rank, "") if rank is not None else ""
    text = text or (ending.launcher_log if not ending.rank_logs else "")
    return innermost_users(last_traceback(text)), ""


def _cause(ending: Ending, rank: int | None, code: int, said: str) -> tuple[str, float, str]:
    log = ending.log_cause
    if rank is not None and rank in ending.killed_for_memory:
        return "host.out_of_memory", 0.95, "the kernel ended it for want of memory: give the job more, or use less"
    if log.cause not in ("unknown", "none", "net.peer_lost", "net.collective_timeout"):
        return log.cause, log.confidence, log.advice
    if said:
        cause = next((cause for cause, pattern in _SAID if pattern.search(said)), "program.python")
        return cause, 0.8, log.advice
    if code in (126, 127) and rank is None:
        return "program.environment", 0.9, "the command cannot be started: check its name and PATH"
    if code == -signal.SIGTERM:
        return "host.preempted", 0.5, log.advice
    return "unknown", 0.3, log.advice


def _summary(ending: Ending, rank: int | None, code: int, said: str) -> str:
    who = "the job" if rank is None else f"rank {rank}"
    if said:
        return f"{who} ended with {said.splitlines()[0][:300]}"
    if code < 0:
        return f"{who} was ended by {_signal_name(-code)}"
    return f"{who} ended with exit code {code}"


def _signal_name(number: int) -> str:
    try:
        return signal.Signals(number).name
    except ValueError:
        return f"signal {number}"


def _mismatch(ending: Ending) -> Verdict | None:
    """Ranks that were in different collectives: the ones at the rarer line of code are the ones to look at."""
    texts = [*ending.rank_logs.values(), ending.launcher_log, *(end.message for end in ending.ends)]
    if not any(_MISMATCH.search(text) for text in texts):
        return None
    places = _places(ending)
    if not places:
        return None
    common, count = Counter(places.values()).most_common(1)[0]
    odd = sorted(rank for rank, frame in places.items() if frame != common)
    said = launcher_said(ending.launcher_log)
    if count <= len(odd) or not odd:
        odd, confidence = ([said.rank] if said else []), 0.4
    else:
        confidence = 0.85
    frame = places[odd[0]] if odd and odd[0] in places else common
    return Verdict(
        kind="failed",
        cause="program.collective_mismatch",
        ranks=odd,
        host=_host(ending, odd[0] if odd else None),
        file=frame.file,
        line=frame.line,
        function=frame.function,
        doing="collective",
        confidence=confidence,
        summary=f"ranks were in different collectives: {_listed(odd)} at {frame}, the others at {common}",
        advice="make every rank call the same collectives, in the same order, with the same shapes",
    )


def _listed(ranks: list[int]) -> str:
    return ("rank " if len(ranks) == 1 else "ranks ") + ", ".join(map(str, ranks))


def _places(ending: Ending) -> dict[int, Frame]:
    """Each rank's last line of user code: from its exception, its end by a signal, or its log."""
    places: dict[int, Frame] = {}
    for rank, text in ending.rank_logs.items():
        if frame := innermost_users(last_traceback(text)):
            places[rank] = frame
    for rank, frames in ending.last_stacks.items():
        if frame := innermost_users(frames):
            places[rank] = frame
    for end in ending.ends:
        if frame := innermost_users(end.frames):
            places[end.rank] = frame
    return places
