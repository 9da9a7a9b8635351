"""The desk end to end: the real slack-sdk over a real socket, faults of every kind, nothing lost, nothing twice."""

import json
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from incident_changes import START, Seen, finding
from slack_server import ANY, CHANNEL, TOKEN, SlackServer, failing, limited, refusing, silent, slack

from checks.base import Status
from checks.clock import ManualClock
from daemons.alerts.channels import Channels, Sender
from daemons.alerts.config import AlertsConfig, SlackConfig, WebhookConfig
from daemons.alerts.credentials import Credentials
from daemons.alerts.delivery import deliver
from daemons.alerts.desk import AlertDesk
from daemons.alerts.slack import SlackSender
from daemons.alerts.slack_webhook import SlackWebhookSender
from daemons.alerts.webhook import WebhookSender

GONE = finding()
WELL = finding(status=Status.OK, summary="8 GPUs")


@pytest.fixture
def server() -> Iterator[SlackServer]:
    with slack() as running:
        yield running


class Office:
    """A desk whose time stands still between steps, and the ledger in front of it."""

    def __init__(self, directory: Path, server: SlackServer, channel: str = CHANNEL) -> None:
        self.path = directory / "alerts.db"
        self.clock = ManualClock(START)
        self.changes: list[Seen] = []
        self.channels = Channels(
            senders={"slack": SlackSender(TOKEN, channel, server.api, pace=0.0, timeout=1)}, wanted=("slack",)
        )
        self.config = AlertsConfig()
        self.desk = self.opened()

    def opened(self) -> AlertDesk:
        return AlertDesk(
            self.path,
            self.config,
            self.clock,
            Credentials(),
            senders=lambda config, secrets: self.channels,
            jitter=lambda: 1.0,
        )

    def restarted(self) -> None:
        """As after kill -9: the old desk gets no word in, its file is let go."""
        self.desk._store.close()
        self.desk = self.opened()

    def happens(self, kind: str, found: Any) -> None:
        self.changes.append(Seen(len(self.changes) + 1, kind, found, self.clock.now()))
        self.desk.take(self.changes)

    def works(self, seconds: float = 0.0, channel: str = "slack") -> None:
        """Delivery for so long: every pause goes by at once."""
        end = self.clock.now() + seconds
        while True:
            pause = deliver(self.desk, channel)
            wait = pause.rest or pause.idle
            if wait is None or self.clock.now() + wait > end:
                self.clock.advance(end - self.clock.now())
                return
            self.clock.advance(wait)


def test_an_incident_is_one_message_its_end_an_answer_and_a_change_of_the_first(
    tmp_path: Path, server: SlackServer
) -> None:
    office = Office(tmp_path, server)
    office.happens("opened", GONE)
    office.works()
    office.clock.advance(60)
    office.happens("cleared", WELL)
    office.works()
    first, answer = server.messages
    assert server.methods() == ["chat.postMessage", "chat.postMessage", "chat.update"]
    assert first["edits"] == [
        "✖ FAIL gpu.lost on n12: GPU fell off the bus\nwhere: n12 gpu/3\n"
        f"since: 2023-11-14 22:13:20 UTC\nlook further: muster incidents show {incident(office)}"
    ]
    assert server.texts() == ["✔ OVER over: gpu.lost on n12: GPU fell off the bus"] * 2
    assert (answer["thread_ts"], answer["reply_broadcast"]) == (first["ts"], False)
    assert office.desk.state().sent == {"slack": 3}
    assert office.desk.state().waiting == 0


def incident(office: Office) -> str:
    return str(office.desk.incidents()[0]["id"])


def test_what_worsens_is_said_in_the_thread_and_shown_in_the_channel(tmp_path: Path, server: SlackServer) -> None:
    office = Office(tmp_path, server)
    office.happens("opened", finding(status=Status.WARN))
    office.happens("worsened", GONE)
    office.works()
    assert server.messages[1]["reply_broadcast"] is True
    assert server.texts() == ["✖ FAIL worse: gpu.lost on n12: GPU fell off the bus"] * 2


def test_retry_after_is_honoured_and_order_kept(tmp_path: Path, server: SlackServer) -> None:
    office = Office(tmp_path, server)
    server.next("chat.postMessage", limited("90"))
    office.happens("opened", GONE)
    office.happens("opened", finding("mount/data", cause="storage.full"))
    office.works(89)
    assert server.messages == []
    assert "slack: Slack asks to wait 90 s" in office.desk.state().trouble
    office.works(2)
    assert [text.split()[2] for text in server.texts()] == ["gpu.lost", "storage.full"]


def test_an_hour_without_slack_loses_nothing_and_sends_nothing_twice(tmp_path: Path, server: SlackServer) -> None:
    office = Office(tmp_path, server)
    for fault in (failing(503), silent(), limited("30"), refusing("service_unavailable")):
        server.always(ANY, fault)
        office.happens("opened", finding(cause=f"x.{len(office.changes)}"))
        office.works(900)
        office.restarted()
    assert server.messages == []
    assert office.desk.state().waiting == 4
    server.well()
    office.works(300)
    assert [text.split()[2] for text in server.texts()] == ["x.0", "x.1", "x.2", "x.3"]


def test_a_refused_connection_is_tried_again_without_a_search(tmp_path: Path) -> None:
    with slack() as away:
        office = Office(tmp_path, away)
        port = away.port
    office.happens("opened", GONE)
    office.works(10)
    assert "Connection refused" in office.desk.state().trouble
    back = SlackServer()
    back.start(port)
    try:
        office.works(60)
        assert back.methods() == ["chat.postMessage"]
    finally:
        back.stop()


@pytest.mark.parametrize("fault", [silent(accepted=True), silent(2.0, accepted=True), failing(500, accepted=True)])
def test_an_accepted_message_whose_answer_was_lost_is_found_and_not_sent_again(
    tmp_path: Path, server: SlackServer, fault: Any
) -> None:
    office = Office(tmp_path, server)
    server.next("chat.postMessage", fault)
    office.happens("opened", GONE)
    office.works(30)
    assert server.methods() == ["chat.postMessage", "conversations.history"]
    office.happens("cleared", WELL)
    server.next("chat.postMessage", fault)
    office.works(60)
    assert server.methods()[2:] == ["chat.postMessage", "conversations.replies", "chat.update"]
    assert len(server.messages) == 2
    assert server.messages[1]["thread_ts"] == server.messages[0]["ts"]
    assert office.desk.state().waiting == 0


def test_a_search_reads_on_through_short_pages(tmp_path: Path, server: SlackServer) -> None:
    server.page = 15
    office = Office(tmp_path, server)
    server.next("chat.postMessage", silent(accepted=True))
    office.happens("opened", GONE)
    office.works()
    for number in range(40):
        server.answer("chat.postMessage", {"channel": CHANNEL, "text": f"chatter {number}"})
    office.works(30)
    assert server.methods().count("conversations.history") == 3
    assert sum("metadata" in message for message in server.messages) == 1


def test_without_the_right_to_look_it_is_sent_again_and_said(tmp_path: Path, server: SlackServer) -> None:
    office = Office(tmp_path, server)
    server.next("chat.postMessage", silent(accepted=True))
    server.always("conversations.history", refusing("missing_scope"))
    office.happens("opened", GONE)
    office.works(30)
    assert len(set(server.ids())) == 1
    assert len(server.messages) == 2


@pytest.mark.parametrize(
    ("error", "remedy"),
    [
        ("invalid_auth", "the token is wrong: copy the Bot User OAuth Token again"),
        ("not_in_channel", "invite it there"),
        ("channel_not_found", "invite it there"),
    ],
)
def test_a_fault_that_a_person_must_mend_is_said_once_kept_and_tried_slowly(
    tmp_path: Path, server: SlackServer, caplog: pytest.LogCaptureFixture, error: str, remedy: str
) -> None:
    office = Office(tmp_path, server)
    server.always("chat.postMessage", refusing(error))
    office.happens("opened", GONE)
    office.works(899)
    assert len(server.requests) == 3
    assert sum(remedy in record.getMessage() for record in caplog.records) == 1
    assert remedy in office.desk.state().trouble
    server.well()
    office.desk.reload(office.config, Credentials())
    office.works()
    assert len(server.messages) == 1


def test_blocks_that_slack_refuses_go_as_plain_text(tmp_path: Path, server: SlackServer) -> None:
    office = Office(tmp_path, server)
    server.next("chat.postMessage", refusing("invalid_blocks"))
    office.happens("opened", GONE)
    office.works()
    assert "blocks" not in server.messages[0]
    assert office.desk.state().waiting == 0


def test_a_message_that_slack_cannot_take_at_all_holds_up_no_other(tmp_path: Path, server: SlackServer) -> None:
    office = Office(tmp_path, server)
    server.next("chat.postMessage", refusing("msg_too_long"), refusing("msg_too_long"))
    office.happens("opened", GONE)
    office.happens("opened", finding(cause="x.1"))
    office.works(10)
    assert [text.split()[2] for text in server.texts()] == ["x.1"]
    assert office.desk.state().waiting == 1
    office.works(3700)
    assert office.desk.state().waiting == 0


def test_a_thread_that_was_deleted_does_not_swallow_what_follows(tmp_path: Path, server: SlackServer) -> None:
    office = Office(tmp_path, server)
    office.happens("opened", GONE)
    office.works()
    server.messages.clear()
    office.happens("cleared", WELL)
    office.works()
    assert [("thread_ts" in message) for message in server.messages] == [False]
    assert office.desk.state().waiting == 0


def test_killed_while_sending_it_looks_before_it_sends_again(tmp_path: Path, server: SlackServer) -> None:
    office = Office(tmp_path, server)
    office.happens("opened", GONE)
    post, thread, _ = office.desk.next("slack")
    assert post is not None
    sender = office.desk.sender("slack")
    assert sender is not None
    sender.send(office.desk.begin(post), thread)  # and here it is killed
    office.restarted()
    office.works(30)
    assert server.methods() == ["chat.postMessage", "conversations.history"]
    assert len(server.messages) == 1


def test_killed_between_writing_down_and_sending_it_is_sent_once(tmp_path: Path, server: SlackServer) -> None:
    office = Office(tmp_path, server)
    office.happens("opened", GONE)
    post, _, _ = office.desk.next("slack")
    assert post is not None
    office.desk.begin(post)
    office.restarted()
    office.works(30)
    assert server.methods() == ["conversations.history", "chat.postMessage"]


def test_changes_delivered_again_after_a_restart_tell_nothing_again(tmp_path: Path, server: SlackServer) -> None:
    office = Office(tmp_path, server)
    office.happens("opened", GONE)
    office.works()
    office.restarted()
    office.desk.take(office.changes)
    office.works()
    assert (office.desk.cursor, len(server.messages)) == (1, 1)


def test_no_credentials_keeps_alerts_visible_with_one_warning(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    clock = ManualClock(START)
    desk = AlertDesk(tmp_path / "alerts.db", AlertsConfig(), clock, Credentials())
    for number in range(3):
        desk.take([Seen(number + 1, "opened", finding(cause=f"x.{number}"), START)])
        desk.tick()
    assert [message["state"] for told in desk.incidents() for message in told["messages"]] == ["unaddressed"] * 3
    warnings = [record.getMessage() for record in caplog.records if record.levelname == "WARNING"]
    assert len(warnings) == 1
    assert "set MUSTER_SLACK_TOKEN and alerts.slack.channel" in warnings[0]
    assert desk.counts() == {"fail": 3}


def test_what_waited_for_credentials_more_than_a_day_is_let_go_and_the_rest_sent(
    tmp_path: Path, server: SlackServer
) -> None:
    office = Office(tmp_path, server)
    with_slack = office.channels
    office.channels = Channels(wanted=("slack",), missing={"slack": "none"})
    office.desk.reload(office.config, Credentials())
    office.happens("opened", finding(cause="x.old"))
    office.clock.advance(86000)
    office.happens("opened", finding(cause="x.new"))
    office.clock.advance(3600)
    office.channels = with_slack
    office.restarted()
    office.works()
    assert [text.split()[2] for text in server.texts()] == ["x.new"]


def test_a_storm_of_ten_thousand_findings_is_at_most_twenty_messages(tmp_path: Path, server: SlackServer) -> None:
    office = Office(tmp_path, server)
    changes = [
        Seen(n + 1, "opened", finding("gpu/0", node=f"n{n:05}", cause=f"gpu.{n % 3}"), START) for n in range(10_000)
    ]
    for start in range(0, 10_000, 500):
        office.desk.take(changes[start : start + 500])
        office.clock.advance(0.5)
        office.works(0.4)
    office.works(600)
    office.desk.tick()
    office.works(60)
    posts = len(server.messages)
    assert posts <= 20
    assert server.texts()[-1].endswith(
        "9985 incidents, 9985 still open: Told together, 9985 findings. What they share:"
    )
    assert office.desk.cursor == 10_000
    office.restarted()
    assert office.desk.counts() == {"fail": 10_000}
    office.works(60)
    assert len(server.messages) == posts


def test_a_damaged_file_is_set_aside_and_the_open_incidents_are_told_in_one_message(
    tmp_path: Path, server: SlackServer
) -> None:
    office = Office(tmp_path, server)
    for number in range(30):
        office.happens("opened", finding(cause=f"x.{number}"))
    office.happens("cleared", finding(cause="x.0", status=Status.OK))
    office.works(600)
    before = len(server.messages)
    office.desk.close()
    office.path.write_bytes(b"not a database at all, but long enough to be read as one" * 100)
    office.clock.advance(10)
    office.restarted()
    assert office.desk.cursor == 0
    office.desk.take(office.changes)
    office.works(60)
    assert len(server.messages) == before + 1
    assert server.texts()[-1].startswith("✖ STORM 29 incidents, 29 still open")
    assert "was damaged: kept as" in office.desk.state().trouble
    assert len(list(tmp_path.glob("alerts.db.damaged-*"))) == 1


def test_a_file_damaged_while_it_is_used_is_written_anew_from_memory(tmp_path: Path, server: SlackServer) -> None:
    office = Office(tmp_path, server)
    office.happens("opened", GONE)
    for part in tmp_path.glob("alerts.db*"):
        part.unlink()
    office.happens("opened", finding(cause="x.1"))
    office.works()
    office.restarted()
    assert office.desk.counts() == {"fail": 2}
    assert office.desk.cursor == 2
    office.desk.take(office.changes)
    office.works()
    assert len(server.messages) == 2


def test_a_webhook_that_hangs_does_not_hold_up_slack_and_gets_its_messages_later(
    tmp_path: Path, server: SlackServer
) -> None:
    office = Office(tmp_path, server)
    senders: dict[str, Sender] = {
        "slack": SlackSender(TOKEN, CHANNEL, server.api, pace=0.0, timeout=1),
        "webhook": WebhookSender(server.hook, "secret-token", timeout=0.2),
    }
    office.channels = Channels(senders=senders, wanted=("slack", "webhook"))
    office.desk.reload(office.config, Credentials())
    server.next("hook", silent(0.5), failing(502))
    office.happens("opened", GONE)
    office.works(0, "webhook")
    office.works()
    assert len(server.messages) == 1
    office.works(60, "webhook")
    bodies = server.called("hook")
    assert len({body["id"] for body in bodies}) == 1
    assert (bodies[0]["version"], bodies[0]["kind"], bodies[0]["incident"]["cause"]) == (1, "opened", "gpu.lost")
    request = next(request for request in server.requests if request.method == "hook")
    assert request.headers["authorization"] == "Bearer secret-token"
    assert request.headers["idempotency-key"] == bodies[0]["id"]
    assert office.desk.state().waiting == 0


def test_an_incoming_webhook_gets_single_messages(tmp_path: Path, server: SlackServer) -> None:
    office = Office(tmp_path, server)
    office.channels = Channels(
        senders={"slack": SlackWebhookSender(server.incoming, pace=0.0, timeout=1)}, wanted=("slack",)
    )
    office.desk.reload(office.config, Credentials())
    server.next("incoming", limited("3"), failing(500))
    office.happens("opened", GONE)
    office.happens("cleared", WELL)
    office.works(120)
    assert server.methods() == ["incoming"] * 4
    assert office.desk.state().waiting == 0


def test_acknowledged_by_the_first_characters_of_its_id_stands_in_the_thread(
    tmp_path: Path, server: SlackServer
) -> None:
    office = Office(tmp_path, server)
    office.happens("opened", GONE)
    office.works()
    office.desk.acknowledge(incident(office)[:4], "mara", "vendor case 7")
    office.works()
    assert "acknowledged by mara: vendor case 7" in server.messages[1]["text"]
    office.desk.resolve(incident(office), "mara", "swapped")
    office.works()
    assert "resolved by mara: swapped" in server.messages[0]["text"]


def test_real_channels_are_made_from_configuration_and_credentials(tmp_path: Path, server: SlackServer) -> None:
    config = AlertsConfig(
        slack=SlackConfig(channel=CHANNEL, api_url=server.api), webhook=WebhookConfig(url=server.hook)
    )
    desk = AlertDesk(tmp_path / "a.db", config, ManualClock(START), Credentials(slack_token=TOKEN))
    desk.start()
    desk.take([Seen(1, "opened", GONE, START)])
    end = os.times().elapsed + 10
    while desk.state().waiting and os.times().elapsed < end:
        desk._couriers["slack"]._stop.wait(0.02)
    desk.close()
    assert sorted(server.methods()) == ["chat.postMessage", "hook"]
    assert json.loads(json.dumps(desk.state().sent)) == {"slack": 1, "webhook": 1}
