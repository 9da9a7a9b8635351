"""The rules that ship: every example, every near miss, and nobody in anybody's way."""

from pathlib import Path

import pytest

from classifiers import rulebook
from classifiers.engine import Engine
from classifiers.patterns import Hyperscan, Re2
from classifiers.rulebook import RuleError
from classifiers.trial import problems, shadows

GOOD = """
[[rule]]
id = "site-fan"
cause = "gpu.thermal_power"
pattern = 'FANWALL (?P<host>\\w+) degraded'
weight = 95
why = "Our own monitor."
source = "site"
examples = ["FANWALL n7 degraded"]
near_misses = ["FANWALL fine"]
"""


@pytest.fixture(scope="module")
def book() -> rulebook.Rulebook:
    return rulebook.read()


def test_every_example_matches_its_rule_and_no_near_miss_does(book: rulebook.Rulebook) -> None:
    assert list(problems(book, Hyperscan.of(book.index))) == []


def test_no_rule_shadows_the_example_of_another_cause(book: rulebook.Rulebook) -> None:
    assert shadows(Engine(book, Hyperscan.of(book.index)), book) == []


def test_every_cause_of_the_vocabulary_has_a_rule_and_advice_with_a_command(book: rulebook.Rulebook) -> None:
    assert len(book.causes) == 31
    assert set(book.causes) - {rule.cause for rule in book.rules} == set()
    assert [cause.id for cause in book.causes.values() if cause.advice.count("`") < 2] == []


def test_both_engines_find_the_same_rules_in_every_example(book: rulebook.Rulebook) -> None:
    hyperscan, re2 = Hyperscan.of(book.index), Re2(book.index)
    lines = [line for rule in book.rules for line in (*rule.examples, *rule.near_misses)]
    log = "\n".join([*lines, *(line.upper() for line in lines)]).encode()
    assert hyperscan.scan(log) == re2.scan(log)
    assert len(hyperscan.scan(log)) > len(book.rules)


def test_a_site_adds_a_rule(tmp_path: Path) -> None:
    (tmp_path / "own.toml").write_text(GOOD)
    session = Engine.load([tmp_path]).session()
    session.feed("log", b"ok\nFANWALL n7 degraded\n")
    verdict = session.verdict()
    assert (verdict.cause, verdict.host, verdict.evidence and verdict.evidence.line) == ("gpu.thermal_power", "n7", 2)


def test_a_site_overrides_and_disables_rules_that_ship(tmp_path: Path) -> None:
    (tmp_path / "own.toml").write_text(
        '[[override]]\nid = "mce"\nweight = 1\ncause = "program.python"\n[[override]]\nid = "lockup"\nenabled = false\n'
    )
    book = rulebook.read([tmp_path])
    (mce,) = [rule for rule in book.rules if rule.id == "mce"]
    assert (mce.weight, mce.cause) == (1, "program.python")
    assert "lockup" not in {rule.id for rule in book.rules}


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (("gpu.thermal_power", "gpu.hot"), "there is no cause 'gpu.hot'"),
        (("FANWALL (?P<host>\\w+) degraded", "FAN(?=x)"), "only (?:...) and (?P<name>...) groups are allowed"),
        (("FANWALL (?P<host>\\w+) degraded", "\\d+ .*"), "must hold a fixed text of 4 characters"),
        (("FANWALL (?P<host>\\w+) degraded", "FANWALL ("), "missing )"),
        (('why = "Our own monitor."', "wy = 1"), "unknown field `wy`"),
        (("weight = 95", "weight = 101"), "Expected `int` <= 100"),
    ],
)
def test_a_wrong_rule_is_named_with_its_file_and_fault(tmp_path: Path, change: tuple[str, str], said: str) -> None:
    path = tmp_path / "own.toml"
    assert change[0] in GOOD
    path.write_text(GOOD.replace(*change))
    with pytest.raises(RuleError) as error:
        rulebook.read([tmp_path])
    assert str(error.value).startswith(f"{path}: ")
    assert said in str(error.value)
