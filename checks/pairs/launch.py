"""Starts the resident workers, talks to them, and ends every one of them.

A worker is a long-lived program with a pipe each way, which neither a command with a deadline nor a probe's child is:
hence a door of its own. What is put before the worker's command (`srun ...`, `ip netns exec ...`) decides where it
runs; nothing is needed on the nodes but this package.
"""

import contextlib
import io
import itertools
import json
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, cast

# How long a worker may take to go by itself when its input ends, and again after SIGTERM.
_GRACE_SECONDS = 2.0


class WorkerError(Exception):
    """A worker gave no answer: it ended, or it was over the order's deadline."""


class WorkerLate(WorkerError):
    """The deadline went by without an answer; the worker is still there."""


@dataclass(slots=True)
class _Waiting:
    done: threading.Event = field(default_factory=threading.Event)
    answer: dict[str, Any] | None = None


class Worker:
    """One node's worker. Orders may be given from several threads; each waits for its own answer."""

    def __init__(self, name: str, prefix: Sequence[str], environment: Mapping[str, str]) -> None:
        self.name = name
        self._numbers = itertools.count()
        self._lock = threading.Lock()
        self._waiting: dict[int, _Waiting] = {-1: _Waiting()}
        self._started = self._waiting[-1]
        self._gone = False
        self._process = subprocess.Popen(
            [*prefix, sys.executable, "-I", "-m", "checks.pairs.workers.agent"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            env={**os.environ, **environment},
            start_new_session=True,
            bufsize=0,
        )
        assert self._process.stdin is not None
        # A stopped worker does not read: an order that no longer fits into its pipe must not stop us too.
        os.set_blocking(self._process.stdin.fileno(), False)
        self._reader = threading.Thread(target=self._read, name=f"pairs-{name}", daemon=True)
        self._reader.start()

    @property
    def pid(self) -> int:
        """Of the process that was started here (with a prefix: the prefix's program)."""
        return self._process.pid

    def ready(self, seconds: float) -> bool:
        """Whether it has started within so many seconds."""
        return self._started.done.wait(seconds) and not self._gone

    def order(self, what: Mapping[str, Any], deadline: float) -> dict[str, Any]:
        """The answer to an order. Raises WorkerError when there is none within `deadline` seconds."""
        number = next(self._numbers)
        waiting = _Waiting()
        with self._lock:
            if self._gone:
                raise WorkerError(f"{self.name}: the worker has ended")
            self._waiting[number] = waiting
        self._write({"id": number, **what})
        if not waiting.done.wait(deadline):
            with self._lock:
                self._waiting.pop(number, None)
            raise WorkerLate(f"{self.name}: no answer within {deadline:g} s")
        if waiting.answer is None:
            raise WorkerError(f"{self.name}: the worker has ended")
        return waiting.answer

    def _write(self, message: Mapping[str, Any]) -> None:
        assert self._process.stdin is not None
        with self._lock:
            try:
                # Up to 4096 bytes a pipe takes whole or not at all, and an order is some hundreds.
                written = self._process.stdin.write(json.dumps(message).encode() + b"\n")
            except (OSError, ValueError) as error:
                raise WorkerError(f"{self.name}: the worker has ended") from error
        if not written:
            raise WorkerLate(f"{self.name}: it does not read its orders")

    def _read(self) -> None:
        assert self._process.stdout is not None
        source = cast(io.RawIOBase, self._process.stdout)
        with contextlib.suppress(ValueError, OSError), io.BufferedReader(source) as lines:
            for line in lines:
                try:
                    message = json.loads(line)
                    number = int(message.pop("id"))
                except (ValueError, KeyError, TypeError, AttributeError):
                    continue  # something else on the node wrote to the same output
                with self._lock:
                    waiting = self._waiting.pop(number, None)
                if waiting is not None:
                    waiting.answer = message
                    waiting.done.set()
        with self._lock:
            self._gone = True
            left, self._waiting = self._waiting, {}
        for waiting in left.values():
            waiting.done.set()

    def close_input(self) -> None:
        """Ask it to end."""
        assert self._process.stdin is not None
        self._process.stdin.close()

    def end(self) -> None:
        """See that it and all it started are gone: a stopped one is killed, none is waited for without end."""
        self.close_input()
        for number in (None, signal.SIGTERM, signal.SIGKILL):
            if number is not None:
                with contextlib.suppress(ProcessLookupError):
                    os.killpg(self._process.pid, number)
            with contextlib.suppress(subprocess.TimeoutExpired):
                self._process.wait(_GRACE_SECONDS if number is not signal.SIGTERM else 0.5)
                break
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self._process.pid, signal.SIGKILL)
        self._reader.join(_GRACE_SECONDS)


@dataclass(frozen=True, slots=True, kw_only=True)
class Place:
    """Where a node's worker runs and how others reach it.

    prefix: what is put before its command. address: on the network that is measured. interface: of that network.
    """

    node: str
    address: str
    prefix: tuple[str, ...] = ()
    interface: str = ""


class Crew:
    """All workers of a sweep; a context manager that leaves none behind, whatever happens inside."""

    def __init__(self, places: Sequence[Place], warm: str, environment: Mapping[str, str] | None = None) -> None:
        self.places = {place.node: place for place in places}
        self._warm = warm
        self._environment = dict(environment or {})
        self.workers: dict[str, Worker] = {}

    def __enter__(self) -> "Crew":
        try:
            for place in self.places.values():
                environment = {"MUSTER_PAIRS_WARM": self._warm, "OMP_NUM_THREADS": "1", **self._environment}
                if place.interface:
                    environment["MUSTER_PAIRS_INTERFACE"] = place.interface
                self.workers[place.node] = Worker(place.node, place.prefix, environment)
        except BaseException:
            self.close()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def ready(self, seconds: float) -> list[str]:
        """The nodes whose worker did not start within so many seconds (for all of them together)."""
        import time

        until = time.monotonic() + seconds
        return [name for name, w in self.workers.items() if not w.ready(max(0.0, until - time.monotonic()))]

    def close(self) -> None:
        """End all workers, at once rather than one after the other."""
        for worker in self.workers.values():
            worker.close_input()
        threads = [threading.Thread(target=worker.end) for worker in self.workers.values()]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        self.workers.clear()


def on_slurm(nodes: Sequence[str], address: Mapping[str, str] | None = None) -> list[Place]:
    """Workers as one-task steps of the Slurm allocation this runs in."""
    return [
        Place(
            node=node,
            address=(address or {}).get(node, node),
            prefix=("srun", "--nodes=1", "--ntasks=1", "--overlap", "--unbuffered", f"--nodelist={node}"),
        )
        for node in nodes
    ]
