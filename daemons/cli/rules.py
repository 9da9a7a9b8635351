"""`muster rules`: the rules of log classification, and their examples."""

from pathlib import Path

import click

from classifiers import rulebook
from classifiers.base import Cue, Rule
from classifiers.engine import Engine
from classifiers.rulebook import RuleError
from classifiers.trial import problems, shadows
from daemons.cli.classify import configured
from daemons.errors import MusterError


@click.group()
def command() -> None:
    """Show the rules that explain logs, or try their examples."""


@command.command()
@click.argument("directories", nargs=-1, type=click.Path(path_type=Path))
@click.pass_obj
def test(config_path: Path | None, directories: tuple[Path, ...]) -> int:
    """Run every example and near miss, those of DIRECTORIES and the configuration included; exit 1 when one fails."""
    where = [*configured(config_path), *directories]
    try:
        engine, book = Engine.load(where), rulebook.read(where)
    except RuleError as error:
        raise MusterError(str(error)) from error
    wrong = list(problems(book, engine.matcher))
    for problem in wrong:
        click.echo(f"wrong: {problem}")
    for shadow in shadows(engine, book):
        click.echo(f"shadowed: {shadow.rule} by {shadow.by} ({shadow.cause}): {shadow.example[:120]}")
    examples = sum(len(rule.examples) + len(rule.near_misses) for rule in book.rules) + 2 * len(book.cues)
    click.echo(f"{len(book.rules)} rules, {len(book.cues)} cues, {examples} examples, {len(wrong)} wrong")
    return 1 if wrong else 0


@command.command(name="list")
@click.argument("directories", nargs=-1, type=click.Path(path_type=Path))
@click.pass_obj
def list_rules(config_path: Path | None, directories: tuple[Path, ...]) -> None:
    """Every rule and cue: id, cause, role, weight and why."""
    try:
        book = rulebook.read([*configured(config_path), *directories])
    except RuleError as error:
        raise MusterError(str(error)) from error
    every: list[Rule | Cue] = [*book.rules, *book.cues]
    for one in sorted(every, key=lambda rule: (rule.cause, -rule.weight, rule.id)):
        click.echo(f"{one.id}  {one.cause}  {one.role} {one.weight}  {one.why}")
