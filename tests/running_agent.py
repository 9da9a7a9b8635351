"""A real `muster node` as a process, for tests that look at it from outside."""

import json
import os
import re
import signal
import subprocess
import sys
import time
import urllib.error
import urllib.request
from pathlib import Path
from typing import Any


class RunningAgent:
    """An agent on a recorded node, or on this machine; `environment` is all that it inherits beside PATH."""

    def __init__(
        self,
        directory: Path,
        *,
        replay: Path | None = None,
        config: str = "",
        environment: dict[str, str] | None = None,
    ) -> None:
        self.directory = directory
        self.state = directory / "state"
        self.config = directory / "muster.toml"
        self.base = f'[node]\nlisten = "127.0.0.1:0"\nstate = "{self.state}"\n'
        self.config.write_text(self.base + config)
        self.log = directory / "log"
        self._environment = {"PATH": os.environ["PATH"], **(environment or {})}
        self._replay = ["--replay", str(replay)] if replay else []
        self.start()

    def start(self) -> None:
        """Start it (again)."""
        command = [sys.executable, "-I", "-m", "daemons", "--config", str(self.config), "node", *self._replay]
        with self.log.open("w") as log:
            self.process = subprocess.Popen(command, stderr=log, env=self._environment)
        self.address = self.said(r"http://(\S+:\d+)")

    def said(self, pattern: str, seconds: float = 60.0) -> str:
        """The first group of the pattern, once the log has it."""
        end = time.monotonic() + seconds
        while time.monotonic() < end:
            if found := re.search(pattern, self.log.read_text()):
                return found[1] if found.groups() else found[0]
            if self.process.poll() is not None:
                break
            time.sleep(0.02)
        raise AssertionError(f"the agent never said {pattern!r}; it said:\n{self.log.read_text()}")

    def get(self, path: str) -> bytes:
        """The body of an answer, whatever its status."""
        try:
            with urllib.request.urlopen(f"http://{self.address}{path}", timeout=10) as answer:
                return bytes(answer.read())
        except urllib.error.HTTPError as error:
            return bytes(error.read())

    def json(self, path: str) -> Any:
        return json.loads(self.get(path))

    def post(self, path: str, body: object) -> Any:
        """POST with the token of the state directory."""
        token = (self.state / "api-token").read_text()
        request = urllib.request.Request(
            f"http://{self.address}{path}",
            data=json.dumps(body).encode(),
            headers={"Authorization": f"Bearer {token}"},
        )
        with urllib.request.urlopen(request, timeout=10) as answer:
            return json.loads(answer.read())

    def all_checked(self) -> None:
        """Wait until every check has run."""
        end = time.monotonic() + 90
        while time.monotonic() < end:
            checks = self.json("/healthz")["checks"].values()
            if checks and all(check["age_seconds"] is not None for check in checks):
                return
            time.sleep(0.05)
        raise AssertionError(f"not every check has run: {self.json('/healthz')}")

    def kill(self) -> None:
        """As a crash would."""
        self.process.kill()
        self.process.wait()

    def end(self) -> int:
        """SIGTERM; the exit code."""
        if self.process.poll() is None:
            self.process.send_signal(signal.SIGTERM)
        return self.process.wait(timeout=15)
