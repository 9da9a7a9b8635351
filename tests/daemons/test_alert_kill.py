"""kill -9 at any instant: every message is in the channel exactly once, whatever the process was doing."""

import contextlib
import random
import subprocess
import sys
from pathlib import Path

import pytest
from alert_sender_process import ledger
from incident_changes import START, Story
from slack_server import SlackServer, failing, limited, silent, slack

from daemons.alerts.config import AlertsConfig
from daemons.alerts.message import message_id

ROOT = Path(__file__).parents[2]
COUNT = 150
KILLS = 20


def run(state: Path, server: SlackServer, seconds: float | None) -> None:
    """One life of the process: killed so long after it began to work, or left to its end."""
    command = [sys.executable, str(ROOT / "tests/alert_sender_process.py"), str(state), server.api, str(COUNT)]
    environment = {"PYTHONPATH": f"{ROOT}:{ROOT / 'tests'}", "PATH": "/usr/bin"}
    with subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "ready\n"
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.wait(seconds)
        process.kill()


def expected() -> list[str]:
    """The messages of the same story when nothing ever fails, one change at a time."""
    story = Story(AlertsConfig(burst_messages=100_000))
    for change in ledger(COUNT, START):
        story.takes([change])
    return [message_id(tell) for tell in story.tells]


@pytest.mark.slow
def test_killed_at_random_moments_every_message_is_sent_exactly_once(tmp_path: Path) -> None:
    chance = random.Random(7)
    (tmp_path / "start").write_text(str(START))
    lives = 0
    with slack() as server:
        faults = (silent(accepted=True), failing(500, accepted=True), failing(503), silent(), limited("1"))
        while not (tmp_path / "done").exists():
            server.next("chat.postMessage", *(chance.choice(faults) for _ in range(chance.randrange(2))))
            run(tmp_path, server, chance.uniform(0.0, 0.25) if lives < KILLS else None)
            lives += 1
            assert lives <= KILLS + 1
        assert lives > KILLS / 2, "a process that is hardly ever killed proves nothing"
        ids = server.ids()
    assert len(ids) == len(set(ids)), "sent twice"
    assert sorted(ids) == sorted(expected()), "lost, or told otherwise"
    assert {"conversations.history", "conversations.replies"} & set(server.methods()), "nothing was ever in doubt"
