"""The agent's own decisions, in process: a fake desk, a recorded node, a clock that the test moves."""

import os
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import msgspec
import pytest
from node_findings import finding

from checks.base import Finding, Status
from checks.clock import ManualClock
from checks.host import Answers, Host
from checks.registry import by_name
from checks.runner import Outcome, stamp
from daemons.alerts.config import AlertsConfig
from daemons.alerts.credentials import Credentials
from daemons.config import Config, parse
from daemons.errors import ConfigError
from daemons.incidents import Incident, State
from daemons.ledger import Ledger, LedgerChange
from daemons.lifecycle import Due
from daemons.node.agent import LOOK_AROUND_SECONDS, NodeAgent
from daemons.node.api import listen
from daemons.node.board import AlertState
from daemons.node.parts import Parts
from daemons.node.runs import Runs

BOOT = "11111111-2222-3333-4444-555555555555"


@dataclass
class FakeDesk:
    """Remembers what it was told; every change is one incident."""

    cursor: int = 0
    changes: list[LedgerChange] = field(default_factory=list)
    told: list[tuple[str, ...]] = field(default_factory=list)
    ticks: int = 0

    def take(self, changes: Sequence[LedgerChange]) -> None:
        self.changes += changes
        self.cursor = changes[-1].seq

    def tick(self) -> None:
        self.ticks += 1

    def incidents(self) -> list[dict[str, Any]]:
        return [{"id": incident.id} for incident in self.going_on()]

    def going_on(self) -> Sequence[Incident]:
        def one(change: LedgerChange) -> Incident:
            found = change.finding
            return msgspec.convert(
                {
                    "id": f"i-{found.fingerprint}",
                    "key": "k",
                    "family": found.component,
                    "cause": found.cause,
                    "severity": found.status,
                    "state": State.OPEN,
                    "opened": change.at,
                    "last_change": change.at,
                    "members": {
                        found.fingerprint: {
                            "seq": change.seq,
                            "node": found.node,
                            "component": found.component,
                            "source": found.source,
                            "cause": found.cause,
                            "status": found.status,
                            "open": True,
                        }
                    },
                },
                Incident,
            )

        return [one(change) for change in self.changes if change.kind == "opened"]

    def acknowledge(self, incident: str, who: str, note: str) -> None:
        self.told.append(("acknowledge", incident, who, note))

    def resolve(self, incident: str, who: str, note: str) -> None:
        self.told.append(("resolve", incident, who, note))

    def reload(self, config: AlertsConfig, credentials: Credentials) -> None:
        self.told.append(("reload",))

    def state(self) -> AlertState:
        return AlertState(waiting=len(self.changes))

    def counts(self) -> Mapping[str, int]:
        return {"fail": len(self.changes)}

    def start(self) -> None: ...

    def close(self) -> None: ...


@dataclass
class Scene:
    """An agent that nobody runs: the test calls what the main loop would."""

    directory: Path
    text: str = ""

    def __post_init__(self) -> None:
        root = self.directory / "node"
        (root / "proc/sys/kernel/random").mkdir(parents=True)
        (root / "proc/sys/kernel/random/boot_id").write_text(BOOT)
        (root / "proc/uptime").write_text("5000.00 1.00")
        self.clock = ManualClock()
        self.host = Host(root=root, clock=self.clock, answers=Answers(node="n1", now=self.clock.now()))
        self.desk = FakeDesk()
        self.ledger = Ledger(self.directory / "ledger.db", self.clock)
        self.ended: list[str] = []
        self.agent = self._agent()

    def _agent(self) -> NodeAgent:
        parts = Parts(
            host=self.host,
            state=self.directory,
            ledger=self.ledger,
            desk=self.desk,
            bound=listen("127.0.0.1:0"),
            token="t",
            end=(("close the ledger", self.ledger.close),),
        )
        return NodeAgent(self.config(), parts, "1.2.3", self.config)

    def config(self) -> Config:
        return parse(self.text, "m.toml")

    def saw(self, *found: Finding, check: str = "memory", looked: bool = True) -> list[str]:
        """A run of a check ended; what the desk got by it."""
        before = len(self.desk.changes)
        outcome = Outcome(
            check=by_name(check),
            findings=tuple(stamp(f, check, self.host) for f in found),
            seconds=0.1,
            at=self.clock.now(),
            looked=looked,
            memory={"runs": 1} if looked else None,
        )
        self.agent._finished(outcome)
        return [f"{c.kind} {c.finding.component}" for c in self.desk.changes[before:]]

    def look_around(self, after: float = LOOK_AROUND_SECONDS) -> list[str]:
        before = len(self.desk.changes)
        self.clock.advance(after)
        self.agent.cycle([Due("look around", 0.0, 0)])
        return [f"{c.kind} {c.finding.component}" for c in self.desk.changes[before:]]


LOW = Finding(component="memory", status=Status.FAIL, summary="1 % available", kind="low", cause="host.out_of_memory")
FINE = Finding(component="memory", status=Status.OK, summary="50 % available")
BLIND = Finding(component="check/memory", status=Status.UNKNOWN, summary="/proc/meminfo: no such file", kind="unknown")


@pytest.fixture
def scene(tmp_path: Path) -> Iterator[Scene]:
    made = Scene(tmp_path)
    made.agent.begin()
    yield made
    made.agent.close()


def test_a_trouble_is_judged_kept_shown_and_told(scene: Scene) -> None:
    assert [scene.saw(LOW), scene.saw(LOW)] == [[], ["opened memory"]]  # memory declares two runs in a row
    board = scene.agent.board
    (found,) = board.open
    assert (found.component, found.node, found.boot_id) == ("memory", "n1", BOOT)
    assert board.opened == {("memory", "host.out_of_memory"): 1}
    assert (board.status, board.checks["memory"].runs, board.incidents) == (Status.FAIL, 2, {"fail": 1})
    assert scene.ledger.memory("memory") == {"runs": 1}
    assert [scene.saw(FINE), scene.saw(FINE)] == [[], ["cleared memory"]]
    assert scene.agent.board.open == ()


def test_unknown_is_told_after_its_grace_though_nothing_else_happens(scene: Scene) -> None:
    assert scene.saw(BLIND, looked=False) == []
    assert scene.look_around(119) == []
    assert scene.look_around(1) == ["opened check/memory"]


def test_a_step_of_the_clock_opens_and_clears_nothing_and_is_said(
    scene: Scene, caplog: pytest.LogCaptureFixture
) -> None:
    scene.saw(BLIND, looked=False)
    scene.clock.step(86_400)
    assert scene.look_around(5) == []
    assert "the clock was stepped by +86400 s" in caplog.text
    caplog.clear()
    assert scene.look_around(5) == []
    assert caplog.text == ""


def test_changes_the_desk_has_not_read_are_given_to_it_at_the_start(tmp_path: Path) -> None:
    scene = Scene(tmp_path)
    scene.agent.begin()
    scene.agent.take([finding("job/7")])
    scene.desk.cursor = 0  # as if it had been killed before it kept them
    scene.desk.changes.clear()
    scene.agent.close()
    scene.ledger = Ledger(tmp_path / "ledger.db", scene.clock)
    again = scene._agent()
    again.begin()
    assert [c.finding.component for c in scene.desk.changes] == ["job/7"]
    again.close()


def test_a_desk_that_is_ahead_of_a_new_ledger_still_gets_what_comes(tmp_path: Path) -> None:
    scene = Scene(tmp_path)
    scene.desk.cursor = 500
    scene.agent.begin()
    scene.agent.take([finding("job/7")])
    assert [c.seq for c in scene.desk.changes] == [501]
    scene.agent.close()


def test_a_person_acknowledges_and_resolves_an_incident_and_its_findings(scene: Scene) -> None:
    scene.agent.take([finding("job/7")])
    incident = scene.desk.incidents()[0]["id"]
    scene.agent.acknowledge(incident, "ann", "looking")
    scene.agent.resolve(incident, "ann", "swapped it")
    assert scene.desk.told == [("acknowledge", incident, "ann", "looking"), ("resolve", incident, "ann", "swapped it")]
    assert [(c.kind, c.finding.summary) for c in scene.desk.changes[1:]] == [
        ("acknowledged", "lost is fail"),
        ("cleared", "resolved by ann: swapped it"),
    ]
    assert scene.agent.board.open == ()


def test_nobody_reports_in_a_checks_name(scene: Scene) -> None:
    with pytest.raises(ValueError, match=r"^source 'memory', component 'gpu/3': not for others to report$"):
        scene.agent.take([finding(source="memory")])


def test_a_check_that_is_disabled_takes_its_findings_with_it(scene: Scene) -> None:
    scene.saw(LOW)
    scene.saw(LOW)
    scene.text = "[checks.memory]\nenabled = false\n"
    count = len(scene.agent.board.checks)
    assert scene.agent.reload() == f"{count - 1} checks"
    assert "memory" not in scene.agent.board.checks
    assert "memory" not in scene.agent.schedule.names()
    assert (scene.desk.changes[-1].kind, scene.desk.changes[-1].finding.summary) == ("cleared", "the check is disabled")
    assert scene.saw(LOW) == []  # a run that was under way


def test_what_a_reload_cannot_change_is_said(scene: Scene) -> None:
    scene.text = '[node]\nlisten = "127.0.0.1:1"\n[checks.memory]\ninterval = 5\n'
    assert scene.agent.reload().endswith("; node.listen hold from the next start")
    assert scene.agent.board.checks["memory"].interval == 5
    scene.text = "[node]\nlisten = 5\n"
    with pytest.raises(ConfigError):
        scene.agent.reload()
    assert scene.agent.board.checks["memory"].interval == 5


def test_a_ledger_that_was_set_aside_is_a_finding(tmp_path: Path) -> None:
    (tmp_path / "ledger.db").write_text("no database at all" * 100)
    scene = Scene(tmp_path)
    scene.agent.begin()
    (change,) = scene.desk.changes
    assert (change.kind, change.finding.source, change.finding.component) == ("opened", "ledger", "ledger")
    assert change.finding.summary.startswith("ledger.db was damaged (file is not a database) and is kept as ledger.db")
    scene.agent.close()


def test_a_run_that_does_not_come_back_is_unknown_and_takes_no_thread_from_the_others(tmp_path: Path) -> None:
    """A read of /proc that blocks cannot be ended; here it is a named pipe that nobody writes to."""
    scene = Scene(tmp_path)
    os.mkfifo(tmp_path / "node/proc/meminfo")
    done: list[Outcome] = []
    runs = Runs(scene.host, done.append)
    memory = by_name("memory")
    told = memory.config(deadline=10)
    assert runs.start(memory, told, {})
    assert not runs.start(memory, told, {})
    scene.clock.advance(25)
    assert runs.overdue() == {}
    scene.clock.advance(1)
    assert runs.overdue() == {"memory": 26.0}
    (tmp_path / "node/proc/meminfo").write_text("MemTotal: 100 kB\nMemAvailable: 50 kB\n")  # it comes back
    while not done:
        time.sleep(0.001)
    assert (done[0].status, runs.under_way()) == (Status.OK, {})
    runs.close()
    scene.agent.close()


def test_an_overdue_run_is_told_as_unknown(scene: Scene, tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "node/proc/meminfo")
    scene.agent.cycle([Due("memory", 0, 0)])
    scene.clock.advance(30)
    scene.agent.cycle([Due("memory", 0, 0)])
    outcome = scene.agent.board.checks["memory"].outcome
    assert outcome is not None
    assert [f.summary for f in outcome.findings] == ["memory has not come back for 30 s (deadline 10 s)"]
    (tmp_path / "node/proc/meminfo").write_text("MemTotal: 100 kB\nMemAvailable: 50 kB\n")
