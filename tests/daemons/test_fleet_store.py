"""The fleet's store on SQLite and on PostgreSQL: every change exactly once, whatever the wire does."""

import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import msgspec
import pytest
import sqlalchemy as sa
from hypothesis import given, settings
from hypothesis import strategies as st
from needs import need
from postgres_server import PostgresServer

from checks.base import Finding, Status
from daemons.errors import StateError
from daemons.fleet import tables
from daemons.fleet.admission import Admission, Known, Why, admit
from daemons.fleet.store import Store
from daemons.ledger.records import Kind, LedgerChange
from daemons.wire import Batch

NOW = 1_700_000_000.0


def finding(component: str = "gpu/3", node: str = "n1", **more: object) -> Finding:
    found = Finding(
        component=component,
        status=Status.FAIL,
        summary="lost",
        cause="gpu.lost",
        node=node,
        source="gpu_count",
        fingerprint=f"{node}:{component}",
        first_seen=NOW - 60,
        last_seen=NOW - 1,
    )
    return msgspec.structs.replace(found, **more)


def change(seq: int, kind: Kind = Kind.OPENED, component: str = "gpu/3", node: str = "n1") -> LedgerChange:
    return LedgerChange(seq=seq, kind=kind, finding=finding(component, node), at=NOW - 1)


def batch(*changes: LedgerChange, after: int = 0, ledger: str = "L1", node: str = "n1", **more: object) -> Batch:
    told = Batch(
        version=1,
        node=node,
        ledger=ledger,
        after=after,
        changes=changes,
        machine="m1",
        oldest=1,
        sent=NOW,
        status="fail",
    )
    return msgspec.structs.replace(told, **more)


def known(applied: int = 0, ledger: str = "L1", machine: str = "m1", seen: float = NOW) -> Known:
    return Known(ledger=ledger, machine=machine, applied=applied, seen=seen, interval=30.0)


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


@pytest.fixture
def store(url: str) -> Iterator[Store]:
    made = Store(url)
    yield made
    made.close()


def test_a_batch_is_applied_and_what_is_open_is_known(store: Store) -> None:
    got = store.apply(batch(change(3), change(5, component="gpu/4"), change(9, Kind.CLEARED)), NOW)
    assert (got.why, got.applied) == (Why.TAKEN, 9)
    assert [found.component for found in store.open()] == ["gpu/4"]
    assert [(c.seq, c.kind, c.finding.component) for c in store.changes_after(0)] == [
        (1, Kind.OPENED, "gpu/3"),
        (2, Kind.OPENED, "gpu/4"),
        (3, Kind.CLEARED, "gpu/3"),
    ]
    (node,) = store.nodes()
    assert (node.node, node.status, node.known.applied, node.silent) == ("n1", "fail", 9, False)


def test_a_repeated_batch_changes_nothing(store: Store) -> None:
    store.apply(batch(change(3), change(5)), NOW)
    got = store.apply(batch(change(3), change(5)), NOW + 1)
    assert (got.why, got.applied) == (Why.REPEATED, 5)
    assert len(store.changes_after(0)) == 2


def test_a_batch_that_overlaps_brings_only_what_is_new(store: Store) -> None:
    store.apply(batch(change(3), change(5)), NOW)
    assert store.apply(batch(change(5), change(7, Kind.CLEARED), after=3), NOW).applied == 7
    assert [c.kind for c in store.changes_after(0)] == [Kind.OPENED, Kind.OPENED, Kind.CLEARED]
    assert store.open() == []


def test_a_store_restored_from_a_backup_asks_for_what_it_lacks(store: Store) -> None:
    store.apply(batch(change(3)), NOW)
    got = store.apply(batch(change(9), after=7), NOW)
    assert (got.why, got.applied, got.fresh) == (Why.GAP, 3, ())
    assert store.apply(batch(change(5), change(7), change(9), after=3), NOW).applied == 9


def test_nodes_do_not_mix(store: Store) -> None:
    store.apply(batch(change(3)), NOW)
    store.apply(batch(change(3, node="n2"), node="n2", ledger="L2", machine="m2"), NOW)
    assert [found.node for found in store.open()] == ["n1", "n2"]
    assert [found.node for found in store.open("n2")] == ["n2"]
    assert store.forget_node("n1")
    assert not store.forget_node("n1")
    assert [row.node for row in store.nodes()] == ["n2"]


def test_a_node_that_begins_anew_ends_what_its_old_ledger_held_open(store: Store) -> None:
    store.apply(batch(change(3), change(4, component="gpu/4")), NOW)
    got = store.apply(batch(change(1, component="gpu/4"), ledger="L2"), NOW + 5)
    assert (got.why, got.applied) == (Why.NEW_LEDGER, 1)
    assert [found.component for found in store.open()] == ["gpu/4"]
    assert [(c.kind, c.finding.component) for c in store.changes_after(2)] == [
        (Kind.CLEARED, "gpu/3"),
        (Kind.CLEARED, "gpu/4"),
        (Kind.OPENED, "gpu/4"),
    ]


def test_what_the_fleet_itself_sees_goes_the_same_way(store: Store) -> None:
    silent = finding("node/n1", source="fleet", status=Status.UNKNOWN)
    store.add("n1", [(Kind.OPENED, silent)], NOW)
    store.add("n1", [(Kind.CLEARED, silent), (Kind.OPENED, silent)], NOW + 1)
    assert [c.kind for c in store.changes_after(0)] == [Kind.OPENED, Kind.CLEARED, Kind.OPENED]
    assert [found.component for found in store.open("n1")] == ["node/n1"]


def test_old_changes_go_only_when_they_were_read_and_numbers_are_never_used_again(store: Store) -> None:
    store.apply(batch(change(1), change(2)), NOW)
    assert store.prune(NOW + 1, read=1) == 1
    assert store.prune(NOW + 1, read=2) == 1
    store.apply(batch(change(3), after=2), NOW)
    assert [c.seq for c in store.changes_after(0)] == [3]


def test_settings_and_silence_are_kept(store: Store) -> None:
    assert store.setting("policy") is None
    store.keep("policy", "1")
    store.keep("policy", "2")
    assert store.setting("policy") == "2"
    store.apply(batch(), NOW)
    store.silence({"n1": (Kind.OPENED, finding("node/n1", source="fleet"))}, True, NOW)
    assert store.nodes()[0].silent
    store.apply(batch(), NOW + 1)
    assert store.nodes()[0].silent  # who told people of it takes it back


def test_records_come_newest_first(store: Store) -> None:
    store.record(tables.audit, [{"at": NOW + n, "node": "n1", "body": b"%d" % n} for n in range(3)])
    assert [row.body for row in store.newest(tables.audit, 2)] == [b"2", b"1"]


def test_the_same_store_opens_again(url: str) -> None:
    first = Store(url)
    first.apply(batch(change(3)), NOW)
    first.close()
    again = Store(url)
    assert again.apply(batch(change(3)), NOW).why is Why.REPEATED
    again.close()


def test_a_newer_store_is_refused_and_left_as_it_is(url: str) -> None:
    first = Store(url)
    first.keep("schema", "99")
    first.close()
    with pytest.raises(StateError, match=r"written by a newer muster \(schema 99, this one knows 1\)"):
        Store(url)


@pytest.mark.parametrize(
    ("url", "said"),
    [
        ("nonsense", "fleet.store: the given address: .* give sqlite:"),
        ("mysql://u:secret@h/d", "fleet.store: .*give sqlite:"),
        (
            "postgresql+psycopg://u:hunter2@127.0.0.1:1/d",
            r"fleet.store: postgresql\+psycopg://u:\*\*\*@127.0.0.1:1/d: ",
        ),
    ],
)
def test_a_wrong_address_is_one_line_without_its_password(url: str, said: str) -> None:
    with pytest.raises(StateError, match=said) as error:
        Store(url)
    assert "hunter2" not in str(error.value)
    assert "secret" not in str(error.value)


@pytest.mark.parametrize(
    ("before", "told", "why", "applied"),
    [
        (None, batch(change(2)), Why.TAKEN, 2),
        (None, batch(change(2), after=1), Why.GAP, 0),  # the fleet lost all: from the beginning, please
        (known(5), batch(after=5), Why.TAKEN, 5),
        (known(5), batch(change(9), after=8, oldest=9), Why.LOST, 9),  # the node forgot 6 to 8 meanwhile
        (known(5), batch(after=8, oldest=0), Why.LOST, 8),
        (known(5), batch(change(9), change(7), after=5), Why.MALFORMED, 5),
        (known(5), batch(change(7), change(7), after=5), Why.MALFORMED, 5),
        (known(5), batch(change(7), after=7), Why.MALFORMED, 5),
        (known(5), batch(version=2), Why.VERSION, 5),
        (known(5), batch(change(1), ledger="L2"), Why.NEW_LEDGER, 1),
        (known(5), batch(change(1), ledger="L2", machine="m2"), Why.SHADOWED, 0),
        (known(5, seen=NOW - 91), batch(change(1), ledger="L2", machine="m2"), Why.NEW_LEDGER, 1),
    ],
)
def test_admission(before: Known | None, told: Batch, why: Why, applied: int) -> None:
    got = admit(before, told, NOW)
    assert (got.why, got.applied) == (why, applied)
    assert bool(got.error) == (why in (Why.MALFORMED, Why.VERSION, Why.SHADOWED))


def test_a_clock_that_is_a_day_off_is_put_right_and_a_small_difference_is_not() -> None:
    (late,) = admit(None, batch(change(1), sent=NOW - 86_400), NOW).fresh
    assert (late.at, late.finding.first_seen) == (NOW - 1 + 86_400, NOW - 60 + 86_400)
    (near,) = admit(None, batch(change(1), sent=NOW - 4), NOW).fresh
    assert near == change(1)


@settings(deadline=None, max_examples=60)
@given(st.data())
def test_whatever_the_wire_repeats_loses_or_reorders_every_change_arrives_once_in_order(data: st.DataObject) -> None:
    """The agent as docs/wire.md describes it, over a wire that drops requests and receipts and repeats old requests."""
    numbers = sorted(data.draw(st.sets(st.integers(1, 60), max_size=20)))
    state: Known | None = None
    applied: list[int] = []
    sent: list[Batch] = []
    cursor = 0

    def deliver(told: Batch) -> Admission:
        nonlocal state
        got = admit(state, told, NOW)
        if not got.error:
            applied.extend(c.seq for c in got.fresh)
            state = known(got.applied)
        return got

    for _ in range(60):
        size = data.draw(st.integers(1, 5))
        sent.append(batch(*(change(n) for n in [n for n in numbers if n > cursor][:size]), after=cursor))
        fate = data.draw(st.sampled_from(["arrives", "request lost", "receipt lost", "old one again"]))
        if fate == "old one again":
            deliver(sent[data.draw(st.integers(0, len(sent) - 1))])
        elif fate != "request lost":
            got = deliver(sent[-1])
            if fate == "arrives":
                cursor = got.applied
    while cursor < max(numbers, default=0):
        cursor = deliver(batch(*(change(n) for n in numbers if n > cursor), after=cursor)).applied
    assert applied == numbers


WRITER = """
import sys
from checks.base import Finding, Status
from daemons.fleet.store import Store
from daemons.ledger.records import Kind, LedgerChange
from daemons.wire import Batch
store, cursor = Store(sys.argv[1]), int(sys.argv[2])
lost = Finding(component="gpu/3", status=Status.FAIL, summary="lost", node="n1", fingerprint="f")
while True:
    new = tuple(LedgerChange(seq=cursor + n, kind=Kind.REPEATED, finding=lost, at=1.0) for n in (1, 2, 3))
    batch = Batch(version=1, node="n1", ledger="L1", after=cursor, oldest=1, changes=new)
    cursor = store.apply(batch, 1.0).applied
    print(cursor, flush=True)
"""


def test_a_fleet_killed_at_any_instant_keeps_whole_batches_and_what_it_confirmed(url: str) -> None:
    confirmed = 0
    for _ in range(6):
        command = [sys.executable, "-I", "-c", WRITER, url, str(confirmed)]
        writer = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
        assert writer.stdout is not None
        for _ in range(3):
            confirmed = int(writer.stdout.readline())
        writer.send_signal(signal.SIGKILL)
        rest = writer.stdout.read().split()
        writer.wait(timeout=10)
        writer.stdout.close()
        confirmed = int(rest[-1]) if rest else confirmed
        store = Store(url)
        (node,) = store.nodes()
        assert node.known.applied >= confirmed
        assert node.known.applied % 3 == 0
        assert len(store.changes_after(0, limit=100_000)) == node.known.applied
        confirmed = node.known.applied
        store.close()
