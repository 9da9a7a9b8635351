"""Follows a job's output: to the console as it comes, to files that are kept, and its end in memory."""

import contextlib
import os
import re
import select
import sys
import threading
from collections import deque
from collections.abc import Callable
from pathlib import Path
from typing import BinaryIO

# The last lines of each stream are kept in memory as well: a full disk must not cost the reason of a failure.
_KEPT_LINES = 2000
_LINE_BYTES = 16384
# Said by torch about the worker server that our own hook opened: no news to the user.
_OURS = re.compile(rb"WorkerServer\.cpp:\d+\] \[c10d\] (Server (listening|shutting|exited)|WorkerServer destructor)")


class Follower:
    """Reads the standard output and error of one attempt in a thread until both end.

    `last_output`: monotonic seconds of the last line, by `clock`.
    """

    def __init__(
        self, directory: Path | None, streams: tuple[int, int], clock: Callable[[], float], tell: Callable[[str], None]
    ) -> None:
        self.last_output = clock()
        self.lines: dict[str, deque[bytes]] = {name: deque(maxlen=_KEPT_LINES) for name in ("stdout", "stderr")}
        self._clock = clock
        self._tell = tell
        self._files: dict[str, BinaryIO] = {}
        self._streams = {streams[0]: "stdout", streams[1]: "stderr"}
        self._rest = {"stdout": b"", "stderr": b""}
        if directory is not None:
            self._open(directory)
        self._thread = threading.Thread(target=self._follow, name="logs", daemon=True)
        self._thread.start()

    def _open(self, directory: Path) -> None:
        try:
            for name in ("stdout", "stderr"):
                self._files[name] = (directory / f"{name}.log").open("wb", buffering=0)
        except OSError as error:
            self._give_up(f"{directory}: {error.strerror}")

    def _give_up(self, why: str) -> None:
        """A disk that is full costs the copy of the log, never the job."""
        for file in self._files.values():
            with contextlib.suppress(OSError):
                file.close()
        self._files = {}
        self._tell(f"logs are no longer kept on disk ({why}); the last {_KEPT_LINES} lines stay in memory")

    def _follow(self) -> None:
        poll = select.poll()
        for stream in self._streams:
            poll.register(stream, select.POLLIN | select.POLLHUP)
        open_streams = set(self._streams)
        while open_streams:
            for stream, _ in poll.poll():
                data = os.read(stream, 65536)
                if not data:
                    poll.unregister(stream)
                    open_streams.discard(stream)
                self._take(self._streams[stream], data)

    def _take(self, name: str, data: bytes) -> None:
        if data:
            self.last_output = self._clock()
        *lines, rest = (self._rest[name] + data).split(b"\n")
        if not data or len(rest) > _LINE_BYTES:
            lines, rest = [*lines, rest] if rest else lines, b""
        self._rest[name] = rest
        # A progress bar writes \r and no newline: people want to see it at once.
        self.lines[name].extend(line[:_LINE_BYTES] for line in lines)
        shown = b"".join(line + b"\n" for line in lines if not _OURS.search(line))
        if name in self._files:
            try:
                self._files[name].write(shown)
            except OSError as error:
                self._give_up(error.strerror or str(error))
        self._show(name, shown)

    def _show(self, name: str, shown: bytes) -> None:
        if not shown:
            return
        console = sys.stdout if name == "stdout" else sys.stderr
        # A console that has gone (closed terminal, `| head`) must not end a training run.
        with contextlib.suppress(OSError, ValueError):
            console.buffer.write(shown)
            console.buffer.flush()

    def text(self, name: str) -> str:
        """The last lines of a stream."""
        return b"\n".join(self.lines[name]).decode("utf-8", "replace")

    def join(self, seconds: float) -> None:
        """Wait until both streams have ended."""
        self._thread.join(seconds)
