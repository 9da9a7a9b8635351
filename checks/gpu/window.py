"""What was sampled of each GPU in the last minutes, for checks that judge a span rather than a moment."""

from checks.base import Memory


def sample(memory: Memory, key: str, value: float, *, at: float, boot: str, seconds: float) -> list[float]:
    """Remember `value` and give those of the last `seconds`, oldest first; a reboot begins anew. at: monotonic."""
    series = memory.setdefault("samples", {})
    before = series.get(key, {"boot": boot, "at": []})
    kept = [pair for pair in before["at"] if at - seconds <= pair[0] < at] if before["boot"] == boot else []
    series[key] = {"boot": boot, "at": [*kept, [at, value]]}
    return [pair[1] for pair in series[key]["at"]]


def spans(memory: Memory, key: str, seconds: float) -> bool:
    """Whether the samples reach over at least nine tenths of that span."""
    times = [pair[0] for pair in memory.get("samples", {}).get(key, {}).get("at", [])]
    return bool(times) and times[-1] - times[0] >= 0.9 * seconds
