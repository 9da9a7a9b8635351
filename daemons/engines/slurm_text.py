"""What Slurm's own tools print, read into values; pure, and the same from 20.11 on, with or without its JSON plugin."""

import re
from collections.abc import Iterator
from datetime import datetime

from daemons.engines.base import EngineJob, EngineNode, JobState, NodeState

# scontrol -o: Key=Value Key=Value; a value may hold spaces (Reason, OS, Comment), so it ends where the next key begins.
_KEY = re.compile(r"(?:^|\s)([A-Z][A-Za-z0-9:_/-]*)=")
_GPUS = re.compile(r"\bgres/gpu(?::[^=,]+)?=(\d+)|\bgpu(?::[A-Za-z][^:,(]*)?:(\d+)")

_DOWN = frozenset({"DOWN", "FAIL", "FAILING", "NOT_RESPONDING", "POWERED_DOWN", "POWERING_DOWN", "INVAL", "FUTURE"})
_BUSY = frozenset({"ALLOCATED", "MIXED", "COMPLETING", "RESERVED", "MAINT", "PLANNED"})
_JOB_STATES = {
    "PENDING": JobState.PENDING,
    "CONFIGURING": JobState.PENDING,
    "REQUEUED": JobState.PENDING,
    "REQUEUE_HOLD": JobState.PENDING,
    "SUSPENDED": JobState.RUNNING,
    "STOPPED": JobState.RUNNING,
    "RUNNING": JobState.RUNNING,
    "COMPLETING": JobState.RUNNING,
    "SIGNALING": JobState.RUNNING,
    "STAGE_OUT": JobState.RUNNING,
    "RESIZING": JobState.RUNNING,
    "COMPLETED": JobState.COMPLETED,
    "FAILED": JobState.FAILED,
    "BOOT_FAIL": JobState.NODE_FAILED,
    "LAUNCH_FAILED": JobState.NODE_FAILED,
    "NODE_FAIL": JobState.NODE_FAILED,
    "CANCELLED": JobState.CANCELLED,
    "REVOKED": JobState.CANCELLED,
    "TIMEOUT": JobState.TIMED_OUT,
    "DEADLINE": JobState.TIMED_OUT,
    "PREEMPTED": JobState.PREEMPTED,
    "OUT_OF_MEMORY": JobState.OUT_OF_MEMORY,
}


def fields(line: str) -> dict[str, str]:
    """One line of `scontrol -o show ...` as key and value; `(null)` and `N/A` are empty."""
    found = list(_KEY.finditer(line))
    ends = [match.start() for match in found[1:]] + [len(line)]
    pairs = {match[1]: line[match.end() : end].strip() for match, end in zip(found, ends, strict=True)}
    return {key: "" if value in ("(null)", "N/A", "None", "Unknown") else value for key, value in pairs.items()}


def nodes(text: str) -> list[EngineNode]:
    """All nodes of `scontrol -o show nodes`."""
    return [_node(fields(line)) for line in text.splitlines() if line.startswith("NodeName=")]


def jobs(text: str) -> list[EngineJob]:
    """All jobs of `scontrol -o show jobs`."""
    return [_job(fields(line)) for line in text.splitlines() if line.startswith("JobId=")]


def node_state(words: str) -> NodeState:
    """State words such as `IDLE+DRAIN` or `MIXED+CLOUD`; a `*` means that the node does not respond."""
    flags = {word.rstrip("*~#$@^-!%") for word in words.split("+")}
    if "*" in words or flags & _DOWN:
        return NodeState.DOWN
    if flags & {"DRAIN", "DRAINED", "DRAINING"}:
        return NodeState.DRAINING if flags & (_BUSY | {"DRAINING"}) else NodeState.DRAINED
    if flags & _BUSY:
        return NodeState.BUSY
    return NodeState.IDLE if "IDLE" in flags else NodeState.UNKNOWN


def _node(found: dict[str, str]) -> EngineNode:
    return EngineNode(
        name=found["NodeName"],
        state=node_state(found.get("State", "")),
        partitions=tuple(filter(None, found.get("Partitions", "").split(","))),
        # TRES has GPUs only where AccountingStorageTRES names them.
        gpus=gpus(found.get("CfgTRES", "")) or gpus(found.get("Gres", "")),
        gpus_used=gpus(found.get("AllocTRES", "")) or gpus(found.get("GresUsed", "")),
        # `text [root@2026-11-25T09:00:00]`: who wrote it and when is Slurm's own addition.
        reason=re.sub(r"\s*\[[^\[\]]*@[^\[\]]*\]$", "", found.get("Reason", "")),
    )


def _job(found: dict[str, str]) -> EngineJob:
    code, signal = _exit(found.get("ExitCode", ""))
    state = _JOB_STATES.get(found.get("JobState", "").split(" ")[0], JobState.UNKNOWN)
    return EngineJob(
        id=found["JobId"],
        name=found.get("JobName", "") or found.get("Name", ""),
        state=state,
        user=found.get("UserId", "").split("(")[0],
        partition=found.get("Partition", ""),
        nodes=tuple(expand(found.get("NodeList", ""))),
        gpus=_job_gpus(found),
        exit_code=code if state.over else None,
        signal=(signal or None) if state.over else None,
        reason=found.get("Reason", ""),
        submitted=_time(found.get("SubmitTime", "")),
        started=_time(found.get("StartTime", "")) if state is not JobState.PENDING else 0.0,
        ended=_time(found.get("EndTime", "")) if state.over else 0.0,
        output=found.get("StdOut", ""),
        restarts=int(found.get("Restarts", "0") or 0),
    )


def _job_gpus(found: dict[str, str]) -> int:
    whole = gpus(found.get("AllocTRES", "") or found.get("TRES", ""))
    nodes = found.get("NumNodes", "0").split("-")[0]
    return whole or gpus(found.get("TresPerNode", "")) * (int(nodes) if nodes.isdigit() else 0)


def gpus(resources: str) -> int:
    """Devices in `cpu=8,gres/gpu=8,gres/gpu:h100=8` (the typed ones are part of the whole) or `gpu:h100:8(S:0-1)`."""
    whole = re.search(r"\bgres/gpu=(\d+)", resources)
    if whole:
        return int(whole[1])
    return sum(int(match[1] or match[2]) for match in _GPUS.finditer(resources))


def _exit(text: str) -> tuple[int | None, int | None]:
    code, _, signal = text.partition(":")
    return (int(code), int(signal)) if code.isdigit() and signal.isdigit() else (None, None)


def _time(text: str) -> float:
    """Slurm prints local time without a zone."""
    try:
        return datetime.fromisoformat(text).astimezone().timestamp()
    except ValueError:
        return 0.0


def expand(names: str) -> Iterator[str]:
    """`n[1-3,07],login` as n1 n2 n3 n07 login; several brackets in a name multiply."""
    for part in _split(names):
        yield from _expand_one(part)


def _split(names: str) -> Iterator[str]:
    depth, start = 0, 0
    for index, char in enumerate(names):
        depth += (char == "[") - (char == "]")
        if char == "," and not depth:
            yield names[start:index]
            start = index + 1
    if names[start:]:
        yield names[start:]


def _expand_one(part: str) -> Iterator[str]:
    head, bracket, rest = part.partition("[")
    if not bracket:
        yield head
        return
    inside, _, tail = rest.partition("]")
    for item in inside.split(","):
        low, dash, high = item.partition("-")
        numbers = [f"{n:0{len(low)}d}" for n in range(int(low), int(high) + 1)] if dash else [low]
        for number in numbers:
            for end in _expand_one(tail):
                yield f"{head}{number}{end}"


def leaves(text: str) -> dict[str, tuple[str, ...]]:
    """Leaf switch -> nodes, of `scontrol -o show topology`; none where no topology plugin is configured."""
    found = {}
    for line in text.splitlines():
        if line.startswith("SwitchName="):
            told = fields(line)
            if told.get("Level") == "0":
                found[told["SwitchName"]] = tuple(expand(told.get("Nodes", "")))
    return found
