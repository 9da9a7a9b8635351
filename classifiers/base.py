"""What a classifier is told and what it says: Role, Rule, Cue, Hit, Ending, Verdict."""

import enum
from typing import Annotated

import msgspec

# Two words beside the causes: nothing in the logs is a failure; a failure that no rule explains.
NONE = "none"
UNKNOWN = "unknown"


class Role(enum.StrEnum):
    """What a line with a hit is to the failure.

    root: names a cause. hint: may explain a failure but does not prove one (a retry, a warning). cascade: only a
    consequence of something else, never chosen while there is a root. note: no failure, said for --explain.
    recovery: what was reported before it has been overcome.
    """

    ROOT = "root"
    HINT = "hint"
    CASCADE = "cascade"
    NOTE = "note"
    RECOVERY = "recovery"


Weight = Annotated[int, msgspec.Meta(ge=0, le=100)]


class Rule(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """One wording of one software and what it means.

    pattern: a regular expression without ^, $ or look-around, matched against a line's bytes anywhere; of its named
    groups rank, host, device, peer, path and code are kept. weight: how much this line says about the cause, 0 to
    100; `why` says for what reason (unique to one cause: 80 and more; named by the failing software itself: 60 to
    79; a consequence with several possible causes: below 40). unless: a line that also matches this is no hit.
    clears: for a recovery, the causes whose earlier hits in the same source it overcomes ("*": all).
    source: where the wording comes from. advice: the next command, where it differs from the cause's own.
    """

    id: str
    cause: str
    pattern: str
    weight: Weight = 70
    role: Role = Role.ROOT
    unless: str = ""
    ignore_case: bool = False
    clears: tuple[str, ...] = ()
    why: str
    source: str
    advice: str = ""
    examples: Annotated[tuple[str, ...], msgspec.Meta(min_length=1)]
    near_misses: Annotated[tuple[str, ...], msgspec.Meta(min_length=1)]


class Cue(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What a Python exception means, by its class, message and the frames it came through.

    type: matched against the class name after its last dot, whole. message: searched in the exception's line after
    the class. frames: searched in the traceback's frames, `path/file.py:function`, one a line. An empty one matches
    all. The heaviest cue that matches is taken, the first of equals. `example` is an exception line it must match,
    `near_miss` one it must not; `frame` is a frame that both come through.
    """

    id: str
    cause: str
    weight: Weight = 45
    role: Role = Role.ROOT
    type: str = ""
    message: str = ""
    frames: str = ""
    why: str
    advice: str = ""
    frame: str = ""
    example: str
    near_miss: str


class Evidence(msgspec.Struct, frozen=True, kw_only=True):
    """A line of a log. line: counted from 1, 0 when there is none (an exit code). text: without colours."""

    file: str
    line: int
    text: str


class Hit(msgspec.Struct, frozen=True, kw_only=True):
    """One line that a rule matched. time: seconds since the epoch, 0.0 when the line carries none.

    order: place in the session, for lines without times. count: how many lines of that source the rule matched; a
    source keeps the first ones and the last. fields: the named groups of the rule.
    """

    rule: str
    cause: str
    role: Role
    weight: int
    evidence: Evidence
    rank: int | None = None
    host: str = ""
    time: float = 0.0
    order: int = 0
    count: int = 1
    advice: str = ""
    fields: dict[str, str] = {}
    clears: tuple[str, ...] = ()


class Cascade(msgspec.Struct, frozen=True, kw_only=True):
    """A cause beside the chosen one: what it looked like, and in which ranks."""

    cause: str
    evidence: Evidence
    ranks: list[int] = []


class Explanation(msgspec.Struct, frozen=True, kw_only=True):
    """One hit as `--explain` shows it, and why it won or lost."""

    rule: str
    cause: str
    role: Role
    weight: int
    count: int
    rank: int | None
    evidence: Evidence
    fate: str


class Verdict(msgspec.Struct, frozen=True, kw_only=True):
    """What the logs say: the object of `muster classify --json`.

    cause: an id of causes.toml, `none` (nothing in here is a failure) or `unknown` (a failure that no rule explains).
    confidence: 0 to 1. evidence: the line that shows it, None for `none`. rank, host: the first that failed, where
    the logs say; ranks: all that failed of the same cause. cascades: the consequences, one for each cause.
    seconds, bytes: what the classification took and read. also: other causes that stand in the logs on their own.
    suspects: for `unknown`, the most suspicious lines. fingerprint: the same for the same failure again.
    notes: what the reader should know of the input (a truncated file).
    """

    cause: str
    confidence: float
    evidence: Evidence | None
    rank: int | None
    host: str
    cascades: list[Cascade]
    advice: str
    seconds: float
    bytes: int
    ranks: list[int] = []
    also: list[Cascade] = []
    suspects: list[Evidence] = []
    fingerprint: str = ""
    notes: list[str] = []
