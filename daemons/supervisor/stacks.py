"""Reads the Python stacks of a process from outside: py-spy, else the answer of the rank's own hook to a signal.

py-spy needs ptrace: root, the capability, or a child of ours where yama allows that. The hook needs nothing, but only
main processes of ranks have it, and only on Linux does the process answer while it holds the GIL.
"""

import os
import sys
import sysconfig
import time
from pathlib import Path
from typing import Any

import msgspec

from checks.host import CommandError, run_command
from daemons.supervisor.frames import Frame
from daemons.supervisor.notes import RankNote
from daemons.supervisor.postmortem import main_thread, tail

# py-spy takes 25 ms on an idle machine; ten times that and more on one whose cores are all taken.
_PYSPY_SECONDS = 5.0
_SIGNAL_SECONDS = 0.5


class Stacks(msgspec.Struct, frozen=True, kw_only=True):
    """main: the main thread's frames, innermost first, None when nothing could be read. text: all threads."""

    main: list[Frame] | None = None
    text: str = ""
    trouble: str = ""


class _Frame(msgspec.Struct):
    name: str
    filename: str
    line: int


class _Thread(msgspec.Struct):
    os_thread_id: int | None
    thread_name: str | None
    active: bool
    owns_gil: bool
    frames: list[_Frame]


def pyspy_path() -> str:
    """The program of our own installation, "" where there is none."""
    beside = Path(sysconfig.get_path("scripts")) / "py-spy"
    return str(beside) if beside.exists() else ""


def by_pyspy(pid: int) -> Stacks:
    """All stacks of a process by py-spy."""
    program = pyspy_path()
    if not program:
        return Stacks(trouble=f"py-spy is not installed beside {sys.executable}")
    try:
        done = run_command([program, "dump", "--json", "--nonblocking", "--pid", str(pid)], _PYSPY_SECONDS)
        if done.returncode:
            # Reading a process that runs may fail for once; stopping it for some milliseconds does not.
            done = run_command([program, "dump", "--json", "--pid", str(pid)], _PYSPY_SECONDS)
    except CommandError as error:
        return Stacks(trouble=str(error))
    if done.returncode:
        words = [line.strip() for line in done.stderr.splitlines() if line.strip()]
        return Stacks(trouble=(words or ["py-spy failed"])[-1].removeprefix("Error: "))
    try:
        threads = msgspec.json.decode(done.stdout, type=list[_Thread])
    except msgspec.DecodeError as error:
        return Stacks(trouble=f"py-spy: {error}")
    return _stacks(pid, threads)


def _stacks(pid: int, threads: list[_Thread]) -> Stacks:
    main = next((t for t in threads if t.os_thread_id == pid), threads[0] if threads else None)
    if main is None:
        return Stacks(trouble="no Python thread")
    text = "\n".join(_as_text(thread) for thread in threads)
    return Stacks(main=[Frame(f.filename, f.line, f.name.split(".")[-1]) for f in main.frames], text=text)


def _as_text(thread: _Thread) -> str:
    marks = [word for word, is_so in (("active", thread.active), ("holds the GIL", thread.owns_gil)) if is_so]
    head = f"thread {thread.os_thread_id} {thread.thread_name or ''} {' '.join(f'[{m}]' for m in marks)}".rstrip()
    return "\n".join([head, *(f"    {f.filename}:{f.line} {f.name}" for f in thread.frames)])


def by_signal(note: RankNote, hook: Path) -> Stacks:
    """All stacks of a rank by the handler that its hook has registered; asked only if the kernel says it is there."""
    if not note.signal or not _handles(note.pid, note.signal):
        return Stacks(trouble="no hook answers in it")
    path = hook / f"stacks-{note.pid}.txt"
    before = path.stat().st_size if path.exists() else 0
    try:
        os.kill(note.pid, note.signal)
    except OSError as error:
        return Stacks(trouble=str(error.strerror))
    end = time.monotonic() + _SIGNAL_SECONDS
    while time.monotonic() < end:
        time.sleep(0.02)
        text = tail(path)[before:] if path.exists() else ""
        if text.endswith("\n") and main_thread(text):
            return Stacks(main=main_thread(text), text=text)
    return Stacks(trouble="the rank did not answer the hook's signal")


def _handles(pid: int, number: int) -> bool:
    try:
        status = Path(f"/proc/{pid}/status").read_text()
    except OSError:
        return False
    caught = next((line.split()[1] for line in status.splitlines() if line.startswith("SigCgt:")), "0")
    return bool(int(caught, 16) >> (number - 1) & 1)


def read(pid: int, note: RankNote | None, hook: Path) -> Stacks:
    """The stacks of a process by whatever answers."""
    found = by_pyspy(pid)
    if found.main is not None or note is None:
        return found
    asked = by_signal(note, hook)
    return asked if asked.main is not None else found


def source_line(frame: Frame | None) -> str:
    """The text of a line of the user's code, "" when the file cannot be read."""
    if frame is None:
        return ""
    import linecache

    linecache.checkcache(frame.file)
    return linecache.getline(frame.file, frame.line).strip()


def decoded(data: bytes, kind: Any) -> Any:
    """JSON as `kind`, None when it is something else."""
    try:
        return msgspec.json.decode(data, type=kind)
    except msgspec.DecodeError:
        return None
