"""A real `muster fleet` as a process, and nodes that deliver to it with the agent's own outbox."""

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

from checks.base import Finding, Status
from checks.clock import SystemClock
from checks.runner import fingerprint
from daemons.fleet.state import fleet_secret
from daemons.ledger import Entry, Keep, Ledger
from daemons.ledger.records import Kind
from daemons.node.config import FleetLinkConfig
from daemons.node.outbox import Facts, Outbox, Sender
from daemons.wire import node_token


class RunningFleet:
    """A fleet daemon on its own state directory; the port stays the same through its lives."""

    def __init__(
        self, directory: Path, *, store: str = "", config: str = "", environment: dict[str, str] | None = None
    ) -> None:
        self.directory = directory
        self.state = directory / "fleet"
        self.config = directory / "fleet.toml"
        self.log = directory / "fleet.log"
        self.log.touch()
        self._store, self._more, self._port = store, config, 0
        self._environment = {"PATH": os.environ["PATH"], **(environment or {})}
        self.start()

    def start(self) -> None:
        """Start it (again) and wait until it listens."""
        self.config.write_text(
            f'[fleet]\nlisten = "127.0.0.1:{self._port}"\nstate = "{self.state}"\nstore = "{self._store}"\n{self._more}'
        )
        command = [sys.executable, "-I", "-m", "daemons", "--config", str(self.config), "fleet"]
        self._from = self.log.stat().st_size
        with self.log.open("a") as log:
            self.process = subprocess.Popen(command, stderr=log, env=self._environment)
        self.address = self.said(r"http://(\S+:\d+)")
        self._port = int(self.address.rpartition(":")[2])

    def said(self, pattern: str, seconds: float = 30.0) -> str:
        """The first group of the pattern, once this life's log has it."""
        end = time.monotonic() + seconds
        while time.monotonic() < end:
            if found := re.search(pattern, self.log.read_text()[self._from :]):
                return found[1] if found.groups() else found[0]
            if self.process.poll() is not None:
                break
            time.sleep(0.02)
        raise AssertionError(f"the fleet never said {pattern!r}; it said:\n{self.log.read_text()[self._from :]}")

    def json(self, path: str) -> Any:
        """The body of an answer, whatever its status."""
        try:
            with urllib.request.urlopen(f"http://{self.address}{path}", timeout=20) as answer:
                return json.loads(answer.read())
        except urllib.error.HTTPError as error:
            return json.loads(error.read())

    @property
    def secret(self) -> str:
        return fleet_secret(self.state, {})

    def kill(self) -> None:
        """As a crash would."""
        self.process.kill()
        self.process.wait()

    def end(self) -> int:
        """SIGTERM; the exit code."""
        if self.process.poll() is None:
            self.process.send_signal(signal.SIGTERM)
        return self.process.wait(timeout=20)


class Node:
    """A node with a real ledger and the agent's outbox, delivering in its own thread when started."""

    def __init__(self, name: str, directory: Path, url: str, secret: str) -> None:
        self.name = name
        self.clock = SystemClock()
        self.ledger = Ledger(directory / f"{name}.db", self.clock, Keep())
        facts = Facts(node=name, machine=f"m-{name}", boot_id="b", status="fail", agent="1", checks=3)
        link = FleetLinkConfig(url=url, interval=1.0)
        sender = Sender(link, node_token(secret, name))
        self.outbox = Outbox(link, self.ledger, lambda: facts, self.clock, sender, jitter=lambda: 0.0)

    def happens(self, kind: Kind, component: str, cause: str = "gpu.lost") -> None:
        found = Finding(
            component=component,
            status=Status.OK if kind is Kind.CLEARED else Status.FAIL,
            summary="GPU fell off the bus",
            cause=cause,
            node=self.name,
            source="gpu_count",
            first_seen=self.clock.now(),
            last_seen=self.clock.now(),
        )
        mark = fingerprint(self.name, "gpu_count", found)
        found = Finding(**{**{f: getattr(found, f) for f in found.__struct_fields__}, "fingerprint": mark})
        self.ledger.record(Entry(changes=((kind, found),)))
        self.outbox.wake()

    def delivers(self, seconds: float = 60.0) -> None:
        """Until the fleet has all of it."""
        end = time.monotonic() + seconds
        last = self.ledger.changes_after(0, 100_000)[-1].seq
        while self.outbox.state.delivered < last or self.outbox.state.trouble:
            assert time.monotonic() < end, f"{self.name}: {self.outbox.state}"
            if self.outbox.step() > 0:
                time.sleep(0.05)

    def close(self) -> None:
        self.outbox.close()
        self.ledger.close()
