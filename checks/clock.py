"""The time, passed in so that a test or a replay can hold its own."""

import time
from typing import Protocol


class Clock(Protocol):
    """Wall time for records, monotonic time for intervals, both in seconds."""

    def now(self) -> float: ...
    def monotonic(self) -> float: ...


class SystemClock:
    """The machine's own clocks."""

    def now(self) -> float:
        """Seconds since the epoch; may step."""
        return time.time()

    def monotonic(self) -> float:
        """Seconds since some start; never goes back. Counts time in suspend, so that a deadline means real time."""
        return time.clock_gettime(time.CLOCK_BOOTTIME)


class RunningClock(SystemClock):
    """Wall time that begins at a given moment and goes on from there: for a recorded node that is watched."""

    def __init__(self, now: float) -> None:
        self._ahead = now - self.monotonic()

    def now(self) -> float:
        """Seconds since the epoch of the recording."""
        return self.monotonic() + self._ahead


class ManualClock:
    """A clock that stands still until `advance`: for tests and replayed scenarios."""

    def __init__(self, now: float = 1_700_000_000.0, monotonic: float = 10_000.0) -> None:
        self._now = now
        self._monotonic = monotonic

    def now(self) -> float:
        """Seconds since the epoch."""
        return self._now

    def monotonic(self) -> float:
        """Seconds since some start."""
        return self._monotonic

    def advance(self, seconds: float) -> None:
        """Let that much time go by."""
        self._now += seconds
        self._monotonic += seconds

    def step(self, seconds: float) -> None:
        """Step the wall clock alone, as a time server does."""
        self._now += seconds
