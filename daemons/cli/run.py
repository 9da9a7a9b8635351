"""`muster run`: start a job, notice when it stands still, say whose doing it is, start it again by policy."""

import os
import time
from pathlib import Path

import click
import msgspec

from daemons.config import load
from daemons.errors import MusterError


@click.command(context_settings={"ignore_unknown_options": False})
@click.option("--record", type=click.Path(path_type=Path), metavar="FILE", help="Write every attempt's verdict here.")
@click.option("--name", default="", metavar="JOB", help="What the job is called (default: made of the time).")
@click.option("--max-restarts", type=click.IntRange(min=0), metavar="N", help="Start it again so often (default 0).")
@click.option(
    "--stuck-terminate-after",
    type=click.FloatRange(min=0),
    metavar="SECONDS",
    help="End a stuck job after so long, once the evidence is kept (default 1800).",
)
@click.option(
    "--stop-grace", type=click.FloatRange(min=0), metavar="SECONDS", help="From SIGTERM to SIGKILL (default 30)."
)
@click.option(
    "--leader",
    envvar="MUSTER_LEADER",
    metavar="HOST:PORT",
    help="Where the supervisors of a job on several hosts meet; the host that has the address leads.",
)
@click.option("--dir", "directory", type=click.Path(path_type=Path), help="Where logs and evidence are kept.")
@click.option(
    "--instrument/--no-instrument", default=None, help="Let Python ranks answer while they hang (default: yes)."
)
@click.argument("arguments", nargs=-1, required=True, metavar="-- CMD...")
@click.pass_obj
def command(
    config_path: Path | None,
    record: Path | None,
    name: str,
    max_restarts: int | None,
    stuck_terminate_after: float | None,
    stop_grace: float | None,
    leader: str | None,
    directory: Path | None,
    instrument: bool | None,
    arguments: tuple[str, ...],
) -> int:
    """Supervise any job: torchrun or not, ours or not, unchanged.

    Exits with the job's own code (128 and the number for a signal), or 93 when another start would end the same way.
    """
    from checks.host import short_host_name
    from daemons.supervisor.attempt import Plan
    from daemons.supervisor.meeting import place
    from daemons.supervisor.supervise import supervise

    config = load(config_path)
    given = {
        "max_restarts": max_restarts,
        "stuck_terminate_after": stuck_terminate_after,
        "stop_grace": stop_grace,
        "directory": str(directory) if directory else None,
        "instrument": instrument,
    }
    chosen = {key: value for key, value in given.items() if value is not None}
    plan = Plan(
        job=checked(name) or os.environ.get("SLURM_JOB_ID") or time.strftime("%Y%m%d-%H%M%S") + f"-{os.getpid()}",
        command=arguments,
        environment=dict(os.environ),
        config=msgspec.structs.replace(config.run, **chosen),
        host=config.node.name or short_host_name(),
        listen=config.node.listen,
        state=config.node.state,
        meeting=place(leader, os.environ.get("MUSTER_JOB_TOKEN", "")) if leader else None,
    )
    return supervise(plan, record)


def checked(name: str) -> str:
    """The name if it can be a directory's. Raises MusterError."""
    if name and (name.startswith(".") or not all(c.isalnum() or c in "-_." for c in name)):
        raise MusterError(f"run: --name {name!r}: letters, digits, - _ and . only")
    return name
