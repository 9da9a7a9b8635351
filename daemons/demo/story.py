"""What happened in a demonstration and when, as lines for people; pure."""

import enum
import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any


class Chapter(enum.StrEnum):
    """What a viewer waits for, in the order in which it is told."""

    TRAINING = "training"
    FAULT = "fault"
    DETECTED = "detected"
    ALERTED = "alerted"
    RESTARTED = "restarted"
    FINISHED = "finished"


@dataclass(slots=True)
class Story:
    """Chapters with their times in monotonic seconds. began: when the job was started."""

    began: float
    times: dict[Chapter, float] = field(default_factory=dict)

    def happened(self, chapter: Chapter, at: float) -> bool:
        """Note a chapter; False when it is known already."""
        if chapter in self.times:
            return False
        self.times[chapter] = at
        return True

    def line(self, chapter: Chapter, text: str) -> str:
        """One line of the story: since the fault once there was one, else since the start."""
        origin = self.times.get(Chapter.FAULT, self.began)
        after = self.times[chapter] - origin
        since = "start" if origin == self.began else "fault"
        return f"  {since} +{after:5.1f} s  {chapter:<9}  {text}"

    def summary(self) -> str:
        """The whole story in one line, once it is over."""
        fault = self.times.get(Chapter.FAULT)
        if fault is None or Chapter.FINISHED not in self.times:
            return "the demonstration was ended before its story was"
        told = ", ".join(
            f"{chapter} after {self.times[chapter] - fault:.1f} s"
            for chapter in (Chapter.DETECTED, Chapter.ALERTED, Chapter.RESTARTED, Chapter.FINISHED)
            if chapter in self.times
        )
        return f"one rank was killed: {told}; {self.times[Chapter.FINISHED] - self.began:.0f} s in all"


def steps_of(log: str) -> list[int]:
    """The steps in a trainer's log, one JSON object a line; half a line at its end is not there yet."""
    return [int(json.loads(line)["step"]) for line in log.splitlines() if line.endswith("}")]


def resumed_at(steps: Sequence[int], killed_at: int, checkpoint: int) -> int | None:
    """The first step that is done anew after the checkpoint, None while there is none.

    A trainer that resumes cuts its log back to the checkpoint, so the last step is another one than it was at the kill.
    """
    last = steps[-1] if steps else 0
    return checkpoint + 1 if last != killed_at and last > checkpoint else None


def verdict_text(verdict: Mapping[str, Any]) -> str:
    """A supervisor's verdict in a few words."""
    ranks = ", ".join(str(rank) for rank in verdict.get("ranks") or [])
    who = f"rank {ranks}" if ranks else "no rank"
    return f"{verdict.get('kind')}: {verdict.get('cause')}, {who} on {verdict.get('host') or 'this machine'}"


def of_job(incidents: Iterable[Mapping[str, Any]], job: str) -> Mapping[str, Any] | None:
    """The incident of the job, None while nobody was told of any."""
    for incident in incidents:
        if f"job/{job}" in str(incident):
            return incident
    return None
