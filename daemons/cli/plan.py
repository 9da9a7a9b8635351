"""`muster plan`: what a cluster of this size must expect, and what to set."""

import click

from daemons.reliability import Plan, plan


@click.command()
@click.option("--nodes", type=click.IntRange(min=1), required=True, help="Nodes of the job.")
@click.option("--gpus-per-node", type=click.IntRange(min=1), default=8, show_default=True)
@click.option(
    "--rate",
    type=click.FloatRange(min=0, min_open=True),
    default=6.5,
    show_default=True,
    help="Failures per 1,000 node-days: 6.5 and 2.34 on Meta's two A100 clusters, 3.79 in Llama 3's 54 days.",
)
@click.option(
    "--blocked",
    type=click.FloatRange(min=0, min_open=True),
    default=30.0,
    show_default=True,
    help="Seconds that one checkpoint blocks training (the trainer prints its own).",
)
@click.option(
    "--restart",
    type=click.FloatRange(min=0),
    default=300.0,
    show_default=True,
    help="Seconds from the end of one attempt to the first new step of the next.",
)
@click.option(
    "--detection",
    type=click.FloatRange(min=0),
    default=15.0,
    show_default=True,
    help="Seconds until a failure or a stuck job is noticed and explained.",
)
@click.option("--json", "as_json", is_flag=True, help="One JSON object, times in seconds.")
def command(
    nodes: int, gpus_per_node: int, rate: float, blocked: float, restart: float, detection: float, as_json: bool
) -> None:
    """Failures to expect, checkpoint interval, spares and effective training time for a cluster size."""
    found = plan(
        nodes=nodes, gpus_per_node=gpus_per_node, rate=rate, blocked=blocked, restart=restart, detection=detection
    )
    if as_json:
        import msgspec

        click.echo(msgspec.json.encode(found).decode())
        return
    for name, value in lines(found, detection):
        click.echo(f"{name:<34} {value}")


def lines(found: Plan, detection: float) -> list[tuple[str, str]]:
    """The plan in words."""
    return [
        ("job", f"{found.nodes} nodes, {found.gpus} GPUs"),
        ("failures to expect", f"{found.failures_per_day:.2f} a day, one every {duration(found.mean_time_to_failure)}"),
        ("a day without any", f"{found.survives_day:.1%} likely"),
        (
            "checkpoint every",
            f"{duration(found.checkpoint_interval)} (costs {found.checkpoint_overhead:.1%}, lost work included)",
        ),
        ("spare nodes", f"{found.spares} are enough on 99 of 100 days, repaired within one"),
        (f"effective training time ({detection:g} s)", f"{found.ettr:.1%}"),
        ("the same with a 30 min watchdog", f"{found.ettr_slow_detection:.1%}"),
    ]


def duration(seconds: float) -> str:
    """Seconds as people say them: 42 s, 13.6 min, 3.1 h, 12.0 days."""
    for size, unit in ((86400.0, "days"), (3600.0, "h"), (60.0, "min")):
        if seconds >= 2 * size:
            return f"{seconds / size:.1f} {unit}"
    return f"{seconds:.0f} s"
