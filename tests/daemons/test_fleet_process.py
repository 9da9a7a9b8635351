"""The real fleet daemon and the agent's own outbox: killed, away, restored, storeless: nothing lost, nothing twice."""

import contextlib
import random
import shutil
import sqlite3
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
import sqlalchemy as sa
from needs import need
from postgres_server import PostgresServer
from running_fleet import Node, RunningFleet
from slack_server import CHANNEL, TOKEN, slack

from daemons.fleet import tables
from daemons.fleet.store import Store
from daemons.ledger.records import Kind
from daemons.wire import node_token


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
def fleet(tmp_path: Path, url: str) -> Iterator[RunningFleet]:
    running = RunningFleet(tmp_path, store=url)
    yield running
    running.kill()


@pytest.fixture
def alone(tmp_path: Path) -> Iterator[RunningFleet]:
    running = RunningFleet(tmp_path)
    yield running
    running.kill()


@contextlib.contextmanager
def nodes(fleet: RunningFleet, *names: str) -> Iterator[list[Node]]:
    made = [Node(name, fleet.directory, f"http://{fleet.address}", fleet.secret) for name in names]
    try:
        yield made
    finally:
        for node in made:
            node.close()


def changes(url: str) -> list[tuple[str, str, str]]:
    store = Store(url)
    try:
        return [(c.finding.node, str(c.kind), c.finding.component) for c in store.changes_after(0, 100_000)]
    finally:
        store.close()


def settled(fleet: RunningFleet, incidents: int, seconds: float = 20.0) -> list[dict[str, object]]:
    """The incidents, once there are so many."""
    end = time.monotonic() + seconds
    while len(found := fleet.json("/incidents")) != incidents:
        assert time.monotonic() < end, found
        time.sleep(0.1)
    return list(found)


@pytest.mark.slow
def test_killed_in_a_loop_while_nodes_deliver_every_change_arrives_once_and_in_order(
    fleet: RunningFleet, url: str
) -> None:
    chance = random.Random(5)
    with nodes(fleet, "n1", "n2", "n3") as made:
        for node in made:
            node.outbox.start()
        expected: dict[str, list[str]] = {node.name: [] for node in made}
        for life in range(3):
            for step in range(6):
                for node in made:
                    node.happens(Kind.OPENED, f"gpu/{life}/{step}")
                    expected[node.name].append(f"gpu/{life}/{step}")
                time.sleep(chance.uniform(0, 0.1))
            fleet.kill()
            fleet.start()
        for node in made:
            node.outbox.close()
            again = Node(node.name, fleet.directory, f"http://{fleet.address}", fleet.secret)
            again.delivers()
            again.close()
        found = changes(url)
        assert {name: [c for n, _, c in found if n == name] for name in expected} == expected


def test_away_for_a_while_nothing_is_lost_and_the_token_of_every_node_stays_the_same(
    fleet: RunningFleet, url: str
) -> None:
    with nodes(fleet, "n1") as (node,):
        node.happens(Kind.OPENED, "gpu/1")
        node.delivers()
        assert fleet.end() == 0
        node.happens(Kind.OPENED, "gpu/2")
        assert node.outbox.step() > 0
        assert "refused" in node.outbox.state.trouble
        fleet.start()
        node.delivers()
    assert [c for _, _, c in changes(url)] == ["gpu/1", "gpu/2"]


def test_restored_from_a_backup_the_nodes_tell_again_and_people_are_not(tmp_path: Path) -> None:
    store = tmp_path / "fleet.db"
    with slack() as channel:
        config = f'[alerts.slack]\nchannel = "{CHANNEL}"\napi_url = "{channel.api}"\n'
        environment = {"MUSTER_SLACK_TOKEN": TOKEN}
        fleet = RunningFleet(tmp_path, store=f"sqlite:///{store}", config=config, environment=environment)
        with nodes(fleet, "n1", "n2") as (one, two):
            one.happens(Kind.OPENED, "gpu/1", "gpu.lost")
            one.delivers()
            settled(fleet, 1)
            with (
                contextlib.closing(sqlite3.connect(store)) as source,
                contextlib.closing(sqlite3.connect(tmp_path / "backup.db")) as target,
            ):
                source.backup(target)
            for kind in (Kind.OPENED, Kind.CLEARED):
                two.happens(kind, "gpu/7", "gpu.nvlink")
                two.delivers()
                settled(fleet, 2)
            one.happens(Kind.OPENED, "ib/mlx5_0/1", "net.infiniband")
            one.delivers()
            settled(fleet, 3)
            _delivered(fleet)
            before = len(channel.messages)
            fleet.kill()
            for suffix in ("-wal", "-shm"):
                store.with_name(f"fleet.db{suffix}").unlink(missing_ok=True)
            shutil.copy(tmp_path / "backup.db", store)
            fleet.start()
            fleet.said("older than what people were told")
            for node in (one, two):
                node.outbox.step()
                node.delivers()
            one.happens(Kind.OPENED, "gpu/3", "gpu.memory_ecc")
            one.delivers()
            settled(fleet, 4)
            _delivered(fleet)
            assert [c for n, _, c in changes(f"sqlite:///{store}") if n == "n1"] == ["gpu/1", "ib/mlx5_0/1", "gpu/3"]
            assert [k for n, k, _ in changes(f"sqlite:///{store}") if n == "n2"] == ["opened", "cleared"]
            assert len(channel.messages) == before + 1
            assert len(set(channel.ids())) == len(channel.ids())
        assert fleet.end() == 0


def _delivered(fleet: RunningFleet, seconds: float = 30.0) -> None:
    end = time.monotonic() + seconds
    time.sleep(1.2)  # one look at the store, so that what was just delivered is decided on
    while fleet.json("/healthz")["alerts_waiting"]:
        assert time.monotonic() < end
        time.sleep(0.1)


def test_without_its_store_it_says_so_refuses_and_recovers_by_itself(tmp_path: Path, server: PostgresServer) -> None:
    fleet = RunningFleet(tmp_path, store=server.url)
    with nodes(fleet, "n1") as (node,):
        node.happens(Kind.OPENED, "gpu/1")
        node.delivers()
        server.kill()
        node.happens(Kind.OPENED, "gpu/2")
        assert node.outbox.step() > 0
        assert "answered 503: the store does not answer" in node.outbox.state.trouble
        fleet.said("the store does not answer")
        _healthy(fleet, False)
        server.restart()
        node.delivers()
        fleet.said("the store answers again")
        _healthy(fleet, True)
    assert fleet.end() == 0
    assert [c for n, _, c in changes(server.url) if n == "n1"][-2:] == ["gpu/1", "gpu/2"]


def _healthy(fleet: RunningFleet, well: bool) -> None:
    end = time.monotonic() + 15
    while fleet.json("/healthz")["healthy"] is not well:
        assert time.monotonic() < end
        time.sleep(0.1)


def test_a_second_daemon_a_taken_port_and_a_wrong_topology_are_one_line_each(alone: RunningFleet) -> None:
    other = alone.directory / "other.toml"

    def says(text: str) -> str:
        other.write_text(text)
        command = [sys.executable, "-I", "-m", "daemons", "--config", str(other), "fleet"]
        done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=60)
        assert (done.returncode, done.stdout) == (2, "")
        return done.stderr

    base = f'[fleet]\nlisten = "127.0.0.1:0"\nstate = "{alone.state}"\n'
    assert says(base) == (
        f"muster: {alone.state}: another fleet daemon uses it (pid {alone.process.pid}): stop that one, or set"
        " fleet.state to another directory\n"
    )
    assert says(f'[fleet]\nlisten = "{alone.address}"\nstate = "{alone.directory}/x"\n') == (
        f"muster: fleet.listen: cannot listen on {alone.address}: Address already in use; set fleet.listen to a free"
        " port (0 takes any)\n"
    )
    assert says(base + '[fleet.topology]\nleaves = {a = "n[1-x]"}\n').startswith("muster: fleet.topology: ")
    assert says(base + 'certificate = "/none.pem"\nkey = "/none.key"\n').startswith(
        "muster: fleet.certificate, fleet.key: /none.pem, /none.key: No such file"
    )


def test_the_command_prints_the_token_that_the_daemon_takes(alone: RunningFleet) -> None:
    command = [sys.executable, "-I", "-m", "daemons", "--config", str(alone.config), "fleet", "token", "n1"]
    done = subprocess.run(command, capture_output=True, text=True, check=True, timeout=60)
    assert done.stdout == f"{node_token(alone.secret, 'n1')}\n"
