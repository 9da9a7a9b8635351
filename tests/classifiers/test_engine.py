"""The engine on whole logs: pieces of any size, long lines, odd encodings, many ranks."""

import pytest

from classifiers.base import Verdict
from classifiers.engine import Engine

OOM = b"torch.OutOfMemoryError: CUDA out of memory. Tried to allocate 3.00 GiB. GPU 0 has a total capacity"


@pytest.fixture(scope="module")
def engine() -> Engine:
    return Engine.load()


def said(engine: Engine, *logs: bytes, piece: int = 1 << 20) -> Verdict:
    session = engine.session()
    for index, log in enumerate(logs):
        for start in range(0, len(log), piece):
            session.feed(f"log{index}", log[start : start + piece])
    return session.verdict()


def place(verdict: Verdict) -> tuple[str, int]:
    assert verdict.evidence is not None
    return verdict.cause, verdict.evidence.line


@pytest.mark.parametrize("piece", [1, 7, 4096, 1 << 20])
def test_the_size_of_the_pieces_changes_nothing(engine: Engine, piece: int) -> None:
    log = b"step 1 loss 2.0\n" * 300 + OOM + b"\nbye\n"
    assert place(said(engine, log, piece=piece)) == ("gpu.out_of_memory", 301)


def test_nothing_at_all_is_no_failure(engine: Engine) -> None:
    verdict = said(engine, b"")
    assert (verdict.cause, verdict.evidence, verdict.cascades) == ("none", None, [])


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16", "utf-16-le", "utf-16-be"])
def test_text_of_any_encoding_is_read(engine: Engine, encoding: str) -> None:
    log = ("training on 4 ranks\nstep 1\n" + OOM.decode() + "\n").encode(encoding)
    assert place(said(engine, log)) == ("gpu.out_of_memory", 3)


def test_colours_inside_a_message_do_not_hide_it(engine: Engine) -> None:
    log = b"\x1b[32mINFO\x1b[0m ok\n\x1b[1;31mRuntimeError\x1b[0m: CUDA \x1b[31mout of\x1b[0m memory. Tried\n"
    verdict = said(engine, log)
    assert place(verdict) == ("gpu.out_of_memory", 2)
    assert verdict.evidence is not None
    assert verdict.evidence.text == "RuntimeError: CUDA out of memory. Tried"


def test_a_progress_bar_before_the_message_is_not_its_text(engine: Engine) -> None:
    verdict = said(engine, b"  3%| 1/30\r  6%| 2/30\r" + OOM + b"\n")
    assert verdict.evidence is not None
    assert (verdict.evidence.line, verdict.evidence.text) == (1, OOM.decode())


@pytest.mark.parametrize("before", [300_000, 262_144 - 20, 262_144 - 8192])
def test_a_message_deep_in_an_overlong_line_is_found(engine: Engine, before: int) -> None:
    log = b"first\n" + b"x" * before + b" " + OOM + b"y" * 300_000 + b"\nlast\n"
    assert place(said(engine, log, piece=100_000)) == ("gpu.out_of_memory", 2)


def test_the_first_rank_with_a_root_is_named_and_the_others_are_its_consequences(engine: Engine) -> None:
    session = engine.session()
    session.feed(
        "0.log", b"[rank0]: RuntimeError: [gloo/pair.cc:553] Connection closed by peer [10.0.0.2]:420\n", rank=0
    )
    session.feed(
        "1.log", b'Traceback (most recent call last):\n  File "t.py", line 3, in <module>\nKeyError: 7\n', rank=1
    )
    session.feed(
        "2.log", b"[rank2]: RuntimeError: [gloo/pair.cc:553] Connection closed by peer [10.0.0.2]:421\n", rank=2
    )
    verdict = session.verdict()
    assert (verdict.cause, verdict.rank) == ("program.python", 1)
    assert [(one.cause, one.ranks) for one in verdict.cascades] == [("net.peer_lost", [0, 2])]


def test_a_signal_is_evidence_where_the_logs_are_silent(engine: Engine) -> None:
    session = engine.session()
    session.feed("rank 2", b"step 1\nstep 2\n", rank=2)
    session.ended("rank 2", None, 9)
    verdict = session.verdict()
    assert (verdict.cause, verdict.rank) == ("host.out_of_memory", 2)


def test_an_unexplained_failure_shows_suspicious_lines_and_a_stable_fingerprint(engine: Engine) -> None:
    def of(run: str) -> Verdict:
        session = engine.session()
        session.feed("log", f"step {run}\nfrobnicator {run} went sideways: cannot continue\n".encode())
        session.ended("log", 3, None)
        return session.verdict()

    first, second = of("17"), of("88")
    assert (first.cause, first.fingerprint) == ("unknown", second.fingerprint)
    assert first.suspects[0].text == "frobnicator 17 went sideways: cannot continue"


def test_an_exception_that_python_ignored_is_no_failure(engine: Engine) -> None:
    log = (
        b"Exception ignored in: <function Pool.__del__ at 0x7f>\nTraceback (most recent call last):\n"
        b"  File \"pool.py\", line 2, in __del__\nTypeError: 'NoneType' object is not callable\n"
    )
    assert said(engine, log).cause == "none"


def test_source_code_that_a_traceback_quotes_is_not_what_happened(engine: Engine) -> None:
    log = (
        b'Traceback (most recent call last):\n  File "t.py", line 3, in <module>\n'
        b'    raise OSError("No space left on device")\nValueError: too many values to unpack\n'
    )
    assert place(said(engine, log)) == ("program.python", 4)


def test_memory_is_bounded_by_the_rules_and_not_by_the_hits(engine: Engine) -> None:
    session = engine.session()
    for _ in range(40):
        session.feed("log", (OOM + b"\n") * 5000)
    verdict, explained = session.explanation()
    assert verdict.cause == "gpu.out_of_memory"
    assert len(explained) < 100
