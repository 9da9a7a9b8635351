"""Progress on the terminal for what takes longer than two seconds."""

import contextlib
import sys
from collections.abc import Callable, Iterator

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn

from checks.pairs.drive import Progress as Rounds


@contextlib.contextmanager
def bar(total: int, what: str = "sweeps") -> Iterator[Callable[[], None]]:
    """A bar on standard error; call what it yields once per step."""
    columns = (TextColumn(what), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn(), TimeRemainingColumn())
    with Progress(*columns, console=Console(stderr=True), transient=True) as progress:
        task = progress.add_task(what, total=total)
        yield lambda: progress.advance(task)


@contextlib.contextmanager
def sweep_bar(expected: int, hidden: bool) -> Iterator[Callable[[Rounds], None]]:
    """A bar of rounds with the time left; it grows when a suspicion asks for more rounds."""
    if hidden or not sys.stderr.isatty():
        yield lambda rounds: None
        return
    columns = (TextColumn("rounds"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn(), TimeRemainingColumn())
    with Progress(*columns, console=Console(stderr=True), transient=True) as progress:
        task = progress.add_task("rounds", total=expected)
        yield lambda at: progress.update(task, completed=at.rounds, total=max(expected, at.rounds))
