"""`muster pause`: stop a whole job for maintenance, without anybody being blamed for its silence."""

from pathlib import Path

import click

from daemons.config import load


@click.command()
@click.argument("job", default="")
@click.option("--resume", "go_on", is_flag=True, help="Let it go on.")
@click.option("--dir", "directory", type=click.Path(path_type=Path), help="As given to `muster run`.")
@click.pass_obj
def command(config_path: Path | None, job: str, go_on: bool, directory: Path | None) -> None:
    """Stop every process of a job that `muster run` supervises here; JOB may be left out when there is only one.

    Ranks of other hosts wait for these meanwhile, and their collectives have time limits of their own (torch: 10 to 30
    minutes).
    """
    from daemons.supervisor import running
    from daemons.supervisor.jobdir import home

    config = load(config_path)
    jobs = directory or home(config.run, config.node.state)
    one = running.chosen(jobs, job)
    count = running.resume(one) if go_on else running.pause(one)
    done = "go on" if go_on else "stopped; `muster pause --resume` lets them go on"
    click.echo(f"{one.job}: {count} processes {done}")
