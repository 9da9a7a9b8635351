"""Runs checks side by side on a few threads: a slow one delays no other, and none runs twice at once."""

import threading
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor

from checks.base import Check, CheckConfig, Memory
from checks.host import Host
from checks.runner import Outcome, run_check

# Checks mostly wait for children or the kernel; the kernel log (every second) must never queue behind slow mounts.
THREADS = 4


class Runs:
    """The check runs that are under way. `finished` is called on a worker thread with each outcome."""

    def __init__(self, host: Host, finished: Callable[[Outcome], None]) -> None:
        self._host = host
        self._finished = finished
        self._pool = ThreadPoolExecutor(THREADS, thread_name_prefix="check")
        self._lock = threading.Lock()
        self._under_way: dict[str, float] = {}  # name -> monotonic start

    def start(self, check: Check, config: CheckConfig, memory: Memory) -> bool:
        """Start a run; False when the one before has not ended."""
        with self._lock:
            if check.name in self._under_way:
                return False
            self._under_way[check.name] = self._host.clock.monotonic()
        self._pool.submit(self._run, check, config, memory).add_done_callback(_raise)
        return True

    def under_way(self) -> dict[str, float]:
        """The checks that run now, and for how many seconds."""
        now = self._host.clock.monotonic()
        with self._lock:
            return {name: now - started for name, started in self._under_way.items()}

    def close(self) -> None:
        """Start no more; what is under way is left to its deadline."""
        self._pool.shutdown(wait=False, cancel_futures=True)

    def _run(self, check: Check, config: CheckConfig, memory: Memory) -> None:
        try:
            outcome = run_check(check, self._host, config, memory)
        finally:
            with self._lock:
                self._under_way.pop(check.name, None)
        self._finished(outcome)


def _raise(future: "Future[None]") -> None:
    # run_check never raises for what a check does, so whatever comes here is a bug that must not go unseen.
    error = None if future.cancelled() else future.exception()
    if error is not None:
        raise error
