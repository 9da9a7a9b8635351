"""The rules: TOML files of the package and of the user, checked, merged, and kept compiled between runs."""

import hashlib
import tomllib
from collections.abc import Iterable
from pathlib import Path
from typing import Annotated, Any

import msgspec

from classifiers import cache
from classifiers.base import NONE, UNKNOWN, Cue, Role, Rule, Weight
from classifiers.literals import literals
from classifiers.patterns import Hyperscan, Index, Matcher, Re2, available, compiled

_PACKAGE = Path(__file__).parent
# What the cache holds is made by these: another version of them makes another one.
_MADE_BY = ("base.py", "literals.py", "patterns.py", "rulebook.py")


class RuleError(ValueError):
    """A rules file is wrong: the message begins with file and rule."""


class Cause(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """One cause of the vocabulary. advice names the next command to run; {host} is filled in where it is known."""

    id: str
    title: str
    meaning: str
    advice: str


class Override(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What a user changes of a rule or cue that ships: only the keys that are given."""

    id: str
    enabled: bool = True
    cause: str | None = None
    role: Role | None = None
    weight: Weight | None = None
    advice: str | None = None


class Named(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A failure that no rule explained once, recognised by its fingerprint."""

    fingerprint: Annotated[str, msgspec.Meta(pattern=r"^[0-9a-f]{16}$")]
    cause: str
    name: str
    advice: str = ""


class RulesFile(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """One file of rules."""

    rule: tuple[Rule, ...] = ()
    cue: tuple[Cue, ...] = ()
    override: tuple[Override, ...] = ()
    named: tuple[Named, ...] = ()


class Rulebook(msgspec.Struct, frozen=True, kw_only=True):
    """Everything the engine goes by. digest: of all files; two engines of one digest say the same."""

    causes: dict[str, Cause]
    rules: tuple[Rule, ...]
    index: Index
    cues: tuple[Cue, ...]
    named: dict[str, Named]
    digest: str


def read(directories: Iterable[Path] = ()) -> Rulebook:
    """The rules that ship, then those of the directories: a later rule of the same id takes the place of an earlier.

    Raises RuleError that names file, rule and what is wrong.
    """
    return _read(_files(directories))


def load(directories: Iterable[Path] = ()) -> tuple[Rulebook, Matcher]:
    """Rules and their matcher, from the cache when nothing has changed. Raises RuleError."""
    files = _files(directories)
    digest = _digest(files)
    engine = "hyperscan" if available() else "re2"
    kept = cache.read(f"rules-{engine}-{digest}")
    if kept is not None:
        book, database = msgspec.msgpack.decode(kept, type=tuple[Rulebook, bytes])
        return book, Hyperscan.load(database) if engine == "hyperscan" else Re2(book.index)
    book = _read(files)
    matcher = Hyperscan.of(book.index) if engine == "hyperscan" else Re2(book.index)
    database = matcher.dump() if isinstance(matcher, Hyperscan) else b""
    cache.write(f"rules-{engine}-{digest}", msgspec.msgpack.encode((_lean(book), database)))
    return book, matcher


def _lean(book: Rulebook) -> Rulebook:
    """Without what only people and tests read: it would be half of what a start has to decode."""
    rules = tuple(msgspec.structs.replace(r, why="", source="", examples=("",), near_misses=("",)) for r in book.rules)
    cues = tuple(msgspec.structs.replace(c, why="", example="", near_miss="", frame="") for c in book.cues)
    return msgspec.structs.replace(book, rules=rules, cues=cues)


def _files(directories: Iterable[Path]) -> list[tuple[str, bytes]]:
    ours = [_PACKAGE / "causes.toml", *sorted((_PACKAGE / "rules").glob("*.toml"))]
    found = [(path.name, path.read_bytes()) for path in ours]
    for directory in directories:
        if not directory.is_dir():
            raise RuleError(f"{directory}: is not a directory of rules (*.toml)")
        found += [(str(path), path.read_bytes()) for path in sorted(directory.glob("*.toml"))]
    return found


def _digest(files: list[tuple[str, bytes]]) -> str:
    digest = hashlib.sha256()
    for code in _MADE_BY:
        digest.update((_PACKAGE / code).read_bytes())
    for name, data in files:
        digest.update(f"{name}:{len(data)}:".encode() + data)
    return digest.hexdigest()[:32]


def _read(files: list[tuple[str, bytes]]) -> Rulebook:
    causes = {cause.id: cause for cause in _decode(*files[0], type=dict[str, tuple[Cause, ...]])["cause"]}
    rules: dict[str, Rule] = {}
    cues: dict[str, Cue] = {}
    named: dict[str, Named] = {}
    for name, data in files[1:]:
        page = _decode(name, data, type=RulesFile)
        for rule in page.rule:
            _check(name, rule, causes)
            rules[rule.id] = rule
        for cue in page.cue:
            _check(name, cue, causes)
            cues[cue.id] = cue
        for change in page.override:
            _override(name, change, rules, cues, causes)
        named |= {one.fingerprint: one for one in page.named}
    ordered = tuple(sorted(cues.values(), key=lambda cue: -cue.weight))
    every = tuple(rules.values())
    return Rulebook(causes=causes, rules=every, index=Index.of(every), cues=ordered, named=named, digest=_digest(files))


def _decode(name: str, data: bytes, type: Any) -> Any:
    try:
        return msgspec.convert(tomllib.loads(data.decode()), type)
    except (UnicodeDecodeError, tomllib.TOMLDecodeError) as error:
        raise RuleError(f"{name}: not valid TOML: {error}") from error
    except msgspec.ValidationError as error:
        raise RuleError(f"{name}: {error}") from error


def _check(name: str, rule: Rule | Cue, causes: dict[str, Cause]) -> None:
    if rule.cause not in causes and rule.cause not in (NONE, UNKNOWN):
        raise RuleError(f"{name}: {rule.id}: there is no cause {rule.cause!r}; docs/causes.md lists them")
    texts = (rule.type, rule.message, rule.frames) if isinstance(rule, Cue) else (rule.unless,)
    try:
        if isinstance(rule, Rule):
            literals(rule.pattern, rule.ignore_case)
            compiled(rule.pattern, rule.ignore_case)
        for text in texts:
            compiled(text)
    except ValueError as error:
        raise RuleError(f"{name}: {rule.id}: {error}") from error


def _override(
    name: str, change: Override, rules: dict[str, Rule], cues: dict[str, Cue], causes: dict[str, Cause]
) -> None:
    table: dict[str, Any] = rules if change.id in rules else cues
    if change.id not in table:
        raise RuleError(f"{name}: override of {change.id!r}: there is no such rule (`muster rules list` shows them)")
    if not change.enabled:
        del table[change.id]
        return
    given = {key: value for key in ("cause", "role", "weight", "advice") if (value := getattr(change, key)) is not None}
    table[change.id] = msgspec.structs.replace(table[change.id], **given)
    _check(name, table[change.id], causes)
