"""`muster alerts`: would people be told, and what were they told?"""

import os
import time
from pathlib import Path

import click
import msgspec

from daemons.config import load
from daemons.errors import MusterError

SETUP_CODE = 2


@click.group()
def command() -> None:
    """Alerts to Slack and webhooks.

    Secrets come from the environment or from systemd credentials: MUSTER_SLACK_TOKEN (credential slack_token; with
    alerts.slack.channel), MUSTER_SLACK_WEBHOOK (slack_webhook; an incoming webhook instead of a token) and
    MUSTER_WEBHOOK_TOKEN (webhook_token; for alerts.webhook.url).
    """


@command.command()
@click.option("--dry-run", is_flag=True, help="Show the message as Slack would; send nothing.")
@click.pass_obj
def test(config_path: Path | None, dry_run: bool) -> int:
    """Send one real message through every channel that is set up; exit 2 when one did not take it."""
    from daemons.alerts.blocks import slack_message
    from daemons.alerts.channels import channels
    from daemons.alerts.credentials import credentials
    from daemons.alerts.posts import Result
    from daemons.alerts.preview import preview
    from daemons.alerts.trial import trial_note, try_channels
    from daemons.cli.tables import console

    config = load(config_path)
    told = trial_note(config.node.name or os.uname().nodename)
    if dry_run:
        console().print(preview(msgspec.to_builtins(slack_message(told)), width=100))
        return 0
    made = channels(config.alerts, credentials(os.environ))
    outcomes = try_channels(made, told, time.time())
    for name, outcome in outcomes.items():
        sent = outcome.result is Result.SENT
        click.echo(
            f"{name}: " + (f"sent to {outcome.place or 'its address'}" if sent else f"NOT sent: {outcome.reason}")
        )
    for name, remedy in made.missing.items():
        click.echo(f"{name}: NOT set up: {remedy}")
    well = not made.missing and all(outcome.result is Result.SENT for outcome in outcomes.values())
    return 0 if well else SETUP_CODE


@command.command()
@click.argument("incident")
@click.pass_obj
def show(config_path: Path | None, incident: str) -> None:
    """Show the messages of an INCIDENT (or storm) as Slack would, those that wait included."""
    from daemons.alerts.preview import preview
    from daemons.alerts.record import slack_messages
    from daemons.cli.tables import console
    from daemons.node.state import ALERTS_FILE, directory

    path = directory(load(config_path).node.state) / ALERTS_FILE
    messages = slack_messages(path, incident)
    if not messages:
        raise MusterError(f"no message was made of {incident!r}; `muster incidents list --all` shows what there is")
    for state, message in messages:
        console().print(preview(message, sender=f"muster  ({state})", width=100))
