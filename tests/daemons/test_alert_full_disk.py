"""A full disk is when people most need to be told: the desk goes on in memory and catches up once there is room."""

import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
from incident_changes import START, Seen, finding
from needs import need
from slack_server import CHANNEL, TOKEN, SlackServer, slack

from checks.clock import ManualClock
from daemons.alerts.channels import Channels
from daemons.alerts.config import AlertsConfig
from daemons.alerts.credentials import Credentials
from daemons.alerts.delivery import deliver
from daemons.alerts.desk import AlertDesk
from daemons.alerts.slack import SlackSender


@pytest.fixture
def disk(tmp_path: Path) -> Iterator[Path]:
    need("root")
    at = tmp_path / "disk"
    at.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=1m", "tmpfs", str(at)], check=True)
    yield at
    subprocess.run(["umount", "-l", str(at)], check=True)


def fill(disk: Path) -> Path:
    filler = disk / "filler"
    with filler.open("wb", buffering=0) as file:
        try:
            while True:
                file.write(b"x" * 4096)
        except OSError:
            return filler


def opened(disk: Path, server: SlackServer, clock: ManualClock) -> AlertDesk:
    sender = SlackSender(TOKEN, CHANNEL, server.api, pace=0.0, timeout=1)
    made = Channels(senders={"slack": sender}, wanted=("slack",))
    return AlertDesk(disk / "alerts.db", AlertsConfig(), clock, Credentials(), senders=lambda *_: made)


def test_told_while_full_and_written_when_there_is_room(disk: Path) -> None:
    clock = ManualClock(START)
    with slack() as server:
        desk = opened(disk, server, clock)
        filler = fill(disk)
        changes = [Seen(n + 1, "opened", finding(cause=f"x.{n}", evidence="e" * 4000), START) for n in range(10)]
        desk.take(changes)
        assert "alerts are kept in memory only: database or disk is full" in desk.state().trouble
        while desk.state().waiting:
            deliver(desk, "slack")
        assert len(server.messages) == 10
        filler.unlink()
        desk.tick()
        assert desk.state().trouble == ""
        desk.close()
        again = opened(disk, server, clock)
        again.take(changes)
        assert (again.cursor, again.counts(), again.state().waiting) == (10, {"fail": 10}, 0)
        assert deliver(again, "slack").idle is None
        assert len(server.messages) == 10
        again.close()


def test_started_on_a_full_disk_it_knows_what_was_told(disk: Path) -> None:
    clock = ManualClock(START)
    with slack() as server:
        desk = opened(disk, server, clock)
        first = Seen(1, "opened", finding(), START)
        desk.take([first])
        deliver(desk, "slack")
        desk.close()
        fill(disk)
        again = opened(disk, server, clock)
        again.take([first])
        assert (again.cursor, again.state().waiting, len(server.messages)) == (1, 0, 1)
        again.take([Seen(2, "opened", finding(cause="x.1", evidence="e" * 4000), START)])
        deliver(again, "slack")
        assert len(server.messages) == 2
        again.close()
