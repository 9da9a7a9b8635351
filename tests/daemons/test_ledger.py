"""The ledger keeps what it acknowledged: through SIGKILL, a full disk, a damaged file and newer versions."""

import os
import random
import resource
import select
import signal
import sqlite3
import struct
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from node_findings import NOW, finding

from checks.base import ClearRule
from checks.clock import ManualClock
from daemons.errors import StateError
from daemons.ledger import Entry, FindingState, Keep, Kind, Ledger, Tracked
from daemons.ledger.schema import MIGRATIONS, migrate, refuse_newer

DAY = 86400.0


def tracked(number: int, state: FindingState = FindingState.OPEN, count: int = 1) -> Tracked:
    found = finding(f"gpu/{number}", count=count)
    return Tracked(
        finding=found, state=state, clear=ClearRule.CLEAN_RUNS, boot_id="boot1", since=1.0, seen=2.0, logged_count=count
    )


def entry(number: int, kind: Kind = Kind.OPENED, count: int = 1) -> Entry:
    state = FindingState.CLEARED if kind is Kind.CLEARED else FindingState.OPEN
    row = tracked(number, state, count)
    return Entry(put={row.finding.fingerprint: row}, changes=((kind, row.finding),))


@pytest.fixture
def clock() -> ManualClock:
    return ManualClock(NOW)


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "ledger.db"


def seqs(ledger: Ledger, after: int = 0) -> list[int]:
    return [change.seq for change in ledger.changes_after(after)]


def test_what_was_recorded_is_there_after_a_restart(path: Path, clock: ManualClock) -> None:
    ledger = Ledger(path, clock)
    ledger.record(entry(1), ("gpu_look", {"cursor": 7}))
    clock.advance(5)
    ledger.record(entry(2))
    name, changes = ledger.id, ledger.changes_after(0)
    ledger.close()
    again = Ledger(path, clock)
    assert again.of("gpu_look") == {"gpu/1:lost": tracked(1), "gpu/2:lost": tracked(2)}
    assert again.memory("gpu_look") == {"cursor": 7}
    assert (again.id, again.changes_after(0)) == (name, changes)
    assert [(c.seq, c.kind, c.at, c.finding) for c in changes] == [
        (1, Kind.OPENED, NOW, tracked(1).finding),
        (2, Kind.OPENED, NOW + 5, tracked(2).finding),
    ]
    again.record(entry(3))
    assert seqs(again, after=1) == [2, 3]
    again.close()


def test_cleared_and_forgotten_rows_are_no_longer_held(path: Path, clock: ManualClock) -> None:
    ledger = Ledger(path, clock)
    ledger.record(entry(1))
    ledger.record(entry(1, Kind.CLEARED))
    ledger.record(Entry(put={"gpu/2:lost": tracked(2, FindingState.PENDING)}))
    assert ledger.open_findings() == ()
    ledger.record(Entry(forget=frozenset({"gpu/2:lost"})))
    assert (ledger.sources(), seqs(ledger)) == ([], [1, 2])
    ledger.close()
    again = Ledger(path, clock)
    assert again.of("gpu_look") == {}
    again.close()
    rows = sqlite3.connect(path).execute("SELECT component, state, count FROM findings").fetchall()
    assert rows == [("gpu/1", "cleared", 1)]


def test_changes_come_in_pages(path: Path, clock: ManualClock) -> None:
    ledger = Ledger(path, clock)
    for number in range(10):
        ledger.record(entry(number))
    assert [c.seq for c in ledger.changes_after(3, limit=4)] == [4, 5, 6, 7]
    ledger.close()


# Killed at any moment


def _write_until_killed(path: Path, pipe: int) -> None:
    """In the child: record entries one after another, and say each number once it was acknowledged."""
    ledger = Ledger(path, ManualClock(NOW))
    number = ledger.memory("writer").get("number", 0)
    while True:
        number += 1
        (change,) = ledger.record(entry(number), ("writer", {"number": number}))
        os.write(pipe, struct.pack("!QQ", change.seq, number))


def _killed_writer(path: Path, entries: int, seconds: float) -> list[tuple[int, int]]:
    """(seq, number) of all that a writer acknowledged; SIGKILL comes so many seconds after so many entries."""
    ours, theirs = os.pipe()
    pid = os.fork()
    if pid == 0:
        try:
            _write_until_killed(path, theirs)
        finally:
            os._exit(1)
    os.close(theirs)
    with os.fdopen(ours, "rb", buffering=0) as pipe:
        raw = b""
        while len(raw) < 16 * entries:
            raw += pipe.read(16 * entries - len(raw))
        select.select([], [], [], seconds)
        os.kill(pid, signal.SIGKILL)
        assert os.WTERMSIG(os.waitpid(pid, 0)[1]) == signal.SIGKILL
        raw += pipe.read()
    return list(struct.iter_unpack("!QQ", raw[: len(raw) // 16 * 16]))


def test_a_writer_killed_hundreds_of_times_loses_nothing_that_it_acknowledged(path: Path, clock: ManualClock) -> None:
    truth: dict[int, int] = {}
    chance = random.Random(20260101)
    for _ in range(300):
        truth.update(_killed_writer(path, chance.randrange(5), chance.uniform(0, 0.006)))
    ledger = Ledger(path, clock)
    assert ledger.set_aside == ""
    found: dict[int, int] = {}
    after = 0
    while page := ledger.changes_after(after, limit=500):
        found.update({c.seq: int(c.finding.component.removeprefix("gpu/")) for c in page})
        after = page[-1].seq
    assert len(truth) > 300
    assert {seq: found.get(seq) for seq in truth} == truth
    # An entry is whole: a row for each change, the check's memory that of the last; no number was used twice.
    numbers = [found[seq] for seq in sorted(found)]
    assert numbers == list(range(1, len(numbers) + 1))
    assert sorted(ledger.of("gpu_look")) == sorted(f"gpu/{n}:lost" for n in numbers)
    assert ledger.memory("writer") == {"number": numbers[-1]}
    ledger.close()


# A full disk


@contextmanager
def full_disk(size: int) -> Iterator[None]:
    """No file of this process may grow above `size` bytes: write(2) fails as on a full disk."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)


def test_a_full_disk_is_borne_in_memory_said_and_written_when_there_is_room(path: Path, clock: ManualClock) -> None:
    ledger = Ledger(path, clock)
    ledger.record(entry(1), ("gpu_look", {"at": 1}))
    with full_disk(1):
        ledger.record(entry(2), ("gpu_look", {"at": 2}))
        assert ledger.degraded.startswith(f"{path}: ")
        ledger.record(entry(1, Kind.CLEARED))
        assert not ledger.flush()
        assert [f.component for f in ledger.open_findings()] == ["gpu/2"]
        assert seqs(ledger) == [1, 2, 3]
        assert seqs(ledger, after=2) == [3]
        assert ledger.memory("gpu_look") == {"at": 2}
    assert ledger.flush()
    assert ledger.degraded == ""
    ledger.close()
    again = Ledger(path, clock)
    assert (seqs(again), list(again.of("gpu_look")), again.memory("gpu_look")) == ([1, 2, 3], ["gpu/2:lost"], {"at": 2})
    again.close()


def test_numbers_handed_out_while_the_disk_was_full_are_never_used_again(path: Path, clock: ManualClock) -> None:
    ledger = Ledger(path, clock)
    ledger.record(entry(1))
    with full_disk(1):
        ledger.record(entry(2))
        handed_out = seqs(ledger)[-1]
        again = Ledger(_copied(path), clock)  # what a crash would leave
    new = again.record(entry(3))[0].seq
    assert new > handed_out
    again.close()
    ledger.close()


def _copied(path: Path) -> Path:
    copy = path.with_name("copy.db")
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (before[1], before[1]))
    for suffix in ("", "-wal"):
        source = path.with_name(path.name + suffix)
        if source.exists():
            copy.with_name(copy.name + suffix).write_bytes(source.read_bytes())
    return copy


def test_repetitions_during_an_outage_take_no_more_room_than_the_last(path: Path, clock: ManualClock) -> None:
    ledger = Ledger(path, clock)
    ledger.record(entry(1))
    with full_disk(1):
        for count in range(2, 50):
            ledger.record(entry(1, Kind.REPEATED, count))
        changes = ledger.changes_after(0)
        assert [(c.kind, c.finding.count) for c in changes] == [(Kind.OPENED, 1), (Kind.REPEATED, 49)]
    ledger.close()


# A damaged file


@pytest.mark.parametrize("damage", ["not a database", "torn page", "empty log of nonsense"])
def test_a_damaged_file_is_set_aside_whole_and_a_new_one_begun(path: Path, clock: ManualClock, damage: str) -> None:
    ledger = Ledger(path, clock)
    for number in range(200):
        ledger.record(entry(number))
    old = ledger.id
    ledger.close()
    raw = bytearray(path.read_bytes())
    if damage == "torn page":
        raw[4096 * 2 : 4096 * 6] = os.urandom(4096 * 4)
    else:
        raw[: len(raw) if damage == "not a database" else 16] = b"\x07" * (len(raw) if "not" in damage else 16)
    path.write_bytes(raw)
    again = Ledger(path, clock)
    kept = path.with_name("ledger.db.damaged-20231114T221320Z")
    assert kept.read_bytes() == raw
    assert again.set_aside.startswith("ledger.db was damaged (")
    assert again.set_aside.endswith(f") and is kept as {kept.name}; a new one was begun")
    assert again.id != old
    again.start_above(200)
    assert again.record(entry(1))[0].seq == 201
    again.close()


def test_a_file_damaged_while_in_use_is_rewritten_from_memory(path: Path, clock: ManualClock) -> None:
    ledger = Ledger(path, clock, Keep())
    ledger.register("desk")
    for number in range(300):
        ledger.record(entry(number), ("gpu_look", {"at": number}))
    sqlite3.connect(path).execute("PRAGMA wal_checkpoint(TRUNCATE)")
    with path.open("r+b") as file:
        file.seek(4096)
        file.write(os.urandom(path.stat().st_size - 4096))
    # The pages that SQLite holds may serve for a while; the damage shows once it reads the file again.
    for number in range(300, 700):
        ledger.record(entry(number), ("gpu_look", {"at": number}))
        if ledger.set_aside:
            break
    assert ledger.set_aside
    assert ledger.degraded == ""
    ledger.close()
    again = Ledger(path, clock)
    assert again.set_aside == ""
    assert sorted(again.of("gpu_look")) == sorted(f"gpu/{n}:lost" for n in range(number + 1))
    assert again.memory("gpu_look") == {"at": number}
    assert again.register("desk") == 0
    assert again.last_seq >= number + 1
    again.close()


# Versions


def test_a_newer_schema_is_refused_in_one_line_and_not_touched(path: Path, clock: ManualClock) -> None:
    newer = sqlite3.connect(path)
    newer.execute("PRAGMA journal_mode=WAL")
    newer.execute("CREATE TABLE future (x)")
    newer.execute("PRAGMA user_version = 7")
    newer.close()
    before = {p.name: p.read_bytes() for p in path.parent.iterdir()}
    with pytest.raises(StateError) as refused:
        Ledger(path, clock)
    assert str(refused.value) == (
        f"{path}: written by a newer muster (schema 7, this one knows {len(MIGRATIONS)}): start that version, or move"
        " the file away to begin anew"
    )
    assert {p.name: p.read_bytes() for p in path.parent.iterdir()} == before


def test_an_older_file_is_migrated_step_by_step_and_keeps_its_rows(path: Path, clock: ManualClock) -> None:
    ledger = Ledger(path, clock)
    ledger.record(entry(1))
    ledger.close()
    steps = (
        *MIGRATIONS,
        ("ALTER TABLE changes ADD COLUMN job TEXT NOT NULL DEFAULT ''",),
        ("CREATE INDEX by_job ON changes (job)",),
    )
    database = sqlite3.connect(path, isolation_level=None)
    assert migrate(database, path, steps) == 2
    assert migrate(database, path, steps) == 0
    assert database.execute("SELECT seq, job FROM changes").fetchall() == [(1, "")]
    database.close()
    refuse_newer(path, known=len(steps))
    with pytest.raises(StateError):
        refuse_newer(path)


def test_a_migration_that_fails_leaves_the_version_before_whole(path: Path, clock: ManualClock) -> None:
    Ledger(path, clock).close()
    broken = (*MIGRATIONS, ("ALTER TABLE changes ADD COLUMN job TEXT", "ALTER TABLE nothing ADD COLUMN x"))
    database = sqlite3.connect(path, isolation_level=None)
    with pytest.raises(sqlite3.OperationalError):
        migrate(database, path, broken)
    assert database.execute("PRAGMA user_version").fetchone() == (len(MIGRATIONS),)
    assert "job" not in [row[1] for row in database.execute("PRAGMA table_info(changes)")]
    database.close()
    Ledger(path, clock).close()


# How long it stays


def test_old_changes_go_only_once_every_reader_has_read_them(path: Path, clock: ManualClock) -> None:
    ledger = Ledger(path, clock, Keep(days=30))
    ledger.register("desk")
    ledger.register("fleet")
    for number in range(4):
        ledger.record(entry(number))
    clock.advance(31 * DAY)
    ledger.record(entry(9))
    ledger.advance("desk", 5)
    ledger.advance("fleet", 2)
    assert (ledger.prune(), seqs(ledger)) == (2, [3, 4, 5])
    ledger.advance("fleet", 1)  # a late answer takes nothing back
    assert (ledger.prune(), ledger.register("fleet")) == (0, 2)
    ledger.release("fleet")
    assert (ledger.prune(), seqs(ledger)) == (2, [5])
    ledger.close()


def test_at_most_so_many_changes_stay_and_none_that_is_unread_goes(path: Path, clock: ManualClock) -> None:
    ledger = Ledger(path, clock, Keep(changes=3))
    ledger.register("desk")
    for number in range(8):
        ledger.record(entry(number))
    assert (ledger.prune(), len(seqs(ledger))) == (0, 8)
    ledger.advance("desk", 7)
    assert (ledger.prune(), seqs(ledger)) == (5, [6, 7, 8])
    ledger.close()


def test_open_findings_are_never_too_old_cleared_ones_are(path: Path, clock: ManualClock) -> None:
    ledger = Ledger(path, clock, Keep(days=30))
    ledger.record(entry(1))
    ledger.record(entry(2, Kind.CLEARED))
    clock.advance(31 * DAY)
    ledger.prune()
    ledger.close()
    rows = sqlite3.connect(path).execute("SELECT fingerprint FROM findings").fetchall()
    assert rows == [("gpu/1:lost",)]


def test_a_clock_that_steps_back_keeps_the_order(path: Path, clock: ManualClock) -> None:
    ledger = Ledger(path, clock)
    ledger.record(entry(1))
    clock.step(-7200)
    ledger.record(entry(2))
    assert [(c.seq, c.at) for c in ledger.changes_after(0)] == [(1, NOW), (2, NOW - 7200)]
    ledger.close()
