"""Ten thousand findings become twenty messages: what is above the budget is folded into one storm."""

import hashlib
from collections.abc import Sequence

import msgspec

from daemons.alerts.config import AlertsConfig
from daemons.incidents.model import Incident, Kind, Storm, Tell, digest
from daemons.incidents.telling import GROWTH, elapsed, told

# Messages of a storm within one burst window, its last one included: with 15 single ones that makes 20.
STORM_MESSAGES = 5


def fold(storm: Storm | None, incident: Incident, now: float) -> tuple[Storm, Incident]:
    """The storm (a new one when there is none) with this incident in it: its messages speak for it now."""
    if storm is None:
        name = "s" + hashlib.sha256(f"{incident.id}\0{now}".encode()).hexdigest()[:7]
        storm = Storm(id=name, opened=now)
    storm = msgspec.structs.replace(storm, folded=storm.folded + 1)
    return storm, msgspec.structs.replace(told(incident, now), storm=storm.id)


def tell_storm(
    storm: Storm, mine: Sequence[Incident], posts: int, now: float, config: AlertsConfig
) -> tuple[Storm | None, Tell | None]:
    """What to tell of the storm over these incidents, after so many posts of storms in the burst window.

    None for the storm once it is over and told to be.
    """
    over = all(incident.over for incident in mine)
    if posts >= (STORM_MESSAGES if over else STORM_MESSAGES - 1):
        return storm, None  # the last message is kept for the end
    if not over and not _news(storm, now, config):
        return storm, None
    kind = Kind.STORM_OVER if over and storm.told else Kind.STORM
    tell = Tell(subject=storm.id, number=storm.tells + 1, kind=kind, at=now, digest=digest(mine))
    if over:
        return None, tell
    return msgspec.structs.replace(storm, tells=storm.tells + 1, told=storm.folded, told_at=now), tell


def _news(storm: Storm, now: float, config: AlertsConfig) -> bool:
    """Told at once, at every tenfold, at the end of a window that brought more, and as a reminder."""
    if storm.folded >= GROWTH * storm.told:
        return True
    wait = config.burst_seconds if storm.folded > storm.told else config.remind_hours * 3600
    return elapsed(now, storm.told_at) >= wait
