"""`muster config`: is this file right, and what is in force?"""

from pathlib import Path

import click
import msgspec

from daemons.config import as_tree, load


@click.group()
def command() -> None:
    """Check a configuration, or show the effective one."""


@command.command()
@click.argument("path", type=click.Path(path_type=Path), required=False)
@click.pass_obj
def check(config_path: Path | None, path: Path | None) -> None:
    """Exit 0 when PATH (or the configuration in force) is valid, else 2 with the key that is not."""
    load(path or config_path)
    click.echo(f"{path or config_path or 'configuration'}: valid")


@command.command()
@click.pass_obj
def show(config_path: Path | None) -> None:
    """Print every effective value as JSON, defaults included; secrets are never in it."""
    click.echo(msgspec.json.format(msgspec.json.encode(as_tree(load(config_path))), indent=2).decode())
