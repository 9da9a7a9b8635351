"""`muster incidents`: the record of what went wrong, from the running agent or from its file."""

import getpass
import sys
import time
from pathlib import Path
from typing import Any

import click
import msgspec

from daemons.cli.local import LocalAgent, NoAgent
from daemons.config import load
from daemons.errors import MusterError

_JSON = click.option("--json", "as_json", is_flag=True, help="JSON instead of a table.")
_NOTE = click.option("--note", default="", help="Why, for the others.")
_WHO = click.option("--who", default="", help="Who does it (default: the user's name).")


@click.group()
def command() -> None:
    """The record of what went wrong: incidents that go on, and those of the last weeks."""


@command.command("list")
@click.option("--all", "everything", is_flag=True, help="Also those that are over.")
@_JSON
@click.pass_obj
def list_(config_path: Path | None, everything: bool, as_json: bool) -> None:
    """List the incidents that go on, the newest first."""
    found = recorded(config_path)
    shown = [each for each in found if everything or each["state"] != "resolved"]
    if as_json:
        sys.stdout.write(msgspec.json.encode(shown).decode() + "\n")
        return
    from daemons.cli.incident_tables import incident_table
    from daemons.cli.tables import console

    if not shown:
        over = len(found)
        click.echo("no incident goes on" + (f"; {over} over (--all shows them)" if over else ""))
        return
    console().print(incident_table(shown, time.time()))


@command.command()
@click.argument("incident")
@_JSON
@click.pass_obj
def show(config_path: Path | None, incident: str, as_json: bool) -> None:
    """Show one INCIDENT whole: what, where, evidence, what to do, and what was told of it."""
    found = chosen(recorded(config_path), incident)
    if as_json:
        sys.stdout.write(msgspec.json.encode(found).decode() + "\n")
        return
    from daemons.cli.incident_tables import incident_page
    from daemons.cli.tables import console

    console().print(incident_page(found, time.time()))


@command.command()
@click.argument("incident")
@_WHO
@_NOTE
@click.pass_obj
def ack(config_path: Path | None, incident: str, who: str, note: str) -> None:
    """Acknowledge an INCIDENT: somebody looks after it, so nobody is reminded."""
    _change(config_path, incident, "ack", who, note)
    click.echo(f"{incident}: acknowledged")


@command.command()
@click.argument("incident")
@_WHO
@_NOTE
@click.pass_obj
def resolve(config_path: Path | None, incident: str, who: str, note: str) -> None:
    """Say that an INCIDENT is over; it comes back if its fault is seen again."""
    _change(config_path, incident, "resolve", who, note)
    click.echo(f"{incident}: resolved")


def recorded(config_path: Path | None) -> list[dict[str, Any]]:
    """All incidents: of the agent that runs, else of the file that the last one left. Raises MusterError."""
    agent = LocalAgent(load(config_path))
    try:
        found: list[dict[str, Any]] = agent.get("/incidents")
    except NoAgent:
        from daemons.alerts.record import read_only
        from daemons.node.state import ALERTS_FILE

        return read_only(agent.state / ALERTS_FILE)
    return found


def chosen(incidents: list[dict[str, Any]], given: str) -> dict[str, Any]:
    """The one incident whose id is this or begins so. Raises MusterError when there is none, or more than one."""
    found = [each for each in incidents if given and each["id"].startswith(given)]
    if len(found) == 1:
        return found[0]
    if found:
        raise MusterError(f"{given}: {len(found)} incidents begin so: {', '.join(each['id'] for each in found)}")
    raise MusterError(f"no incident is called {given!r}; `muster incidents list --all` shows which there are")


def _change(config_path: Path | None, incident: str, what: str, who: str, note: str) -> None:
    agent = LocalAgent(load(config_path))
    found = chosen(agent.get("/incidents"), incident)
    agent.post(f"/incidents/{found['id']}/{what}", {"who": who or getpass.getuser(), "note": note})
