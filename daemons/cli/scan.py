"""`muster scan`: the daemon's checks, once, now."""

import sys
import time
from pathlib import Path

import click
import msgspec

from checks.base import Check, Finding, Status, worst
from checks.host import Host, Unreadable, recorded
from checks.registry import CHECKS
from checks.runner import Outcome
from daemons.cli.side_by_side import run_all
from daemons.config import Config, load
from daemons.errors import MusterError

EXIT = {Status.OK: 0, Status.WARN: 1, Status.FAIL: 2, Status.UNKNOWN: 3, Status.SKIPPED: 3}


class Report(msgspec.Struct, frozen=True, kw_only=True):
    """What `muster scan --json` prints. seconds: for all checks together."""

    node: str
    status: Status
    findings: list[Finding]
    seconds: float


@click.command()
@click.option("--check", "names", multiple=True, metavar="NAME", help="Only this check; may be given again.")
@click.option("--json", "as_json", is_flag=True, help="One JSON object: node, status, findings, seconds.")
@click.option("--replay", type=click.Path(path_type=Path), metavar="DIR", help="Scan a recorded node instead.")
@click.pass_obj
def command(config_path: Path | None, names: tuple[str, ...], as_json: bool, replay: Path | None) -> int:
    """Run the checks once: exit 0 ok, 1 warn, 2 fail, 3 unknown (could not tell)."""
    config = load(config_path)
    host = open_host(config, replay)
    try:
        report, outcomes = scan(host, config, names)
    finally:
        host.close()
    if as_json:
        sys.stdout.write(msgspec.json.encode(report).decode() + "\n")
    else:
        show(report, outcomes)
    return EXIT[report.status]


def scan(host: Host, config: Config, names: tuple[str, ...] = ()) -> tuple[Report, list[Outcome]]:
    """Run the checks once. Raises MusterError for a name there is not."""
    started = time.perf_counter()
    outcomes = run_all(chosen(names, config), host, config)
    report = Report(
        node=host.node,
        status=worst([outcome.status for outcome in outcomes]),
        findings=[finding for outcome in outcomes for finding in outcome.findings],
        seconds=round(time.perf_counter() - started, 3),
    )
    return report, outcomes


def open_host(config: Config, replay: Path | None) -> Host:
    """This machine, or the recorded one. Raises MusterError when there is no recording."""
    if replay is None:
        return Host(node=config.node.name)
    try:
        return recorded(replay)
    except Unreadable as error:
        raise MusterError(str(error)) from error


def chosen(names: tuple[str, ...], config: Config) -> list[Check]:
    """The checks that were asked for, else all that are enabled. Raises MusterError for a name there is not."""
    known = {check.name: check for check in CHECKS}
    for name in names:
        if name not in known:
            raise MusterError(f"no check is called {name!r}; there are: {', '.join(known)}")
    return [known[name] for name in names] or [check for check in CHECKS if config.check(check.name).enabled]


def show(report: Report, outcomes: list[Outcome]) -> None:
    """The report as a table for people."""
    from daemons.cli.tables import console, scan_table

    out = console()
    out.print(scan_table(outcomes))
    out.print(f"[bold]{report.node}[/] is [bold]{report.status}[/], {len(outcomes)} checks in {report.seconds:.2f} s")
