"""Asks a rank's flight recorder through torch's worker server, which answers in C++ while Python hangs."""

import re
import socket
from collections.abc import Iterable
from typing import Any

import msgspec

from daemons.supervisor.snapshot import Collective, Flight, GroupState

# A server thread in a process that is not stopped answers within milliseconds.
_SECONDS = 1.0
# How many of the last collectives are compared: what came before was completed by all.
_LAST = 400


_REDUCTIONS = re.compile(r"all_?reduce|reduce_?scatter", re.IGNORECASE)


class _Status(msgspec.Struct):
    last_enqueued_collective: str = "-1"
    last_started_collective: str = "-1"
    last_completed_collective: str = "-1"


class _Sequence(msgspec.Struct):
    pg_status: dict[str, _Status] = {}


class _Entry(msgspec.Struct):
    pg_id: int = 0
    collective_seq_id: int = 0
    profiling_name: str = ""
    input_sizes: list[list[int]] = []
    input_dtypes: list[str] = []
    retired: bool = False
    state: str = ""
    is_p2p: bool = False
    time_created_ns: int = 0


class _Config(msgspec.Struct):
    ranks: str = "[]"


class _Whole(msgspec.Struct):
    pg_status: dict[str, _Status] = {}
    pg_config: dict[str, _Config] = {}
    entries: list[_Entry] = []


def ask(path: str, handler: str, seconds: float = _SECONDS) -> bytes | None:
    """The body that a worker server answers, None when it does not within `seconds`."""
    try:
        with socket.socket(socket.AF_UNIX) as channel:
            channel.settimeout(seconds)
            channel.connect(path)
            request = f"POST /handler/{handler} HTTP/1.0\r\nHost: localhost\r\nContent-Length: 0\r\n\r\n"
            channel.sendall(request.encode())
            parts = []
            while part := channel.recv(1 << 18):
                parts.append(part)
    except OSError:
        return None
    head, _, body = b"".join(parts).partition(b"\r\n\r\n")
    return body if b" 200 " in head.split(b"\r\n", 1)[0] else None


def sequence(path: str) -> dict[str, int] | None:
    """The highest sequence number of every process group; None when there is no answer."""
    body = ask(path, "fr_trace_json")
    try:
        found = msgspec.json.decode(body, type=_Sequence) if body else None
    except msgspec.DecodeError:
        return None
    return {group: int(status.last_enqueued_collective) for group, status in found.pg_status.items()} if found else None


def flight(body: bytes | None) -> Flight | None:
    """A flight recorder's JSON as what is compared; None for none, or for one that is damaged."""
    try:
        found = msgspec.json.decode(body, type=_Whole) if body else None
    except msgspec.DecodeError:
        return None
    if found is None:
        return None
    groups = {
        group: GroupState(
            enqueued=int(status.last_enqueued_collective),
            started=int(status.last_started_collective),
            completed=int(status.last_completed_collective),
        )
        for group, status in found.pg_status.items()
    }
    return Flight(groups=groups, collectives=[_collective(e) for e in found.entries[-_LAST:] if not e.is_p2p])


def _collective(entry: Any) -> Collective:
    return Collective(
        group=str(entry.pg_id),
        sequence=entry.collective_seq_id,
        operation=entry.profiling_name,
        sizes=tuple(tuple(size) for size in entry.input_sizes),
        types=tuple(entry.input_dtypes),
        done=entry.retired or entry.state == "completed",
        created=entry.time_created_ns / 1e9,
    )


def reductions(flights: Iterable[Flight]) -> dict[str, list[float]]:
    """When each reduction came round, by its shape, on the rank that remembers most of them."""
    best: dict[str, list[float]] = {}
    for recorder in flights:
        found: dict[str, list[float]] = {}
        for item in recorder.collectives:
            if _REDUCTIONS.search(item.operation):
                found.setdefault(f"{item.group}/{item.shape}", []).append(item.created)
        if sum(map(len, found.values())) > sum(map(len, best.values())):
            best = found
    return best
