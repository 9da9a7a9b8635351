"""`muster fleet`: the daemon of a cluster, as systemd runs it, and what belongs to it."""

from pathlib import Path
from typing import TYPE_CHECKING

import click

if TYPE_CHECKING:
    from daemons.fleet.policy import Decision


@click.group(invoke_without_command=True)
@click.pass_context
def command(ctx: click.Context) -> int:
    """Watch a cluster until SIGTERM: takes what the nodes tell, makes incidents of it, tells people, drains by policy.

    Without a subcommand it is the daemon; SIGHUP reloads. docs/fleet.md says how nodes are joined to it.
    """
    if ctx.invoked_subcommand is not None:
        return 0
    from daemons.cli.agent_log import log_to_stderr
    from daemons.fleet.start import make_fleet

    log_to_stderr()
    return make_fleet(ctx.obj).run()


@command.command()
@click.argument("node")
@click.pass_obj
def token(config_path: Path | None, node: str) -> None:
    """Print the token of NODE: on the node it is MUSTER_FLEET_TOKEN or the systemd credential fleet_token."""
    from daemons.config import load
    from daemons.fleet.state import fleet_directory, fleet_secret
    from daemons.wire import node_token

    click.echo(node_token(fleet_secret(fleet_directory(load(config_path).fleet)), node))


@command.command()
@click.option("--json", "as_json", is_flag=True, help="One JSON array.")
@click.option("--limit", default=50, show_default=True, help="So many decisions, the newest first.")
@click.pass_obj
def audit(config_path: Path | None, as_json: bool, limit: int) -> None:
    """Show what the policy decided, also what it would have done and what held it back."""
    from daemons.cli.tables import console, plain_table
    from daemons.fleet.reading import decisions

    found = decisions(config_path, limit)
    if as_json:
        import msgspec

        click.echo(msgspec.json.encode(found))
        return
    if not found:
        click.echo("the policy has decided nothing yet")
        return
    rows = [_row(one) for one in found]
    console().print(plain_table(("when", "decision", "node", "cause", "why"), rows))


def _row(one: "Decision") -> tuple[str, str, str, str, str]:
    from daemons.alerts.message import stamp

    verb = str(one.verb) if one.allowed else f"would {one.verb}"
    return stamp(one.at), verb, one.node, one.cause, one.why
