"""What the ledger holds: findings with what is needed to judge them, and the log of their changes."""

import enum
from collections.abc import Mapping
from dataclasses import dataclass, field

import msgspec

from checks.base import ClearRule, Finding


class FindingState(enum.StrEnum):
    """Where a finding stands. A pending one was seen and is not yet believed; nobody is told of it."""

    PENDING = "pending"
    OPEN = "open"
    ACKNOWLEDGED = "acknowledged"
    CLEARED = "cleared"


class Kind(enum.StrEnum):
    """What can happen to a finding that is open."""

    OPENED = "opened"
    WORSENED = "worsened"
    EASED = "eased"
    REPEATED = "repeated"
    CLEARED = "cleared"
    ACKNOWLEDGED = "acknowledged"


class LedgerChange(msgspec.Struct, frozen=True, kw_only=True):
    """One change of one finding. seq: grows with every change of this ledger, with gaps, and is never used twice.

    at: epoch seconds by the node's clock, which may step; seq is the order.
    """

    seq: int
    kind: Kind
    finding: Finding
    at: float


class Tracked(msgspec.Struct, frozen=True, kw_only=True):
    """A finding and its history, as one row of the ledger.

    clear: the rule that ends it. runs: runs that saw it, in a row. clean: runs in a row that looked and found its
    component well. since, seen, logged_at: monotonic seconds (CLOCK_BOOTTIME, so that they hold across restarts of
    the agent within the boot `boot_id`) when it was first and last seen and last written to the log of changes.
    logged_count: its count then.
    """

    finding: Finding
    state: FindingState
    clear: ClearRule
    boot_id: str
    since: float
    seen: float
    runs: int = 1
    clean: int = 0
    logged_at: float = 0.0
    logged_count: int = 0

    @property
    def is_open(self) -> bool:
        """Whether people should know of it."""
        return self.state in (FindingState.OPEN, FindingState.ACKNOWLEDGED)


@dataclass(frozen=True, slots=True, kw_only=True)
class Entry:
    """What is written together: rows by fingerprint, rows of pending findings to forget, and changes in order."""

    put: Mapping[str, Tracked] = field(default_factory=dict)
    forget: frozenset[str] = frozenset()
    changes: tuple[tuple[Kind, Finding], ...] = ()
