"""Runs checks side by side on a few threads: a slow one delays no other, and none runs twice at once.

The threads are daemons of the process: one that the kernel does not give back holds up neither the others (another
thread takes its place) nor the end of the agent.
"""

import logging
import queue
import threading
from collections.abc import Callable
from dataclasses import dataclass

from checks.base import Check, CheckConfig, Memory
from checks.host import Host
from checks.runner import Outcome, run_check

log = logging.getLogger(__name__)

# Checks mostly wait for children or the kernel; the kernel log (every second) must never queue behind slow mounts.
THREADS = 4
# A run in a child is over at its deadline; one without a child has no reason to last so much longer.
OVERDUE_SECONDS = 5.0


@dataclass(slots=True)
class _Run:
    check: Check
    config: CheckConfig
    memory: Memory
    started: float
    relieved: bool = False


class Runs:
    """The check runs that are under way. `finished` is called on a worker thread with each outcome."""

    def __init__(self, host: Host, finished: Callable[[Outcome], None]) -> None:
        self._host = host
        self._finished = finished
        self._lock = threading.Lock()
        self._under_way: dict[str, _Run] = {}
        self._waiting: queue.SimpleQueue[_Run | None] = queue.SimpleQueue()
        self._threads = 0
        for _ in range(THREADS):
            self._add_thread()

    def start(self, check: Check, config: CheckConfig, memory: Memory) -> bool:
        """Start a run; False when the one before has not ended."""
        run = _Run(check, config, memory, self._host.clock.monotonic())
        with self._lock:
            if check.name in self._under_way:
                return False
            self._under_way[check.name] = run
        self._waiting.put(run)
        return True

    def under_way(self) -> dict[str, float]:
        """The checks that run now, and for how many seconds."""
        now = self._host.clock.monotonic()
        with self._lock:
            return {name: now - run.started for name, run in self._under_way.items()}

    def overdue(self) -> dict[str, float]:
        """The checks that should be long over, and for how many seconds they have run; others get a thread instead."""
        now = self._host.clock.monotonic()
        with self._lock:
            late = [r for r in self._under_way.values() if now - r.started > 2 * r.config.deadline + OVERDUE_SECONDS]
            for run in late:
                if not run.relieved:
                    run.relieved = True
                    self._add_thread()
        return {run.check.name: now - run.started for run in late}

    def close(self) -> None:
        """Start no more; what is under way is left to itself."""
        for _ in range(self._threads):
            self._waiting.put(None)

    def _add_thread(self) -> None:
        self._threads += 1
        threading.Thread(target=self._work, name=f"check-{self._threads}", daemon=True).start()

    def _work(self) -> None:
        while (run := self._waiting.get()) is not None:
            self._do(run)
            if run.relieved:
                return

    def _do(self, run: _Run) -> None:
        try:
            outcome = run_check(run.check, self._host, run.config, run.memory)
        except Exception:
            # run_check never raises for what a check does: this is a bug of ours, and the thread must outlive it.
            log.exception("the run of %s failed", run.check.name)
            return
        finally:
            with self._lock:
                self._under_way.pop(run.check.name, None)
        self._finished(outcome)
