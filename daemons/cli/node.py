"""`muster node`: the agent of one node, as systemd runs it."""

from pathlib import Path

import click

from daemons.cli.agent_log import log_to_stderr


@click.command()
@click.option("--replay", type=click.Path(path_type=Path), metavar="DIR", help="Watch a recorded node instead.")
@click.pass_obj
def command(config_path: Path | None, replay: Path | None) -> int:
    """Watch this node: checks, ledger, alerts, metrics and the local API, until SIGTERM; SIGHUP reloads."""
    from daemons.node.start import make_agent

    log_to_stderr()
    return make_agent(config_path, replay).run()
