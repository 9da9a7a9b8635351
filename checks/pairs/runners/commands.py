"""Pairs measured with a client and a server program, iperf3 or perftest's ib_write_bw, run by the resident workers."""

import itertools
import json
import re
import threading
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any

from checks.pairs.launch import Crew, WorkerError
from checks.pairs.runner import Answer, Outcome, Rate, variation

# Beside the traffic: connecting and exchanging addresses.
_SETUP_SECONDS = 10.0
# The server's start, before the client is sent on its way; a client that is refused tries again.
_HEAD_START_SECONDS, _TRIES = 0.3, 5
_FIRST_PORT, _PORTS = 18500, 2000


class Unparsable(ValueError):
    """A tool's output without the figure in it; the message says what was missing."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Tool:
    """A pair of programs.

    server, client: their command lines for (address, port, rail, seconds). read: the rate in the client's output.
    refused: what it says when the server is not up yet.
    """

    name: str
    server: Callable[[str, int, int, float], Sequence[str]]
    client: Callable[[str, int, int, float], Sequence[str]]
    read: Callable[[str], Rate]
    refused: str


def read_iperf3(text: str) -> Rate:
    """What arrived, from `iperf3 --json`. Raises Unparsable with iperf3's own error if it tells one."""
    try:
        tree = json.loads(text)
    except ValueError as error:
        raise Unparsable("iperf3: its output is no JSON (is it older than 3.0, or cut off?)") from error
    if not isinstance(tree, dict) or "error" in tree:
        raise Unparsable(f"iperf3: {tree['error'] if isinstance(tree, dict) else 'its output is no object'}")
    end = tree.get("end", {})
    total = end.get("sum_received") or end.get("sum") or {}
    rate = total.get("bits_per_second")
    if not isinstance(rate, int | float):
        raise Unparsable("iperf3: no end.sum_received.bits_per_second in its output")
    slices = [part.get("sum", {}).get("bits_per_second", 0.0) / 8e9 for part in tree.get("intervals", [])]
    return Rate(gigabytes=rate / 8e9, variation=variation(slices))


# `#bytes #iterations BW peak[..] BW average[..] MsgRate[Mpps]`; the unit stands in the heading, and differs by option.
_HEADING = re.compile(r"#bytes\s+#iterations\s+BW peak\[([^\]]+)\]\s+BW average\[([^\]]+)\]")
_UNITS = {"Gb/sec": 1 / 8, "MB/sec": 1e-3, "MiB/sec": 2**20 / 1e9, "GiB/sec": 2**30 / 1e9}


def read_perftest(text: str) -> Rate:
    """The average of `ib_write_bw`'s last row, whatever its unit. Raises Unparsable."""
    heading = _HEADING.search(text)
    if heading is None:
        reason = next((line.strip() for line in text.splitlines() if "rror" in line or "Couldn" in line), "no table")
        raise Unparsable(f"ib_write_bw: {reason[:120]}")
    unit = _UNITS.get(heading[2])
    if unit is None:
        raise Unparsable(f"ib_write_bw: unknown unit {heading[2]}")
    rows = [line.split() for line in text[heading.end() :].splitlines()]
    rows = [row for row in rows if len(row) >= 4 and row[0].isdigit()]
    try:
        peak, average = float(rows[-1][2]), float(rows[-1][3])
    except (IndexError, ValueError) as error:
        raise Unparsable("ib_write_bw: the table has no row (was it cut off?)") from error
    # With -D (by time) the peak is 0: only the average is measured.
    return Rate(gigabytes=average * unit, variation=round(max(peak / average - 1, 0.0), 4) if average > 0 else 0.0)


def iperf3() -> Tool:
    """TCP between the two addresses."""
    return Tool(
        name="iperf3",
        server=lambda address, port, rail, seconds: ("iperf3", "-s", "-1", "-B", address, "-p", str(port)),
        client=lambda address, port, rail, seconds: (
            *(
                "iperf3",
                "-c",
                address,
                "-p",
                str(port),
                "-t",
                str(max(1, round(seconds))),  # it reads 0.5 as 0, which means "for ever"
                "-i",
                f"{max(seconds / 10, 0.1):g}",
                "-J",
            ),
        ),
        read=read_iperf3,
        refused="onnection refused",
    )


def perftest(devices: Sequence[str], gpus: bool = False, gid: int | None = None) -> Tool:
    """RDMA writes between equal rails. devices: HCA of each rail. gpus: from and to GPU memory, GPU k with rail k."""

    def options(port: int, rail: int, seconds: float) -> tuple[str, ...]:
        common = (
            "ib_write_bw",
            "-F",
            "--report_gbits",
            "-d",
            devices[rail],
            "-p",
            str(port),
            "-D",
            f"{max(1, round(seconds))}",
        )
        memory = ("--use_cuda", str(rail)) if gpus else ()
        return (*common, "-s", "1048576", *memory, *(() if gid is None else ("-x", str(gid))))

    return Tool(
        name="perftest",
        server=lambda address, port, rail, seconds: options(port, rail, seconds),
        client=lambda address, port, rail, seconds: (*options(port, rail, seconds), address),
        read=read_perftest,
        refused="Couldn't connect",
    )


class CommandPairs:
    """window: seconds of traffic each way; directions after each other, all rails at once."""

    def __init__(self, crew: Crew, tool: Tool, rails: int = 1, window: float = 5.0) -> None:
        self.name = tool.name
        self._crew, self._tool, self._rails, self._window = crew, tool, rails, window
        self._ports = itertools.count()
        self._lock = threading.Lock()

    def measure(self, a: str, b: str) -> Outcome:
        """Never raises: a tool that is missing, fails or says nonsense is `unknown`, a time limit `silent`."""
        ways: list[list[Rate]] = []
        with ThreadPoolExecutor(2 * self._rails) as pool:
            for source, sink in ((a, b), (b, a)):
                done = list(pool.map(lambda rail, s=source, k=sink: self._one_way(s, k, rail), range(self._rails)))
                for found in done:
                    if isinstance(found, Outcome):
                        return Outcome(a=a, b=b, answer=found.answer, note=found.note)
                ways.append([found for found in done if isinstance(found, Rate)])
        return Outcome(a=a, b=b, answer=Answer.MEASURED, forth=ways[0], back=ways[1])

    def _one_way(self, source: str, sink: str, rail: int) -> Rate | Outcome:
        port = self._port()
        address = self._crew.places[sink].address
        limit = self._window + _SETUP_SECONDS
        server = threading.Thread(
            target=self._ask, args=(sink, self._tool.server(address, port, rail, self._window), limit), daemon=True
        )
        server.start()
        answer: dict[str, Any] = {}
        for _ in range(_TRIES):
            time.sleep(_HEAD_START_SECONDS)
            answer = self._ask(source, self._tool.client(address, port, rail, self._window), limit)
            if self._tool.refused not in str(answer):
                break
        return self._judge(source, sink, answer)

    def _judge(self, source: str, sink: str, answer: dict[str, Any]) -> Rate | Outcome:
        try:
            if "error" in answer:
                silent = "no answer within" in answer["error"]
                return Outcome(
                    a=source, b=sink, answer=Answer.SILENT if silent else Answer.UNKNOWN, note=answer["error"]
                )
            return self._tool.read(answer["stdout"] or answer["stderr"])
        except Unparsable as error:
            return Outcome(a=source, b=sink, answer=silence_or_unknown(str(error)), note=f"{source}: {error}")

    def _ask(self, node: str, command: Sequence[str], limit: float) -> dict[str, Any]:
        try:
            order = {"do": "command", "command": list(command), "deadline": limit}
            return self._crew.workers[node].order(order, limit + 2.0)
        except WorkerError as error:
            return {"error": str(error)}

    def _port(self) -> int:
        with self._lock:
            return _FIRST_PORT + next(self._ports) % _PORTS


# Said by the tools when the network, not the tool, is at fault.
_NETWORK = ("No route", "unreachable", "timed out", "onnection reset", "onnection refused", "Couldn't connect")


def silence_or_unknown(note: str) -> Answer:
    """Whether a tool's failure speaks of the way between the nodes or of the tool."""
    return Answer.SILENT if any(word in note for word in _NETWORK) else Answer.UNKNOWN
