"""`muster record`: save this node as a directory that scan, the agent and tests can run against."""

import tempfile
from pathlib import Path
from typing import Any

import click
import msgspec

from checks.base import Check
from checks.host import Host
from checks.prober import ProbeError
from checks.recording import Notes, merge, note_check, nvml_answers, write
from daemons.config import Config, load
from daemons.errors import MusterError
from daemons.scrubbing import Scrubber

# A check is given this long beyond its own deadline: the notes are read once more after it.
_SLACK_SECONDS = 20.0


@click.command()
@click.argument("directory", type=click.Path(path_type=Path))
@click.option("--scrub", is_flag=True, help="Replace serials, UUIDs, addresses and host names, each by the same word.")
@click.option("--check", "names", multiple=True, metavar="NAME", help="Only what this check reads; may be repeated.")
@click.pass_obj
def command(config_path: Path | None, directory: Path, scrub: bool, names: tuple[str, ...]) -> int:
    """Save what the checks read of this node: NVML's answers, /proc, /sys, kernel log, commands, clock, versions.

    Run against it with `muster scan --replay DIRECTORY`. Exit 0 when every check could be recorded, else 3.
    """
    from daemons.cli.scan import chosen

    config = load(config_path)
    if directory.exists() and (not directory.is_dir() or any(directory.iterdir())):
        raise MusterError(f"{directory}: is not empty: give a directory that is new or empty")
    host = Host(node=config.node.name)
    try:
        notes, nvml = record(host, chosen(names, config), config)
    finally:
        host.close()
    answers = _answers(host, notes)
    if scrub:
        scrubber = Scrubber.of(host.node, nvml)
        notes.tree = msgspec.convert(scrubber.tree(msgspec.to_builtins(notes.tree)), type(notes.tree))
        answers, nvml = scrubber.tree(answers), scrubber.tree(nvml)
    try:
        write(directory, notes, answers, nvml)
    except OSError as error:
        raise MusterError(f"{directory}: {error.strerror}") from error
    _say(directory, notes, nvml)
    return 3 if notes.failed else 0


def record(host: Host, checks: list[Check], config: Config) -> tuple[Notes, dict[str, Any]]:
    """What these checks read on that machine, each in a killable child, and everything that NVML answers."""
    nvml = nvml_answers(host.nvml.source)
    notes = Notes()
    with tempfile.TemporaryDirectory(prefix="muster-record-") as temporary:
        path = Path(temporary) / "nvml.json"
        path.write_bytes(msgspec.json.encode(nvml))
        for check in checks:
            settings = config.check(check.name)
            try:
                found = host.prober.call(
                    f"record:{check.name}",
                    f"{note_check.__module__}:{note_check.__name__}",
                    check.name,
                    settings,
                    str(host.root),
                    host.node,
                    str(path),
                    deadline=settings.deadline + _SLACK_SECONDS,
                )
            except ProbeError as error:
                notes.failed.append(f"{check.name}: {error}")
                continue
            merge(notes, found)
    return notes, nvml


def _answers(host: Host, notes: Notes) -> dict[str, Any]:
    answers: dict[str, Any] = {
        "node": host.node,
        "now": host.clock.now(),
        "sizes": msgspec.to_builtins(notes.sizes),
        "commands": msgspec.to_builtins(notes.commands),
    }
    if notes.clock is not None:
        answers["clock"] = msgspec.to_builtins(notes.clock)
    return answers


def _say(directory: Path, notes: Notes, nvml: dict[str, Any]) -> None:
    gpus = len(nvml["gpus"])
    tree = notes.tree
    click.echo(
        f"{directory}: {len(tree.files) + len(tree.binary)} files, {len(notes.commands)} commands, {gpus} GPUs;"
        f" look at it with `muster scan --replay {directory}`"
    )
    for line in notes.failed:
        click.echo(f"not whole: {line}", err=True)
