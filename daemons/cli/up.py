"""`muster up`: look at this machine, then watch it, in the foreground, with no configuration."""

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

import click

from daemons.cli.agent_log import log_to_stderr

if TYPE_CHECKING:
    from daemons.node.agent import NodeAgent


@click.command()
@click.option("--demo", is_flag=True, help="Also train for a minute, kill a rank, and show what muster makes of it.")
@click.pass_obj
def command(config_path: Path | None, demo: bool) -> int:
    """Scan this machine, then watch it in the foreground until Ctrl-C: agent, metrics, status page."""
    if not demo:
        return up(config_path)
    from daemons.demo.beside import Beside

    beside = Beside(config_path)
    try:
        return up(config_path, beside.began)
    finally:
        beside.stop()


def up(config_path: Path | None, began: Callable[["NodeAgent"], None] = lambda agent: None) -> int:
    """Print the scan and the addresses, then watch until told to end; the exit code.

    began: called in the main loop once the agent listens; what takes time belongs in a thread of its own.
    """
    from daemons.cli.scan import scan, show
    from daemons.config import load
    from daemons.node.start import make_agent

    log_to_stderr()

    def tell(agent: "NodeAgent") -> None:
        click.echo(_addresses(agent))
        began(agent)

    # The agent first: a second one, or a port that is taken, is said before a scan that takes a second.
    agent = make_agent(config_path, began=tell)
    try:
        show(*scan(agent.host, load(config_path)))
    except BaseException:
        agent.close()
        raise
    return agent.run()


def _addresses(agent: "NodeAgent") -> str:
    return (
        f"status page  http://{agent.address}/\n"
        f"metrics      http://{agent.address}/metrics\n"
        f"health       http://{agent.address}/healthz\n"
        f"state        {agent.state}\n"
        "watching; Ctrl-C ends it"
    )
