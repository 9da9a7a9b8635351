"""Recorded scenarios played through: every check at every step, by the scenario's own clock."""

import tomllib
from collections.abc import Iterable, Iterator
from contextlib import closing
from pathlib import Path

import msgspec

from checks.base import Check, Finding, Memory, Status
from checks.clock import ManualClock
from checks.host import Host, recorded
from checks.replay import Scenario
from checks.runner import Outcome, run_check

NODES = Path(__file__).parent / "fixtures/nodes"


def scenario(name: str) -> Scenario:
    """The scenario of that name; one that is a plain recording has nothing special."""
    path = NODES / name / "scenario.toml"
    return msgspec.convert(tomllib.loads(path.read_text()), Scenario) if path.exists() else Scenario()


def names() -> list[str]:
    """Every recording that is packed or a scenario."""
    return sorted(
        path.name for path in NODES.iterdir() if (path / "tree.toml").exists() or (path / "scenario.toml").exists()
    )


def steps(plan: Scenario) -> list[float]:
    """The seconds at which checks run."""
    regular = [n * plan.every for n in range(1, int(plan.until / plan.every) + 1)] if plan.every else []
    return sorted({0.0, plan.until, *regular, *(event.at for event in plan.events if event.at <= plan.until)})


def play(name: str, checks: Iterable[Check]) -> Iterator[tuple[float, Host, list[Outcome]]]:
    """The outcomes of all checks at every step."""
    clock = ManualClock()
    memories: dict[str, Memory] = {}
    plan = scenario(name)
    with closing(recorded(NODES / name, clock)) as host:
        at = 0.0
        for step in steps(plan):
            clock.advance(step - at)
            at = step
            outcomes = []
            for check in checks:
                outcome = run_check(check, host, check.config(), memories.get(check.name, {}))
                memories[check.name] = outcome.memory if outcome.memory is not None else memories.get(check.name, {})
                outcomes.append(outcome)
            yield at, host, outcomes


def told(name: str, checks: Iterable[Check]) -> list[str]:
    """The troubles of a scenario, "check component status cause kind" each: those that stand at the end, and events."""
    checks = list(checks)
    found: dict[str, None] = {}
    last: list[Outcome] = []
    for _, _, last in play(name, checks):
        for outcome in last:
            if outcome.check.events:
                found.update(dict.fromkeys(map(line, troubles(outcome))))
    for outcome in last:
        found.update(dict.fromkeys(map(line, troubles(outcome))))
    return sorted(found)


def troubles(outcome: Outcome) -> list[Finding]:
    """What the run found wrong, or could not tell."""
    return [finding for finding in outcome.findings if finding.status not in (Status.OK, Status.SKIPPED)]


def line(finding: Finding) -> str:
    """One trouble on a line."""
    return f"{finding.source} {finding.component} {finding.status} {finding.cause or '-'} {finding.kind}"
