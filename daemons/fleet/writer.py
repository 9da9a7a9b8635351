"""Takes the batches that wait into the store together: one synced transaction for all of them."""

import logging
import queue
import threading
from concurrent.futures import Future

from checks.clock import Clock
from daemons.fleet.admission import Admission, Why
from daemons.fleet.roll import Roll
from daemons.fleet.store import Store, StoreAway
from daemons.wire import Batch

log = logging.getLogger("muster.fleet")

# More than this in one transaction would keep the first of them waiting.
GROUP = 200
# What waits beyond this is refused: the nodes keep it and come again.
LONGEST = 20_000
_STOP_SECONDS = 10.0

Waiting = tuple[Batch, "Future[Admission]"]


class Busy(StoreAway):
    """More waits than can be taken in time."""


class Writer:
    """One thread between the nodes and the store. trouble: why nothing can be written now, "" while it can."""

    def __init__(self, store: Store, roll: Roll, clock: Clock) -> None:
        self._store = store
        self._roll = roll
        self._clock = clock
        self._queue: queue.SimpleQueue[Waiting | None] = queue.SimpleQueue()
        self._thread = threading.Thread(target=self._run, name="store", daemon=True)
        self.trouble = ""
        self.changes = 0

    def start(self) -> None:
        """Begin to write."""
        self._thread.start()

    def stop(self) -> None:
        """End after what waits."""
        self._queue.put(None)
        if self._thread.ident is not None:
            self._thread.join(_STOP_SECONDS)

    def put(self, batch: Batch) -> "Future[Admission]":
        """Take this batch; its future has the answer once it is durable, or StoreAway."""
        answer: Future[Admission] = Future()
        if self._queue.qsize() > LONGEST:
            answer.set_exception(Busy("more waits here than can be written in time: come again"))
        else:
            self._queue.put((batch, answer))
        return answer

    def _run(self) -> None:
        while (first := self._queue.get()) is not None:
            group = [first]
            ending = False
            while len(group) < GROUP and not self._queue.empty():
                more = self._queue.get()
                if more is None:
                    ending = True
                    break
                group.append(more)
            self._take(group)
            if ending:
                return

    def _take(self, group: list[Waiting]) -> None:
        now = self._clock.now()
        try:
            admissions = self._store.apply_all([batch for batch, _ in group], now)
        except StoreAway as error:
            self._away(group, error)
        except Exception:
            if len(group) == 1:
                log.exception("a batch of %s cannot be stored", group[0][0].node)
                self._poison(group[0])
                return
            log.exception("a group of %d batches was not taken; each is now tried alone", len(group))
            for one in group:
                self._take([one])
        else:
            self._well()
            for (batch, answer), admission in zip(group, admissions, strict=True):
                if not admission.error:
                    self._roll.taken(batch, admission, now)
                    self.changes += len(admission.fresh)
                answer.set_result(admission)

    def _poison(self, one: Waiting) -> None:
        """One that the store cannot hold must not keep the others out."""
        batch, answer = one
        answer.set_result(
            Admission(why=Why.MALFORMED, applied=batch.after, error="cannot be stored: see the fleet's log")
        )

    def _away(self, group: list[Waiting], error: StoreAway) -> None:
        if not self.trouble:
            log.error("%s; nodes keep what they have and come again", error)
        self.trouble = str(error)
        for _, answer in group:
            answer.set_exception(error)

    def _well(self) -> None:
        if self.trouble:
            log.warning("the store answers again, nothing was lost")
        self.trouble = ""
