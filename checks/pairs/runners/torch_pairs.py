"""Pairs measured with torch.distributed by resident workers: gloo between CPUs, NCCL between GPUs."""

import itertools
import threading
from collections.abc import Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any

from checks.pairs.launch import Crew, WorkerError, WorkerLate
from checks.pairs.runner import Answer, Outcome, Rate, variation

# Meeting, connecting and leaving, beside the traffic; NCCL's first connection of a pair takes a second or two.
_SETUP_SECONDS = 10.0


class TorchPairs:
    """window: seconds of traffic each way. message: bytes. devices: GPUs (= rails) of each node; none: CPUs, gloo."""

    name = "torch"

    def __init__(
        self, crew: Crew, window: float = 5.0, message: int = 4 << 20, devices: int = 0, setup: float = _SETUP_SECONDS
    ) -> None:
        self._crew = crew
        self._window = window
        self._message = message
        self._devices = devices
        self._deadline = 2 * window + setup
        self._numbers = itertools.count()
        self._numbering = threading.Lock()

    def measure(self, a: str, b: str) -> Outcome:
        """Both directions of the pair on all rails at once."""
        rails = range(self._devices) if self._devices else [-1]
        with ThreadPoolExecutor(2 * len(rails)) as pool:
            halves = [self._start(pool, a, b, device) for device in rails]
            answers = [[_told(half) for half in pair] for pair in halves]
        return _outcome(a, b, answers)

    def _start(self, pool: ThreadPoolExecutor, a: str, b: str, device: int) -> list[Future[dict[str, Any]]]:
        with self._numbering:
            pair = f"{a}-{b}-{next(self._numbers)}"
        order = {
            "do": "traffic",
            "pair": pair,
            "address": self._crew.places[a].address,
            "window": self._window,
            "message": self._message,
            "device": device,
            "deadline": self._deadline,
        }
        try:
            opened = self._crew.workers[a].order({**order, "do": "open"}, _SETUP_SECONDS)
        except WorkerError as error:
            opened = {"error": str(error), "late": isinstance(error, WorkerLate)}
        if "port" not in opened:
            failed: Future[dict[str, Any]] = Future()
            failed.set_result(opened)
            return [failed, failed]
        sides = enumerate((a, b))
        return [pool.submit(self._ask, n, {**order, "rank": rank, "port": opened["port"]}) for rank, n in sides]

    def _ask(self, node: str, order: Mapping[str, Any]) -> dict[str, Any]:
        try:
            return self._crew.workers[node].order(order, self._deadline + 2.0)
        except WorkerError as error:
            return {"error": str(error), "late": True}


def _told(half: Future[dict[str, Any]]) -> dict[str, Any]:
    return half.result()


# What torch says when the partner does not answer or cannot be reached: the pair's fault, not the tool's.
_SILENCE = ("imed out", "imeout", "onnection", "unreachable", "closed", "reset", "refused", "No route", "Broken pipe")


def _outcome(a: str, b: str, answers: list[list[dict[str, Any]]]) -> Outcome:
    """Each side tells what it received: the second node's answer is the direction from the first."""
    errors = [half for pair in answers for half in pair if "error" in half]
    if errors:
        silent = any(half.get("late") or any(word in half["error"] for word in _SILENCE) for half in errors)
        note = "; ".join(dict.fromkeys(half["error"].splitlines()[0][:200] for half in errors))
        return Outcome(a=a, b=b, answer=Answer.SILENT if silent else Answer.UNKNOWN, note=note)
    return Outcome(
        a=a,
        b=b,
        answer=Answer.MEASURED,
        forth=[_rate(pair[1]) for pair in answers],
        back=[_rate(pair[0]) for pair in answers],
    )


def _rate(half: Mapping[str, Any]) -> Rate:
    return Rate(
        gigabytes=half["gigabytes"],
        steady=half["steady"],
        variation=variation(half["slices"]),
        damaged=half["damaged"],
    )
