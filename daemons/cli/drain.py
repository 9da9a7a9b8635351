"""`muster drain`, `muster undrain`: close a node to new jobs and open it again, through the scheduler."""

import os
from pathlib import Path

import click

from daemons.engines.base import REASON_PREFIX, Engine, EngineNode, NodeState
from daemons.errors import MusterError

_YES = click.option("--yes", is_flag=True, help="Do it; without, only say what would be done.")


@click.command()
@click.argument("node")
@click.option("--reason", default="", help="Why, for whoever reads `sinfo -R`.")
@_YES
@click.pass_obj
def command(config_path: Path | None, node: str, reason: str, yes: bool) -> int:
    """Close NODE to new jobs; what runs on it may end. A dry run unless --yes."""
    chosen, found = _find(config_path, node)
    text = f"{REASON_PREFIX}{reason or 'by hand, ' + (os.environ.get('SUDO_USER') or os.environ.get('USER') or 'root')}"
    if found.state in (NodeState.DRAINED, NodeState.DRAINING):
        click.echo(f"{node} is {found.state} already: {found.reason}")
        return 0
    if not yes:
        click.echo(f"would drain {node} ({_told(found)}) in {chosen.name}, reason {text!r}; --yes does it")
        return 0
    chosen.drain(node, text)
    click.echo(f"{node} is {_find(config_path, node)[1].state} in {chosen.name}: {text}")
    return 0


@click.command()
@click.argument("node")
@_YES
@click.pass_obj
def undrain(config_path: Path | None, node: str, yes: bool) -> int:
    """Open NODE again if muster closed it; what somebody else closed is left alone. A dry run unless --yes."""
    chosen, found = _find(config_path, node)
    if found.state not in (NodeState.DRAINED, NodeState.DRAINING, NodeState.DOWN):
        click.echo(f"{node} is open already ({_told(found)})")
        return 0
    if not yes and found.drained_by_us:
        click.echo(f"would open {node} ({_told(found)}) in {chosen.name}; --yes does it")
        return 0
    chosen.undrain(node)
    click.echo(f"{node} is {_find(config_path, node)[1].state} in {chosen.name}")
    return 0


def _find(config_path: Path | None, name: str) -> tuple[Engine, EngineNode]:
    from daemons.config import load
    from daemons.engines.choose import engine
    from daemons.node.state import directory

    config = load(config_path)
    chosen = engine(config.engine, directory(config.node.state), config.node.name)
    for node in chosen.nodes():
        if node.name == name:
            return chosen, node
    raise MusterError(f"{chosen.name} has no node {name!r}; there are: {', '.join(n.name for n in chosen.nodes())}")


def _told(node: EngineNode) -> str:
    return f"{node.state}{', ' + node.reason if node.reason else ''}"
