"""Error counters judged as rates: what rose since the last look and in the hour before, through resets and saturation.

A counter of InfiniBand stops at its largest value (8, 16 or 32 bits) and then says nothing more; a driver reload or a
tool (`perfquery -R`) puts it back to zero; a reboot starts it anew. Pure: the caller passes time, boot and memory.
"""

from dataclasses import dataclass

from checks.base import Memory

_BUCKET_SECONDS = 60.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Rise:
    """What a counter did. now: by how much it rose since the last look, at least. recent: within the window, at least.

    seconds: since the last look, 0 at the first. first: nothing to compare with yet. reset: it had been put back.
    stuck: it stands at its largest value, so it cannot say more until somebody resets it.
    """

    now: int
    recent: int
    seconds: float
    first: bool = False
    reset: bool = False
    stuck: bool = False


def observe(
    memory: Memory, key: str, value: int, *, at: float, boot: str, window: float = 3600.0, maximum: int | None = None
) -> Rise:
    """Compare `value` with what `memory` holds of the counter `key`, and remember it.

    at: monotonic seconds of this boot. window: seconds that `recent` looks back. maximum: where it saturates, if it
    does. A reset counts what has come since as the rise: the least it can have been.
    """
    series = memory.setdefault("counters", {})
    before = series.get(key)
    stuck = maximum is not None and value >= maximum
    if before is None or before["boot"] != boot or before["at"] > at:
        series[key] = {"boot": boot, "at": at, "value": value, "rises": []}
        return Rise(now=0, recent=0, seconds=0.0, first=True, stuck=stuck)
    reset = value < before["value"]
    now = value if reset else value - before["value"]
    rises = [[when, rose] for when, rose in before["rises"] if when > at - window]
    if now and rises and at - rises[-1][0] < _BUCKET_SECONDS:
        rises[-1][1] += now
    elif now:
        rises.append([at, now])
    series[key] = {"boot": boot, "at": at, "value": value, "rises": rises}
    recent = sum(rose for _, rose in rises)
    return Rise(now=now, recent=recent, seconds=at - before["at"], reset=reset, stuck=stuck)


def forget(memory: Memory, prefix: str, keep: set[str]) -> None:
    """Drop the series below `prefix` whose keys are not in `keep`: devices that are no longer there."""
    series = memory.get("counters", {})
    for key in [key for key in series if key.startswith(prefix) and key not in keep]:
        del series[key]
