"""What is remembered of pairs: history, ages, the next canary's round, slow drift; and pictures of it."""

import random
from pathlib import Path

import pytest

from checks.pairs import heatmap
from checks.pairs.drift import change
from checks.pairs.matrix import Matrix, one_round
from checks.pairs.runner import Answer, Outcome, Rate


def measured(a: str, b: str, forth: float, back: float) -> Outcome:
    rates = [Rate(gigabytes=forth)], [Rate(gigabytes=back)]
    return Outcome(a=a, b=b, answer=Answer.MEASURED, forth=rates[0], back=rates[1])


@pytest.fixture
def matrix(tmp_path: Path) -> Matrix:
    return Matrix(tmp_path / "pairs.db")


def test_a_pairs_history_is_told_in_the_direction_it_is_asked_for(matrix: Matrix) -> None:
    matrix.add(measured("b", "a", 1.0, 2.0), "iperf3", 10.0)
    (entry,) = matrix.history("a", "b")
    assert (entry.forth, entry.back) == (2.0, 1.0)
    (entry,) = matrix.history("b", "a")
    assert (entry.a, entry.forth, entry.back) == ("b", 1.0, 2.0)
    matrix.close()


def test_what_says_nothing_of_the_pair_is_not_kept_and_silence_is(matrix: Matrix) -> None:
    matrix.add(Outcome(a="a", b="b", answer=Answer.UNKNOWN, note="iperf3: not installed"), "iperf3", 1.0)
    matrix.add(Outcome(a="a", b="c", answer=Answer.SILENT), "iperf3", 2.0)
    assert matrix.history("a", "b") == []
    assert [entry.forth for entry in matrix.history("a", "c")] == [0.0]
    matrix.close()


def test_canary_rounds_cover_every_pair_the_oldest_first(matrix: Matrix) -> None:
    nodes = [f"n{i}" for i in range(6)]
    for hour in range(5 + 2):
        for a, b in one_round(matrix, nodes, float(hour)):
            matrix.add(measured(nodes[a], nodes[b], 1.0, 1.0), "torch", float(hour))
    share, oldest = matrix.coverage(nodes, 7.0, horizon=100.0)
    assert share == 1.0
    assert oldest <= 7.0
    assert matrix.coverage(nodes, 7.0, horizon=0.5)[0] < 1.0
    matrix.close()


def test_old_measurements_can_be_dropped(matrix: Matrix) -> None:
    for at in (1.0, 2.0, 3.0):
        matrix.add(measured("a", "b", 1.0, 1.0), "torch", at)
    assert matrix.forget(before=3.0) == 2
    assert len(matrix.history("a", "b")) == 1
    matrix.close()


def series(level: list[float], seed: int = 1) -> list[float]:
    chance = random.Random(seed)
    return [value * chance.lognormvariate(0, 0.01) for value in level]


def test_a_change_of_level_is_found_with_its_place_and_size() -> None:
    found = change(series([50.0] * 30 + [46.0] * 20))
    assert found is not None
    assert abs(found.index - 30) <= 1
    assert found.percent == pytest.approx(-8, abs=1)


def test_a_steady_link_has_no_change() -> None:
    assert [change(series([50.0] * 60, seed)) for seed in range(50)] == [None] * 50


def test_too_few_measurements_are_no_series() -> None:
    assert change([50.0] * 3 + [20.0] * 4) is None


def test_the_picture_tells_slow_dead_and_unmeasured_apart() -> None:
    nodes = ["a", "b", "c", "d"]
    outcomes = [
        measured("a", "b", 10.0, 10.0),
        measured("a", "c", 10.0, 5.0),
        Outcome(a="b", b="c", answer=Answer.SILENT),
        Outcome(a="a", b="d", answer=Answer.UNKNOWN),
    ]
    values = heatmap.cells(outcomes)
    assert heatmap.text(nodes, values).splitlines() == [
        "a \\##?",
        "b #\\X?",
        "c  X\\?".replace("c  X", "c  X"),
        "d ???\\",
    ]
    picture = heatmap.svg(nodes, values, "<title>")
    assert picture.count("<rect") == 12
    assert "&lt;title&gt;" in picture
    assert "c to a: 5.000 GB/s" in picture
    assert heatmap.csv(nodes, values).splitlines()[1] == "a,b,10.000000"
