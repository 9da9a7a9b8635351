"""A line of a log as people write it: colours away, then its rank, host and time, wherever the field puts them."""

import calendar
from dataclasses import dataclass

import re2

# Longer lines are cut around the hit: a verdict needs a sentence, not a dump.
TEXT_LIMIT = 2000

_ANSI = re2.compile(rb"\x1b(?:\[[0-9;:?]*[ -/]*[@-~]|\][^\x07\x1b]*(?:\x07|\x1b\\)|[@-Z\\^_=>])")

_RANK = tuple(
    re2.compile(pattern)
    for pattern in (
        r"\[rank ?:? ?(\d+)\]",  # torch >= 2.1 on every line of a rank; Lightning
        r"\[1,(\d+)\]<std(?:err|out)>",  # mpirun --tag-output
        r"\[(?:default|trainer|worker)(\d+)\]:",  # torchrun --redirects/--tee
        r"(?i)(?:^|[\s\[(,])(?:global[ _])?rank[ =:]*(\d+)(?:[\]\s,:)\[]|$)",
        r"^\s*(\d{1,5}): ",  # srun --label
    )
)
_SYSLOG_TIME = r"(?:[A-Z][a-z]{2} [ \d]\d \d\d:\d\d:\d\d|\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d[\d.,:+Z-]*)"
_HOST = tuple(
    re2.compile(pattern)
    for pattern in (
        r"(?:^|[\s>])([A-Za-z][\w.-]*):\d+:\d+ \[\d+\] ",  # NCCL: host:pid:tid [device]
        _SYSLOG_TIME + r" ([\w.-]+) [\w./-]+(?:\[\d+\])?:",
        r" ON ([\w.-]+) (?:CANCELLED|FAILED)",  # slurmstepd
        r"(?:srun|slurmstepd): error: ([A-Za-z][\w.-]*): tasks? ",
        r"slurmstepd-([\w.-]+): ",
        r"Node failure on ([\w.-]+)",
        r", ip=([\w.:]+)\)",  # Ray
        r"on node ([\w.-]+) exited",  # mpirun
    )
)
# Directories and names under which tools keep one rank's log.
_RANK_IN_NAME = tuple(
    re2.compile(pattern)
    for pattern in (
        r"attempt_\d+/(\d+)/(?:std(?:err|out)\.log|error\.json)$",  # torchrun --log-dir
        r"(?i)(?:^|[/_.-])(?:global_?|local_?)?rank[_.=-]?(\d+)(?:[/_.-]|$)",
        r"(?i)(?:^|[/_.-])(?:worker|task|proc)[_.-]?(\d+)\.(?:log|out|err|txt)",
        r"(?:^|/)(\d{1,5})/std(?:err|out)(?:\.log)?$",
        r"slurm-\d+(?:\.\d+)?[._-](\d+)\.(?:out|err|log)",
    )
)

_MONTHS = {name: number for number, name in enumerate(calendar.month_abbr) if name}
_FULL = re2.compile(r"(\d{4})[-/](\d\d)[-/](\d\d)[T _](\d\d):(\d\d):(\d\d)(?:[.,](\d+))?")
_AMERICAN = re2.compile(r"(\d\d)/(\d\d)/(\d{4})[ ,]+(\d\d):(\d\d):(\d\d)")
_GLOG = re2.compile(r"(?:^|[\[\s:])[IWEF](\d{1,2})(\d\d) (\d\d):(\d\d):(\d\d)(?:\.(\d+))?")
_CTIME = re2.compile(r"([A-Z][a-z]{2}) +(\d{1,2}) (\d\d):(\d\d):(\d\d)(?: (\d{4}))?")
# Where a date is not in the first part of a line it belongs to the message.
_DATE_WITHIN = 120


@dataclass(frozen=True, slots=True)
class Origin:
    """Who said a line, and when: time is seconds since the epoch, 0.0 when it does not say."""

    rank: int | None
    host: str
    time: float


def without_colours(data: bytes) -> bytes:
    """The bytes without terminal escapes."""
    return _ANSI.sub(b"", data) if b"\x1b" in data else data


def decode(line: bytes) -> str:
    """The line as text, of at most TEXT_LIMIT characters."""
    return line[: 4 * TEXT_LIMIT].decode("utf-8", "replace")[:TEXT_LIMIT].rstrip()


def origin(text: str, year: int) -> Origin:
    """Rank, host and time as the line gives them. year: for the formats that carry none."""
    return Origin(rank_of(text), host_of(text), time_of(text, year))


def rank_of(text: str) -> int | None:
    """The rank a line names for itself."""
    return _number(_RANK, text[:400])


def rank_in_name(name: str) -> int | None:
    """The rank that a log's path stands for."""
    return _number(_RANK_IN_NAME, name)


def host_of(text: str) -> str:
    """The host a line names for itself."""
    for pattern in _HOST:
        if found := pattern.search(text):
            return str(found[1])
    return ""


def _number(patterns: "tuple[re2._Regexp[str], ...]", text: str) -> int | None:
    for pattern in patterns:
        if found := pattern.search(text):
            return int(found[1])
    return None


def time_of(text: str, year: int) -> float:
    """Seconds since the epoch, read as UTC: only differences within one cluster matter. 0.0 for none or nonsense."""
    head = text[:_DATE_WITHIN]
    if found := _FULL.search(head):
        return _epoch(found[1], found[2], found[3], *found.groups()[3:7])
    if found := _AMERICAN.search(head):
        return _epoch(found[3], found[1], found[2], *found.groups()[3:6])
    if found := _GLOG.search(head):
        return _epoch(str(year), found[1], found[2], *found.groups()[2:6])
    if (found := _CTIME.search(head)) and found[1] in _MONTHS:
        return _epoch(found[6] or str(year), str(_MONTHS[found[1]]), found[2], *found.groups()[2:5])
    return 0.0


def _epoch(year: str, month: str, day: str, hour: str, minute: str, second: str, fraction: str | None = None) -> float:
    moment = (int(year), int(month), int(day), int(hour), int(minute), int(second))
    if not (1 <= moment[1] <= 12 and 1 <= moment[2] <= 31 and moment[3] < 24 and moment[4] < 60):
        return 0.0
    return calendar.timegm((*moment, 0, 0, 0)) + (float(f"0.{fraction}") if fraction else 0.0)
