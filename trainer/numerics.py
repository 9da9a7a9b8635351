"""When the loss has gone wrong for good."""

import math
import statistics
from collections import deque

from trainer.errors import LossSpikeError, NonFiniteError

_WINDOW = 64  # steps whose median is the recent level
_LEAST = 8  # steps before a level can be spoken of


class Numerics:
    """Follows loss and gradient norm, in step order, and raises after `allowed` bad steps in a row.

    A step whose gradients are not finite has changed nothing: the optimizer skipped it on the device. A spike is a
    loss above `factor` times the median of the last 64 good steps.
    """

    def __init__(self, allowed: int, factor: float) -> None:
        self._allowed, self._factor = allowed, factor
        self._recent: deque[float] = deque(maxlen=_WINDOW)
        self._not_finite = self._spikes = 0

    def follow(self, step: int, loss: float, norm: float) -> str | None:
        """What is odd about this step, None if nothing is. Raises NonFiniteError, LossSpikeError."""
        if not (math.isfinite(loss) and math.isfinite(norm)):
            self._not_finite += 1
            text = f"step {step}: loss {loss} grad_norm {norm}, the update was skipped ({self._not_finite} in a row)"
            if self._not_finite >= self._allowed:
                raise NonFiniteError(text)
            return text
        self._not_finite = 0
        level = statistics.median(self._recent) if len(self._recent) >= _LEAST else None
        if level is not None and loss > self._factor * level:
            self._spikes += 1
            text = (
                f"step {step}: loss {loss:.4f} is over {self._factor:g} times the recent {level:.4f} "
                f"({self._spikes} in a row)"
            )
            if self._spikes >= self._allowed:
                raise LossSpikeError(text)
            return text
        self._spikes = 0
        self._recent.append(loss)
        return None
