"""What a run says of itself: a line or a bar for people, a JSON line a step for programs."""

import json
import math
import os
import sys
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TextIO


@dataclass(frozen=True, slots=True, kw_only=True)
class Step:
    """One finished step. `tokens`: trained so far, over all ranks and attempts; seconds are of rank 0."""

    step: int
    loss: float
    grad_norm: float
    tokens: int
    step_seconds: float
    data_seconds: float
    eval_loss: float | None = None

    def json(self) -> str:
        """One JSON object; NaN and infinity, which JSON has no word for, are null."""
        values = {name: value for name, value in asdict(self).items() if name != "eval_loss" or value is not None}
        return json.dumps(
            {name: None if isinstance(v, float) and not math.isfinite(v) else v for name, v in values.items()}
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class Figures:
    """What the steps since the last line come to."""

    tokens_per_second: float
    mfu: float | None
    data_share: float  # 0 to 1
    memory: int  # bytes
    stall: float  # seconds that checkpoints held training up


class Reporter:
    """Rank 0's voice. A log that cannot be written is said once and stops nothing."""

    def __init__(
        self,
        log: Path | None,
        total: int,
        out: TextIO = sys.stdout,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._log, self._total, self._out, self._clock = log, total, out, clock
        self._bar = out.isatty()
        self._said_at = float("-inf")
        self._told = False

    def begin(self, step: int) -> None:
        """Make the log end at `step`, where training goes on from; what came after goes to FILE.superseded."""
        if self._log is None:
            return
        try:
            self._log.parent.mkdir(parents=True, exist_ok=True)
            if self._log.exists():
                _rewind(self._log, step)
        except OSError as error:
            self._failed(error)

    def steps(self, steps: list[Step]) -> None:
        """Append to the log."""
        if self._log is None or not steps:
            return
        try:
            with self._log.open("a") as file:
                file.write("".join(f"{step.json()}\n" for step in steps))
        except OSError as error:
            self._failed(error)

    def show(self, step: Step, figures: Figures) -> None:
        """A line every five seconds at most, the last step always; on a terminal a bar that stays in place."""
        last = step.step >= self._total
        now = self._clock()
        if not last and now - self._said_at < (0.2 if self._bar else 5.0):
            return
        self._said_at = now
        text = line(step, self._total, figures)
        if not self._bar:
            print(text, file=self._out, flush=True)
            return
        done = 24 * step.step // self._total
        print(f"\r\x1b[K[{'█' * done}{'·' * (24 - done)}] {text}", end="\n" if last else "", file=self._out, flush=True)

    def say(self, text: str) -> None:
        """A sentence on a line of its own."""
        print(f"\r\x1b[K{text}" if self._bar else text, file=self._out, flush=True)

    def _failed(self, error: OSError) -> None:
        if not self._told:
            self._told = True
            self.say(f"log {self._log} cannot be written, training goes on without it: {error}")


def line(step: Step, total: int, figures: Figures) -> str:
    share = "unknown" if figures.mfu is None else f"{figures.mfu:.1%}"
    text = (
        f"step {step.step}/{total} loss {step.loss:.4f} grad_norm {step.grad_norm:.3f} "
        f"{1000 * step.step_seconds:.0f} ms {figures.tokens_per_second:,.0f} tokens/s mfu {share} "
        f"data {figures.data_share:.1%} memory {figures.memory / 2**30:.2f} GiB"
    )
    if figures.stall:
        text += f" checkpoint {1000 * figures.stall:.0f} ms"
    return text if step.eval_loss is None else f"{text} eval_loss {step.eval_loss:.4f}"


def _rewind(log: Path, step: int) -> None:
    """Keep the lines up to `step`; move the others, and what a crash left of a last line, to LOG.superseded."""
    kept: list[str] = []
    moved: list[str] = []
    for text in log.read_text().splitlines(keepends=True):
        (kept if _step_of(text) <= step else moved).append(text)
    if not moved:
        return
    with log.with_name(f"{log.name}.superseded").open("a") as file:
        file.writelines(moved)
    temporary = log.with_name(f".{log.name}.new")
    with temporary.open("w") as file:
        file.writelines(kept)
        file.flush()
        os.fsync(file.fileno())
    temporary.rename(log)


def _step_of(text: str) -> float:
    try:
        return float(json.loads(text)["step"])
    except (ValueError, KeyError, TypeError):
        return float("inf")
