"""The nodes' way in over real HTTP: what is taken, what is refused and why, on both stores."""

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import msgspec
import pytest
import sqlalchemy as sa
from fleet_office import SECRET, START, FleetOffice, batch, change, lost
from needs import need
from postgres_server import PostgresServer

from daemons.fleet import tables
from daemons.fleet.admission import Why
from daemons.ledger.records import Kind
from daemons.wire import BODY_BYTES, Batch, Receipt, node_token

N12 = node_token(SECRET, "n12")
NEEDS = "needs the token of node n12: `muster fleet token NODE` on the fleet prints it"
UPGRADE = "speaks version 7, this fleet speaks 1: upgrade the older"


@pytest.fixture(scope="module")
def server() -> Iterator[PostgresServer]:
    need("postgresql")
    made = PostgresServer()
    yield made
    made.stop()


@pytest.fixture(params=["sqlite", "postgresql"])
def url(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    if request.param == "sqlite":
        return f"sqlite:///{tmp_path}/fleet.db"
    server: PostgresServer = request.getfixturevalue("server")
    engine = sa.create_engine(server.url)
    with engine.begin() as connection:
        tables.META.drop_all(connection)
    engine.dispose()
    return server.url


Open = Callable[..., FleetOffice]


@pytest.fixture
def opened(tmp_path: Path) -> Iterator[Open]:
    offices: list[FleetOffice] = []

    def make(url: str = "", **more: Any) -> FleetOffice:
        offices.append(FleetOffice(tmp_path, url or f"sqlite:///{tmp_path}/fleet.db", **more))
        return offices[-1]

    yield make
    for office in offices:
        office.close()


def test_changes_become_an_incident_and_are_answered_when_they_are_durable(opened: Open, url: str) -> None:
    fleet = opened(url)
    assert fleet.send(batch(change(3), change(4, Kind.REPEATED))) == (200, Receipt(applied=4))
    assert [found.component for found in fleet.store.open()] == ["gpu/5"]
    fleet.passes(1)
    (incident,) = fleet.client.get("/incidents").json()
    assert (incident["cause"], incident["where"], incident["state"]) == ("gpu.lost", "n12 gpu/5", "open")
    assert [f["component"] for f in fleet.client.get("/findings?node=n12").json()] == ["gpu/5"]
    (node,) = fleet.client.get("/nodes").json()
    assert (node["node"], node["status"], node["silent"]) == ("n12", "fail", False)


def test_the_same_in_msgpack(opened: Open) -> None:
    fleet = opened()
    packed = msgspec.msgpack.encode(batch(change(3)))
    assert fleet.post(packed, N12, "application/msgpack")[1].applied == 3
    assert len(fleet.store.open()) == 1


def test_signs_of_life_are_kept_without_a_transaction_each_and_written_every_few_seconds(opened: Open) -> None:
    fleet = opened()
    fleet.send(batch())
    fleet.clock.advance(20)
    fleet.send(batch(status="ok"))
    assert fleet.daemon.nodes()[0].known.seen == START + 20
    assert fleet.store.nodes()[0].known.seen == START
    fleet.passes(11)
    assert (fleet.store.nodes()[0].known.seen, fleet.store.nodes()[0].well) == (START + 20, START + 20)


@pytest.mark.parametrize(
    ("told", "token", "status", "why", "said"),
    [
        (batch(), "guess", 401, Why.TOKEN, NEEDS),
        (batch(), node_token(SECRET, "n13"), 401, Why.TOKEN, NEEDS),
        (batch(version=2), N12, 409, Why.VERSION, "speaks version 2, this fleet speaks 1: upgrade the older"),
        (batch(change(5), change(4)), N12, 400, Why.MALFORMED, "changes are not in the order of their numbers"),
        (batch(change(5), change(5)), N12, 400, Why.MALFORMED, "changes are not in the order of their numbers"),
        (batch(change(-1)), N12, 400, Why.MALFORMED, "a number of a change is below 0 or too large"),
        (batch(change(2**62)), N12, 400, Why.MALFORMED, "a number of a change is below 0 or too large"),
        (batch(change(1, finding=lost(cause="a\0b"))), N12, 400, Why.MALFORMED, "a NUL character in a text"),
        (batch(ledger=""), N12, 400, Why.MALFORMED, "ledger: no id of a ledger"),
        (batch(node="a/b"), node_token(SECRET, "a/b"), 400, Why.MALFORMED, "node: 'a/b' is no name of a node"),
        (batch(node=""), node_token(SECRET, ""), 400, Why.MALFORMED, "node: '' is no name of a node"),
    ],
)  # fmt: skip
def test_what_is_refused_says_why_and_is_counted_and_changes_nothing(
    opened: Open, told: Batch, token: str, status: int, why: Why, said: str
) -> None:
    fleet = opened()
    fleet.send(batch())
    got, receipt = fleet.post(msgspec.json.encode(told), token)
    assert (got, receipt.error) == (status, said)
    assert fleet.daemon._intake.counts() == {Why.TAKEN: 1, why: 1}
    assert fleet.store.changes_after(0) == []


@pytest.mark.parametrize(
    ("body", "content_type", "status", "said"),
    [
        (b"", "application/json", 400, "no batch in JSON: Input data was truncated (docs/wire.md)"),
        (b"\xff\xfe", "application/json", 400, "no batch in JSON: "),
        (b"[" * 100_000, "application/json", 400, "no batch in JSON: "),
        (b'{"version":1,"node":5}', "application/json", 400, "no batch in JSON: Expected `str`, got `int`"),
        (b'{"version":7,"nodes":[]}', "application/json", 409, UPGRADE),
        (b"{}", "application/msgpack", 400, "no batch in msgpack: "),
        (b"x" * (BODY_BYTES + 1), "application/json", 413, f"a body above {BODY_BYTES} bytes: send fewer changes"),
    ],
    ids=["empty", "not text", "deep", "wrong type", "future", "not msgpack", "too large"],
)  # fmt: skip
def test_bodies_that_are_no_batch(opened: Open, body: bytes, content_type: str, status: int, said: str) -> None:
    fleet = opened()
    got, receipt = fleet.post(body, N12, content_type)
    assert (got, receipt.error[: len(said)]) == (status, said)
    assert fleet.send(batch(change(1)))[1].applied == 1, "and the next one is taken"


def test_a_field_of_a_later_agent_is_passed_over(opened: Open) -> None:
    fleet = opened()
    tree = msgspec.to_builtins(batch(change(1)))
    tree |= {"colour": "blue"}
    tree["changes"][0]["finding"]["mood"] = "bad"
    assert fleet.post(msgspec.json.encode(tree), N12)[1].applied == 1


def test_a_batch_without_what_was_added_later_is_taken(opened: Open) -> None:
    fleet = opened()
    assert fleet.post(b'{"version":1,"node":"n12","ledger":"L","after":0}', N12) == (200, Receipt(applied=0))


def test_what_is_repeated_or_comes_in_another_order_is_applied_once(opened: Open, url: str) -> None:
    fleet = opened(url)
    first, second = batch(change(3)), batch(change(5, Kind.CLEARED), after=3)
    assert [fleet.send(told)[1].applied for told in (second, first, first, second, second, first)] == [0, 3, 3, 5, 5, 5]
    assert [c.kind for c in fleet.store.changes_after(0)] == [Kind.OPENED, Kind.CLEARED]
    assert fleet.daemon._intake.counts() == {Why.GAP: 1, Why.TAKEN: 2, Why.REPEATED: 3}


def test_a_second_machine_under_the_same_name_is_refused_while_the_first_speaks(opened: Open) -> None:
    fleet = opened()
    fleet.send(batch(change(1)))
    status, receipt = fleet.send(batch(change(1), machine="other", ledger="L2"))
    assert (status, receipt.error) == (
        409,
        "another machine reports as n12 and did so 0 s ago: give one of them another name (node.name)",
    )


def test_a_node_opens_and_clears_only_what_is_its_own(opened: Open) -> None:
    fleet = opened()
    fleet.send(batch(change(1)))
    theirs = change(1, Kind.CLEARED, lost("n12"))
    fleet.send(batch(theirs, node="n13"))
    assert [(f.node, f.component) for f in fleet.store.open()] == [("n12", "gpu/5")]
    fleet.send(batch(change(2, Kind.OPENED, lost("n12", "gpu/7")), node="n13", after=1))
    assert [(f.node, f.component) for f in fleet.store.open()] == [("n12", "gpu/5"), ("n13", "gpu/7")]


@pytest.mark.parametrize("off", [-86_400.0, 86_400.0])
def test_times_of_a_clock_that_is_a_day_off_are_put_right(opened: Open, off: float) -> None:
    fleet = opened()
    found = lost(first_seen=START + off - 40)
    fleet.send(batch(change(1, finding=found, at=START + off), sent=START + off))
    assert fleet.store.open()[0].first_seen == START - 40


def test_an_interval_out_of_bounds_is_brought_back(opened: Open) -> None:
    fleet = opened()
    fleet.send(batch(interval=1e9))
    fleet.send(batch(node="n13", interval=0.001))
    assert [node.known.interval for node in fleet.daemon.nodes()] == [3600.0, 1.0]


def test_a_silent_node_is_told_once_and_so_is_that_it_speaks_again(opened: Open) -> None:
    fleet = opened()
    fleet.send(batch())
    fleet.passes(85)
    assert fleet.client.get("/incidents").json() == []
    fleet.passes(20)
    (incident,) = fleet.client.get("/incidents").json()
    assert (incident["title"], incident["severity"]) == ("fleet:silent on n12", "unknown")
    assert fleet.daemon.board.nodes == {"silent": 1}
    fleet.passes(300)
    assert len(fleet.store.changes_after(0)) == 1
    fleet.send(batch())
    fleet.passes(6)
    assert [c.kind for c in fleet.store.changes_after(0)] == [Kind.OPENED, Kind.CLEARED]
    assert [i["state"] for i in fleet.client.get("/incidents").json()] == ["resolved"]


def test_a_fleet_that_was_away_gives_every_node_its_intervals_anew(opened: Open) -> None:
    fleet = opened()
    fleet.send(batch())
    fleet.close()
    fleet.clock.advance(3600)
    again = opened(clock=fleet.clock)
    again.passes(85)
    assert again.store.changes_after(0) == []
    again.passes(10)
    assert [c.finding.kind for c in again.store.changes_after(0)] == ["silent"]


def test_a_step_of_the_clock_silences_nobody(opened: Open) -> None:
    fleet = opened()
    fleet.send(batch())
    fleet.clock.step(86_400)
    fleet.passes(10)
    assert fleet.store.changes_after(0) == []


def test_nodes_of_one_rack_that_fall_silent_together_are_one_incident(opened: Open) -> None:
    fleet = opened(text='[fleet.topology]\nracks = {r1 = "n[1-8]", r2 = "n[9-12]"}\n')
    for number in range(1, 13):
        fleet.send(batch(node=f"n{number}"))
    fleet.passes(100)
    incidents = fleet.client.get("/incidents").json()
    assert sorted((i["title"], i["components"]) for i in incidents) == [
        ("fleet:silent on 4 nodes", 4),
        ("fleet:silent on 8 nodes", 8),
    ]


def test_changes_need_the_token_and_reading_does_not(opened: Open) -> None:
    fleet = opened()
    fleet.send(batch(change(1)))
    fleet.passes(1)
    (incident,) = fleet.client.get("/incidents").json()
    path = f"/incidents/{incident['id']}/ack"
    assert fleet.client.post(path).status_code == 401
    assert fleet.client.get("/healthz").json()["healthy"] is True


def test_metrics_are_as_prometheus_wants_them(opened: Open) -> None:
    fleet = opened()
    fleet.send(batch(change(1)))
    fleet.passes(1)
    page = fleet.client.get("/metrics").text
    for line in ('muster_fleet_nodes{status="fail"} 1.0', 'muster_fleet_batches_total{result="taken"} 1.0',
                 "muster_fleet_changes_total 1.0", "muster_fleet_store_up 1.0"):  # fmt: skip
        assert line in page.splitlines()


def test_a_node_that_is_gone_for_good_is_forgotten_and_its_incidents_end(opened: Open) -> None:
    fleet = opened()
    fleet.send(batch(change(1)))
    fleet.passes(1)
    assert fleet.client.delete("/nodes/n12").status_code == 401
    answer = fleet.while_asked(lambda: fleet.client.delete("/nodes/n12", headers={"authorization": "Bearer api"}))
    assert answer.json() == {"known": True}
    assert fleet.client.get("/nodes").json() == []
    assert [i["state"] for i in fleet.client.get("/incidents").json()] == ["resolved"]
