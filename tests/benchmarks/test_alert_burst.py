"""Ten thousand changes in a burst: seconds of one core, in the pages that the agent takes."""

import resource
import time
from pathlib import Path

import pytest
from incident_changes import START, Seen, finding

from checks.clock import ManualClock
from daemons.alerts.config import AlertsConfig
from daemons.alerts.credentials import Credentials
from daemons.alerts.desk import AlertDesk

COUNT = 10_000


def one_incident(number: int) -> Seen:
    return Seen(number + 1, "opened", finding(f"gpu/{number}"), START)


def many_incidents(number: int) -> Seen:
    return Seen(number + 1, "opened", finding(node=f"n{number:05}"), START)


@pytest.mark.parametrize("page", [500, 100])
@pytest.mark.parametrize("story", [one_incident, many_incidents])
def test_a_burst_of_ten_thousand_changes(tmp_path: Path, page: int, story: object) -> None:
    changes = [story(number) for number in range(COUNT)]  # type: ignore[operator]
    desk = AlertDesk(tmp_path / "alerts.db", AlertsConfig(), ManualClock(START), Credentials())
    start, before = time.perf_counter(), resource.getrusage(resource.RUSAGE_SELF).ru_utime
    for first in range(0, COUNT, page):
        desk.take(changes[first : first + page])
    wall = time.perf_counter() - start
    user = resource.getrusage(resource.RUSAGE_SELF).ru_utime - before
    tick = time.perf_counter()
    desk.tick()
    tick = time.perf_counter() - tick
    size = (tmp_path / "alerts.db").stat().st_size
    desk.close()
    again = time.perf_counter()
    AlertDesk(tmp_path / "alerts.db", AlertsConfig(), ManualClock(START), Credentials()).close()
    again = time.perf_counter() - again
    name = getattr(story, "__name__", "")
    print(
        f"\n{name}, {page} a page: {wall:.1f} s wall, {user:.1f} s user, file {size / 1e6:.1f} MB,"
        f" then a tick {tick * 1000:.1f} ms, a restart {again:.2f} s"
    )
    assert desk.cursor == COUNT
