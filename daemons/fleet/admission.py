"""Whether a batch of a node is taken, and which of its changes are new: pure, so that every order can be tested."""

import enum

import msgspec

from checks.base import Finding
from daemons.ledger.records import LedgerChange
from daemons.wire import BATCH_CHANGES, VERSION, Batch

# A node's clock may be off by so much before its times are put right by the fleet's own.
SKEW_SECONDS = 5.0
# After so many of its own intervals without a word nobody knows how a node is.
SILENT_INTERVALS = 3


class Known(msgspec.Struct, frozen=True, kw_only=True):
    """What the store knows of a node. applied: last change of `ledger` that is in it. seen: when it last spoke."""

    ledger: str
    machine: str
    applied: int
    seen: float
    interval: float


class Why(enum.StrEnum):
    """What was done with a batch: the label of muster_fleet_batches_total."""

    TAKEN = "taken"
    REPEATED = "repeated"
    GAP = "gap"
    NEW_LEDGER = "new_ledger"
    LOST = "lost"
    SHADOWED = "shadowed"
    VERSION = "version"
    MALFORMED = "malformed"
    TOKEN = "token"
    OVERSIZED = "oversized"
    STORE = "store"


class Admission(msgspec.Struct, frozen=True, kw_only=True):
    """fresh: changes to be applied, in order, with times by the fleet's clock. applied: the last one then in the store.

    error: why nothing is taken, empty when it is. replaced: the ledger that this one takes the place of, "" for none.
    """

    why: Why
    applied: int
    fresh: tuple[LedgerChange, ...] = ()
    error: str = ""
    replaced: str = ""
    skew: float = 0.0


def admit(known: Known | None, batch: Batch, now: float) -> Admission:
    """Each change once, in the ledger's order, from one machine at a time."""
    if batch.version != VERSION:
        return _refused(
            Why.VERSION, known, f"speaks version {batch.version}, this fleet speaks {VERSION}: upgrade the older"
        )
    if known is not None and known.ledger != batch.ledger:
        return _other_ledger(known, batch, now)
    applied = known.applied if known else 0
    return _same_ledger(applied, batch, now, Why.TAKEN)


def _same_ledger(applied: int, batch: Batch, now: float, why: Why, replaced: str = "") -> Admission:
    numbers = [change.seq for change in batch.changes]
    if numbers != sorted(set(numbers)) or (numbers and numbers[0] <= batch.after):
        return Admission(why=Why.MALFORMED, applied=applied, error="changes are not in the order of their numbers")
    if len(numbers) > BATCH_CHANGES:
        return Admission(why=Why.MALFORMED, applied=applied, error=f"more than {BATCH_CHANGES} changes in a batch")
    if batch.after > applied and not (batch.oldest > applied + 1 or _pruned(applied, batch)):
        # Something in between is missing and the node still has it: it goes back and sends it.
        return Admission(why=Why.GAP, applied=applied)
    if batch.after > applied:
        why = Why.LOST
    skew = now - batch.sent if batch.sent else 0.0
    fresh = tuple(_in_our_time(change, skew) for change in batch.changes if change.seq > applied)
    if numbers and not fresh:
        why = Why.REPEATED
    last = max([applied, *numbers, batch.after if why is Why.LOST else 0])
    return Admission(why=why, applied=last, fresh=fresh, replaced=replaced, skew=skew)


def _pruned(applied: int, batch: Batch) -> bool:
    """The ledger no longer holds anything after `applied` that was sent before: going back would bring nothing."""
    return batch.oldest == 0 and not batch.changes


def _other_ledger(known: Known, batch: Batch, now: float) -> Admission:
    alive = now - known.seen <= SILENT_INTERVALS * known.interval
    if alive and known.machine and batch.machine and known.machine != batch.machine:
        error = (
            f"another machine reports as {batch.node} and did so {now - known.seen:.0f} s ago: give one of them another"
            " name (node.name)"
        )
        return Admission(why=Why.SHADOWED, applied=0, error=error)
    return _same_ledger(0, batch, now, Why.NEW_LEDGER, replaced=known.ledger)


def _refused(why: Why, known: Known | None, error: str) -> Admission:
    return Admission(why=why, applied=known.applied if known else 0, error=error)


def _in_our_time(change: LedgerChange, skew: float) -> LedgerChange:
    """Times of a node whose clock is off, moved to ours; small differences stay, so that repeats compare equal."""
    if abs(skew) <= SKEW_SECONDS:
        return change
    finding = change.finding
    moved: Finding = msgspec.structs.replace(
        finding, first_seen=finding.first_seen + skew, last_seen=finding.last_seen + skew
    )
    return msgspec.structs.replace(change, finding=moved, at=change.at + skew)
