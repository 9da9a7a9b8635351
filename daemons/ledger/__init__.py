"""The node's durable record of findings: what is open, every change of it, and what the checks remember."""

from daemons.ledger.records import Entry, FindingState, Kind, LedgerChange, Tracked
from daemons.ledger.store import Keep, Ledger

__all__ = ["Entry", "FindingState", "Keep", "Kind", "Ledger", "LedgerChange", "Tracked"]
