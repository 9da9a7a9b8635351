"""Runs checks side by side: a scan takes as long as its slowest part, and a hung driver costs one deadline, not twenty.

Checks that go through the same door queue behind each other in one warm child; when one of them gets no answer in
time, the rest of the queue is told so instead of waiting in turn.
"""

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

from checks.base import Check, Finding, Status
from checks.host import Host
from checks.runner import Outcome, run_check, stamp
from daemons.config import Config

# Threads for the checks that need no door: they wait for the kernel or for a tool, hardly for the processor.
_THREADS = 8


def run_all(checks: list[Check], host: Host, config: Config) -> list[Outcome]:
    """The outcome of every check, in the order given."""
    queues: dict[str, list[Check]] = {}
    for check in checks:
        queues.setdefault(check.door.split(":", 1)[0] if check.door else f" {check.name}", []).append(check)
    doors = sum(not name.startswith(" ") for name in queues)
    # Queues behind doors come first: they can be the slowest.
    ordered = sorted(queues.values(), key=lambda queue: queue[0].door is None)
    with ThreadPoolExecutor(doors + _THREADS, thread_name_prefix="scan") as pool:
        done = {
            o.check.name: o for outcomes in pool.map(lambda q: list(_queue(q, host, config)), ordered) for o in outcomes
        }
    return [done[check.name] for check in checks]


def _queue(checks: list[Check], host: Host, config: Config) -> Iterator[Outcome]:
    silent = ""
    for check in checks:
        if silent and check.door:
            yield _not_asked(check, host, silent)
            continue
        outcome = run_check(check, host, config.check(check.name), {})
        if check.door and not outcome.looked and outcome.seconds >= config.check(check.name).deadline:
            silent = outcome.findings[-1].summary
        yield outcome


def _not_asked(check: Check, host: Host, reason: str) -> Outcome:
    finding = Finding(
        component=f"check/{check.name}",
        status=Status.UNKNOWN,
        kind="unknown",
        summary=f"not asked, {check.door} is silent: {reason}",
    )
    stamped = stamp(finding, check.name, host)
    return Outcome(check=check, findings=(stamped,), seconds=0.0, at=host.clock.now(), looked=False, memory=None)
