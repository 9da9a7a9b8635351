"""A process that takes the changes of a ledger and delivers its alerts, to be killed at any moment by a test.

`python alert_sender_process.py STATE API CHANGES`: STATE holds alerts.db and the numbered ledger (seq, time).
"""

import sys
import time
from pathlib import Path

from incident_changes import Seen, finding
from slack_server import CHANNEL, TOKEN

from checks.base import Status
from checks.clock import SystemClock
from daemons.alerts import posts
from daemons.alerts.channels import Channels
from daemons.alerts.config import AlertsConfig
from daemons.alerts.credentials import Credentials
from daemons.alerts.desk import AlertDesk
from daemons.alerts.slack import SlackSender


def ledger(count: int, start: float) -> list[Seen]:
    """Troubles that open, worsen and clear, two incidents interleaved at a time."""
    changes = []
    for number in range(count):
        turn, step = divmod(number, 3)
        kind = ("opened", "worsened", "cleared")[step]
        status = (Status.WARN, Status.FAIL, Status.OK)[step]
        changes.append(Seen(number + 1, kind, finding(status=status, cause=f"x.{turn}"), start + number))
    return changes


def main(state: Path, api: str, count: int) -> None:
    posts.SETTLE_SECONDS = posts.FIRST_WAIT = 0.05  # the server of the test shows a message at once
    start = float((state / "start").read_text())
    made = Channels(senders={"slack": SlackSender(TOKEN, CHANNEL, api, pace=0.0, timeout=2)}, wanted=("slack",))
    config = AlertsConfig(burst_messages=100_000)
    desk = AlertDesk(state / "alerts.db", config, SystemClock(), Credentials(), senders=lambda *_: made)
    desk.start()
    changes = ledger(count, start)
    sys.stdout.write("ready\n")
    sys.stdout.flush()
    while True:
        desk.take(changes[desk.cursor : desk.cursor + 1])
        if desk.cursor == count and not desk.state().waiting:
            (state / "done").touch()
            return
        time.sleep(0.002)


if __name__ == "__main__":
    main(Path(sys.argv[1]), sys.argv[2], int(sys.argv[3]))
