"""What is known of a job when it is over: the file that `muster run --record` writes, and nothing else reads for us."""

from pathlib import Path
from typing import Literal

import msgspec

Kind = Literal["finished", "failed", "stuck", "stopped"]
Doing = Literal["data", "storage", "python", "lock", "stopped", "dead", "collective", "gpu", "network"]


class Verdict(msgspec.Struct, frozen=True, kw_only=True):
    """How an attempt ended, and whose doing it was.

    cause: an id of the taxonomy, "none" for a job that finished. ranks: the guilty ones. host: where they run.
    file, line, function: in the user's code; empty and 0 where nobody could tell. doing: what the guilty were at.
    detected_after_seconds: from the last progress to the verdict. bundle: path of the evidence, "" for none.
    summary, advice: for people; not part of the record's contract.
    """

    kind: Kind
    cause: str = "none"
    ranks: list[int] = []
    host: str = ""
    file: str = ""
    line: int = 0
    function: str = ""
    doing: Doing | None = None
    confidence: float = 1.0
    detected_after_seconds: float = 0.0
    bundle: str = ""
    summary: str = ""
    advice: str = ""


class Attempt(msgspec.Struct, frozen=True, kw_only=True):
    """One start of the job. exit: its code, negative for a signal as in Python. seconds: that it ran."""

    exit: int
    seconds: float
    verdict: Verdict


class Record(msgspec.Struct, kw_only=True):
    """The whole job. exit: what `muster run` itself ended with."""

    job: str
    exit: int = 0
    attempts: list[Attempt] = []

    def contract(self) -> dict[str, object]:
        """What other programs may rely on."""
        attempts = [
            {"exit": one.exit, "seconds": one.seconds, "verdict": _without(one.verdict, "summary", "advice")}
            for one in self.attempts
        ]
        return {"job": self.job, "exit": self.exit, "attempts": attempts}

    def write(self, path: Path) -> None:
        """Write it whole or not at all. Raises OSError."""
        path.parent.mkdir(parents=True, exist_ok=True)
        beside = path.with_name(f".{path.name}.part")
        beside.write_bytes(msgspec.json.format(msgspec.json.encode(self.contract()), indent=2) + b"\n")
        beside.replace(path)


def _without(verdict: Verdict, *names: str) -> dict[str, object]:
    return {key: value for key, value in msgspec.structs.asdict(verdict).items() if key not in names}
