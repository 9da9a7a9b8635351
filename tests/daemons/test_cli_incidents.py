"""`muster incidents` and `muster alerts` as a person uses them, with an agent, without one, and set up wrongly."""

import json
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import Future
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result
from incident_changes import START, Seen, finding
from slack_server import CHANNEL, TOKEN, SlackServer, refusing, slack

from checks.base import Finding
from checks.clock import Clock, ManualClock, SystemClock
from daemons.alerts.config import AlertsConfig
from daemons.alerts.credentials import Credentials, credentials
from daemons.alerts.desk import AlertDesk
from daemons.cli import muster
from daemons.errors import ConfigError, MusterError
from daemons.node.api import Api, Server, listen, token
from daemons.node.board import Board

FOUND = finding(evidence="NVRM: Xid 79", advice="Reset the GPU.")


class DeskAgent:
    """As much of an agent as the API asks for incidents."""

    def __init__(self, desk: AlertDesk) -> None:
        self.desk = desk
        self.board = Board(node="n12", version="0", started=START)
        self.clock: Clock = SystemClock()

    def ask(self, question: Callable[[], Any]) -> "Future[Any]":
        answer: Future[Any] = Future()
        threading.Thread(target=lambda: _answered(answer, question)).start()
        return answer

    def incidents(self) -> list[dict[str, Any]]:
        return self.desk.incidents()

    def acknowledge(self, incident: str, who: str, note: str) -> None:
        self.desk.acknowledge(incident, who, note)

    def resolve(self, incident: str, who: str, note: str) -> None:
        self.desk.resolve(incident, who, note)

    def take(self, findings: list[Finding]) -> int:
        return len(findings)


def _answered(answer: "Future[Any]", question: Callable[[], Any]) -> None:
    try:
        answer.set_result(question())
    except MusterError as error:
        answer.set_exception(error)


class Site:
    """A configuration file, a state directory with one incident in it, and perhaps an agent."""

    def __init__(self, directory: Path, server: SlackServer) -> None:
        self.server = server
        self.state = directory / "state"
        self.state.mkdir()
        self.file = directory / "muster.toml"
        self.configure("127.0.0.1:1")
        self.desk = AlertDesk(self.state / "alerts.db", AlertsConfig(), ManualClock(START), Credentials())
        self.desk.take([Seen(1, "opened", FOUND, START)])
        self.incident = str(self.desk.incidents()[0]["id"])

    def configure(self, address: str, alerts: str = "") -> None:
        self.file.write_text(f'[node]\nname = "n12"\nstate = "{self.state}"\nlisten = "{address}"\n{alerts}')

    def muster(self, *arguments: str, **environment: str) -> Result:
        return CliRunner().invoke(
            muster, ["--config", str(self.file), *arguments], env=environment, standalone_mode=False
        )


@pytest.fixture
def site(tmp_path: Path) -> Iterator[Site]:
    with slack() as server:
        yield Site(tmp_path, server)


@pytest.fixture
def running(site: Site) -> Iterator[Site]:
    """The site with an agent."""
    bound = listen("127.0.0.1:0")
    server = Server(Api(DeskAgent(site.desk), token(site.state)).app(), bound)
    site.configure(server.address)
    server.start()
    yield site
    server.stop()


def test_without_an_agent_the_file_is_read(site: Site) -> None:
    done = site.muster("incidents", "list")
    (heading, row) = done.output.splitlines()
    assert heading.split() == ["id", "severity", "state", "since", "what", "where", "told"]
    assert row.startswith(f"{site.incident}  fail      open")
    assert row.rstrip().endswith("gpu.lost on n12  n12 gpu/3  nowhere to send to")


def test_json_holds_the_whole_record(site: Site) -> None:
    (incident,) = json.loads(site.muster("incidents", "list", "--json").output)
    assert incident == json.loads(site.muster("incidents", "show", site.incident[:4], "--json").output)
    assert (incident["id"], incident["evidence"], incident["advice"]) == (
        site.incident,
        "NVRM: Xid 79",
        "Reset the GPU.",
    )
    assert [message["state"] for message in incident["messages"]] == ["unaddressed"]


def test_show_is_a_page_with_evidence_and_what_to_do(site: Site) -> None:
    page = site.muster("incidents", "show", site.incident).output
    assert page.splitlines()[0] == "fail  gpu.lost on n12"
    assert "  NVRM: Xid 79" in [line.rstrip() for line in page.splitlines()]
    assert "what to do  Reset the GPU." in [line.rstrip() for line in page.splitlines()]


def test_acknowledged_and_resolved_through_the_agent(running: Site) -> None:
    assert running.muster("incidents", "ack", running.incident[:5], "--who", "mara", "--note", "on it").exit_code == 0
    (incident,) = json.loads(running.muster("incidents", "list", "--json").output)
    assert (incident["state"], incident["who"], incident["note"]) == ("acknowledged", "mara", "on it")
    done = running.muster("incidents", "resolve", running.incident, "--who", "mara")
    assert done.output == f"{running.incident}: resolved\n"
    assert running.muster("incidents", "list").output == "no incident goes on; 1 over (--all shows them)\n"
    assert "gpu.lost on n12" in running.muster("incidents", "list", "--all").output


def test_changing_needs_an_agent_and_says_so(site: Site) -> None:
    done = site.muster("incidents", "ack", site.incident)
    assert (
        str(done.exception) == "no agent answers at http://127.0.0.1:1: start one (`muster node`), or set node.listen"
    )


def test_an_id_that_is_none_says_where_to_look(site: Site) -> None:
    done = site.muster("incidents", "show", "zz")
    assert str(done.exception) == "no incident is called 'zz'; `muster incidents list --all` shows which there are"


def test_another_agents_token_is_refused_in_one_line(running: Site) -> None:
    (running.state / "api-token").write_text("another")
    done = running.muster("incidents", "ack", running.incident)
    assert str(done.exception).endswith("refuses: needs the token in api-token of the state directory")


def test_no_record_says_what_to_do(tmp_path: Path) -> None:
    with slack() as server:
        site = Site(tmp_path, server)
    (site.state / "alerts.db").unlink()
    assert str(site.muster("incidents", "list").exception) == (
        f"{site.state}/alerts.db: no record of incidents here: start an agent, or set node.state"
    )


def test_one_real_message_is_sent(site: Site) -> None:
    site.configure("127.0.0.1:1", f'[alerts.slack]\nchannel = "{CHANNEL}"\napi_url = "{site.server.api}"\n')
    done = site.muster("alerts", "test", MUSTER_SLACK_TOKEN=TOKEN)
    assert (done.return_value, done.output) == (0, f"slack: sent to {CHANNEL}\n")
    assert site.server.texts() == [
        "✔ TEST alerts of n12 arrive here: Sent by `muster alerts test`. Nothing is wrong and nothing is to be done."
    ]


def test_a_failure_names_the_remedy(site: Site) -> None:
    site.configure("127.0.0.1:1", f'[alerts.slack]\nchannel = "{CHANNEL}"\napi_url = "{site.server.api}"\n')
    site.server.next("chat.postMessage", refusing("not_in_channel"))
    done = site.muster("alerts", "test", MUSTER_SLACK_TOKEN=TOKEN)
    assert (done.return_value, done.output) == (
        2,
        "slack: NOT sent: Slack refuses: not_in_channel: the app is not in the channel: invite it there (/invite @app)"
        " or give it chat:write.public\n",
    )


def test_dry_run_shows_the_message_and_sends_nothing(site: Site) -> None:
    done = site.muster("alerts", "test", "--dry-run", MUSTER_SLACK_TOKEN=TOKEN)
    assert "✔ TEST  alerts of n12 arrive here" in done.output
    assert site.server.requests == []


def test_the_messages_of_an_incident_as_slack_would_show_them(site: Site) -> None:
    done = site.muster("alerts", "show", site.incident)
    assert "✖ FAIL  gpu.lost on n12" in done.output
    assert "muster  (unaddressed)" in done.output


def test_credentials_come_from_the_environment_or_from_systemd(tmp_path: Path) -> None:
    (tmp_path / "slack_token").write_text("xoxb-from-systemd\n")
    found = credentials({"CREDENTIALS_DIRECTORY": str(tmp_path), "MUSTER_WEBHOOK_TOKEN": "t"})
    assert found == Credentials(slack_token="xoxb-from-systemd", webhook_token="t")
    assert "xoxb" not in repr(found)
    assert credentials({"MUSTER_SLACK_TOKEN": "xoxb-1", "CREDENTIALS_DIRECTORY": str(tmp_path)}).slack_token == "xoxb-1"


@pytest.mark.parametrize(
    ("name", "value"), [("MUSTER_SLACK_TOKEN", "secret-word"), ("MUSTER_SLACK_WEBHOOK", "secret-word")]
)
def test_what_is_plainly_no_credential_is_refused_without_showing_it(name: str, value: str) -> None:
    with pytest.raises(ConfigError) as refused:
        credentials({name: value})
    assert str(refused.value).startswith(f"{name}: is no ")
    assert value not in str(refused.value)
