"""`muster pairs`: is every pair of GPUs and nodes as fast as it should be, and if not, which part is at fault?"""

import datetime
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click
import msgspec

from daemons.errors import MusterError

if TYPE_CHECKING:
    from checks.pairs.fabric import Conditions
    from checks.pairs.faults import Fault
    from checks.pairs.simulate import Result
    from checks.pairs.sweep import Budget
    from checks.pairs.topology import Topology

_PLANS = ("auto", "quick", "leaf", "full")
# A full cover of so few nodes costs no more rounds than a quick sweep may.
_SMALL = 24


@click.group()
def command() -> None:
    """Measure every pair, or plan or simulate it; and name the part that is slow."""


@command.command()
@click.option("--nodes", default=128, show_default=True, type=click.IntRange(1, 16384), help="Nodes of the cluster.")
@click.option("--fault", "faults", multiple=True, metavar="KIND:KEY=VALUE,...", help="May be given again; see below.")
@click.option(
    "--seeds", default=1, show_default=True, type=click.IntRange(1), help="How many clusters, each differently."
)
@click.option("--seed", "first", default=0, show_default=True, type=click.IntRange(0), help="The first seed.")
@click.option(
    "--plan", default="auto", show_default=True, type=click.Choice(_PLANS), help="What is measured; see below."
)
@click.option(
    "--rounds", default=12, show_default=True, type=click.IntRange(1), help="Quick plan: at least so many rounds."
)
@click.option(
    "--most", default=30, show_default=True, type=click.IntRange(1), help="Quick plan: at most so many rounds."
)
@click.option(
    "--noise",
    default=0.02,
    show_default=True,
    type=click.FloatRange(0, 1),
    help="Of one value, log standard deviation.",
)
@click.option("--rails", default=8, show_default=True, type=click.IntRange(1, 64), help="NICs of each node.")
@click.option(
    "--leaf-size", default=32, show_default=True, type=click.IntRange(0), help="Nodes of a leaf; 0: not known."
)
@click.option("--rail-leaves", is_flag=True, help="A leaf switch for each rail (rail-optimised).")
@click.option(
    "--taper", default=1.0, show_default=True, type=click.FloatRange(0.05, 1), help="Uplinks relative to downlinks."
)
@click.option("--ecmp", is_flag=True, help="Hashed flows that collide, instead of adaptive routing.")
@click.option(
    "--background", default=0.0, show_default=True, type=click.FloatRange(0, 1), help="Chance of other traffic."
)
@click.option(
    "--window", default=5.0, show_default=True, type=click.FloatRange(0.1), help="Seconds of traffic per test."
)
@click.option("--verdicts", is_flag=True, help="With --json: add `verdicts` to every object.")
@click.option("--json", "as_json", is_flag=True, help="One object per seed, each on its line.")
def simulate(**options: Any) -> int:
    """Sweep a simulated cluster whose faults are known, and count how often the blame is right.

    \b
    Faults, KIND: node (all its NICs), rail or nic (one NIC), link (the path of one pair), leaf (a switch),
    uplink (what leaves a leaf), path (between two leaves), none. KEY=VALUE:
      slow=0.07         lost share of bandwidth (default 0.4; 1 is dead)
      direction=tx|rx   one direction only (node, rail, link)
      duty=0.5          slow in that share of tests (intermittent)
      count=3           on so many victims
      hang=1            tests never answer (node, link)
      at=n0003          there rather than anywhere: n0003/rail/2, n0003/n0007, leaf01, leaf01/leaf02
    \b
    Plans: quick  rounds of alternating other-leaf and same-leaf partners: finds nodes, NICs, leaves
           leaf   every pair of leaves at least once
           full   every pair of nodes at least once: the only plan that must find one slow link
           auto   full where a link is at fault or the cluster is small, else quick
    With --json every seed is one line: truth, blamed, rounds, tests, seconds_simulated (the last three up to the
    last verdict; of the whole sweep when nobody is blamed), and, with several seeds, seed. Exit 0 when every
    blame is exactly the truth, else 1.
    """
    from checks.pairs.faults import FaultError
    from checks.pairs.topology import uniform

    try:
        scenario = _faults(options["faults"])
        topology = uniform(options["nodes"], options["leaf_size"], options["rails"], options["rail_leaves"])
        results = list(_results(topology, scenario, options))
    except FaultError as error:
        raise MusterError(str(error)) from error
    if not options["as_json"]:
        _show(results, options["nodes"])
    return 0 if all(result.truth == result.blamed for result in results) else 1


def _faults(texts: tuple[str, ...]) -> "list[Fault]":
    from checks.pairs.faults import parse

    return [fault for text in texts for fault in parse(text)]


def _results(topology: "Topology", scenario: "list[Fault]", options: dict[str, Any]) -> "Any":
    from checks.pairs.simulate import simulate as sweep

    conditions, budget = _conditions(options), _budget(topology, scenario, options)
    seeds = range(options["first"], options["first"] + options["seeds"])
    with _progress(options["seeds"], hidden=options["as_json"]) as advance:
        for seed in seeds:
            result = sweep(topology, scenario, conditions, budget, seed)
            if options["as_json"]:
                sys.stdout.write(msgspec.json.encode(_line(result, options)).decode() + "\n")
            advance()
            yield result


def _conditions(options: dict[str, Any]) -> "Conditions":
    from checks.pairs.fabric import Conditions

    return Conditions(
        noise=options["noise"],
        taper=options["taper"],
        ecmp=options["ecmp"],
        background=options["background"],
        window=options["window"],
    )


def _budget(topology: "Topology", scenario: "list[Fault]", options: dict[str, Any]) -> "Budget":
    from checks.pairs.sweep import Budget

    plan = options["plan"]
    if plan == "auto":
        wanted = any(fault.kind == "link" for fault in scenario) and len(topology.nodes) > _SMALL
        plan = "full" if wanted else "quick"
    return Budget(plan=plan, rounds=min(options["rounds"], options["most"]), most=options["most"])


def _line(result: "Result", options: dict[str, Any]) -> dict[str, Any]:
    line: dict[str, Any] = {
        "truth": result.truth,
        "blamed": result.blamed,
        "rounds": result.rounds,
        "tests": result.tests,
        "seconds_simulated": result.seconds,
    }
    if options["seeds"] > 1:
        line["seed"] = result.seed
    if options["verdicts"]:
        line["verdicts"] = msgspec.to_builtins(result.verdicts)
    return line


def _show(results: "list[Result]", nodes: int) -> None:
    from daemons.cli.tables import console

    out = console()
    exact = sum(result.truth == result.blamed for result in results)
    for result in results[:10]:
        truth, blamed = ", ".join(result.truth) or "nothing", ", ".join(result.blamed) or "nothing"
        out.print(f"seed {result.seed}: at fault {truth}; blamed {blamed}", markup=False)
        for verdict in result.verdicts:
            out.print(
                f"  {verdict.component}: {verdict.kind}, -{verdict.percent:g} %, confidence {verdict.confidence:.3f},"
                f" round {verdict.round}; {verdict.advice}",
                markup=False,
            )
    rounds = sorted(result.rounds for result in results)
    out.print(
        f"{exact} of {len(results)} exact on {nodes} nodes; verdict after {rounds[len(rounds) // 2]} rounds (median),"
        f" {rounds[-1]} (most)"
    )


def _progress(total: int, hidden: bool) -> Any:
    import contextlib

    if hidden or total < 2 or not sys.stderr.isatty():
        return contextlib.nullcontext(lambda: None)
    from daemons.cli.pairs_progress import bar

    return bar(total)


@command.command()
@click.option("--nodes", "count", type=click.IntRange(1, 16384), help="So many nodes n0000, n0001, ...")
@click.option("--hosts", metavar="LIST", help="Hosts, as in Slurm: a[1-4],b7.")
@click.option("--topology", "source", type=click.Path(path_type=Path), metavar="FILE", help="Leaves; see below.")
@click.option(
    "--leaf-size", default=0, show_default=True, type=click.IntRange(0), help="With --nodes: nodes of a leaf."
)
@click.option("--plan", "kind", default="full", show_default=True, type=click.Choice(("quick", "leaf", "full")))
@click.option("--rounds", default=12, show_default=True, type=click.IntRange(1), help="Rounds of a quick plan.")
@click.option(
    "--window", default=5.0, show_default=True, type=click.FloatRange(0.1), help="Seconds of traffic per test."
)
@click.option("--seed", default=0, show_default=True, type=click.IntRange(0), help="Another order of nodes and rounds.")
@click.option("--json", "as_json", is_flag=True, help="One object: nodes, plan, rounds (lists of pairs), seconds.")
def plan(count: int | None, hosts: str | None, source: Path | None, leaf_size: int, **options: Any) -> int:
    """Print who is measured with whom, round by round: disjoint pairs, none left out.

    FILE is a TOML table `[leaves]` of name = ["host", ...], the output of `scontrol show topology`, or that of
    `ibnetdiscover`.
    """
    from checks.pairs.plans import Plan, planned
    from daemons.cli.pairs_topology import topology_of

    topology = topology_of(count, hosts, source, leaf_size)
    found: Plan = planned(topology, options["kind"], options["rounds"], options["window"], options["seed"])
    if options["as_json"]:
        sys.stdout.write(msgspec.json.encode(found).decode() + "\n")
        return 0
    for number, pairs in enumerate(found.rounds, 1):
        click.echo(f"round {number}: " + " ".join(f"{a}-{b}" for a, b in pairs))
    click.echo(
        f"{len(found.nodes)} nodes, {len(found.rounds)} rounds, {found.tests} tests, about {found.seconds:.0f} s"
    )
    return 0


def _measuring(function: Any) -> Any:
    """The options that all commands with real traffic share."""
    for option in (
        click.option("--json", "as_json", is_flag=True, help="One object: status, verdicts, findings, rounds, tests."),
        click.option("--svg", type=click.Path(path_type=Path), metavar="FILE", help="Write the heat map."),
        click.option("--csv", type=click.Path(path_type=Path), metavar="FILE", help="Write the matrix."),
        click.option("--matrix", type=click.Path(path_type=Path), metavar="FILE", help="Keep every measurement there."),
        click.option("--seed", default=0, show_default=True, help="Another order of pairs."),
        click.option("--most", default=30, show_default=True, type=click.IntRange(1), help="Quick plan: at most."),
        click.option("--rounds", default=12, show_default=True, type=click.IntRange(1), help="Quick plan: at least."),
        click.option("--plan", default="quick", show_default=True, type=click.Choice(("quick", "leaf", "full"))),
        click.option("--window", default=5.0, show_default=True, type=click.FloatRange(0.1), help="Seconds each way."),
        click.option("--gpus", default=0, show_default=True, help="GPUs of each node to send from and to; 0: memory."),
        click.option("--interface", default="", help="Network interface to connect on (gloo, NCCL)."),
        click.option(
            "--addresses", metavar="LIST", help="Addresses of the hosts, in their order; default: their names."
        ),
        click.option("--launch", metavar="PREFIX", help='Starts a worker: "ip netns exec {host}", "ssh {host}", ...'),
        click.option(
            "--topology", type=click.Path(path_type=Path), metavar="FILE", help="Leaves; see muster pairs plan."
        ),
        click.option("--local", default=0, help="So many workers on this machine, to try it out.", metavar="COUNT"),
        click.option("--hosts", metavar="LIST", help="Hosts, as in Slurm: a[1-4],b7; default: the Slurm job's."),
    ):
        function = option(function)
    return function


@command.command()
@click.option("--runner", default="torch", show_default=True, type=click.Choice(("torch", "iperf3")))
@click.option("--message", default=4 << 20, show_default=True, type=click.IntRange(256), help="Bytes of one message.")
@_measuring
def network(**options: Any) -> int:
    """Send traffic between all pairs of nodes, both ways, and name the part that is slow.

    Workers are started on every host once: in a Slurm job with srun, else with what --launch puts before them. Exit 0
    ok, 1 cannot tell apart, 2 somebody is slow, 3 unknown.
    """
    from daemons.cli.pairs_measure import measure

    return measure(options)


@command.command()
@click.option("--devices", required=True, metavar="LIST", help="The HCA of each rail: mlx5_0,mlx5_1,...")
@click.option("--gid", type=int, help="GID index (RoCE).")
@_measuring
def infiniband(**options: Any) -> int:
    """The same with RDMA writes (ib_write_bw of perftest), rail by rail, all rails at once."""
    from daemons.cli.pairs_measure import measure

    return measure({**options, "runner": "perftest", "message": 0})


@command.command()
@click.argument("a")
@click.argument("b")
@click.option("--matrix", required=True, type=click.Path(path_type=Path, exists=True), help="Where sweeps kept it.")
@click.option("--json", "as_json", is_flag=True, help="One object: entries, change.")
def history(a: str, b: str, matrix: Path, as_json: bool) -> int:
    """Every measurement of the pair A B, and whether its level has changed."""
    from checks.pairs.drift import change
    from checks.pairs.matrix import read_history

    entries = read_history(matrix, a, b)
    if not entries:
        raise MusterError(f"{matrix}: no measurement of {a} and {b}")
    found = change([min(entry.forth, entry.back) for entry in entries if entry.rail == 0])
    if as_json:
        sys.stdout.write(msgspec.json.encode({"entries": entries, "change": _plain(found)}).decode() + "\n")
        return 0
    for entry in entries:
        stamp = datetime.datetime.fromtimestamp(entry.at, datetime.UTC).strftime("%Y-%m-%d %H:%M:%S")
        click.echo(
            f"{stamp}Z  rail {entry.rail}  {a}>{b} {entry.forth:.3f}  {b}>{a} {entry.back:.3f} GB/s  {entry.runner}"
        )
    if found:
        click.echo(
            f"its level changed by {found.percent:+g} % at measurement {found.index + 1} (score {found.score:g})"
        )
    return 0


def _plain(found: Any) -> dict[str, float] | None:
    return None if found is None else {"index": found.index, "percent": found.percent, "score": found.score}
