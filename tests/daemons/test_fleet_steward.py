"""The policy carried out: once each, written down before and after, taken up again by whoever comes after a kill."""

from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import msgspec
import pytest
from fleet_office import START, FakeEngine, FleetOffice, batch, change, lost

from daemons.engines.base import EngineJob, EngineNode, JobState, NodeState
from daemons.fleet import tables
from daemons.fleet.admission import Known
from daemons.fleet.policy import Decision, PolicyState, Verb
from daemons.fleet.proofs import passed
from daemons.fleet.steward import adopted, news
from daemons.fleet.store import NodeRow
from daemons.ledger.records import Kind

ON = "[fleet.policy]\nenabled = true\nbudget_share = 0.5\nproofs = ['scan', 'canary']\n"
RUNNING = EngineJob(id="8841", name="train", state=JobState.RUNNING, nodes=("n12", "n13"))


@pytest.fixture
def engine() -> FakeEngine:
    return FakeEngine("n11", "n12", "n13", "n14", jobs=[RUNNING])


@pytest.fixture
def opened(tmp_path: Path, engine: FakeEngine) -> Iterator[Callable[[str], FleetOffice]]:
    offices: list[FleetOffice] = []

    def make(text: str = ON) -> FleetOffice:
        clock = offices[-1].clock if offices else None
        offices.append(FleetOffice(tmp_path, f"sqlite:///{tmp_path}/fleet.db", text=text, engine=engine, clock=clock))
        return offices[-1]

    yield make
    for office in offices:
        office.close()


def looks(fleet: FleetOffice) -> list[tuple[str, bool, str]]:
    """One look of the policy; the audit log from the first line on."""
    fleet.daemon.look_at_engine()
    return [(str(one.verb), one.allowed, one.node) for one in reversed(fleet.daemon.audit(100))]


def proves(fleet: FleetOffice, **proofs: bool) -> None:
    body = msgspec.json.encode({"nodes": {"n12": proofs}})
    fleet.store.record(tables.canaries, [{"at": fleet.clock.now(), "status": "ok", "body": body}])


def test_a_lost_gpu_drains_its_node_puts_its_jobs_back_and_the_reason_names_the_incident(
    opened: Callable[..., FleetOffice], engine: FakeEngine
) -> None:
    fleet = opened()
    fleet.send(batch(change(1)))
    fleet.passes(1)
    (incident,) = fleet.client.get("/incidents").json()
    assert looks(fleet) == [("drain", True, "n12")]
    assert engine.calls == [f"drain n12: muster: gpu.lost, incident {incident['id']}", "requeue 8841 without n12"]
    assert fleet.daemon.audit(1)[0].why == "gpu.lost open since 41 s; job 8841 is back in the queue"
    assert looks(fleet) == [("drain", True, "n12")]
    assert len(engine.calls) == 2, "a second look does nothing more"


def test_until_it_is_enabled_the_audit_log_says_once_what_would_have_been_done(
    opened: Callable[..., FleetOffice], engine: FakeEngine
) -> None:
    fleet = opened("")
    fleet.send(batch(change(1)))
    for _ in range(3):
        fleet.clock.advance(15)
        assert looks(fleet) == [("drain", False, "n12")]
    assert engine.calls == []
    assert fleet.daemon._steward.last.decisions == {("drain", False): 1}


def test_it_is_opened_again_only_after_every_proof_since_the_drain(
    opened: Callable[..., FleetOffice], engine: FakeEngine
) -> None:
    fleet = opened()
    fleet.send(batch(change(1)))
    proves(fleet, canary=True)
    fleet.clock.advance(1)
    looks(fleet)
    fleet.clock.advance(60)
    fleet.send(batch(change(2, Kind.CLEARED), after=1, status="ok", sent=fleet.clock.now()))
    assert looks(fleet)[1:] == [], "the canary was before the drain"
    proves(fleet, canary=False)
    fleet.clock.advance(1)
    assert looks(fleet)[1:] == []
    proves(fleet, canary=True)
    assert looks(fleet)[1:] == [("undrain", True, "n12")]
    assert engine.table["n12"].state is NodeState.IDLE


class Killed(BaseException):
    """As kill -9 would end it here: nobody catches it."""


@pytest.mark.parametrize("moment", ["before the drain", "after the drain", "before the requeue"])
def test_killed_at_any_moment_the_action_is_done_once_and_written_down(
    opened: Callable[..., FleetOffice], engine: FakeEngine, moment: str
) -> None:
    fleet = opened()
    fleet.send(batch(change(1)))
    fleet.passes(1)
    drain, requeue = engine.drain, engine.requeue

    def dies(node: str, reason: str) -> None:
        if moment == "after the drain":
            drain(node, reason)
        if moment != "before the requeue":
            raise Killed
        drain(node, reason)

    def dies_too(job_id: str, exclude: Sequence[str] = ()) -> None:
        raise Killed

    engine.drain, engine.requeue = dies, dies_too  # type: ignore[method-assign]
    with pytest.raises(Killed):
        fleet.daemon.look_at_engine()
    fleet.close()
    engine.drain, engine.requeue = drain, requeue  # type: ignore[method-assign]
    engine.calls.clear()
    again = opened()
    assert looks(again) == [("drain", True, "n12")]
    assert engine.calls[-1] == "requeue 8841 without n12"
    assert engine.table["n12"].reason.startswith("muster: gpu.lost, incident ")
    assert list(again.daemon._steward.last.state.ours) == ["n12"]
    assert len(again.daemon._steward.last.state.drains) == 1


def test_what_the_scheduler_refuses_is_in_the_log_once_and_tried_again(
    opened: Callable[..., FleetOffice], engine: FakeEngine
) -> None:
    fleet = opened()
    fleet.send(batch(change(1, finding=lost("n99")), node="n99"))
    fleet.send(batch(change(1)))
    engine.table["n99"] = EngineNode(name="n99", state=NodeState.IDLE, partitions=("main",))
    nodes = engine.nodes()
    del engine.table["n99"]
    engine.nodes = lambda: nodes  # type: ignore[method-assign]
    engine.drain = lambda node, reason: engine.undrain("x")  # type: ignore[method-assign]
    engine.away = "scontrol: Unable to contact slurm controller"
    for _ in range(3):
        fleet.daemon.look_at_engine()
    log = [(one.node, one.allowed, one.why) for one in fleet.daemon.audit(10)]
    said = "not done: scontrol: Unable to contact slurm controller"
    assert sorted(log) == [("n12", False, said), ("n99", False, said)]
    assert fleet.daemon._steward.last.state.ours == {}


def test_a_scheduler_that_is_away_for_long_is_told_of_once_and_it_is_over_when_it_answers(
    opened: Callable[..., FleetOffice], engine: FakeEngine
) -> None:
    fleet = opened()
    engine.away = "scontrol: Unable to contact slurm controller"
    for _ in range(20):
        fleet.daemon.look_at_engine()
        fleet.clock.advance(15)
    assert [f.component for f in fleet.store.open("fleet")] == ["engine/fake"]
    assert len(fleet.store.changes_after(0)) == 1
    engine.away = ""
    fleet.daemon.look_at_engine()
    assert fleet.store.open("fleet") == []


def test_a_mass_event_trips_the_breaker_tells_of_it_and_drains_nobody(tmp_path: Path) -> None:
    engine = FakeEngine(*(f"n{number}" for number in range(40)))
    fleet = FleetOffice(tmp_path, f"sqlite:///{tmp_path}/fleet.db", text=ON, engine=engine)
    for number in range(6):
        fleet.send(batch(change(1, finding=lost(f"n{number}")), node=f"n{number}"))
    log = looks(fleet)
    assert (log[0], {line[:2] for line in log[1:]}) == (("trip", True, ""), {("drain", False)})
    assert engine.calls == []
    assert [f.component for f in fleet.store.open("fleet")] == ["policy/breaker"]
    fleet.close()


def test_a_node_that_carries_our_reason_is_ours_also_when_the_store_has_forgotten_it() -> None:
    node = EngineNode(name="n1", state=NodeState.DRAINED, reason="muster: gpu.lost, incident 1a2b")
    other = EngineNode(name="n2", state=NodeState.DRAINED, reason="bad fan")
    (ours,) = adopted(PolicyState(), [node, other], START).ours.items()
    assert (ours[0], ours[1].cause, ours[1].at) == ("n1", "gpu.lost", START)


def test_numbers_in_a_reason_are_no_news_another_reason_is() -> None:
    def would(why: str) -> Decision:
        return Decision(verb=Verb.DRAIN, node="n1", allowed=False, why=why, at=START, cause="gpu.lost")

    said, fresh = news({}, [would("budget spent: 2 of 2 drains in 24 h")])
    assert len(fresh) == 1
    assert news(said, [would("budget spent: 3 of 3 drains in 24 h")])[1] == []
    assert len(news(said, [would("the circuit breaker is open")])[1]) == 1
    assert news(said, [])[0] == {}


def test_a_person_drains_a_node_with_the_same_line_in_the_log(
    opened: Callable[..., FleetOffice], engine: FakeEngine
) -> None:
    fleet = opened("")
    assert fleet.daemon._steward.by_hand("n12", "ann") == "n12 is drained"
    (line,) = fleet.daemon.audit(1)
    assert (line.verb, line.node, line.allowed, line.why) == (Verb.DRAIN, "n12", True, "asked for by ann")
    assert engine.calls == ["drain n12: muster: by hand"]


class Row(msgspec.Struct, frozen=True):
    at: float
    body: bytes


def test_the_newest_word_on_a_proof_counts_and_what_is_not_named_was_not_tried() -> None:
    first = Row(1.0, b'{"nodes":{"n1":{"canary":true,"pairs":true},"n2":{"canary":true}}}')
    second = Row(2.0, b'{"nodes":{"n1":{"canary":false},"n2":{"canary":true}}}')
    broken = Row(3.0, b"\xff")
    known = Known(ledger="L", machine="", applied=0, seen=9.0, interval=30.0)
    well = NodeRow(node="n2", known=known, silent=False, well=8.0)
    quiet = NodeRow(node="n1", known=known, silent=True, well=8.0)
    assert passed([well, quiet], [first, broken, second]) == {
        "n1": {"pairs": 1.0},
        "n2": {"canary": 2.0, "scan": 8.0},
    }
