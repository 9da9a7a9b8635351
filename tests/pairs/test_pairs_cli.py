"""`muster pairs plan` and `muster pairs simulate` as people and scripts call them."""

import json
from pathlib import Path

import pytest
from click.testing import CliRunner
from needs import need

from daemons.cli.pairs import command
from daemons.errors import MusterError


def run(*arguments: str) -> tuple[int, str]:
    result = CliRunner().invoke(command, arguments, standalone_mode=False, catch_exceptions=False)
    return int(result.return_value or 0), result.stdout


def test_one_seed_prints_exactly_the_contract() -> None:
    code, out = run("simulate", "--nodes", "32", "--rails", "2", "--fault", "node:slow=0.4", "--json")
    answer = json.loads(out)
    assert sorted(answer) == ["blamed", "rounds", "seconds_simulated", "tests", "truth"]
    assert answer["blamed"] == answer["truth"]
    assert code == 0


def test_several_seeds_print_one_object_a_line() -> None:
    _, out = run("simulate", "--nodes", "16", "--rails", "1", "--seeds", "3", "--json")
    lines = [json.loads(line) for line in out.splitlines()]
    assert [line["seed"] for line in lines] == [0, 1, 2]
    assert [line["blamed"] for line in lines] == [[], [], []]


def test_a_fault_with_a_spelling_mistake_says_what_is_right() -> None:
    with pytest.raises(MusterError, match="no fault is called 'nod'"):
        run("simulate", "--fault", "nod:slow=0.1")


def test_a_plan_names_every_pair_once() -> None:
    _, out = run("plan", "--hosts", "a[1-3],b7", "--json")
    found = json.loads(out)
    pairs = [tuple(sorted(pair)) for pairs in found["rounds"] for pair in pairs]
    assert len(found["rounds"]) == 3
    assert sorted(pairs) == [("a1", "a2"), ("a1", "a3"), ("a1", "b7"), ("a2", "a3"), ("a2", "b7"), ("a3", "b7")]


def test_workers_on_this_machine_are_swept_and_written_down(tmp_path: Path) -> None:
    need("iperf3")
    files = ["--matrix", str(tmp_path / "m.db"), "--svg", str(tmp_path / "m.svg"), "--csv", str(tmp_path / "m.csv")]
    arguments = ["--local", "2", "--runner", "iperf3", "--window", "0.2", "--rounds", "2", "--most", "2", "--json"]
    _, out = run("network", *arguments, *files)
    report = json.loads(out)
    assert (report["tests"], report["rounds"], report["unknown"]) == (2, 2, {})
    assert (tmp_path / "m.svg").read_text().count("<rect") == 2
    assert len((tmp_path / "m.csv").read_text().splitlines()) == 3
    _, out = run("history", "local0", "local1", "--matrix", str(tmp_path / "m.db"), "--json")
    assert len(json.loads(out)["entries"]) == 2


def test_hosts_without_a_way_to_start_workers_say_what_to_give(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("SLURM_JOB_ID", raising=False)
    with pytest.raises(MusterError, match="no way to start workers"):
        run("network", "--hosts", "a,b")
