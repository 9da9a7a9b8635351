"""Jobs that are under supervision at the moment, so that `muster pause` finds them."""

import contextlib
import os
import signal
from collections.abc import Sequence
from pathlib import Path

import msgspec

from daemons.errors import MusterError
from daemons.supervisor.launch import descendants, signal_all

_FILE = "running.json"
PAUSE_MARK = "paused"


class Running(msgspec.Struct, frozen=True, kw_only=True):
    """One attempt under way. supervisor, guardian: pids. scratch: directory in which the mark of a pause lies."""

    job: str
    supervisor: int
    guardian: int
    scratch: str

    def write(self, directory: Path) -> None:
        """Make it known. Raises OSError."""
        (directory / _FILE).write_bytes(msgspec.json.encode(self))


def forget(directory: Path) -> None:
    """The attempt is over."""
    with contextlib.suppress(OSError):
        (directory / _FILE).unlink()


def running(jobs: Path) -> list[Running]:
    """Every job below `jobs` whose supervisor lives."""
    found = []
    for path in sorted(jobs.glob(f"*/{_FILE}")):
        try:
            one = msgspec.json.decode(path.read_bytes(), type=Running)
            os.kill(one.supervisor, 0)
        except (OSError, msgspec.DecodeError):
            continue
        found.append(one)
    return found


def chosen(jobs: Path, name: str) -> Running:
    """The job of that name, or the only one. Raises MusterError."""
    found = running(jobs)
    names = ", ".join(one.job for one in found) or "none"
    matching = [one for one in found if name in ("", one.job)]
    if len(matching) != 1:
        raise MusterError(f"pause: {name or 'which job'}: running here: {names}")
    return matching[0]


def pause(one: Running) -> int:
    """Stop every process of the job; how many there are. The mark comes first, so that nobody is blamed."""
    (Path(one.scratch) / PAUSE_MARK).touch()
    return _signal(descendants(one.guardian), signal.SIGSTOP)


def resume(one: Running) -> int:
    """Let them go on."""
    count = _signal(descendants(one.guardian), signal.SIGCONT)
    (Path(one.scratch) / PAUSE_MARK).unlink(missing_ok=True)
    return count


def _signal(pids: Sequence[int], number: int) -> int:
    signal_all(pids, number)
    return len(pids)
