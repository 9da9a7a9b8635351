"""Starts a user's job so that it can always be ended whole, and says how its processes ended.

Between the supervisor and the job stands a guardian: this same file, run by a bare interpreter that imports nothing
but the standard library. It is the subreaper of the job, so that whatever the job starts, in whatever session, stays
below it; and it holds one end of a socket whose closing tells it that the supervisor is gone, however that ended. Then,
or when it is asked to, it ends every process below it. The reverse case, a guardian that is killed, is covered twice:
the job's first process dies with it (PR_SET_PDEATHSIG), and the supervisor is a subreaper as well.
"""

import contextlib
import ctypes
import json
import os
import select
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

_PR_SET_PDEATHSIG, _PR_SET_CHILD_SUBREAPER = 1, 36
# What is left of a job after its first process ended gets so long to end by itself.
_LEFT_BEHIND_SECONDS = 2.0
# A job whose supervisor has gone is asked first, so that a trainer can write its checkpoint.
_ABANDONED_SECONDS = 20.0


def _prctl(option: int, value: int) -> None:
    ctypes.CDLL(None, use_errno=True).prctl(option, value, 0, 0, 0)


def become_subreaper() -> None:
    """Let orphans below this process become its children."""
    _prctl(_PR_SET_CHILD_SUBREAPER, 1)


def descendants(pid: int) -> list[int]:
    """Every process below `pid`, parents before their children."""
    children: dict[int, list[int]] = {}
    for entry in os.scandir("/proc"):
        if entry.name.isdigit() and (parent := _parent(entry.name)) is not None:
            children.setdefault(parent, []).append(int(entry.name))
    found: list[int] = []
    waiting = [pid]
    while waiting:
        below = children.get(waiting.pop(), [])
        found += below
        waiting += below
    return found


def _parent(name: str) -> int | None:
    try:
        with open(f"/proc/{name}/stat", "rb") as file:  # noqa: PTH123 (pathlib costs half of the guardian's start)
            return int(file.read().rsplit(b")", 1)[1].split()[1])
    except (OSError, IndexError, ValueError):
        return None


def signal_all(pids: Sequence[int], number: int) -> None:
    """Send a signal to each; those that have gone are passed over."""
    for pid in pids:
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.kill(pid, number)


def end_below(pid: int, grace: float, reap: Callable[[], Any]) -> bool:
    """Wait `grace` seconds for every process below `pid` to end, then SIGKILL the rest. True when none is left."""
    deadline = time.monotonic() + grace
    while time.monotonic() < deadline:
        reap()
        if not descendants(pid):
            return True
        time.sleep(0.05)
    # A process that forks faster than it is killed loses to repetition; one in D state is left to the kernel.
    for _ in range(40):
        signal_all(descendants(pid), signal.SIGKILL)
        time.sleep(0.05)
        reap()
        if not descendants(pid):
            return True
    return False


class Job:
    """One start of the user's command. `pid`: of its first process; out, err: its output, to be read to the end."""

    def __init__(self, process: subprocess.Popen[bytes], control: socket.socket) -> None:
        assert process.stdout is not None
        assert process.stderr is not None
        self.guardian = process.pid
        self.out = process.stdout.fileno()
        self.err = process.stderr.fileno()
        self.pid = 0
        self.exit: int | None = None
        self.refused = ""
        self.orphans: dict[int, int] = {}
        self._process = process
        self._control = control
        self._buffer = b""

    def wait(self, seconds: float) -> bool:
        """Listen to the guardian for so long; True when the job is over and nothing of it is left."""
        if select.select([self._control], [], [], seconds)[0]:
            data = self._control.recv(65536)
            if not data:
                return self._ended()
            *lines, self._buffer = (self._buffer + data).split(b"\n")
            for line in lines:
                self._heard(json.loads(line))
        return False

    def _heard(self, message: dict[str, Any]) -> None:
        match message["said"]:
            case "started":
                self.pid = message["pid"]
            case "refused":
                self.refused = message["why"]
                self.exit = message["exit"]
            case "ended":
                self.exit = message["exit"]
            case "reaped":
                self.orphans[message["pid"]] = message["exit"]

    def _ended(self) -> bool:
        self._process.wait()
        # A guardian that was killed leaves its processes to us: no orphan may be left.
        end_below(os.getpid(), 0.0, reap_all)
        if self.exit is None:
            self.exit = -signal.SIGKILL
        return True

    def processes(self) -> list[int]:
        """Everything the job has running."""
        return descendants(self.guardian)

    def ask(self, word: str) -> None:
        """ "term": SIGTERM to the job's first process group; "kill": end all of it now."""
        with contextlib.suppress(OSError):
            self._control.sendall(word.encode() + b"\n")


def reap_all() -> None:
    """Take the exit codes of children that nobody waits for by pid."""
    with contextlib.suppress(ChildProcessError):
        while os.waitpid(-1, os.WNOHANG)[0]:
            pass


def launch(command: Sequence[str], environment: Mapping[str, str]) -> Job:
    """Start `command` under a guardian. Whether it could be started is said by the first messages of `Job.wait`."""
    become_subreaper()
    ours, theirs = socket.socketpair()
    with theirs:
        process = subprocess.Popen(
            [sys.executable, "-I", "-S", __file__, str(theirs.fileno()), *command],
            env=dict(environment),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            pass_fds=[theirs.fileno()],
            start_new_session=True,
        )
    return Job(process, ours)


class _Guardian:
    """The process between: starts the command, reaps what is left to it, and obeys the socket."""

    def __init__(self, control: socket.socket, command: Sequence[str]) -> None:
        self._control = control
        self._command = command
        self._child = 0
        self._exit: int | None = None

    def run(self) -> None:
        become_subreaper()
        for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
            signal.signal(number, signal.SIG_IGN)
        wake, woken = os.pipe()
        os.set_blocking(wake, False)
        os.set_blocking(woken, False)
        signal.set_wakeup_fd(woken)
        signal.signal(signal.SIGCHLD, lambda *_: None)
        if not self._start():
            return
        # The job's output must end when the job does, not when its guardian does.
        null = os.open(os.devnull, os.O_RDWR)
        os.dup2(null, 1)
        os.dup2(null, 2)
        while self._exit is None:
            ready = select.select([self._control.fileno(), wake], [], [])[0]
            if wake in ready:
                with contextlib.suppress(BlockingIOError):
                    os.read(wake, 4096)
            if self._control.fileno() in ready and not self._obey():
                self._terminate()
                end_below(os.getpid(), _ABANDONED_SECONDS, self._reap)
                return
            self._reap()
        signal_all(descendants(os.getpid()), signal.SIGTERM)
        end_below(os.getpid(), _LEFT_BEHIND_SECONDS, self._reap)
        self._say(said="ended", exit=self._exit)

    def _start(self) -> bool:
        parent = os.getpid()

        def in_child() -> None:
            _prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
            if os.getppid() != parent:
                os._exit(137)
            for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
                signal.signal(number, signal.SIG_DFL)

        try:
            child = subprocess.Popen(self._command, process_group=0, preexec_fn=in_child)
        except (OSError, subprocess.SubprocessError) as error:
            why = getattr(error, "strerror", None) or str(error)
            self._say(said="refused", why=why, exit=126 if isinstance(error, PermissionError) else 127)
            return False
        self._child = child.pid
        self._process = child  # kept: a Popen that is collected takes the exit code with it
        self._say(said="started", pid=child.pid)
        return True

    def _obey(self) -> bool:
        try:
            words = self._control.recv(4096)
        except OSError:
            return False
        if b"term" in words:
            self._terminate()
        if b"kill" in words:
            end_below(os.getpid(), 0.0, self._reap)
        return bool(words)

    def _terminate(self) -> None:
        """SIGTERM to the launcher and what shares its group; it passes the word on to the ranks.

        Not to every process: data-loading workers that end first would fail a rank that is writing its checkpoint.
        """
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self._child, signal.SIGTERM)
        signal_all(descendants(os.getpid()), signal.SIGCONT)  # one that is stopped could not hear it

    def _reap(self) -> None:
        for pid, status in _reaped():
            code = os.waitstatus_to_exitcode(status)
            if pid == self._child:
                self._exit = code
            else:
                self._say(said="reaped", pid=pid, exit=code)

    def _say(self, **message: object) -> None:
        with contextlib.suppress(OSError):
            self._control.sendall(json.dumps(message).encode() + b"\n")


def _reaped() -> Iterator[tuple[int, int]]:
    while True:
        try:
            pid, status = os.waitpid(-1, os.WNOHANG)
        except ChildProcessError:
            return
        if not pid:
            return
        yield pid, status


def _main() -> None:
    _Guardian(socket.socket(fileno=int(sys.argv[1])), sys.argv[2:]).run()


if __name__ == "__main__":
    _main()
