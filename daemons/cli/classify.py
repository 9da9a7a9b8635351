"""`muster classify`: what the logs say."""

import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import click
import msgspec

from classifiers.base import NONE, UNKNOWN, Explanation, Verdict
from classifiers.engine import Engine
from classifiers.inputs import STDIN, Unreadable, found, read
from classifiers.rulebook import RuleError
from daemons.errors import MusterError

if TYPE_CHECKING:
    from classifiers.engine import Session

# What is printed of hits that lost: the rest is in --json.
_MOST_SHOWN = 30


@click.command()
@click.argument("paths", nargs=-1, type=click.Path(path_type=Path))
@click.option("--json", "as_json", is_flag=True, help="One JSON object: cause, confidence, evidence, rank, ...")
@click.option("--explain", is_flag=True, help="Also every rule that hit, and why it won or lost.")
@click.option("--rules", "rules", multiple=True, type=click.Path(path_type=Path), help="A directory of more rules.")
@click.pass_obj
def command(
    config_path: Path | None, paths: tuple[Path, ...], as_json: bool, explain: bool, rules: tuple[Path, ...]
) -> None:
    """Name the root cause in the logs of a job: files, directories, .gz, .zst, or standard input.

    Give the logs of all ranks at once: the rank that failed first is named, and what its failure did to the others.
    """
    session = _session(load_engine(config_path, rules), paths)
    verdict, explanation = session.explanation() if explain else (session.verdict(), [])
    if as_json:
        whole: object = verdict if not explain else msgspec.to_builtins(verdict) | {"explanation": explanation}
        sys.stdout.write(msgspec.json.encode(whole).decode() + "\n")
    else:
        _show(verdict, explanation)


def load_engine(config_path: Path | None, rules: tuple[Path, ...]) -> Engine:
    """The engine with the rules of configuration and command line. Raises MusterError for rules that are wrong."""
    try:
        return Engine.load([*configured(config_path), *rules])
    except RuleError as error:
        raise MusterError(str(error)) from error


def configured(config_path: Path | None) -> list[Path]:
    """The directories of rules that the configuration names; no file is read when there is none to read."""
    if config_path is None and not os.environ.get("MUSTER_CONFIG") and not Path("/etc/muster/muster.toml").exists():
        return []
    from daemons.config import load

    return [Path(directory) for directory in load(config_path).classify.rules]


def _session(engine: Engine, paths: tuple[Path, ...]) -> "Session":
    if not paths or paths == (Path(STDIN),):
        if not paths and sys.stdin.isatty():
            raise MusterError("no logs: name files or directories, or pipe a log in")
        return read(engine, [], stdin=sys.stdin.buffer)
    try:
        sources = found(paths)
    except Unreadable as error:
        raise MusterError(str(error)) from error
    if not sources:
        raise MusterError(f"{paths[0]}: holds no logs")
    return read(engine, sources)


def _show(verdict: Verdict, explanation: list[Explanation]) -> None:
    for line in lines(verdict):
        click.echo(line)
    if explanation:
        click.echo("\nrules that hit:")
    for one in explanation[:_MOST_SHOWN]:
        where = f"{one.evidence.file}:{one.evidence.line}"
        click.echo(f"  {one.rule} ({one.cause}, {one.role} {one.weight}, {one.count}x) {where}: {one.fate}")
        click.echo(f"      {one.evidence.text[:160]}")
    if len(explanation) > _MOST_SHOWN:
        click.echo(f"  and {len(explanation) - _MOST_SHOWN} more (--json shows all)")


def lines(verdict: Verdict) -> list[str]:
    """The verdict for people."""
    said = [f"{click.style(verdict.cause, bold=True)}   confidence {verdict.confidence:.2f}"]
    if verdict.cause == NONE:
        said[0] += "   nothing in here is a failure"
    if verdict.evidence is not None:
        said += [f"  {verdict.evidence.file}:{verdict.evidence.line}", f"  {verdict.evidence.text}"]
    if verdict.rank is not None or verdict.host:
        first = [f"rank {verdict.rank}"] if verdict.rank is not None else []
        said.append(f"first: {', '.join([*first, *([verdict.host] if verdict.host else [])])}")
    if verdict.cause == UNKNOWN:
        said += [f"  {one.file}:{one.line}  {one.text[:200]}" for one in verdict.suspects[1:8]]
        said.append(f"no rule explains it; fingerprint {verdict.fingerprint} (name it in a rules directory: [[named]])")
    for one in verdict.cascades:
        ranks = f" in ranks {', '.join(map(str, one.ranks[:16]))}" if one.ranks else ""
        said.append(f"consequence: {one.cause}{ranks}: {one.evidence.text[:120]}")
    said += [f"also in the logs: {one.cause}: {one.evidence.text[:120]}" for one in verdict.also]
    said += [f"note: {note}" for note in verdict.notes]
    if verdict.advice:
        said.append(f"next: {verdict.advice}")
    return said
