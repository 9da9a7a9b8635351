"""A read of a sick device can block for ever: such reads run in warm children that are killed at their deadline.

One child start costs some 60 ms of CPU, so a child is kept warm between calls (measured in docs/benchmarks.md).
A child that SIGKILL cannot end (D state: NFS server gone, driver stuck) stays known under the *door* it hangs in; the
next call on that door fails at once, without a second child, until the first one is gone.
"""

import os
import pickle
import select
import socket
import struct
import subprocess
import sys
import threading
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from checks.clock import Clock, SystemClock

# How long a killed child may take to go before it counts as unkillable. A healthy kill takes about a millisecond.
_KILL_GRACE_SECONDS = 0.5
# A child is replaced after so many calls, which bounds what a leaking driver library can cost.
_CALLS_PER_CHILD = 5000
# Several checks ask at once, and most answers take a millisecond: so long a caller waits for the child that is there
# before it starts another. A child that hangs holds the next caller up for no longer.
_QUEUE_SECONDS = 1.0
_HEADER = struct.Struct("!I")


class ProbeError(Exception):
    """A probe gave no answer; the message says which and why."""


class ProbeTimeout(ProbeError):
    """No answer within the deadline; the child was killed."""


class ProbeHung(ProbeError):
    """An earlier child hangs in this door and cannot be killed, so no other was started.

    door: what it hangs in. seconds: for how long. pid: of the child.
    """

    def __init__(self, door: str, seconds: float, pid: int) -> None:
        super().__init__(f"{door} does not answer: probe {pid} has hung in it for {seconds:.0f} s and cannot be killed")
        self.door = door
        self.seconds = seconds
        self.pid = pid


class ProbeFailed(ProbeError):
    """The function raised in the child (the message is its exception), or the child ended by itself.

    child_lives: it answered with its exception, and can be asked again.
    """

    def __init__(self, message: str, *, child_lives: bool = False) -> None:
        super().__init__(message)
        self.child_lives = child_lives


def send(sock: socket.socket, message: object) -> None:
    """Write one length-prefixed pickle."""
    body = pickle.dumps(message)
    sock.sendall(_HEADER.pack(len(body)) + body)


def receive(sock: socket.socket) -> Any:
    """Read one length-prefixed pickle. Raises EOFError when the other side is gone."""
    (length,) = _HEADER.unpack(_exactly(sock, _HEADER.size))
    return pickle.loads(_exactly(sock, length))


def _exactly(sock: socket.socket, size: int) -> bytes:
    parts = bytearray()
    while len(parts) < size:
        part = sock.recv(size - len(parts))
        if not part:
            raise EOFError
        parts += part
    return bytes(parts)


@dataclass(slots=True)
class _Child:
    process: subprocess.Popen[bytes]
    socket: socket.socket
    calls: int = 0
    hung_since: float = 0.0

    def kill(self) -> bool:
        """End it; False when it cannot be ended within the grace."""
        self.process.kill()
        self.socket.close()
        return self.gone(_KILL_GRACE_SECONDS)

    def gone(self, timeout: float) -> bool:
        try:
            self.process.wait(timeout)
        except subprocess.TimeoutExpired:
            return False
        return True


def _start(environment: Mapping[str, str]) -> _Child:
    ours, theirs = socket.socketpair()
    with theirs:
        process = subprocess.Popen(
            [sys.executable, "-I", "-m", "checks.probe_child", str(theirs.fileno())],
            pass_fds=[theirs.fileno()],
            stdin=subprocess.DEVNULL,
            env={**os.environ, **environment},
            start_new_session=True,
        )
    return _Child(process, ours)


class Prober:
    """Calls module-level functions in warm, killable children; safe to use from several threads."""

    def __init__(self, clock: Clock | None = None, environment: Mapping[str, str] | None = None) -> None:
        """environment: variables that the children have besides ours, such as where a library is found."""
        self._clock = clock or SystemClock()
        self._environment = environment or {}
        self._lock = threading.Condition()
        self._idle: dict[str, _Child] = {}  # the part of the door before ":" -> a warm child
        self._busy: dict[str, int] = {}  # the same part -> children that are answering
        self._hung: dict[str, _Child] = {}  # door -> the child that hangs in it

    def call(self, door: str, function: str, *args: object, deadline: float) -> Any:
        """The value of `function` ("package.module:name") called with `args` in a child.

        Raises ProbeTimeout, ProbeHung or ProbeFailed.
        """
        value = None
        for value in self.stream(door, function, *args, deadline=deadline):  # noqa: B007
            pass
        return value

    def stream(self, door: str, function: str, *args: object, deadline: float) -> Iterator[Any]:
        """What the function yields, as it comes, then what it returns; `deadline` seconds for all of it.

        Raises ProbeTimeout, ProbeHung or ProbeFailed, after everything that came before the trouble.
        """
        self._refuse_if_hung(door)
        lane = door.split(":", 1)[0]
        finished = False
        child = self._take(lane)
        try:
            yield from self._exchange(child, door, (function, args), deadline)
            finished = True
        except ProbeFailed as error:
            finished = error.child_lives
            raise
        finally:
            if finished:
                self._give_back(lane, child)
            else:
                self._end(lane, door, child)

    def hung(self) -> dict[str, float]:
        """Doors with a child that cannot be killed, and for how many seconds."""
        with self._lock:
            self._hung = {door: child for door, child in self._hung.items() if not child.gone(0)}
            return {door: self._clock.monotonic() - child.hung_since for door, child in self._hung.items()}

    def pids(self) -> list[int]:
        """The children there are, warm or hung."""
        with self._lock:
            return [child.process.pid for child in (*self._idle.values(), *self._hung.values())]

    def close(self) -> None:
        """End every child; a hung one is left to the kernel."""
        with self._lock:
            children = [*self._idle.values()]
            self._idle.clear()
        for child in children:
            child.kill()

    def _refuse_if_hung(self, door: str) -> None:
        hung = self.hung()
        if door in hung:
            raise ProbeHung(door, hung[door], self._hung[door].process.pid)

    def _take(self, lane: str) -> _Child:
        with self._lock:
            if lane not in self._idle and self._busy.get(lane):
                self._lock.wait_for(lambda: lane in self._idle, _QUEUE_SECONDS)
            child = self._idle.pop(lane, None)
            self._busy[lane] = self._busy.get(lane, 0) + 1
        try:
            if child is not None and child.process.poll() is not None:
                child.socket.close()
                child = None
            if child is None:
                child = _start(self._environment)
        except BaseException:
            with self._lock:
                self._busy[lane] -= 1
            raise
        child.calls += 1
        return child

    def _give_back(self, lane: str, child: _Child) -> None:
        with self._lock:
            self._busy[lane] -= 1
            keep = lane not in self._idle and child.calls < _CALLS_PER_CHILD
            if keep:
                self._idle[lane] = child
                self._lock.notify()
        if not keep:
            child.kill()

    def _end(self, lane: str, door: str, child: _Child) -> None:
        gone = child.kill()
        with self._lock:
            self._busy[lane] -= 1
            if not gone:
                child.hung_since = self._clock.monotonic()
                self._hung[door] = child

    def _exchange(self, child: _Child, door: str, request: object, deadline: float) -> Iterator[Any]:
        end = self._clock.monotonic() + deadline
        try:
            send(child.socket, request)
            while True:
                left = end - self._clock.monotonic()
                if left <= 0 or not _readable(child.socket, left):
                    raise ProbeTimeout(f"{door} gave no answer within {deadline:g} s")
                # A child writes a message whole, so once it is readable the rest follows at once.
                word, value = receive(child.socket)
                if word == "failed":
                    raise ProbeFailed(value, child_lives=True)
                yield value
                if word == "returned":
                    return
        except (EOFError, OSError) as error:
            raise ProbeFailed(f"{door}: the probe ended by itself ({_ending(child)})") from error


def _readable(sock: socket.socket, seconds: float) -> bool:
    poll = select.poll()
    poll.register(sock, select.POLLIN)
    return bool(poll.poll(max(1, int(seconds * 1000))))


def _ending(child: _Child) -> str:
    if not child.gone(_KILL_GRACE_SECONDS):
        return "closed its end"
    code = child.process.returncode
    return f"signal {-code}" if code < 0 else f"exit code {code}"
