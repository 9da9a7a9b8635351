"""The command line: an explicit table, so that `muster --help` imports no command and a reader sees them all."""

import importlib
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import click

from daemons.errors import MusterError


@dataclass(frozen=True, slots=True)
class Entry:
    """One command: its name, the module that holds it as `command`, and its line in `muster --help`."""

    name: str
    module: str
    help: str


COMMANDS: tuple[Entry, ...] = (
    Entry("up", "daemons.cli.up", "Scan this machine, then watch it in the foreground."),
    Entry("node", "daemons.cli.node", "The node agent, as systemd runs it."),
    Entry("fleet", "daemons.cli.fleet", "The fleet daemon of a cluster: incidents, alerts, drain by policy."),
    Entry("scan", "daemons.cli.scan", "Run the checks once on this machine."),
    Entry("drain", "daemons.cli.drain", "Close a node to new jobs; a dry run unless --yes."),
    Entry("undrain", "daemons.cli.undrain", "Open a node that muster closed; a dry run unless --yes."),
    Entry("plan", "daemons.cli.plan", "Failures, checkpoint interval and spares to expect at a cluster size."),
    Entry("run", "daemons.cli.run", "Supervise a training job: stuck, failed, why, restart."),
    Entry("pause", "daemons.cli.pause", "Stop a supervised job for maintenance; nobody is blamed."),
    Entry("pairs", "daemons.cli.pairs", "All-pairs bandwidth: measure, plan, simulate; name the slow part."),
    Entry("incidents", "daemons.cli.incidents", "List, show, acknowledge or resolve what went wrong."),
    Entry("alerts", "daemons.cli.alerts", "Send a test message, or show what was told."),
    Entry("record", "daemons.cli.record", "Save this node so that scan and the agent can run against it."),
    Entry("classify", "daemons.cli.classify", "Name the root cause in logs: files, directories, stdin."),
    Entry("rules", "daemons.cli.rules", "The rules that explain logs, and their examples."),
    Entry("fingerprint", "daemons.cli.fingerprint", "Software and hardware versions of this node; --diff of two."),
    Entry("config", "daemons.cli.config", "Check a configuration, or show the effective one."),
)


class Lazy(click.Group):
    """A group whose commands are imported when they are called."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        return [entry.name for entry in COMMANDS]

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        for entry in COMMANDS:
            if entry.name == cmd_name:
                command = importlib.import_module(entry.module).command
                assert isinstance(command, click.Command)
                return command
        return None

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        with formatter.section("Commands"):
            formatter.write_dl([(entry.name, entry.help) for entry in COMMANDS])


@click.group(cls=Lazy, context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 110})
@click.option("--config", "config_path", type=click.Path(path_type=Path), help="TOML file (or MUSTER_CONFIG).")
@click.version_option(package_name="muster")
@click.pass_context
def muster(ctx: click.Context, config_path: Path | None) -> None:
    """Keep a GPU training cluster fit to train: checks, links, jobs, causes, alerts."""
    ctx.obj = config_path


def main(arguments: list[str] | None = None) -> None:
    """Run a command; a user's error is one line on stderr and its exit code, anything else a traceback."""
    try:
        code: Any = muster.main(args=arguments, prog_name="muster", standalone_mode=False)
    except click.ClickException as error:
        error.show()
        sys.exit(error.exit_code)
    except (click.Abort, KeyboardInterrupt):
        sys.exit(130)
    except MusterError as error:
        click.echo(f"muster: {error}", err=True)
        sys.exit(error.exit_code)
    except BrokenPipeError:
        # The reader of our output has gone (`muster scan | head`): nothing to say, and nobody to say it to.
        sys.stderr.close()
        sys.exit(141)
    sys.exit(code if isinstance(code, int) else 0)
