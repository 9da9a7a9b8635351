"""`muster pairs network|infiniband`: real traffic between all pairs of nodes, and who is slow."""

import os
import shlex
import sys
import time
from pathlib import Path
from typing import Any

import msgspec

from checks.base import Finding, Status, worst
from checks.pairs import heatmap
from checks.pairs.drive import Driver, unknown
from checks.pairs.launch import Crew, Place, on_slurm
from checks.pairs.matrix import Matrix, Recorder
from checks.pairs.report import findings
from checks.pairs.runner import Outcome, Runner
from checks.pairs.runners.commands import CommandPairs, iperf3, perftest
from checks.pairs.runners.torch_pairs import TorchPairs
from checks.pairs.sweep import Budget, Sweep
from checks.pairs.topology import Topology, expand
from checks.pairs.verdict import Verdict
from daemons.cli.pairs_progress import sweep_bar
from daemons.cli.pairs_topology import topology_of
from daemons.cli.scan import EXIT
from daemons.cli.tables import console
from daemons.errors import MusterError

# Python and torch from a cold network file system: minutes happen.
_START_SECONDS = 180.0


class Report(msgspec.Struct, frozen=True, kw_only=True):
    """What `--json` prints. unknown: why measurements say nothing, and how often. seconds: of the whole sweep."""

    status: Status
    nodes: list[str]
    verdicts: list[Verdict]
    findings: list[Finding]
    rounds: int
    tests: int
    unknown: dict[str, int]
    seconds: float


def measure(options: dict[str, Any]) -> int:
    """Start the workers, sweep, report; exit code as `muster scan`."""
    topology, places = _who(options)
    if len(topology.nodes) < 2:
        raise MusterError("two nodes at least are needed: give --hosts or --local")
    started = time.monotonic()
    recorder = Recorder(Matrix(options["matrix"]), options["runner"]) if options["matrix"] else None
    crew = Crew(places, warm="torch" if options["runner"] == "torch" else "")
    try:
        with crew:
            late = crew.ready(_START_SECONDS)
            if late:
                raise MusterError(f"no worker started on {', '.join(late)}: try by hand what --launch puts before it")
            driver = _driver(topology, crew, recorder, options)
            with sweep_bar(driver.sweep.expected, hidden=options["as_json"]) as step:
                driver.progress = step
                driver.run()
    finally:
        if recorder:
            recorder.close()
    return _tell(driver, options, time.monotonic() - started)


def _who(options: dict[str, Any]) -> tuple[Topology, list[Place]]:
    """Nodes and where their workers run."""
    if options["local"]:
        names = [f"local{i}" for i in range(options["local"])]
        return topology_of(None, ",".join(names), None), [Place(node=name, address="127.0.0.1") for name in names]
    hosts = options["hosts"] or os.environ.get("SLURM_JOB_NODELIST")
    topology = topology_of(None, hosts, options["topology"])
    nodes = topology.nodes
    if options["launch"]:
        addresses = expand(options["addresses"]) if options["addresses"] else list(nodes)
        if len(addresses) != len(nodes):
            raise MusterError(f"--addresses names {len(addresses)} addresses for {len(nodes)} nodes")
        return topology, [
            Place(
                node=node,
                address=address,
                prefix=tuple(part.replace("{host}", node) for part in shlex.split(options["launch"])),
                interface=options["interface"],
            )
            for node, address in zip(nodes, addresses, strict=True)
        ]
    if "SLURM_JOB_ID" not in os.environ:
        raise MusterError('no way to start workers on the hosts: run it in a Slurm job, or give --launch "ssh {host}"')
    return topology, on_slurm(nodes)


def _driver(topology: Topology, crew: Crew, recorder: Recorder | None, options: dict[str, Any]) -> Driver:
    told = recorder if recorder else _ignore
    budget = Budget(plan=options["plan"], rounds=min(options["rounds"], options["most"]), most=options["most"])
    runner, rails = _runner(crew, options)
    topology = with_rails(topology, rails)
    return Driver(Sweep(topology, budget, options["seed"]), runner, told)


def with_rails(topology: Topology, rails: int) -> Topology:
    """The same nodes with so many rails."""
    return Topology(topology.nodes, topology.leaf, topology.leaves, rails, topology.rail_leaves and rails > 1)


def _runner(crew: Crew, options: dict[str, Any]) -> tuple[Runner, int]:
    window, name = options["window"], options["runner"]
    if name == "torch":
        gpus = options["gpus"]
        return TorchPairs(crew, window=window, message=options["message"], devices=gpus), max(1, gpus)
    if name == "iperf3":
        return CommandPairs(crew, iperf3(), window=window), 1
    devices = options["devices"].split(",")
    return CommandPairs(crew, perftest(devices, options["gpus"] > 0, options["gid"]), len(devices), window), len(
        devices
    )


def _ignore(outcome: Outcome) -> None:
    """Nothing is kept without --matrix."""


def _tell(driver: Driver, options: dict[str, Any], seconds: float) -> int:
    sweep, outcomes = driver.sweep, driver.outcomes
    found = list(
        findings(sweep.topology, sweep.localiser.verdicts, outcomes, sweep.localiser.judged, options["runner"])
    )
    report = Report(
        status=worst([finding.status for finding in found]),
        nodes=list(sweep.topology.nodes),
        verdicts=sweep.localiser.verdicts,
        findings=found,
        rounds=sweep.localiser.round,
        tests=len(outcomes),
        unknown=dict(unknown(outcomes)),
        seconds=round(seconds, 1),
    )
    values = heatmap.cells(outcomes)
    _write(options["csv"], heatmap.csv(report.nodes, values))
    _write(options["svg"], heatmap.svg(report.nodes, values, f"GB/s, {report.tests} tests, {options['runner']}"))
    if options["as_json"]:
        sys.stdout.write(msgspec.json.encode(report).decode() + "\n")
    else:
        _show(report, heatmap.text(report.nodes, values) if len(report.nodes) <= 64 else "")
    return EXIT[report.status]


def _write(path: Path | None, text: str) -> None:
    if path is None:
        return
    try:
        path.write_text(text, encoding="utf-8")
    except OSError as error:
        raise MusterError(f"{path}: cannot be written: {error.strerror or error}") from error


def _show(report: Report, picture: str) -> None:
    out = console()
    if picture:
        out.print(picture, markup=False)
    for finding in report.findings:
        out.print(f"{finding.status}: {finding.component}: {finding.summary}", markup=False)
        if finding.advice:
            out.print(f"  {finding.advice}", markup=False)
    cost = f"{report.rounds} rounds, {report.tests} tests in {report.seconds:g} s"
    out.print(f"{len(report.nodes)} nodes, {cost}: {report.status}")
