"""One message to one channel, from queued to sent: every step is a pure function, so that each can be tested."""

import enum
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Literal

import msgspec

# Doubling from one second up to two minutes: Slack that comes back after an hour is used within two minutes.
FIRST_WAIT = 1.0
LONGEST_WAIT = 120.0
# A fault that a person has to mend (a revoked token, a bot outside the channel) is tried again so seldom.
MENDED_WAIT = 300.0
# A message that Slack refuses for what it holds.
PARKED_WAIT = 3600.0
# After an answer that never came, the message may still be on its way into the channel: look for it no earlier.
SETTLE_SECONDS = 15.0
# Nothing waits longer by the wall clock; a moment further off means that the clock was set back.
_CLOCK_STEPPED = 2 * PARKED_WAIT
# Queued while there was nobody to send it to: after so long it would only be noise.
STALE_SECONDS = 86400.0


class PostState(enum.StrEnum):
    """Where a message stands."""

    UNADDRESSED = "unaddressed"  # queued while the channel was not set up
    WAITING = "waiting"
    SENDING = "sending"  # written down before the request: what is found so at start may have been sent
    UNSURE = "unsure"  # may have been sent: look before it is sent again
    PARKED = "parked"  # refused for what it holds; those behind it go on
    SENT = "sent"
    LAPSED = "lapsed"  # too old when the channel was set up at last
    NEEDLESS = "needless"  # a change of a message that is not there to be changed


FINISHED = frozenset({PostState.SENT, PostState.LAPSED, PostState.NEEDLESS})


class Post(msgspec.Struct, frozen=True, kw_only=True):
    """One message to one channel. The fields are the columns of the store.

    id: order of sending. method: "post" a new message, "update" the first one of its subject. message: its UUID.
    at, tried, not_before, sent_at: epoch seconds, 0 for never. place, ts: channel id and time stamp that Slack gave.
    """

    id: int
    channel: str
    method: Literal["post", "update"]
    message: str
    subject: str
    number: int
    kind: str
    at: float
    title: str
    body: bytes
    state: PostState = PostState.WAITING
    attempts: int = 0
    not_before: float = 0.0
    tried: float = 0.0
    trouble: str = ""
    sent_at: float = 0.0
    place: str = ""
    ts: str = ""

    @property
    def finished(self) -> bool:
        """Whether nothing is to be done about it any more."""
        return self.state in FINISHED


class Thread(msgspec.Struct, frozen=True, kw_only=True):
    """The first message of a subject in a channel: answers go under it. asked: the channel as it was configured."""

    channel: str
    subject: str
    asked: str
    place: str
    ts: str
    at: float


class Result(enum.Enum):
    """What became of a request."""

    SENT = enum.auto()
    MISSING = enum.auto()  # looked for, and it is not there: it may be sent
    LATER = enum.auto()  # surely not sent; try again
    UNSURE = enum.auto()  # no answer that says either
    REFUSED = enum.auto()  # nothing can be sent to this channel until somebody mends it
    UNFIT = enum.auto()  # this message cannot be sent as it is
    NEEDLESS = enum.auto()


@dataclass(frozen=True, slots=True, kw_only=True)
class Outcome:
    """A result with its reason, in words that name the remedy. wait: seconds the server asked for (Retry-After)."""

    result: Result
    reason: str = ""
    wait: float = 0.0
    place: str = ""
    ts: str = ""


def waits(post: Post, now: float) -> float:
    """Seconds until it may be tried."""
    left = post.not_before - now
    return 0.0 if left <= 0 or left > _CLOCK_STEPPED else left


def due(posts: Iterable[Post], now: float) -> tuple[Post | None, float | None]:
    """The next message of a channel to work on, else the seconds until there is one (None: nothing waits).

    In order: one that has to wait holds up those behind it; one that is parked does not. While one is being sent
    there is none.
    """
    soonest: float | None = None
    for post in posts:
        if post.finished or post.state is PostState.UNADDRESSED:
            continue
        if post.state is PostState.SENDING:
            return None, None
        left = waits(post, now)
        if left == 0:
            return post, 0.0
        soonest = left if soonest is None else min(soonest, left)
        if post.state is not PostState.PARKED:
            break
    return None, soonest


def begun(post: Post, now: float) -> Post:
    """To be stored before the request leaves."""
    return msgspec.structs.replace(post, state=PostState.SENDING, attempts=post.attempts + 1, tried=now)


def ended(post: Post, outcome: Outcome, now: float, jitter: float) -> Post:
    """The message after this outcome. jitter: 0 to 1, so that many nodes do not come back at the same moment."""
    result = outcome.result
    if post.state is PostState.UNSURE:  # a search counts as an attempt: those that fail come ever more seldom
        post = msgspec.structs.replace(post, attempts=post.attempts + 1)
    if result is Result.SENT:
        return msgspec.structs.replace(
            post, state=PostState.SENT, sent_at=now, place=outcome.place, ts=outcome.ts, trouble="", not_before=0.0
        )
    if result is Result.NEEDLESS:
        return msgspec.structs.replace(post, state=PostState.NEEDLESS, trouble=outcome.reason, not_before=0.0)
    if result is Result.MISSING:
        return msgspec.structs.replace(post, state=PostState.WAITING, trouble=outcome.reason, not_before=0.0)
    state, wait = _again(post, result, jitter)
    wait = max(wait, min(outcome.wait, PARKED_WAIT))
    return msgspec.structs.replace(post, state=state, not_before=now + wait, trouble=outcome.reason)


def _again(post: Post, result: Result, jitter: float) -> tuple[PostState, float]:
    """The state of a message that has to be tried again, and for how many seconds it waits."""
    # A search that failed leaves the message as unsure as it was.
    unsent = PostState.UNSURE if post.state is PostState.UNSURE else PostState.WAITING
    if result is Result.UNFIT:
        return PostState.PARKED, PARKED_WAIT
    if result is Result.REFUSED:
        return unsent, MENDED_WAIT
    if result is Result.UNSURE:
        return PostState.UNSURE, max(SETTLE_SECONDS, backoff(post.attempts, jitter))
    return unsent, backoff(post.attempts, jitter)


def backoff(attempts: int, jitter: float) -> float:
    """Seconds to wait after so many attempts: the full step at jitter 1, half of it at 0."""
    step = min(LONGEST_WAIT, FIRST_WAIT * 2.0 ** min(max(attempts, 1) - 1, 20))
    return step * (0.5 + jitter / 2)


def recovered(post: Post, now: float) -> Post:
    """The message as a new process finds it: one that was being sent when the last one ended is looked for first."""
    if post.state is not PostState.SENDING:
        return post
    tried = post.tried if now - SETTLE_SECONDS <= post.tried <= now else now
    return msgspec.structs.replace(post, state=PostState.UNSURE, not_before=tried + SETTLE_SECONDS)


def awoken(post: Post, now: float, addressed: bool) -> Post:
    """The message after a start or a reload. addressed: there is somebody to send it to.

    What a person may have mended is tried at once; what waited for a channel that long is let go.
    """
    if post.state is PostState.UNADDRESSED and addressed:
        stale = now - post.at > STALE_SECONDS
        return msgspec.structs.replace(post, state=PostState.LAPSED if stale else PostState.WAITING)
    if post.state in (PostState.WAITING, PostState.PARKED) and post.trouble:
        return msgspec.structs.replace(post, state=PostState.WAITING, not_before=0.0)
    return post
