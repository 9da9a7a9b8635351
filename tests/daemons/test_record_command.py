"""`muster record` on the machine that runs the tests, and what --scrub leaves of it."""

import json
import socket
import subprocess
import sys
from pathlib import Path

import pytest

from daemons.scrubbing import Scrubber


def muster(*arguments: str) -> "subprocess.CompletedProcess[str]":
    command = [sys.executable, "-I", "-m", "daemons", *arguments]
    return subprocess.run(command, capture_output=True, text=True, check=False, timeout=120)


def test_a_recorded_machine_can_be_scanned(tmp_path: Path) -> None:
    directory = tmp_path / "rec"
    names = ("--check", "memory", "--check", "limits", "--check", "gpu_count")
    done = muster("record", str(directory), "--scrub", *names)
    assert (done.returncode, done.stderr) == (0, "")
    assert sorted(path.name for path in directory.iterdir()) == ["answers.json", "nvml.json", "tree.toml"]
    report = json.loads(muster("scan", "--replay", str(directory), "--json", *names).stdout)
    assert report["node"] == "node"
    assert {f["source"] for f in report["findings"]} == {"memory", "limits", "gpu_count"}
    name = socket.gethostname()
    if len(name) > 3:
        assert [path.name for path in directory.iterdir() if name in path.read_text()] == []


def test_a_directory_that_is_not_empty_is_left_alone(tmp_path: Path) -> None:
    (tmp_path / "precious").write_text("x")
    done = muster("record", str(tmp_path))
    assert (done.returncode, done.stderr) == (
        2,
        f"muster: {tmp_path}: is not empty: give a directory that is new or empty\n",
    )


@pytest.fixture
def scrubber() -> Scrubber:
    return Scrubber.of("h100-17", {"gpus": [{"serial": "1653923100001"}, {"serial": {"missing": "not_supported"}}]})


@pytest.mark.parametrize(
    ("text", "scrubbed"),
    [
        ("h100-17 kernel: up", "node kernel: up"),
        ("h100-170 is another", "h100-170 is another"),
        ("serial 1653923100001", "serial SERIAL0000"),
        ("GPU-3ec8e1f0-1111-4222-8333-0123456789ab is well", "GPU-00000000-0000-4000-8000-000000000001 is well"),
        ("a0:88:c2:03:00:01", "02:00:00:00:00:01"),
        ("from 10.1.2.3 to 10.1.2.3, not 127.0.0.1", "from 192.0.2.2 to 192.0.2.2, not 127.0.0.1"),
        ("a088:c203:0001:1234", "0000:0000:0000:0001"),
        ("fe80:0000:0000:0000:a088:c203:0001:1234", "fe80:0000:0000:0000:0000:0000:0000:0001"),
        ("NVRM: Xid (PCI:0000:3b:00): 79", "NVRM: Xid (PCI:0000:3b:00): 79"),
        ("0000:3b:00.0", "0000:3b:00.0"),
        ("--token=hf_abcdefghijklmnopqrstu", "--token=***"),
    ],
)
def test_names_are_replaced_and_the_rest_stays(text: str, scrubbed: str, scrubber: Scrubber) -> None:
    assert scrubber.text(text) == scrubbed


def test_the_same_thing_has_the_same_word_everywhere(scrubber: Scrubber) -> None:
    guid, other = "a088:c203:0001:1234", "a088:c203:0002:1234"
    tree = scrubber.tree({"one": guid, "two": [other, f"fe80:0000:0000:0000:{guid}"]})
    assert tree == {
        "one": "0000:0000:0000:0001",
        "two": ["0000:0000:0000:0002", "fe80:0000:0000:0000:0000:0000:0000:0001"],
    }


def test_versions_that_look_like_addresses_stay(scrubber: Scrubber) -> None:
    assert scrubber.tree({"vbios": "96.00.89.0", "sys/x/fw_ver": "28.39.10.2"}) == {
        "vbios": "96.00.89.0",
        "sys/x/fw_ver": "28.39.10.2",
    }


def test_of_a_command_line_only_the_program_is_kept(scrubber: Scrubber) -> None:
    assert scrubber.tree({"proc/7/cmdline": "python\x00train.py\x00--key=x"}) == {"proc/7/cmdline": "python"}
