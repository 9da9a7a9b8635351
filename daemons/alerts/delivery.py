"""One thread a channel: takes what is due from the queue, sends it, writes down what became of it."""

import logging
import threading
from typing import NamedTuple, Protocol

from daemons.alerts.channels import Sender
from daemons.alerts.posts import Outcome, Post, PostState, Result, Thread

_LOG = logging.getLogger("muster.alerts")
# How long a courier sleeps when nothing waits: new messages wake it, a stepped clock does not.
_IDLE_SECONDS = 60.0


class Queue(Protocol):
    """The durable queue, as the desk keeps it."""

    def sender(self, channel: str) -> Sender | None: ...
    def next(self, channel: str) -> tuple[Post | None, Thread | None, float | None]:
        """What is due, the thread it belongs in, else the seconds until something is."""
        ...

    def begin(self, post: Post) -> Post:
        """Write down that it is about to be sent."""
        ...

    def settle(self, post: Post, outcome: Outcome) -> None:
        """Write down what became of it."""
        ...


class Pause(NamedTuple):
    """Until the next message. rest: seconds that nothing shortens. idle: seconds unless something new comes, None
    for as long as it takes."""

    rest: float = 0.0
    idle: float | None = 0.0


def deliver(queue: Queue, channel: str) -> Pause:
    """Work on one message."""
    sender = queue.sender(channel)
    if sender is None:
        return Pause(idle=None)
    post, thread, left = queue.next(channel)
    if post is None:
        return Pause(idle=left)
    if post.method == "update" and (thread is None or not thread.ts):
        queue.settle(post, Outcome(result=Result.NEEDLESS, reason="the first message is not there to be changed"))
        return Pause()
    # An update that may have arrived is sent again: twice the same text is the same message.
    if post.state is PostState.UNSURE and post.method == "post":
        outcome = sender.find(post, thread)
        queue.settle(post, outcome)
        return Pause()
    begun = queue.begin(post)
    queue.settle(begun, sender.send(begun, thread))
    return Pause(rest=sender.pace)


class Courier:
    """The thread of one channel, so that one that hangs holds up no other."""

    def __init__(self, queue: Queue, channel: str) -> None:
        self._queue = queue
        self._channel = channel
        self._stop = threading.Event()
        self._wake = threading.Event()
        self._thread = threading.Thread(target=self._run, name=f"alerts-{channel}", daemon=True)

    def start(self) -> None:
        """Begin to deliver."""
        self._thread.start()

    def wake(self) -> None:
        """There may be something to send."""
        self._wake.set()

    def stop(self, seconds: float) -> None:
        """End after the message under way; one that takes longer than this is looked for at the next start."""
        self._stop.set()
        self._wake.set()
        if self._thread.ident is not None:
            self._thread.join(seconds)

    def _run(self) -> None:
        while not self._stop.is_set():
            self._wake.clear()
            try:
                pause = deliver(self._queue, self._channel)
            except Exception:  # noqa: BLE001 a thread that died would say nothing ever again
                _LOG.exception("delivery to %s met an unforeseen fault; it goes on in a minute", self._channel)
                pause = Pause(rest=_IDLE_SECONDS)
            self._stop.wait(pause.rest)
            if pause.idle != 0.0:
                self._wake.wait(min(pause.idle or _IDLE_SECONDS, _IDLE_SECONDS))
