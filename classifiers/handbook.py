"""docs/causes.md: every cause with what it means, how it is recognised and what to do, made from rules and causes."""

from collections.abc import Iterator

from classifiers.base import Cue, Role, Rule
from classifiers.rulebook import Rulebook

_HEAD = """# Causes

What `muster` says a failure comes from, in one vocabulary for checks, logs, canaries and stuck jobs. This page is made
from `classifiers/causes.toml` and `classifiers/rules/*.toml` (`make update-golden` writes it anew). Beside these causes
a verdict may be `none` (nothing in the logs is a failure) or `unknown` (a failure that no rule explains; it shows the
most suspicious lines and a fingerprint).

A site adds rules in a directory named under `[classify] rules`: the same tables as in the files above, `[[override]]`
to change or disable (`enabled = false`) what ships, and `[[named]]` to give a fingerprint a cause and a name.
`muster rules test DIR` runs their examples; `muster classify --explain` shows which rules hit, and why one won.

A rule's weight, 0 to 100, says how much its line tells of the cause. A *root* names a cause; a *hint* explains a
failure that something else proves; a *cascade* is a consequence and is never chosen while there is a root or a hint.
"""


def page(book: Rulebook) -> str:
    """The whole page. book: of `rulebook.read`, which has the examples."""
    return "\n".join([_HEAD, *(line for cause in book.causes for line in _section(book, cause))]).rstrip() + "\n"


def _section(book: Rulebook, cause: str) -> Iterator[str]:
    about = book.causes[cause]
    yield f"## {cause}\n\n{about.title}. {about.meaning}\n\n**Next.** {about.advice}\n"
    rules = [rule for rule in book.rules if rule.cause == cause]
    cues = [cue for cue in book.cues if cue.cause == cause]
    yield "Recognised by:\n"
    yield from map(_line, sorted(rules, key=lambda rule: (-rule.weight, rule.id)))
    yield from map(_line, sorted(cues, key=lambda cue: (-cue.weight, cue.id)))
    yield ""


def _line(rule: Rule | Cue) -> str:
    role = "" if rule.role is Role.ROOT else f", {rule.role}"
    kind, example = ("rule", rule.examples[0]) if isinstance(rule, Rule) else ("exception", rule.example)
    return f"- {kind} `{rule.id}` ({rule.weight}{role}): {rule.why} E.g. {_quoted(example)}"


def _quoted(text: str) -> str:
    short = text.strip() if len(text.strip()) <= 110 else text.strip()[:107] + "..."
    return f"`` {short} ``" if "`" in short else f"`{short}`"
