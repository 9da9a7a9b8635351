"""Arbitrary bytes: no crash, no growth, and the same whatever the pieces and the engine."""

import string

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from classifiers import rulebook
from classifiers.base import Verdict
from classifiers.engine import Engine
from classifiers.literals import literals
from classifiers.patterns import Hyperscan, Re2, compiled

BOOK = rulebook.read()
FAST, SLOW = Engine(BOOK, Hyperscan.of(BOOK.index)), Engine(BOOK, Re2(BOOK.index))
# Lines that begin blocks, wrap, colour, name ranks: what could lead a reader astray, among noise.
TRAPS = [line.encode() for rule in BOOK.rules for line in (rule.examples[0], rule.near_misses[0])]
TRAPS += [
    b"Traceback (most recent call last):",
    b'  File "a.py", line 1, in f',
    b"KeyError: 1",
    b"[rank3]: ",
    b"\x1b[31m",
]
TRAPS += [
    b"The above exception was the direct cause of the following exception:",
    b"Root Cause (first observed failure):",
]
TRAPS += [b'{"log": "x\\n"}', b'{"MESSAGE": [1, 2]}', b"\xff\xfe", b"\r", b"\0", b"{", b"exitcode : -9 (pid: 3)"]
logs = st.lists(st.sampled_from(TRAPS) | st.binary(max_size=80), max_size=60).map(b"\n".join)
relaxed = settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.too_slow])


def verdict(engine: Engine, log: bytes, piece: int) -> Verdict:
    session = engine.session()
    for start in range(0, len(log), piece):
        session.feed("log", log[start : start + piece])
    return session.verdict()


@relaxed
@given(log=logs, piece=st.integers(1, 500))
def test_any_bytes_give_a_verdict_that_the_pieces_do_not_change(log: bytes, piece: int) -> None:
    whole, pieces = verdict(FAST, log, len(log) or 1), verdict(FAST, log, piece)
    assert (whole.cause, whole.evidence, whole.rank) == (pieces.cause, pieces.evidence, pieces.rank)
    assert 0 <= whole.confidence <= 1
    assert whole.bytes == len(log)


@relaxed
@given(log=logs)
def test_both_engines_say_the_same(log: bytes) -> None:
    fast, slow = verdict(FAST, log, 4096), verdict(SLOW, log, 4096)
    assert (fast.cause, fast.evidence, fast.rank, fast.fingerprint) == (
        slow.cause,
        slow.evidence,
        slow.rank,
        slow.fingerprint,
    )


pieces_of_patterns = st.recursive(
    st.text(string.ascii_letters + " :", min_size=1, max_size=8) | st.sampled_from(["[ab]", "[^x]", r"\d", ".", r"\."]),
    lambda inner: (
        st.lists(inner, min_size=2, max_size=3).map(lambda parts: f"(?:{'|'.join(parts)})")
        | st.lists(inner, min_size=2, max_size=4).map("".join)
        | inner.map(lambda part: f"(?:{part})?")
        | inner.map(lambda part: f"(?:{part})+")
        | inner.map(lambda part: f"(?:{part}){{0,3}}")
    ),
    max_leaves=12,
)


@settings(max_examples=400, deadline=None)
@given(pattern=pieces_of_patterns, text=st.text(string.ascii_letters + " :.0", max_size=40), caseless=st.booleans())
def test_what_a_pattern_matches_holds_one_of_its_literals(pattern: str, text: str, caseless: bool) -> None:
    try:
        needed, either = literals(pattern, caseless)
    except ValueError:
        return
    found = compiled(pattern, caseless).search(text.encode())
    where = text.lower() if either else text
    assert found is None or any(one in where for one in needed)


@pytest.mark.parametrize("junk", [b"\n" * 500_000, b"(" * 500_000, b"Traceback (most recent call last):\n" * 20_000])
def test_a_flood_of_one_thing_keeps_memory_bounded(junk: bytes) -> None:
    session = FAST.session()
    for _ in range(4):
        session.feed("log", junk)
    _, explained = session.explanation()
    assert len(explained) < 200
