"""The fleet daemon: takes what the nodes tell, makes incidents of it, tells people, and carries the policy out.

The main loop feeds the desk and looks at silent nodes. The intake answers in a thread of its own, the store is written
in another, and the scheduler is asked in a third: whichever of them hangs, the others go on.
"""

import logging
import os
import resource
import threading
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

import msgspec

from checks.base import Finding
from daemons.alerts.credentials import credentials
from daemons.config import Config
from daemons.engines.base import EngineError
from daemons.fleet import tables
from daemons.fleet.api import FleetApi
from daemons.fleet.board import FleetBoard
from daemons.fleet.intake import Intake
from daemons.fleet.parts import FleetParts, topology
from daemons.fleet.policy import Decision
from daemons.fleet.roll import Roll, silence
from daemons.fleet.steward import Steward
from daemons.fleet.store import NodeRow, StoreAway
from daemons.fleet.writer import Writer
from daemons.incidents.correlation import Correlation
from daemons.ledger.records import Kind
from daemons.lifecycle import Daemon, Due
from daemons.node.api import Server

log = logging.getLogger("muster.fleet")

_TELL, _LOOK, _SYNC, _POLICY, _PRUNE = "tell people", "look for silent nodes", "write who spoke", "policy", "prune"
# How long a change may wait for others, so that a storm is decided in a few large steps.
TELL_SECONDS = 1.0
LOOK_SECONDS = 5.0
SYNC_SECONDS = 10.0
PRUNE_SECONDS = 3600.0
_PAGE = 2000
_PAGES = 5
# Nodes speak every half minute over a connection that they keep.
_KEEP_ALIVE = 75
_DAY = 86400.0


class FleetDaemon(Daemon):
    """One cluster under watch. load: reads the configuration anew, for SIGHUP. began: called once it listens."""

    def __init__(
        self,
        config: Config,
        parts: FleetParts,
        version: str,
        load: Callable[[], Config],
        began: Callable[["FleetDaemon"], None] = lambda fleet: None,
    ) -> None:
        super().__init__("fleet", parts.clock)
        self._config = config
        self._parts = parts
        self._store, self._desk, self._given = parts.store, parts.desk, parts.given
        self._load = load
        self._began = began
        self._roll = Roll(parts.store.nodes(), parts.clock)
        self._writer = Writer(parts.store, self._roll, parts.clock)
        self._intake = Intake(parts.secret, self._roll, self._writer, parts.clock)
        self._steward = Steward(
            parts.engine, parts.store, config.fleet.policy, parts.clock, self._roll.nodes, self._desk.going_on
        )
        app = FleetApi(self, self._intake, parts.token).app()
        self._server = Server(app, parts.bound, parts.tls, _KEEP_ALIVE)
        self._looking: threading.Thread | None = None
        self._trouble = ""
        self._read = parts.desk.cursor
        self._behind = 0
        self.board = FleetBoard(version=version, started=self.clock.now())

    @property
    def address(self) -> str:
        """The address of intake and API, with its scheme."""
        return f"{'https' if self._parts.tls else 'http'}://{self._server.address}"

    def begin(self) -> None:
        """Listen, and go on where the last one ended."""
        _many_connections()
        if self._store.start_above(self._desk.cursor):
            log.warning("the store is older than what people were told (a backup?): nodes are asked to tell again")
        now = self.clock.monotonic()
        for name, interval in self._intervals():
            self.schedule.put(name, interval, now + (0.0 if name in (_TELL, _POLICY) else interval))
        self._show()
        self._desk.start()
        self._writer.start()
        self._server.start()
        log.info("taking changes of nodes; API and metrics: %s", self.address)
        self._began(self)

    def _intervals(self) -> Sequence[tuple[str, float]]:
        return (
            (_TELL, TELL_SECONDS),
            (_LOOK, LOOK_SECONDS),
            (_SYNC, SYNC_SECONDS),
            (_POLICY, self._config.fleet.cycle_seconds),
            (_PRUNE, PRUNE_SECONDS),
        )

    def cycle(self, due: Sequence[Due]) -> str:
        """Do what is due; a store that is away holds up nothing but what needs it."""
        steps: dict[str, Callable[[], str]] = {
            _TELL: self._tell,
            _LOOK: self._look,
            _SYNC: self._sync,
            _POLICY: self._start_look,
            _PRUNE: self._prune,
        }
        said, away = [], ""
        for task in due:
            try:
                said.append(steps[task.name]())
            except StoreAway as error:
                away = str(error)
        if away and not self._trouble:
            log.error("%s", away)
        if away or any(task.name == _TELL for task in due):  # of all steps that one always asks the store
            self._trouble = away
        self._show()
        return "; ".join(filter(None, said))

    def reload(self) -> str:
        """Take the file anew; state, listen, store, TLS and the engine need a restart and are said to."""
        new = self._load()
        joined = Correlation(topology=topology(new.fleet, {}))
        self._desk.reload(new.alerts, credentials(os.environ))
        self._desk.correlate(joined)
        old, self._config = self._config, new
        self._steward.config = new.fleet.policy
        for name, interval in self._intervals():
            self.schedule.put(name, interval, self.clock.monotonic() + interval)
        keys = ("listen", "state", "store", "certificate", "key")
        fixed = [f"fleet.{k}" for k in keys if getattr(new.fleet, k) != getattr(old.fleet, k)]
        fixed += ["engine"] if new.engine != old.engine else []
        acts = "acts" if new.fleet.policy.enabled else "only says what it would do"
        return f"the policy {acts}" + (f"; {', '.join(fixed)} hold from the next start" if fixed else "")

    def endings(self) -> Sequence[tuple[str, Callable[[], None]]]:
        """In order: no more answers, what waits is written, then what was opened, the last first."""
        return (
            ("end the API", self._server.stop),
            ("end the writing", self._writer.stop),
            ("write who spoke", self._last_sync),
            *self._parts.end,
        )

    def status(self) -> str:
        """As systemctl shows it."""
        board = self.board
        nodes = ", ".join(f"{count} {status}" for status, count in sorted(board.nodes.items())) or "no nodes yet"
        said = f"{nodes}; {sum(board.incidents.values())} incidents, {self.address}"
        return f"{said}; {board.store}" if board.store else said

    # What the API asks.

    def nodes(self) -> list[NodeRow]:
        """Every node as it last spoke."""
        return self._roll.nodes()

    def findings(self, node: str) -> list[Finding]:
        """What is open, on one node or on all."""
        return self._store.open(node)

    def audit(self, limit: int) -> list[Decision]:
        """The newest decisions of the policy, newest first."""
        return [msgspec.json.decode(row.body, type=Decision) for row in self._store.newest(tables.audit, limit)]

    def incidents(self) -> list[dict[str, Any]]:
        """As the desk has them."""
        return self._desk.incidents()

    def acknowledge(self, incident: str, who: str, note: str) -> None:
        """Somebody looks after an incident. Raises UnknownIncident."""
        self._desk.acknowledge(incident, who, note)

    def resolve(self, incident: str, who: str, note: str) -> None:
        """Somebody says it is over; what is still there is told again when its node tells of it. UnknownIncident."""
        self._desk.resolve(incident, who, note)

    def forget(self, node: str) -> bool:
        """Let a node go that is gone for good; whether it was known. What was open of it is over."""
        over = [(Kind.CLEARED, finding) for finding in self._store.open(node)]
        self._store.add(node, over, self.clock.now())
        self._tell()
        self._roll.forget(node)
        return self._store.forget_node(node)

    # What the main loop does.

    def _tell(self) -> str:
        """Give the desk what is new, in the order in which it was taken."""
        for _ in range(_PAGES):
            page = self._store.origins_after(max(self._desk.cursor, self._read), _PAGE)
            if not page:
                break
            self._desk.take([origin.change for origin in self._given.fresh(page)])
            self._given.note(page)
            self._read = page[-1].change.seq
        self._behind = max(0, self._store.newest_change() - self._read) if page else 0
        self._desk.tick()
        return ""

    def _look(self) -> str:
        """Nodes that fell silent, and those that speak again."""
        if self._writer.trouble or self._trouble:
            return ""  # nobody was listened to: that a node was not heard says nothing about it
        fallen, back = self._roll.turned()
        now = self.clock.now()
        for nodes, silent in ((fallen, True), (back, False)):
            if nodes:
                self._store.silence({node.node: silence(node, silent, now) for node in nodes}, silent, now)
                self._roll.mark(nodes, silent)
        said = [f"{_named(fallen)} fell silent"] if fallen else []
        return "; ".join(said + ([f"{_named(back)} speaks again"] if back else []))

    def _sync(self) -> str:
        nodes = self._roll.unsaved()
        try:
            self._store.sync(nodes)
        except StoreAway:
            self._roll.unwritten(nodes)
            raise
        return ""

    def _last_sync(self) -> None:
        self._sync()

    def _prune(self) -> str:
        gone = self._store.prune(self.clock.now() - self._config.fleet.keep_days * _DAY, self._desk.cursor)
        return f"{gone} changes older than {self._config.fleet.keep_days:g} days were let go" if gone else ""

    def _start_look(self) -> str:
        """The scheduler may take its time to answer, or hang: it is asked in a thread, one look at a time."""
        if self._looking is not None and self._looking.is_alive():
            return ""
        self._looking = threading.Thread(target=self.look_at_engine, name="policy", daemon=True)
        self._looking.start()
        return ""

    def look_at_engine(self) -> None:
        """One look of the policy at the scheduler, and what it calls for."""
        try:
            if said := self._steward.look():
                log.info("%s", said)
            if not self._config.fleet.topology.leaves:
                known = topology(self._config.fleet, self._parts.engine.leaves())
                self._desk.correlate(Correlation(topology=known))
        except (StoreAway, EngineError) as error:
            log.debug("policy: %s", error)
        except Exception:
            log.exception("policy: a look failed")

    def _show(self) -> None:
        last = self._steward.last
        self.board = replace(
            self.board,
            nodes=Counter("silent" if node.silent else node.status for node in self._roll.nodes()),
            batches=self._intake.counts(),
            changes=self._writer.changes,
            behind=self._behind,
            store=self._writer.trouble or self._trouble,
            incidents=self._desk.counts(),
            alerts=self._desk.state(),
            policy=last if last.at else None,
        )


def _named(nodes: Sequence[NodeRow]) -> str:
    names = [node.node for node in nodes[:3]]
    return ", ".join(names) + (f" and {len(nodes) - 3} more" if len(nodes) > 3 else "")


def _many_connections() -> None:
    """Every node keeps a connection: as many files as the system lets us have."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft < hard:
        resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
