"""The one interface behind which pairs are measured: torch, iperf3, perftest, or the simulated fabric."""

import enum
import math
import statistics
from typing import Protocol

import msgspec


class Answer(enum.StrEnum):
    """How a measurement ended. Only `measured` and `silent` say anything of the pair."""

    MEASURED = "measured"
    SILENT = "silent"  # no answer within the time limit, or no way through: as bad as a pair can be
    UNKNOWN = "unknown"  # the tool is missing or broken: not the pair's fault


class Rate(msgspec.Struct, frozen=True, kw_only=True):
    """One direction on one rail.

    gigabytes: GB/s (1e9 bytes/s) over the whole window. steady: GB/s while it ran undisturbed, which is what pairs are
    compared by; 0: the tool does not tell. variation: of the window's slices, relative. damaged: messages whose
    content was wrong.
    """

    gigabytes: float
    steady: float = 0.0
    variation: float = 0.0
    damaged: int = 0


class Outcome(msgspec.Struct, frozen=True, kw_only=True):
    """One pair measured once. forth: first node to second, by rail; back: the other way. note: why, if not measured."""

    a: str
    b: str
    answer: Answer
    forth: list[Rate] = []
    back: list[Rate] = []
    note: str = ""

    def values(self, rails: int) -> list[list[float]]:
        """(2, rails) GB/s: nan where nothing is known, 0 where nothing came through."""
        if self.answer is Answer.SILENT:
            return [[0.0] * rails, [0.0] * rails]
        if self.answer is Answer.UNKNOWN:
            return [[math.nan] * rails, [math.nan] * rails]
        return [
            [rate.steady or rate.gigabytes for rate in way] + [math.nan] * (rails - len(way))
            for way in (self.forth, self.back)
        ]


class Runner(Protocol):
    """Measures one pair at a time per call; calls for disjoint pairs come from several threads at once."""

    name: str

    def measure(self, a: str, b: str) -> Outcome:
        """Never raises and never takes longer than its own time limit."""
        ...


def variation(slices: list[float]) -> float:
    """Standard deviation of the slices relative to their mean; 0 for fewer than two."""
    mean = statistics.fmean(slices) if slices else 0.0
    return round(statistics.pstdev(slices) / mean, 4) if len(slices) > 1 and mean > 0 else 0.0
