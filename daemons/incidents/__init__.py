"""Findings become incidents: what belongs together is told once, told again when it matters, and told when it is over.

Pure: a Situation, changes and the time in; the next Situation and what to tell out. The node agent and the fleet
decide with the same code.
"""

from daemons.incidents.decide import acknowledge, catch_up, decide, resolve
from daemons.incidents.model import (
    Change,
    Digest,
    Incident,
    Kind,
    Member,
    Situation,
    State,
    Storm,
    Tell,
    Told,
    UnknownIncident,
)

__all__ = [
    "Change",
    "Digest",
    "Incident",
    "Kind",
    "Member",
    "Situation",
    "State",
    "Storm",
    "Tell",
    "Told",
    "UnknownIncident",
    "acknowledge",
    "catch_up",
    "decide",
    "resolve",
]
