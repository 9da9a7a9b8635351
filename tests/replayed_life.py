"""Time that goes by on a recorded node as the agent sees it: checks at their intervals, then judge and ledger."""

from collections.abc import Callable, Iterable
from contextlib import closing
from pathlib import Path

from scenarios import NODES, scenario

from checks.base import Check
from checks.clock import ManualClock
from checks.host import Host, recorded
from checks.runner import run_check
from daemons.config import Config
from daemons.ledger import Ledger, LedgerChange
from daemons.node.judge import Moment, habits, judge, pass_time

# Debounce and grace end within this time of a change, so checks keep their own intervals for so long after one.
BUSY_SECONDS = 630.0


def live(
    name: str,
    state: Path,
    checks: Iterable[Check],
    *,
    seconds: float,
    quiet_step: float = 900.0,
    config: Config | None = None,
    each: Callable[[float], None] = lambda at: None,
) -> list[LedgerChange]:
    """What the ledger wrote down in so many seconds of the scenario's life.

    quiet_step: seconds between two looks while nothing happens (a change of the scenario is BUSY_SECONDS back); else
    checks run at their own intervals, those of a second at every fifteenth. each: called after every step.
    """
    config, clock, checks = config or Config(), ManualClock(), list(checks)
    changes = [event.at for event in scenario(name).events]
    with closing(recorded(NODES / name, clock)) as host, closing(Ledger(state / "ledger.db", clock)) as ledger:
        next_run = dict.fromkeys((check.name for check in checks), 0.0)
        at = 0.0
        while at <= seconds:
            for check in checks:
                if next_run[check.name] <= at:
                    look(check, host, ledger, config)
                    next_run[check.name] = at + config.check(check.name).interval
            each(at)
            step = _step(at, changes, quiet_step)
            clock.advance(step)
            at += step
        return ledger.changes_after(0, limit=100_000)


def look(check: Check, host: Host, ledger: Ledger, config: Config) -> None:
    """One run of a check, judged and recorded as the agent does it."""
    settings = config.check(check.name)
    outcome = run_check(check, host, settings, ledger.memory(check.name))
    moment = Moment(monotonic=host.clock.monotonic(), uptime=host.uptime(), boot_id=host.boot_id())
    rules = habits(check, settings)
    entry = judge(ledger.of(check.name), outcome, rules, moment)
    ledger.record(entry, None if outcome.memory is None else (check.name, outcome.memory))
    if (later := pass_time(ledger.of(check.name), rules, moment)).changes:
        ledger.record(later)


def _step(at: float, changes: list[float], quiet_step: float) -> float:
    since = min((at - change for change in (0.0, *changes) if change <= at), default=at)
    ahead = min((change - at for change in changes if change > at), default=quiet_step)
    return 15.0 if since <= BUSY_SECONDS else max(15.0, min(quiet_step, ahead))


def opened(changes: Iterable[LedgerChange]) -> list[str]:
    """The findings that were opened, as "check component status kind"."""
    return [
        f"{c.finding.source} {c.finding.component} {c.finding.status} {c.finding.kind}"
        for c in changes
        if c.kind == "opened"
    ]
