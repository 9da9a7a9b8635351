"""How often the engine is right on the labelled corpus, with the confusion table; skipped where the corpus is not.

`pytest -s tests/accuracy` prints it. The goals are the project's own; the corpus stays outside of it.
"""

import json
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from classifiers.engine import Engine

CORPUS = Path(__file__).parents[3] / "shared" / "corpus" / "dev.jsonl"
ACCEPTED, EVIDENCE, HEALTHY = 0.95, 0.90, 0.02


@dataclass
class Score:
    """Counts over the corpus: rows, right ones, evidence lines that are the labelled ones, healthy rows called ill."""

    rows: int = 0
    right: int = 0
    shown: int = 0
    evidence: int = 0
    healthy: int = 0
    alarms: int = 0
    confused: Counter[tuple[str, str]] = field(default_factory=Counter)

    def table(self) -> str:
        lines = [
            f"accepted causes  {self.right}/{self.rows} = {self.right / self.rows:.3f}",
            f"evidence line    {self.evidence}/{self.shown} = {self.evidence / self.shown:.3f} (of the right ones)",
            f"false alarms     {self.alarms}/{self.healthy} healthy logs",
        ]
        lines += [f"  {label:32} taken for {cause}: {n}" for (label, cause), n in sorted(self.confused.items())]
        return "\n".join(lines)


def same_line(said: str, wanted: str) -> bool:
    """Whether a verdict's text is the labelled line: whole, or one within the other where a line was cut."""
    said, wanted = said.strip(), wanted.strip()
    return said == wanted or (len(wanted) > 20 and (wanted in said or said in wanted)) or said[:150] == wanted[:150]


def score(engine: Engine, corpus: Path) -> Score:
    total = Score()
    for text in corpus.read_text(encoding="utf-8").splitlines():
        row = json.loads(text)
        session = engine.session()
        session.feed("log", row["text"].encode())
        verdict = session.verdict()
        right = verdict.cause in (row["label"], *row["accept"])
        total.rows += 1
        total.right += right
        if row["label"] == "none":
            total.healthy += 1
            total.alarms += not right
        elif right:
            total.shown += 1
            total.evidence += verdict.evidence is not None and same_line(verdict.evidence.text, row["root_line"])
        if not right:
            total.confused[row["label"], verdict.cause] += 1
    return total


def test_the_development_corpus_meets_the_goals() -> None:
    if not CORPUS.exists():
        pytest.skip("needs the labelled corpus beside the project: shared/corpus/dev.jsonl")
    found = score(Engine.load(), CORPUS)
    print(found.table())
    assert found.right / found.rows >= ACCEPTED, found.table()
    assert found.evidence / found.shown >= EVIDENCE, found.table()
    assert found.alarms / found.healthy <= HEALTHY, found.table()


def test_a_cut_line_is_the_same_line() -> None:
    assert same_line("RuntimeError: CUDA error: out of memory at x", "CUDA error: out of memory")
    assert not same_line("RuntimeError: CUDA error: out of memory", "RuntimeError: something else entirely here")
