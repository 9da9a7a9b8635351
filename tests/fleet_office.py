"""A fleet daemon in the process of the test: real intake over HTTP, real store and desk; the time is the test's."""

from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import httpx
import msgspec
from slack_server import CHANNEL, TOKEN, SlackServer

from checks.base import Finding, Status
from checks.clock import ManualClock
from checks.runner import fingerprint
from daemons.alerts.channels import Channels
from daemons.alerts.credentials import Credentials
from daemons.alerts.delivery import deliver
from daemons.alerts.desk import AlertDesk
from daemons.alerts.slack import SlackSender
from daemons.config import Config, parse
from daemons.engines.base import Engine, EngineError, EngineJob, EngineNode, JobState, NodeState, Submission
from daemons.fleet.daemon import FleetDaemon
from daemons.fleet.given import Given
from daemons.fleet.parts import FleetParts, topology
from daemons.fleet.store import Store
from daemons.incidents.correlation import Correlation
from daemons.ledger.records import Kind, LedgerChange
from daemons.node.api import listen
from daemons.wire import PATH, Batch, Receipt, node_token

START = 1_700_000_000.0
SECRET = "a secret of tests"


def lost(node: str = "n12", component: str = "gpu/5", status: Status = Status.FAIL, **more: object) -> Finding:
    """A finding as the node's agent stamps it."""
    found = Finding(
        component=component,
        status=status,
        summary="GPU fell off the bus",
        cause="gpu.lost",
        node=node,
        source="gpu_count",
        first_seen=START - 40,
        last_seen=START - 1,
    )
    found = msgspec.structs.replace(found, **more)
    return msgspec.structs.replace(found, fingerprint=fingerprint(found.node, found.source, found))


def change(seq: int, kind: Kind = Kind.OPENED, finding: Finding | None = None, at: float = START) -> LedgerChange:
    return LedgerChange(seq=seq, kind=kind, finding=finding or lost(), at=at)


def batch(*changes: LedgerChange, node: str = "n12", after: int = 0, **more: Any) -> Batch:
    told = Batch(
        version=1,
        node=node,
        ledger=f"L-{node}",
        after=after,
        changes=changes,
        machine=f"m-{node}",
        oldest=1,
        sent=START,
        status="fail" if changes else "ok",
    )
    return msgspec.structs.replace(told, **more)


class FakeEngine(Engine):
    """A scheduler as a table; `calls` is what was asked of it, `away` makes it silent."""

    def __init__(self, *names: str, jobs: Sequence[EngineJob] = ()) -> None:
        self.table = {name: EngineNode(name=name, state=NodeState.IDLE, partitions=("main",)) for name in names}
        self.waiting = list(jobs)
        self.calls: list[str] = []
        self.away = ""

    @property
    def name(self) -> str:
        return "fake"

    def nodes(self) -> list[EngineNode]:
        self._answer()
        return list(self.table.values())

    def jobs(self) -> list[EngineJob]:
        self._answer()
        return self.waiting

    def job(self, job_id: str) -> EngineJob:
        return EngineJob(id=job_id, name="", state=JobState.UNKNOWN)

    def leaves(self) -> dict[str, tuple[str, ...]]:
        return {}

    def submit(self, submission: Submission) -> str:
        raise EngineError("nothing is started here")

    def cancel(self, job_id: str) -> None:
        self.calls.append(f"cancel {job_id}")

    def drain(self, node: str, reason: str) -> None:
        self._answer()
        self.calls.append(f"drain {node}: {reason}")
        self.table[node] = msgspec.structs.replace(self.table[node], state=NodeState.DRAINED, reason=reason)

    def undrain(self, node: str) -> None:
        self._answer()
        self.calls.append(f"undrain {node}")
        self.table[node] = msgspec.structs.replace(self.table[node], state=NodeState.IDLE, reason="")

    def requeue(self, job_id: str, exclude: Sequence[str] = ()) -> None:
        self._answer()
        self.calls.append(f"requeue {job_id} without {','.join(exclude)}")

    def _answer(self) -> None:
        if self.away:
            raise EngineError(self.away)


class FleetOffice:
    """The daemon without its main loop: `passes` runs what falls due in so many seconds of its clock."""

    def __init__(
        self,
        directory: Path,
        url: str,
        *,
        text: str = "",
        engine: FakeEngine | None = None,
        slack: SlackServer | None = None,
        clock: ManualClock | None = None,
    ) -> None:
        self.config: Config = parse(text, "m.toml")
        self.clock = clock or ManualClock(START)
        self.engine = engine or FakeEngine()
        self.directory, self.url, self.slack = directory, url, slack
        self.store = Store(url)
        self.desk = self._desk()
        self.given = Given(directory / "given.db")
        self.daemon = FleetDaemon(self.config, self._parts(), "1", lambda: self.config)
        self.daemon.begin()
        self.client = httpx.Client(base_url=self.daemon.address, trust_env=False, timeout=20)

    def _desk(self) -> AlertDesk:
        made = Channels()
        if self.slack is not None:
            made = Channels(
                senders={"slack": SlackSender(TOKEN, CHANNEL, self.slack.api, pace=0.0, timeout=5)}, wanted=("slack",)
            )
        correlation = Correlation(topology=topology(self.config.fleet, {}))
        path = self.directory / "alerts.db"
        desk = AlertDesk(
            path, self.config.alerts, self.clock, Credentials(), correlation=correlation, senders=lambda *_: made
        )
        desk.start = lambda: None  # type: ignore[method-assign]  # the test delivers, in its own time
        return desk

    def _parts(self) -> FleetParts:
        return FleetParts(
            clock=self.clock,
            state=self.directory,
            store=self.store,
            desk=self.desk,
            given=self.given,
            engine=self.engine,
            bound=listen("127.0.0.1:0"),
            tls=None,
            secret=SECRET,
            token="api",
            end=(("a", self.desk.close), ("b", self.given.close), ("c", self.store.close)),
        )

    def post(self, body: bytes, token: str, content_type: str = "application/json") -> tuple[int, Receipt]:
        """Status and receipt of a POST as it is."""
        headers = {"authorization": f"Bearer {token}", "content-type": content_type}
        answer = self.client.post(PATH, content=body, headers=headers)
        return answer.status_code, msgspec.json.decode(answer.content, type=Receipt)

    def send(self, told: Batch) -> tuple[int, Receipt]:
        """As the node's agent would."""
        return self.post(msgspec.json.encode(told), node_token(SECRET, told.node))

    def passes(self, seconds: float, step: float = 1.0) -> None:
        """Time goes by; what falls due is done, and messages are delivered."""
        end = self.clock.now() + seconds
        while True:
            due = [task for task in self.daemon.schedule.due(self.clock.monotonic()) if task.name != "policy"]
            if due:
                self.daemon.cycle(due)
            if self.slack is not None:
                while not deliver(self.desk, "slack").idle:
                    pass
            if self.clock.now() >= end:
                return
            self.clock.advance(step)

    def while_asked(self, request: Callable[[], httpx.Response]) -> httpx.Response:
        """The answer to a request that needs the main loop."""
        with ThreadPoolExecutor(1) as pool:
            answer = pool.submit(request)
            while not answer.done():
                self.daemon._sleep()
            return answer.result()

    def close(self) -> None:
        self.client.close()
        self.daemon.close()
