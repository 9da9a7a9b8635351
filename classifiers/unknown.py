"""What to show when no rule explains a failure: suspicious lines, and a fingerprint to know it by next time."""

import hashlib
from collections import Counter
from collections.abc import Iterable

import re2

from classifiers.base import Evidence

_MOST = 12
_MASKS = (
    (re2.compile(r"\d{4}-\d\d-\d\d[T ]\d\d:\d\d:\d\d[\d.,:+Z-]*"), "<time>"),
    (re2.compile(r"0x[0-9a-fA-F]+"), "<hex>"),
    (re2.compile(r"\b[0-9a-f]{8}(?:-[0-9a-f]{4}){3}-[0-9a-f]{12}\b"), "<uuid>"),
    (re2.compile(r"(?:/[\w.@+-]+){2,}/?"), "<path>"),
    (re2.compile(r"\d+(?:\.\d+)?(?:e[+-]?\d+)?"), "<n>"),
    (re2.compile(r"\s+"), " "),
)
_SUSPICIOUS = re2.compile(
    r"(?i)error|fail|fatal|abort|panic|critical|exception|cannot|could not|unable|denied|refused|timed? ?out|killed"
    r"|terminat|invalid|corrupt|missing|not found|traceback|segfault|core dumped|assert"
)
_HARMLESS = re2.compile(r"(?i)\b0 errors?\b|errors?[:=] *0\b|no errors?\b|error_rate|warning")


def template(text: str) -> str:
    """The line with everything that changes from run to run masked."""
    for pattern, mask in _MASKS:
        text = pattern.sub(mask, text)
    return text.strip()


def fingerprint(cause: str, lines: Iterable[str]) -> str:
    """16 hexadecimal digits; equal for the same failure of another run."""
    digest = hashlib.sha256(cause.encode())
    for line in lines:
        digest.update(b"\n" + template(line).encode())
    return digest.hexdigest()[:16]


def suspects(name: str, tail: str, lines_before: int) -> list[tuple[float, Evidence]]:
    """Lines of a source's end with a score, the most suspicious first: rare templates, alarming words, the last line.

    lines_before: how many lines of the source come before `tail`.
    """
    numbered = [(lines_before + index, line) for index, line in enumerate(tail.split("\n"), 1) if line.strip()]
    if not numbered:
        return []
    often = Counter(template(line) for _, line in numbered)
    scored = []
    for place, (number, line) in enumerate(numbered):
        alarming = bool(_SUSPICIOUS.search(line)) and not _HARMLESS.search(line)
        score = 2.0 * alarming + 1.0 / often[template(line)] + place / len(numbered)
        if place == len(numbered) - 1:
            score += 0.5
        scored.append((score, Evidence(file=name, line=number, text=line[:500].rstrip())))
    return sorted(scored, key=lambda one: -one[0])[:_MOST]
