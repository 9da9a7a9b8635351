"""Every change reaches the fleet, in order, and counts once: through lost answers, outages and restarts."""

from collections.abc import Iterator
from pathlib import Path
from typing import Protocol

import pytest
from fleet_receiver import FleetReceiver
from node_findings import finding

from checks.base import ClearRule
from checks.clock import ManualClock
from daemons.config import parse
from daemons.errors import ConfigError
from daemons.ledger import Entry, FindingState, Kind, Ledger, Tracked
from daemons.node.config import FleetLinkConfig
from daemons.node.outbox import READER, Facts, Outbox, Sender, pause
from daemons.node.parts import open_parts

FACTS = Facts(node="n1", machine="m1", boot_id="b1", status="ok", agent="1.2.3", checks=4)


@pytest.fixture
def fleet() -> Iterator[FleetReceiver]:
    server = FleetReceiver("secret")
    yield server
    server.end()


@pytest.fixture
def ledger(tmp_path: Path) -> Iterator[Ledger]:
    made = Ledger(tmp_path / "ledger.db", ManualClock())
    yield made
    made.close()


class Maker(Protocol):
    def __call__(self, ledger: Ledger, url: str, token: str = "secret") -> Outbox: ...


@pytest.fixture
def outbox() -> Iterator[Maker]:
    """Makes outboxes whose thread is not started, and closes them."""
    made: list[Outbox] = []

    def make(ledger: Ledger, url: str, token: str = "secret") -> Outbox:
        config = FleetLinkConfig(url=url)
        box = Outbox(config, ledger, lambda: FACTS, ManualClock(), Sender(config, token), jitter=lambda: 1.0)
        made.append(box)
        return box

    yield make
    for box in made:
        box.close()


def happens(ledger: Ledger, *components: str, evidence: str = "") -> None:
    for component in components:
        found = finding(component, evidence=evidence)
        row = Tracked(
            finding=found, state=FindingState.OPEN, clear=ClearRule.CLEAN_RUNS, boot_id="b1", since=0.0, seen=0.0
        )
        ledger.record(Entry(put={found.fingerprint: row}, changes=((Kind.OPENED, found),)))


def arrived(fleet: FleetReceiver) -> list[str]:
    return [component for _, _, component in fleet.applied]


def test_changes_arrive_in_order_with_what_the_node_says_of_itself(
    ledger: Ledger, fleet: FleetReceiver, outbox: Maker
) -> None:
    happens(ledger, "gpu/1", "gpu/2")
    box = outbox(ledger, fleet.url)
    assert box.step() == 0.0
    assert box.step() == 30.0  # nothing more: a sign of life
    first, second = fleet.batches
    assert arrived(fleet) == ["gpu/1", "gpu/2"]
    assert (first.node, first.machine, first.ledger, first.after, first.oldest) == ("n1", "m1", ledger.id, 0, 1)
    assert (second.after, second.changes, second.status, second.checks) == (2, (), "ok", 4)
    assert ledger.register(READER) == 2
    assert (box.state.delivered, box.state.trouble) == (2, "")


def test_an_answer_that_is_lost_means_sent_again_and_applied_once(
    ledger: Ledger, fleet: FleetReceiver, outbox: Maker
) -> None:
    box = outbox(ledger, fleet.url)
    happens(ledger, "gpu/1")
    fleet.lose_answer = True
    assert box.step() == 1.0
    assert ledger.register(READER) == 0
    assert box.step() == 0.0
    assert [len(batch.changes) for batch in fleet.batches] == [1, 1]
    assert arrived(fleet) == ["gpu/1"]


def test_an_outage_is_waited_out_ever_longer_and_nothing_is_lost(
    ledger: Ledger, fleet: FleetReceiver, outbox: Maker
) -> None:
    box = outbox(ledger, fleet.url)
    fleet.answer = 503
    waits = []
    for number in range(4):
        happens(ledger, f"gpu/{number}")
        waits.append(box.step())
    assert waits == [1.0, 2.0, 4.0, 8.0]
    assert box.state.trouble == "answered 503, no receipt"
    fleet.answer = 0
    assert box.step() == 0.0
    assert arrived(fleet) == ["gpu/0", "gpu/1", "gpu/2", "gpu/3"]
    assert box.state.trouble == ""


def test_a_fleet_that_nobody_listens_for_is_a_trouble_not_an_end(ledger: Ledger, outbox: Maker) -> None:
    box = outbox(ledger, "http://127.0.0.1:1")
    assert box.step() == 1.0
    assert box.state.trouble == "[Errno 111] Connection refused"


def test_a_wrong_token_is_said(ledger: Ledger, fleet: FleetReceiver, outbox: Maker) -> None:
    box = outbox(ledger, fleet.url, token="guess")
    box.step()
    assert box.state.trouble == "answered 401: needs the node's token"


def test_a_fleet_restored_from_a_backup_is_told_again_from_where_it_is(
    ledger: Ledger, fleet: FleetReceiver, outbox: Maker
) -> None:
    box = outbox(ledger, fleet.url)
    happens(ledger, "gpu/1", "gpu/2", "gpu/3")
    box.step()
    fleet.known, fleet.applied = None, []
    happens(ledger, "gpu/4")
    while box.step() == 0.0:
        pass
    assert arrived(fleet) == ["gpu/1", "gpu/2", "gpu/3", "gpu/4"]
    assert ledger.register(READER) == 4


def test_a_restarted_agent_goes_on_where_the_fleet_is(tmp_path: Path, fleet: FleetReceiver, outbox: Maker) -> None:
    path = tmp_path / "again.db"
    first = Ledger(path, ManualClock())
    happens(first, "gpu/1")
    outbox(first, fleet.url).step()
    happens(first, "gpu/2")
    first.close()
    second = Ledger(path, ManualClock())
    box = outbox(second, fleet.url)
    while box.step() == 0.0:
        pass
    assert arrived(fleet) == ["gpu/1", "gpu/2"]
    second.close()


def test_a_batch_that_is_too_large_is_sent_in_parts(ledger: Ledger, fleet: FleetReceiver, outbox: Maker) -> None:
    happens(ledger, *(f"gpu/{number}" for number in range(6)), evidence="x" * (1 << 20))
    box = outbox(ledger, fleet.url)
    while box.step() == 0.0:
        pass
    assert arrived(fleet) == [f"gpu/{number}" for number in range(6)]
    assert max(len(batch.changes) for batch in fleet.batches) < 6


def test_pauses_double_to_five_minutes_and_are_spread() -> None:
    assert [pause(n, 1.0) for n in (1, 2, 3, 9, 10, 1000)] == [1, 2, 4, 256, 300, 300]
    assert pause(10, 0.0) == 150


@pytest.mark.parametrize(
    ("text", "environment", "said"),
    [
        ("url = 'fleet:9809'", {}, "fleet.url: 'fleet:9809' is no address such as https://fleet.example:9809"),
        (
            "url = 'https://f'",
            {},
            "fleet.url: needs this node's token: set MUSTER_FLEET_TOKEN, or the systemd credential fleet_token",
        ),
        (
            "url = 'https://f'\nca = '/none.pem'",
            {"MUSTER_FLEET_TOKEN": "t"},
            "fleet.ca: /none.pem: cannot be read: No such file or directory",
        ),
    ],
)
def test_a_link_that_cannot_work_is_one_line(text: str, environment: dict[str, str], said: str) -> None:
    with pytest.raises(ConfigError) as refused:
        open_parts(parse(f"[fleet]\n{text}\n", "m.toml"), None, environment)
    assert str(refused.value) == said
