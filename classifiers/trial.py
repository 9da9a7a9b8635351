"""Every rule's examples against every rule: what must match does, what must not does not, and who shadows whom."""

from collections.abc import Iterator
from dataclasses import dataclass

from classifiers.attribution import attribute
from classifiers.base import Cue, Role, Rule
from classifiers.blocks import Line, Raised
from classifiers.engine import Engine, hits_of
from classifiers.patterns import Matcher
from classifiers.rulebook import Rulebook
from classifiers.scanner import Reader, Scanner


@dataclass(frozen=True, slots=True)
class Shadow:
    """An example of `rule` for which `by`, of another cause, is chosen."""

    rule: str
    example: str
    by: str
    cause: str


def problems(book: Rulebook, matcher: Matcher) -> Iterator[str]:
    """What is wrong with the rules' own examples, one sentence each. book: of `rulebook.read`, which has them."""
    reader = Reader(book)
    for rule in book.rules:
        yield from (
            f"{rule.id}: its example does not match: {e}"
            for e in rule.examples
            if rule.id not in _hit(book, matcher, reader, e)
        )
        yield from (
            f"{rule.id}: its near miss matches: {e}"
            for e in rule.near_misses
            if rule.id in _hit(book, matcher, reader, e)
        )
    for cue in book.cues:
        yield from _cue_problems(cue, reader)


def _cue_problems(cue: Cue, reader: Reader) -> Iterator[str]:
    if not reader.matches(cue, _raised(cue.example, cue.frame)):
        yield f"cue {cue.id}: its example does not match: {cue.example}"
    if reader.matches(cue, _raised(cue.near_miss, cue.frame)):
        yield f"cue {cue.id}: its near miss matches: {cue.near_miss}"


def _raised(text: str, frame: str) -> Raised:
    name, _, message = text.partition(": ")
    return Raised(name, message, Line(1, text, 1), [frame], 1, 0, "", ignored=False)


def _hit(book: Rulebook, matcher: Matcher, reader: Reader, text: str) -> set[str]:
    """The rules that match the line, found the way a log is read."""
    data = text.encode()
    called = {number for _, literal in matcher.scan(data) for number in book.index.rules[literal]}
    return {book.rules[number].id for number in called if reader.reads(number, data) is not None}


def shadows(engine: Engine, book: Rulebook) -> list[Shadow]:
    """Examples of roots for which, alone in a log, another cause is chosen."""
    found = []
    for rule in book.rules:
        if rule.role is Role.ROOT:
            found += [shadow for example in rule.examples if (shadow := _shadowed(engine, rule, example)) is not None]
    return found


def _shadowed(engine: Engine, rule: Rule, example: str) -> Shadow | None:
    counter = iter(range(1_000_000))
    scanner = Scanner("example", engine.matcher, Reader(engine.book), 2000, None, "", lambda: next(counter))
    scanner.feed(example.encode() + b"\n")
    scanner.flush()
    chosen = attribute(hits_of(scanner)).chosen
    if chosen is None or chosen.rule == rule.id or chosen.cause == rule.cause:
        return None
    return Shadow(rule.id, example, chosen.rule, chosen.cause)
