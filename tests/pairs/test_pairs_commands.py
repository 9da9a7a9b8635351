"""iperf3 and ib_write_bw: their output read in every form they have, and programs that misbehave."""

import json
from pathlib import Path

import pytest
from needs import need

from checks.pairs.launch import Crew, Place
from checks.pairs.runner import Answer, Outcome
from checks.pairs.runners.commands import CommandPairs, Unparsable, iperf3, perftest, read_iperf3, read_perftest

ROW = " 1048576    233210           0.00               391.12             0.046626\n"
TABLE = " #bytes     #iterations    BW peak[{u}]    BW average[{u}]   MsgRate[Mpps]\n"


@pytest.mark.parametrize(
    ("unit", "row", "gigabytes"),
    [
        ("Gb/sec", ROW, 48.89),
        ("MB/sec", " 65536      5000             23740.11            23612.87\t\t   0.377806\n", 23.61287),
        ("MiB/sec", " 65536      5000             11250.00            11000.00\n", 11.534336),
    ],
)
def test_the_unit_in_the_heading_counts(unit: str, row: str, gigabytes: float) -> None:
    text = "----\n                    RDMA_Write BW Test\n" + TABLE.format(u=unit) + row + "----\n"
    assert read_perftest(text).gigabytes == pytest.approx(gigabytes)


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("", "no table"),
        ("Couldn't connect to 10.0.0.2:18515\n", "Couldn't connect to 10.0.0.2:18515"),
        (TABLE.format(u="Gb/sec"), "the table has no row"),
        (TABLE.format(u="Gb/sec") + " 1048576    2332", "the table has no row"),
        (TABLE.format(u="furlong/week") + ROW, "unknown unit furlong/week"),
        ("\x00\x01garbage 391.12 391.12\n", "no table"),
    ],
)
def test_output_without_a_figure_is_no_figure(text: str, told: str) -> None:
    with pytest.raises(Unparsable, match=told.replace("(", ".")):
        read_perftest(text)


def test_the_first_number_of_the_output_is_not_taken_for_the_result() -> None:
    text = "WARNING: BW peak won't be measured in this run. 12 34\n" + TABLE.format(u="Gb/sec") + ROW
    assert read_perftest(text).gigabytes == pytest.approx(48.89)


def test_iperf3_tells_what_arrived_and_how_it_varied() -> None:
    end = {"sum_sent": {"bits_per_second": 9.9e9}, "sum_received": {"bits_per_second": 8.0e9}}
    intervals = [{"sum": {"bits_per_second": rate}} for rate in (4e9, 12e9)]
    rate = read_iperf3(json.dumps({"intervals": intervals, "end": end}))
    assert (rate.gigabytes, rate.variation) == (1.0, 0.5)


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ('{"start": {}, "error": "unable to connect to server: Connection refused"}', "Connection refused"),
        ('{"start": {}, "end": {}}', "no end.sum_received"),
        ('{"start": {', "no JSON"),
        ("[]", "no object"),
    ],
)
def test_iperf3_without_a_figure(text: str, told: str) -> None:
    with pytest.raises(Unparsable, match=told):
        read_iperf3(text)


def test_iperf3_for_real_over_loopback() -> None:
    need("iperf3")
    with Crew([Place(node=n, address="127.0.0.1") for n in "ab"], warm="") as crew:
        assert crew.ready(60) == []
        outcome = CommandPairs(crew, iperf3(), window=0.5).measure("a", "b")
    assert outcome.answer is Answer.MEASURED
    assert outcome.forth[0].gigabytes > 0.01
    assert outcome.back[0].gigabytes > 0.01


FAKES = {
    "good": f"cat <<'E'\n{TABLE.format(u='Gb/sec')}{ROW}E\n",
    "garbage": "head -c 300 /dev/urandom\n",
    "failing": "echo 'Failed to modify QP to RTS: error' >&2; exit 1\n",
    "cut": f"printf '{TABLE.format(u='Gb/sec').strip()}'\n",
    "unreachable": 'echo "Couldn\'t connect to 127.0.0.1:18500" >&2; exit 1\n',
}


def with_fake(directory: Path, script: str, devices: list[str]) -> Outcome:
    fake = directory / "ib_write_bw"
    fake.write_text("#!/bin/sh\n" + script)
    fake.chmod(0o755)
    places = [Place(node=n, address="127.0.0.1") for n in "ab"]
    with Crew(places, warm="", environment={"PATH": f"{directory}:/usr/bin:/bin"}) as crew:
        assert crew.ready(60) == []
        return CommandPairs(crew, perftest(devices), rails=len(devices), window=0.1).measure("a", "b")


@pytest.mark.parametrize(
    ("kind", "answer"),
    [
        ("good", Answer.MEASURED),
        ("garbage", Answer.UNKNOWN),
        ("failing", Answer.UNKNOWN),
        ("cut", Answer.UNKNOWN),
        ("unreachable", Answer.SILENT),
    ],
)
def test_a_broken_program_is_unknown_and_no_way_through_is_silence(tmp_path: Path, kind: str, answer: Answer) -> None:
    assert with_fake(tmp_path, FAKES[kind], ["mlx5_0"]).answer is answer


def test_every_rail_keeps_its_own_figure_rail_0_too(tmp_path: Path) -> None:
    slow = TABLE.format(u="Gb/sec") + ROW.replace("391.12", "100.00")
    script = (
        f"case \"$*\" in *mlx5_0*) cat <<'E'\n{slow}E\n;; *) cat <<'E'\n{TABLE.format(u='Gb/sec')}{ROW}E\n;; esac\n"
    )
    outcome = with_fake(tmp_path, script, ["mlx5_0", "mlx5_1"])
    assert [round(rate.gigabytes, 2) for rate in outcome.forth] == [12.5, 48.89]


def test_a_program_that_is_not_there_is_unknown() -> None:
    with Crew([Place(node=n, address="127.0.0.1") for n in "ab"], warm="", environment={"PATH": "/nowhere"}) as crew:
        assert crew.ready(60) == []
        tool = perftest(["mlx5_0"])
        assert iperf3().name == "iperf3"
        outcome = CommandPairs(crew, tool, window=0.1).measure("a", "b")
    assert outcome.answer in (Answer.UNKNOWN, Answer.SILENT)
    assert outcome.forth == []
