"""A recording holds what checks read, no more and no less, and answers them as the machine did."""

import os
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest
from fake_nvml import FakeNvml, tree_of
from needs import need
from scenarios import NODES, line, troubles

from checks.base import Check
from checks.gpu.nvml import LiveSource, Nvml
from checks.host import Host, recorded
from checks.prober import Prober, ProbeTimeout
from checks.recording import Notes, collect, merge, noting_path, nvml_answers, packed, write
from checks.registry import CHECKS
from checks.replay import Replay, Tree
from checks.runner import run_check
from daemons.cli.record import record
from daemons.config import Config

GPU_CHECKS = [check for check in CHECKS if check.run.__module__.startswith("checks.gpu.")]


@pytest.fixture
def machine(tmp_path: Path) -> Path:
    root = tmp_path / "machine"
    (root / "sys/devices/pci0000:00/0000:00:01.0").mkdir(parents=True)
    (root / "sys/devices/pci0000:00/0000:00:01.0/vendor").write_text("0x10de\n")
    (root / "sys/devices/pci0000:00/0000:00:01.0/secret").write_text("not read\n")
    (root / "sys/bus/pci/devices").mkdir(parents=True)
    (root / "sys/bus/pci/devices/0000:00:01.0").symlink_to("../../../devices/pci0000:00/0000:00:01.0")
    (root / "sys/name").write_bytes(b"caf\xe9\n")
    return root


def noted(machine: Path) -> tuple[Path, set[str]]:
    paths: set[str] = set()
    return noting_path(paths.add)(machine), paths


@pytest.mark.parametrize(
    "touch",
    [
        lambda path: path.read_bytes(),
        lambda path: path.exists(),
        lambda path: path.stat(),
        lambda path: path.open().close(),
        lambda path: os.stat(path),  # noqa: PTH116 - that is what is tried
        lambda path: os.path.getsize(path),  # noqa: PTH202 - that is what is tried
        lambda path: path.resolve(),
    ],
    ids=["read_bytes", "exists", "stat", "open", "os.stat", "getsize", "resolve"],
)
def test_a_path_is_noted_whatever_it_is_given_to(touch: object, machine: Path) -> None:
    root, paths = noted(machine)
    touch(root / "sys/name")  # type: ignore[operator]
    assert str(machine / "sys/name") in paths


def test_paths_found_by_listing_and_globbing_are_noted_too(machine: Path) -> None:
    root, paths = noted(machine)
    for device in (root / "sys/bus/pci/devices").iterdir():
        (device / "vendor").read_text()
    assert str(machine / "sys/bus/pci/devices/0000:00:01.0/vendor") in paths


def test_what_is_collected_is_what_was_read_and_the_names_beside_it(machine: Path) -> None:
    notes = Notes()
    collect(
        machine,
        [str(machine / "sys/bus/pci/devices"), str(machine / "sys/bus/pci/devices/0000:00:01.0/vendor")],
        notes,
    )
    assert notes.tree.files == {"sys/devices/pci0000:00/0000:00:01.0/vendor": "0x10de\n"}
    assert notes.tree.links == {"sys/bus/pci/devices/0000:00:01.0": "../../../devices/pci0000:00/0000:00:01.0"}
    assert notes.tree.directories == ["sys/bus/pci/devices"]


def test_a_file_of_a_listed_directory_that_was_not_read_is_there_and_empty(machine: Path) -> None:
    notes = Notes()
    collect(machine, [str(machine / "sys/devices/pci0000:00/0000:00:01.0")], notes)
    device = "sys/devices/pci0000:00/0000:00:01.0"
    assert notes.tree.files == {f"{device}/secret": "", f"{device}/vendor": ""}


def test_bytes_that_are_no_text_are_kept_as_they_are(machine: Path, tmp_path: Path) -> None:
    notes = Notes()
    collect(machine, [str(machine / "sys/name")], notes)
    write(tmp_path / "rec", notes, {"node": "n", "now": 1.0}, {"system": {}, "all": {}, "gpus": []})
    with closing(Replay(tmp_path / "rec")) as replay:
        assert (replay.root / "sys/name").read_bytes() == b"caf\xe9\n"


def test_links_without_end_and_files_that_are_gone_are_left_out(machine: Path) -> None:
    (machine / "sys/loop").symlink_to("loop")
    notes = Notes()
    collect(machine, [str(machine / "sys/loop/x"), str(machine / "sys/gone"), "/elsewhere"], notes)
    assert notes.tree.files == {}


def test_two_checks_that_read_one_file_keep_its_content() -> None:
    one, other = Notes(tree=Tree(files={"a": "text"})), Notes(tree=Tree(files={"a": ""}), failed=["x: y"])
    merge(one, other)
    assert (one.tree.files, one.failed) == ({"a": "text"}, ["x: y"])


def test_odd_names_and_contents_survive_packing(tmp_path: Path) -> None:
    odd = {"proc/a b": 'say "hi"\\\n\t\x7f\x01', "proc/é": "é"}
    write(tmp_path, Notes(tree=Tree(files=odd)), {"node": "n", "now": 1.0}, {"system": {}, "all": {}, "gpus": []})
    with closing(Replay(tmp_path)) as replay:
        assert {name: (replay.root / name).read_text() for name in odd} == odd


def test_empty_directories_are_packed_and_others_are_not() -> None:
    tree = Tree(files={"a/b/c": ""}, directories=["a", "a/b", "d", "d/e"])
    assert packed(tree).splitlines()[1] == 'directories = ["d/e"]'


def statuses(host: Host, checks: list[Check]) -> list[str]:
    return sorted(line(f) for check in checks for f in troubles(run_check(check, host, check.config(), {})))


@pytest.fixture
def live(tmp_path: Path, request: pytest.FixtureRequest) -> Iterator[Host]:
    """A machine whose files are those of a scenario and whose NVML is the library of tests."""
    need("cc")
    name: str = request.param
    with closing(recorded(NODES / name)) as still:
        (still.dev / "kmsg").unlink()
        tree = tree_of(still.root)
        prober = Prober(environment=FakeNvml(tmp_path, tree).environment)
        host = Host(root=still.root, node="n1", prober=prober)
        host.nvml = Nvml(LiveSource(prober), host.clock, host.gpu_addresses)
        yield host
        host.close()


@pytest.mark.parametrize("live", ["h100x8_pcie_x8", "h100x8_one_gpu_lost", "a100x8_nvlink_down"], indirect=True)
def test_a_recording_of_a_machine_gives_the_findings_of_the_machine(live: Host, tmp_path: Path) -> None:
    checks = [check for check in GPU_CHECKS if check.name not in ("xid", "sxid", "fabric_state")]
    notes, nvml = record(live, checks, Config())
    assert notes.failed == []
    write(tmp_path / "rec", notes, {"node": "n1", "now": 1_760_000_000.0}, nvml)
    with closing(recorded(tmp_path / "rec")) as again:
        assert statuses(again, checks) == statuses(live, checks) != []


def test_what_all_gpus_answer_is_written_once() -> None:
    source = _Source(gpus=2)
    tree = nvml_answers(source)
    assert tree["all"]["name"] == "NVIDIA H100"
    assert [gpu["uuid"] for gpu in tree["gpus"]] == ["GPU-0", "GPU-1"]
    assert "name" not in tree["gpus"][0]


def test_a_gpu_that_does_not_answer_is_recorded_as_one() -> None:
    tree = nvml_answers(_Source(gpus=2, hung=1))
    assert tree["gpus"][1] == {"missing": "hung", "text": "nvml:gpu1 gave no answer within 5 s"}


class _Source:
    def __init__(self, gpus: int, hung: int = -1) -> None:
        self.count = gpus
        self.hung = hung

    def driver(self) -> dict[str, object]:
        return {"driver_version": "570.124.06", "gpus": self.count}

    def gpu(self, index: int, group: str) -> dict[str, object]:
        if index == self.hung:
            raise ProbeTimeout(f"nvml:gpu{index} gave no answer within 5 s")
        return {"pci": f"0000:0{index}:00.0", "name": "NVIDIA H100", "uuid": f"GPU-{index}"}
