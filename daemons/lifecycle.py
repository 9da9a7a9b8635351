"""One skeleton for every daemon: signals, systemd, a schedule without drift, reload, and an end that always ends.

Everything a daemon decides happens in one thread, its main loop; other threads `post` to it. systemd is told READY as
soon as `begin` returns, and the watchdog is fed from the main loop, so that a loop that hangs is restarted.
"""

import logging
import os
import queue
import signal
import socket
import time
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import Future
from dataclasses import dataclass
from typing import TypeVar

from checks.clock import Clock
from daemons.errors import MusterError

log = logging.getLogger(__name__)
T = TypeVar("T")

# The main loop wakes at least so often, to feed the watchdog and look at its own clock.
_LONGEST_SLEEP = 5.0


class Notifier:
    """Tells systemd how the daemon is (sd_notify(3)); silent when nothing listens."""

    def __init__(self, environment: Mapping[str, str] = os.environ) -> None:
        self._address = environment.get("NOTIFY_SOCKET", "")
        ours = environment.get("WATCHDOG_PID", str(os.getpid())) == str(os.getpid())
        usec = environment.get("WATCHDOG_USEC", "")
        # systemd asks for a sign of life within WATCHDOG_USEC; half of it leaves room for a slow moment.
        self.watchdog_seconds = int(usec) / 2e6 if ours and usec.isdigit() and self._address else 0.0

    def tell(self, **words: str | int) -> None:
        """Send NAME=value lines; a supervisor that is away is no reason to stop."""
        if not self._address:
            return
        address = "\0" + self._address[1:] if self._address.startswith("@") else self._address
        text = "\n".join(f"{name}={value}" for name, value in words.items())
        try:
            with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC) as sock:
                sock.sendto(text.encode(), address)
        except OSError as error:
            log.debug("NOTIFY_SOCKET %s: %s", self._address, error)


@dataclass(slots=True)
class _Task:
    interval: float
    next: float


@dataclass(frozen=True, slots=True)
class Due:
    """A task that is to run now. late: seconds after its time. missed: earlier times that went by unused."""

    name: str
    late: float
    missed: int


class Schedule:
    """What runs when, in monotonic seconds: every time is the one before plus the interval, so nothing drifts.

    A task that comes late runs once, now; the times that went by meanwhile are left out and counted.
    """

    def __init__(self) -> None:
        self._tasks: dict[str, _Task] = {}

    def put(self, name: str, interval: float, first: float) -> None:
        """Add a task, or give it another interval: its next time then comes no later than that from `first`."""
        old = self._tasks.get(name)
        if old is None:
            self._tasks[name] = _Task(interval, first)
        elif old.interval != interval:
            self._tasks[name] = _Task(interval, min(old.next, first + interval))

    def drop(self, name: str) -> None:
        """The task runs no more."""
        self._tasks.pop(name, None)

    def names(self) -> list[str]:
        """All tasks."""
        return list(self._tasks)

    def next(self) -> float:
        """When the first of them is due; infinity when there is none."""
        return min((task.next for task in self._tasks.values()), default=float("inf"))

    def due(self, now: float) -> list[Due]:
        """Those to run now, the longest waiting first; each has its next time set."""
        found = []
        for name, task in self._tasks.items():
            if task.next > now:
                continue
            late = now - task.next
            missed = int(late // task.interval)
            task.next += (missed + 1) * task.interval
            if task.next <= now:  # the division rounded down
                task.next += task.interval
                missed += 1
            found.append(Due(name, late, missed))
        return sorted(found, key=lambda due: -due.late)


class Daemon(ABC):
    """A daemon: what to begin, what is done when due, what a reload does, and how it ends."""

    def __init__(self, name: str, clock: Clock, notifier: Notifier | None = None) -> None:
        self.name = name
        self.clock = clock
        self.schedule = Schedule()
        self._notifier = notifier or Notifier()
        # A SimpleQueue may be put to from a signal handler: its put is reentrant.
        self._inbox: queue.SimpleQueue[Callable[[], None]] = queue.SimpleQueue()
        self._ending = ""
        self._reload = False
        self._fed = 0.0

    @abstractmethod
    def begin(self) -> None:
        """Everything before READY; never waits for hardware or the network. Raises MusterError."""

    @abstractmethod
    def cycle(self, due: Sequence[Due]) -> str:
        """Do what is due; one sentence of what was decided and why, "" when nothing changed."""

    @abstractmethod
    def reload(self) -> str:
        """Take the configuration anew; a sentence of what changed. Raises MusterError: then all stays as it was."""

    @abstractmethod
    def endings(self) -> Sequence[tuple[str, Callable[[], None]]]:
        """The steps of the end, in order; each is tried whatever the others do."""

    @abstractmethod
    def status(self) -> str:
        """One line for `systemctl status`."""

    def post(self, message: Callable[[], None]) -> None:
        """Have the main loop call this soon; from any thread."""
        self._inbox.put(message)

    def ask(self, question: Callable[[], T]) -> "Future[T]":
        """Have the main loop answer this soon; from any thread."""
        answer: Future[T] = Future()

        def reply() -> None:
            if not answer.set_running_or_notify_cancel():
                return
            try:
                answer.set_result(question())
            except Exception as error:  # noqa: BLE001 - it is for whoever asked
                answer.set_exception(error)

        self.post(reply)
        return answer

    def stop(self, why: str) -> None:
        """End soon; from any thread and from signal handlers."""
        self._ending = self._ending or why
        self._inbox.put(lambda: None)

    def run(self) -> int:
        """Begin, work until told to end, end; the exit code. Raises MusterError when it cannot begin."""
        self._take_signals()
        try:
            self.begin()
            self._notifier.tell(READY=1, STATUS=self.status())
            while not self._ending:
                self._turn()
            log.info("%s: ending: %s", self.name, self._ending)
        finally:
            self.close()
        return 0

    def close(self) -> None:
        """Take every step of the end, also of one that has not begun."""
        self._notifier.tell(STOPPING=1)
        for what, step in self.endings():
            try:
                step()
            except Exception:
                log.exception("%s: could not %s", self.name, what)

    def _take_signals(self) -> None:
        signal.signal(signal.SIGTERM, lambda *_: self.stop("SIGTERM"))
        signal.signal(signal.SIGINT, lambda *_: self.stop("SIGINT"))
        signal.signal(signal.SIGHUP, lambda *_: self._ask_reload())

    def _ask_reload(self) -> None:
        self._reload = True
        self._inbox.put(lambda: None)

    def _turn(self) -> None:
        """Sleep until something is due or comes in, and do it."""
        self._sleep()
        if self._reload:
            self._reload = False
            self._try_reload()
        due = self.schedule.due(self.clock.monotonic())
        for late in (d for d in due if d.missed):
            log.warning("%s ran %.1f s late; %d of its times were left out", late.name, late.late, late.missed)
        sentence = self._guarded(lambda: self.cycle(due)) if due else ""
        if sentence:
            log.info("%s", sentence)
        self._feed()

    def _sleep(self) -> None:
        until = self.schedule.next() - self.clock.monotonic()
        longest = min(_LONGEST_SLEEP, self._notifier.watchdog_seconds or _LONGEST_SLEEP)
        try:
            message = self._inbox.get(timeout=max(0.0, min(until, longest)))
        except queue.Empty:
            return
        # What came in together is done together; what comes in meanwhile waits for the next turn.
        waiting = self._inbox.qsize()
        self._guarded(message)
        for _ in range(waiting):
            self._guarded(self._inbox.get_nowait())

    def _guarded(self, step: Callable[[], T]) -> T | None:
        try:
            return step()
        except Exception:
            # A bug in one step must not end the watch over everything else; it is told with its traceback.
            log.exception("%s: a step of the main loop failed", self.name)
            return None

    def _try_reload(self) -> None:
        self._notifier.tell(RELOADING=1, MONOTONIC_USEC=time.clock_gettime_ns(time.CLOCK_MONOTONIC) // 1000)
        try:
            log.info("reloaded: %s", self.reload() or "nothing changed")
        except MusterError as error:
            log.error("not reloaded, the configuration before stays: %s", error)
        except Exception:
            log.exception("not reloaded, the configuration before stays")
        self._notifier.tell(READY=1, STATUS=self.status())

    def _feed(self) -> None:
        now = self.clock.monotonic()
        if now - self._fed >= min(_LONGEST_SLEEP, (self._notifier.watchdog_seconds or _LONGEST_SLEEP) / 2):
            self._fed = now
            words: dict[str, str | int] = {"WATCHDOG": 1} if self._notifier.watchdog_seconds else {}
            self._notifier.tell(**words, STATUS=self.status())
