"""Tables for people: colour only on a terminal, the whole text everywhere."""

import sys
from collections.abc import Iterable, Sequence

from rich.console import Console
from rich.table import Table
from rich.text import Text

from checks.base import Finding, Status
from checks.runner import Outcome

STYLE = {
    Status.OK: "green",
    Status.WARN: "yellow",
    Status.FAIL: "bold red",
    Status.UNKNOWN: "magenta",
    Status.SKIPPED: "dim",
}
# Off a terminal nothing may be cut: a log or a pipe has no width.
_WIDE = 240


def console() -> Console:
    """Standard output, in colour on a terminal."""
    return Console(width=None if sys.stdout.isatty() else _WIDE, highlight=False, soft_wrap=False)


def plain_table(headings: Sequence[str], rows: Iterable[Sequence[str]]) -> Table:
    """Lines of text under headings; long ones are folded, never cut."""
    table = Table(box=None, pad_edge=False)
    for heading in headings:
        table.add_column(heading, overflow="fold")
    for row in rows:
        table.add_row(*(Text(cell) for cell in row))
    return table


def scan_table(outcomes: list[Outcome]) -> Table:
    """Every check with its status and what it saw: troubles each on a line, what is well folded into one."""
    table = Table(box=None, pad_edge=False)
    for heading in ("check", "status", "component", "what it saw"):
        table.add_column(heading, overflow="fold")
    for outcome in outcomes:
        told = _told(outcome)
        folded = len(outcome.findings) - len(told)
        for index, finding in enumerate(told):
            name = outcome.check.name if index == 0 else ""
            status = Text(str(finding.status), style=STYLE[finding.status])
            more = f" (and {folded} more that are well)" if folded and index == len(told) - 1 else ""
            table.add_row(name, status, Text(finding.component), Text(_saw(finding) + more))
    return table


def _told(outcome: Outcome) -> list[Finding]:
    troubles = [f for f in outcome.findings if f.status not in (Status.OK, Status.SKIPPED)]
    well = [f for f in outcome.findings if f.status in (Status.OK, Status.SKIPPED)]
    return troubles + (well if len(well) <= 2 or (not troubles and len(well) <= 4) else well[:1])


def _saw(finding: Finding) -> str:
    trouble = finding.status not in (Status.OK, Status.SKIPPED)
    return f"{finding.summary}; {finding.advice}" if trouble and finding.advice else finding.summary
