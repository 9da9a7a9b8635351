"""One device that cannot be read must cost its own answer only, not that of its neighbours."""

from collections.abc import Iterator

from checks.base import Finding, Status
from checks.host import Unreadable


def look(component: str, findings: Iterator[Finding]) -> Iterator[Finding]:
    """The findings on one device; when it cannot be read, what came before and `unknown` with the reason."""
    try:
        yield from findings
    except Unreadable as error:
        yield Finding(
            component=component,
            status=Status.UNKNOWN,
            kind="unreadable",
            summary=str(error),
            advice="the device or its driver is going or gone: see `dmesg | tail`",
        )
