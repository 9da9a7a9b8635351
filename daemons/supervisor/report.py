"""Tells the node agent of a job's troubles, when one runs here; without one `muster run` works alone."""

import queue
import threading
import time
import urllib.request
from collections.abc import Callable
from pathlib import Path

import msgspec

from checks.base import Finding, Status
from daemons.node.state import reachable
from daemons.supervisor.record import Verdict

_POST_SECONDS = 3.0
# An agent that is being restarted is back within this time; until then findings wait here.
_RETRY_SECONDS = 120.0
TOKEN_FILE = "api-token"


class Reporter:
    """Posts findings in a thread: an agent that hangs must not cost a job its supervision."""

    def __init__(self, job: str, host: str, listen: str, state: Path, tell: Callable[[str], None]) -> None:
        self._job = job
        self._host = host
        self._listen = listen
        self._address = ""
        self._state = state
        self._token_file = state / TOKEN_FILE
        self._tell = tell
        self._queue: queue.Queue[Finding | None] = queue.Queue()
        self._open: set[str] = set()
        self._thread: threading.Thread | None = None

    def trouble(self, verdict: Verdict, summary: str) -> None:
        """A job is stuck or has failed."""
        rank = f"/rank/{verdict.ranks[0]}" if verdict.ranks else ""
        component = f"job/{self._job}{rank}"
        self._open.add(component)
        self._put(
            Finding(
                component=component,
                status=Status.FAIL,
                summary=summary,
                cause=verdict.cause if verdict.cause != "none" else "",
                kind=verdict.kind,
                evidence=verdict.bundle or verdict.summary,
                advice=verdict.advice,
                node=verdict.host or self._host,
                source="run",
            )
        )

    def well(self, summary: str) -> None:
        """Whatever was told of this job is over."""
        for component in sorted(self._open):
            self._put(Finding(component=component, status=Status.OK, summary=summary, node=self._host, source="run"))
        self._open.clear()

    def close(self) -> None:
        """Give what waits a last chance."""
        if self._thread is not None:
            self._queue.put(None)
            self._thread.join(_POST_SECONDS + 2.0)

    def _put(self, finding: Finding) -> None:
        # Whether an agent runs here is told by its token: made when it first starts.
        if not self._listen or not self._token_file.exists():
            return
        self._queue.put(finding)
        if self._thread is None:
            self._thread = threading.Thread(target=self._work, name="report", daemon=True)
            self._thread.start()

    def _work(self) -> None:
        while (finding := self._queue.get()) is not None:
            end = time.monotonic() + _RETRY_SECONDS
            while (why := self._post(finding)) and time.monotonic() < end and self._queue.empty():
                time.sleep(2.0)
            if why:
                self._tell(f"the node agent at {self._address} was not told of it: {why}")

    def _post(self, finding: Finding) -> str:
        self._address = reachable(self._state, self._listen)
        try:
            request = urllib.request.Request(
                f"http://{self._address}/findings",
                data=msgspec.json.encode([finding]),
                headers={"authorization": f"Bearer {self._token_file.read_text().strip()}"},
                method="POST",
            )
            with urllib.request.urlopen(request, timeout=_POST_SECONDS):
                return ""
        except OSError as error:
            return str(error)
