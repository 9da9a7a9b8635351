"""A recorded node that lives: what is laid out, what happens when, and what a bad recording says."""

from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest
from scenarios import NODES

from checks.clock import ManualClock
from checks.host import Host, Unreadable, recorded
from checks.replay import BadRecording, Replay

PORT = "sys/class/infiniband/mlx5_3/ports/1"


@pytest.fixture
def clock() -> ManualClock:
    return ManualClock()


@pytest.fixture
def base(tmp_path: Path) -> Path:
    directory = tmp_path / "base"
    (directory / "proc/sys/kernel/random").mkdir(parents=True)
    (directory / "proc/uptime").write_text("100.00 800.00\n")
    (directory / "proc/sys/kernel/random/boot_id").write_text("boot-1\n")
    (directory / "dev").mkdir()
    (directory / "dev/kmsg").write_text("6,0,1000000,-;hello\n6,1,2000000,-;world\n")
    (directory / "answers.json").write_text('{"node": "n1", "now": 1000.0, "commands": {"a": [0, "x", ""]}}')
    (directory / "nvml.json").write_text(
        '{"system": {"driver_version": "1"}, "all": {"power": 1}, "gpus": [{"pci": "a", "p2p_read": [null, 0]},'
        ' {"pci": "b", "p2p_read": [0, null]}]}'
    )
    return directory


def host_of(base: Path, clock: ManualClock, text: str) -> Host:
    directory = base.parent / "scenario"
    directory.mkdir(exist_ok=True)
    (directory / "scenario.toml").write_text(f'base = "base"\n{text}')
    return recorded(directory, clock)


@pytest.fixture
def host(base: Path, clock: ManualClock, request: pytest.FixtureRequest) -> Iterator[Host]:
    with closing(host_of(base, clock, request.param)) as opened:
        yield opened


FLAP = f"""
[files]
"{PORT}/state" = "4: ACTIVE"
"{PORT}/counters/link_downed" = "0"

[[events]]
at = 60
[events.files]
"{PORT}/state" = "1: DOWN"
"{PORT}/counters/link_downed" = "1"

[[events]]
at = 90
[events.files]
"{PORT}/state" = "4: ACTIVE"
"""


@pytest.mark.parametrize("host", [FLAP], indirect=True)
def test_a_port_goes_down_at_60_s_and_is_back_at_90_s(host: Host, clock: ManualClock) -> None:
    seen = []
    for _ in range(5):
        host.catch_up()
        seen.append((host.read(host.root / PORT / "state"), host.integer(host.root / PORT / "counters/link_downed")))
        clock.advance(30)
    assert seen == [
        ("4: ACTIVE", 0),
        ("4: ACTIVE", 0),
        ("1: DOWN", 1),
        ("4: ACTIVE", 1),
        ("4: ACTIVE", 1),
    ]


@pytest.mark.parametrize("host", [""], indirect=True)
def test_uptime_and_wall_clock_go_with_the_clock(host: Host, clock: ManualClock) -> None:
    assert (host.node, host.clock.now(), host.uptime()) == ("n1", 1000.0, 100.0)
    clock.advance(50)
    host.catch_up()
    assert (host.clock.now(), host.uptime()) == (1050.0, 150.0)


@pytest.mark.parametrize("host", ['[[events]]\nat = 30\nkmsg = ["one", "two"]\n'], indirect=True)
def test_lines_are_logged_with_their_time_and_the_next_numbers(host: Host, clock: ManualClock) -> None:
    clock.advance(30)
    host.catch_up()
    records = [(record.sequence, round(record.seconds, 3), record.text) for record in host.kernel_records(1)]
    assert records == [(2, 130.0, "one"), (3, 130.0, "two")]


@pytest.mark.parametrize("host", ['[[events]]\nat = 30\nwrapped = true\nkmsg = ["new"]\n'], indirect=True)
def test_a_log_that_wraps_keeps_its_numbers(host: Host, clock: ManualClock) -> None:
    clock.advance(30)
    host.catch_up()
    assert [(record.sequence, record.text) for record in host.kernel_records(-1)] == [(1, "world"), (2, "new")]


REBOOT = '[[events]]\nat = 30\nreboot = "boot-2"\n[[events]]\nat = 40\nkmsg = ["up"]\n'


@pytest.mark.parametrize("host", [REBOOT], indirect=True)
def test_a_reboot_begins_uptime_and_log_anew(host: Host, clock: ManualClock) -> None:
    clock.advance(45)
    host.catch_up()
    assert (host.boot_id(), host.uptime()) == ("boot-2", 15.0)
    assert [(r.sequence, r.seconds, r.text) for r in host.kernel_records(-1)] == [(0, 10.0, "up")]


@pytest.mark.parametrize("host", ['[files]\n"proc/uptime" = "5.00 40.00"\n'], indirect=True)
def test_a_scenario_may_begin_at_another_uptime(host: Host, clock: ManualClock) -> None:
    clock.advance(10)
    host.catch_up()
    assert host.uptime() == 15.0


NVML = """
[nvml]
"gpus.1.power" = 7
"all.temperature" = 30
"system.driver_version" = "absent"
"gpus.0.nvlinks" = ["-", 1]
"""


@pytest.mark.parametrize("host", [NVML], indirect=True)
def test_answers_of_nvml_are_changed_one_by_one(host: Host) -> None:
    one, other = host.nvml.gpus()
    assert (one.ask("power"), other.ask("power"), other.ask("temperature")) == (1, 7, 30)
    assert one.ask("nvlinks") == [None, 1]
    assert host.nvml.system("driver_version").text == "not in this recording"


@pytest.mark.parametrize("host", ["[nvml]\nvanished = 0\n"], indirect=True)
def test_a_gpu_that_vanished_is_no_peer_any_more(host: Host) -> None:
    (gpu,) = host.nvml.gpus()
    assert (gpu.pci, gpu.ask("p2p_read")) == ("b", [None])


@pytest.mark.parametrize("host", ['[commands]\nb = [1, "", "bad"]\n'], indirect=True)
def test_commands_are_added_to_those_of_the_base(host: Host) -> None:
    assert host.run(("a",), 1.0).stdout == "x"
    assert host.run(("b",), 1.0).stderr == "bad"


def test_bases_are_laid_one_over_the_other(tmp_path: Path) -> None:
    for name, text in (("one", "1"), ("two", "2")):
        (tmp_path / name).mkdir()
        (tmp_path / name / "answers.json").write_text(f'{{"node": "{name}", "now": 1.0}}')
        (tmp_path / name / "tree.toml").write_text(f'[files]\n"proc/{name}" = "{text}"\n"proc/both" = "{text}"\n')
    (tmp_path / "both").mkdir()
    (tmp_path / "both/scenario.toml").write_text('base = ["one", "two"]\n')
    with closing(recorded(tmp_path / "both")) as host:
        assert host.node == "two"
        assert [host.read(host.proc / name) for name in ("one", "two", "both")] == ["1", "2", "2"]


def test_the_recording_itself_is_not_touched_and_the_copy_is_removed(base: Path, clock: ManualClock) -> None:
    host = host_of(base, clock, '[[events]]\nat = 1\nremove = ["dev/kmsg", "proc/sys"]\n')
    clock.advance(2)
    host.catch_up()
    assert not (host.root / "dev/kmsg").exists()
    host.close()
    assert not host.root.exists()
    assert (base / "dev/kmsg").exists()


def test_a_scenario_may_not_write_outside_itself(base: Path, clock: ManualClock) -> None:
    with pytest.raises(Unreadable, match="a recording may not point outside itself"):
        host_of(base, clock, '[files]\n"../outside" = "x"\n')


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("base = 'none'\n", "none/answers.json: no such file: a recording has an answers.json"),
        ("base = 'scenario'\n", "is its own base"),
        ("unknown = 1\n", "unknown field `unknown`"),
        ("not toml", "Expected '=' after a key"),
    ],
)
def test_what_is_wrong_with_a_scenario_is_said(text: str, said: str, tmp_path: Path) -> None:
    directory = tmp_path / "scenario"
    directory.mkdir()
    (directory / "scenario.toml").write_text(text)
    with pytest.raises(BadRecording, match=said.replace("`", ".")):
        Replay(directory)


def test_every_file_of_the_shipped_scenarios_is_small() -> None:
    large = [path.name for path in NODES.rglob("*") if path.is_file() and path.stat().st_size > 100_000]
    assert large == []
