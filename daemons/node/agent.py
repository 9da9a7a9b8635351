"""The node agent: runs the checks, judges what they saw, keeps it in the ledger and has the desk tell people.

Everything here happens in the main loop; the threads of the checks, the API and the delivery only post to it.
"""

import logging
import os
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from checks.base import Check, CheckConfig, Finding, Memory, Status
from checks.host import Host, Unreadable
from checks.registry import CHECKS
from checks.runner import Outcome, not_back, stamp
from daemons.alerts.credentials import credentials
from daemons.config import Config
from daemons.ledger import Entry, LedgerChange, Tracked
from daemons.lifecycle import Daemon, Due
from daemons.node.api import Api, Server
from daemons.node.board import Board, CheckState
from daemons.node.judge import DELIVERED, Moment, acknowledge, deliver, habits, judge, pass_time, resolve
from daemons.node.outbox import Facts, Outbox, machine_of
from daemons.node.parts import Parts
from daemons.node.runs import Runs
from daemons.node.state import answers_at

log = logging.getLogger("muster.node")

# Of the schedule; a check's name holds no space.
_LOOK_AROUND, _PRUNE = "look around", "prune"
LOOK_AROUND_SECONDS = 5.0
PRUNE_SECONDS = 3600.0
# Checks begin one after another, so that they do not all run in the same instants for ever.
_STAGGER_SECONDS = 0.05
# The wall clock may be slewed; what moves it further than this between two looks is a step.
STEP_SECONDS = 30.0
READER = "desk"
_PAGE = 500
_SAID = 5


class NodeAgent(Daemon):
    """One node under watch. load: reads the configuration anew, for SIGHUP. began: called once it listens."""

    def __init__(
        self,
        config: Config,
        parts: Parts,
        version: str,
        load: Callable[[], Config],
        began: Callable[["NodeAgent"], None] = lambda agent: None,
    ) -> None:
        super().__init__("node", parts.host.clock)
        self._config = config
        self._parts = parts
        self._host, self._ledger, self._desk = parts.host, parts.ledger, parts.desk
        self._load = load
        self._began = began
        self._runs = Runs(parts.host, lambda outcome: self.post(lambda: self._finished(outcome)))
        self._server = Server(Api(self, parts.token).app(), parts.bound)
        self._outbox = self._make_outbox()
        self._opened: Counter[tuple[str, str]] = Counter()
        self._boot_id, self._uptime_ahead = self._boot()
        self._wall_ahead = self.clock.now() - self.clock.monotonic()
        self._stepped = self.clock.monotonic()
        self.board = Board(node=parts.host.node, version=version, started=self.clock.now())

    @property
    def address(self) -> str:
        """host:port of the API."""
        return self._server.address

    @property
    def host(self) -> Host:
        """The machine under watch."""
        return self._host

    @property
    def state(self) -> Path:
        """Where the ledger and the API's token are."""
        return self._parts.state

    def begin(self) -> None:
        """Listen, and have every check looked at soon; nothing is read of the machine yet."""
        self._ledger.start_above(self._desk.cursor)
        self._ledger.register(READER, self._desk.cursor)
        self._plan()
        now = self.clock.monotonic()
        self.schedule.put(_LOOK_AROUND, LOOK_AROUND_SECONDS, now + LOOK_AROUND_SECONDS)
        self.schedule.put(_PRUNE, PRUNE_SECONDS, now + PRUNE_SECONDS)
        self._tell_of_ledger()
        self._tell_desk()
        self._desk.start()
        if self._outbox:
            self._outbox.start()
        self._server.start()
        answers_at(self.state, self.address)
        checks = len(self.board.checks)
        log.info("watching %s with %d checks; API and metrics: http://%s", self.board.node, checks, self.address)
        self._began(self)

    def cycle(self, due: Sequence[Due]) -> str:
        """Start what is due."""
        for task in due:
            if task.name == _LOOK_AROUND:
                self._look_around()
            elif task.name == _PRUNE:
                self._prune()
            else:
                self._start(task.name)
        return ""

    def reload(self) -> str:
        """Take the file anew; state, listen and name need a restart and are said to."""
        new = self._load()
        self._desk.reload(new.alerts, credentials(os.environ))
        old, self._config = self._config, new
        self._plan()
        said = f"{len(self.board.checks)} checks"
        fixed = [k for k in ("name", "state", "listen") if getattr(new.node, k) != getattr(old.node, k)]
        return said + (f"; node.{', node.'.join(fixed)} hold from the next start" if fixed else "")

    def endings(self) -> Sequence[tuple[str, Callable[[], None]]]:
        """In order: no more runs, no more answers, then what was opened, the last first."""
        return (
            ("end the checks", self._runs.close),
            ("end the API", self._server.stop),
            *((("end the way to the fleet", self._outbox.close),) if self._outbox else ()),
            *self._parts.end,
        )

    def status(self) -> str:
        """As systemctl shows it."""
        found = len(self.board.open)
        said = f"{self.board.status}, {len(self.board.checks)} checks, {found} findings open, http://{self.address}"
        return f"{said}, ledger in memory: {self.board.degraded}" if self.board.degraded else said

    def incidents(self) -> list[dict[str, Any]]:
        """As the desk has them."""
        return self._desk.incidents()

    def acknowledge(self, incident: str, who: str, note: str) -> None:
        """Somebody has seen an incident. Raises UnknownIncident."""
        rows = self._rows(incident)
        self._desk.acknowledge(incident, who, note)
        self._record(acknowledge(rows))

    def resolve(self, incident: str, who: str, note: str) -> None:
        """Somebody ends an incident and its findings; what is still there is found again. Raises UnknownIncident."""
        rows = self._rows(incident)
        self._desk.resolve(incident, who, note)
        by = f"resolved by {who}" if who else "resolved"
        self._record(resolve(rows, f"{by}: {note}" if note else by, self._moment()))

    def take(self, findings: list[Finding]) -> int:
        """Findings of `muster run` and the like; how many. Raises ValueError for one in a check's name."""
        checks = {check.name for check in CHECKS}
        by_source: dict[str, list[Finding]] = {}
        for finding in findings:
            source = finding.source or "job"
            if source in checks or not finding.component:
                raise ValueError(f"source {source!r}, component {finding.component!r}: not for others to report")
            by_source.setdefault(source, []).append(stamp(finding, source, self._host))
        for source, found in by_source.items():
            self._record(deliver(self._ledger.of(source), found, self._moment()))
        return len(findings)

    def _plan(self) -> None:
        """The schedule and the board hold the checks that are enabled, and no others."""
        enabled = {check.name: check for check in CHECKS if self._config.check(check.name).enabled}
        for check in CHECKS:
            if check.name not in enabled and (rows := self._ledger.of(check.name)):
                self._record(resolve(list(rows.values()), "the check is disabled", self._moment()))
        for name in set(self.board.checks) - set(enabled):
            self.schedule.drop(name)
        now = self.clock.monotonic()
        states = {}
        for number, name in enumerate(enabled):
            interval = self._config.check(name).interval
            self.schedule.put(name, interval, now + number * _STAGGER_SECONDS)
            states[name] = replace(self.board.checks.get(name) or CheckState(name=name, interval=interval))
            states[name] = replace(states[name], interval=interval)
        self._show(checks=states)

    def _start(self, name: str) -> None:
        check, config = self._check(name)
        if self._runs.start(check, config, self._ledger.memory(name)):
            return
        overdue = self._runs.overdue().get(name)
        if overdue is not None:
            self._finished(not_back(check, self._host, config, overdue))

    def _finished(self, outcome: Outcome) -> None:
        """A run ended: judge it, and keep what it found and remembers in one transaction."""
        check, config = self._check(outcome.check.name)
        state = self.board.checks.get(check.name)
        if state is None:  # it was disabled meanwhile
            return
        entry = judge(self._ledger.of(check.name), outcome, habits(check, config), self._moment())
        memory = None if outcome.memory is None else (check.name, outcome.memory)
        self._record(entry, memory, {**self.board.checks, check.name: state.ran(outcome)})

    def _record(
        self, entry: Entry, memory: tuple[str, Memory] | None = None, checks: Mapping[str, CheckState] | None = None
    ) -> None:
        before = (self._ledger.degraded, self._ledger.set_aside)
        changes = self._ledger.record(entry, memory)
        if (self._ledger.degraded, self._ledger.set_aside) != before:
            self._tell_of_ledger()
        for change in changes:
            if change.kind == "opened":
                self._opened[(change.finding.source, change.finding.cause)] += 1
        if changes:
            self._say(changes)
            self._tell_desk()
        self._show(checks=checks or self.board.checks, entry=entry)

    def _tell_desk(self) -> None:
        while page := self._ledger.changes_after(self._desk.cursor, _PAGE):
            before = self._desk.cursor
            self._desk.take(page)
            self._ledger.advance(READER, self._desk.cursor)
            if self._desk.cursor <= before:
                break
        if self._outbox:
            self._outbox.wake()

    def _look_around(self) -> None:
        """What no run of a check brings: time, the disk, doors that hang, the queue of messages."""
        at = self._moment()
        for source in self._ledger.sources():
            known = source in self.board.checks
            rules = habits(*self._check(source)) if known else DELIVERED
            entry = pass_time(self._ledger.of(source), rules, at)
            if entry.changes:
                self._record(entry)
        self._look_at_clock()
        self._runs.overdue()
        if self._ledger.degraded and self._ledger.flush():
            self._tell_of_ledger()
        self._desk.tick()
        self._show(checks=self.board.checks)

    def _look_at_clock(self) -> None:
        ahead = self.clock.now() - self.clock.monotonic()
        step = ahead - self._wall_ahead
        self._wall_ahead = ahead
        if abs(step) > STEP_SECONDS:
            self._stepped = self.clock.monotonic()
            log.warning("the clock was stepped by %+.0f s; intervals and graces go by another clock and hold", step)

    def _prune(self) -> None:
        if self.clock.monotonic() - self._stepped < PRUNE_SECONDS:
            return  # a clock that has just been set may be wrong, and what is old by it is not let go yet
        if gone := self._ledger.prune():
            log.info("%d changes that every reader has read were let go", gone)

    def _tell_of_ledger(self) -> None:
        """The ledger's own troubles are findings like any other."""
        found = [_trouble("set_aside", Status.WARN, self._ledger.set_aside)] if self._ledger.set_aside else []
        self._ledger.set_aside = ""
        if self._ledger.degraded:
            found.append(_trouble("not_written", Status.FAIL, f"kept in memory: {self._ledger.degraded}"))
        else:
            found.append(Finding(component="ledger", kind="not_written", status=Status.OK, summary="written again"))
        stamped = [stamp(finding, "ledger", self._host) for finding in found]
        entry = deliver(self._ledger.of("ledger"), stamped, self._moment())
        if entry.changes:
            self._say(self._ledger.record(entry))
            self._tell_desk()

    def _say(self, changes: Sequence[LedgerChange]) -> None:
        """One sentence for what was decided."""
        told = "; ".join(_sentence(change) for change in changes[:_SAID])
        more = f"; and {len(changes) - _SAID} more" if len(changes) > _SAID else ""
        log.info("%s%s", told, more)

    def _show(self, checks: Mapping[str, CheckState], entry: Entry | None = None) -> None:
        changed = entry is None or bool(entry.put or entry.forget)
        self.board = replace(
            self.board,
            checks=checks,
            open=self._ledger.open_findings() if changed else self.board.open,
            opened=dict(self._opened) if changed else self.board.opened,
            incidents=self._desk.counts() if changed else self.board.incidents,
            alerts=self._desk.state() if changed else self.board.alerts,
            degraded=self._ledger.degraded,
            link=self._outbox.state if self._outbox else self.board.link,
            hung=self._host.prober.hung() if changed else self.board.hung,
        )

    def _check(self, name: str) -> tuple[Check, CheckConfig]:
        check = next(check for check in CHECKS if check.name == name)
        return check, self._config.check(name)

    def _rows(self, incident: str) -> list[Tracked]:
        """The ledger's rows of an incident; an id may be shortened."""
        members = {f for going in self._desk.going_on() if going.id.startswith(incident) for f in going.members}
        rows = (item for source in self._ledger.sources() for item in self._ledger.of(source).values())
        return [item for item in rows if item.finding.fingerprint in members]

    def _moment(self) -> Moment:
        monotonic = self.clock.monotonic()
        return Moment(monotonic=monotonic, uptime=monotonic + self._uptime_ahead, boot_id=self._boot_id)

    def _make_outbox(self) -> Outbox | None:
        if self._parts.fleet is None:
            return None
        machine = machine_of(self._host)

        def facts() -> Facts:
            board = self.board
            return Facts(
                node=board.node,
                machine=machine,
                boot_id=self._boot_id,
                status=str(board.status),
                agent=board.version,
                checks=len(board.checks),
            )

        return Outbox(self._config.fleet, self._ledger, facts, self.clock, self._parts.fleet)

    def _boot(self) -> tuple[str, float]:
        """The boot id, and how far uptime is ahead of the monotonic clock (0 where they are the same)."""
        try:
            return self._host.boot_id(), self._host.uptime() - self.clock.monotonic()
        except (Unreadable, ValueError, IndexError) as error:
            log.warning("boot and uptime are not known, boot graces do not apply: %s", error)
            return "", 0.0


def _trouble(kind: str, status: Status, summary: str) -> Finding:
    return Finding(
        component="ledger",
        kind=kind,
        status=status,
        cause="storage.disk_full" if "full" in summary else "storage.filesystem",
        summary=summary,
        evidence=summary,
        advice="see that the state directory's disk is well and has room; then `muster incidents resolve` this",
    )


def _sentence(change: LedgerChange) -> str:
    finding = change.finding
    count = f", {finding.count} times" if finding.count > 1 else ""
    return f"{change.kind} {finding.source} {finding.component} ({finding.status}{count}): {finding.summary}"
