"""Fingerprints: what is read of a recorded node, and which node is accused of being different."""

import json
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from checks.fingerprint import Drift, differences, drift, take
from checks.host import recorded
from daemons.cli import muster

CPUINFO = "processor\t: 0\nmodel name\t: Xeon 8480C\nmicrocode\t: 0x2b\n\nprocessor\t: 1\nmodel name\t: Xeon 8480C\n"
VERSION = "NVRM version: NVIDIA UNIX Open Kernel Module for x86_64  580.65.06  Release Build\n"
FILES = {
    "proc/sys/kernel/osrelease": "6.8.0-60-generic\n",
    "proc/cmdline": "BOOT_IMAGE=/vmlinuz root=UUID=1 ro iommu=pt\n",
    "proc/cpuinfo": CPUINFO,
    "proc/meminfo": "MemTotal:       2113400000 kB\n",
    "proc/driver/nvidia/version": VERSION,
    "proc/driver/nvidia/gpus/0000:1b:00.0/information": "Model: \t NVIDIA H100\nVideo BIOS: \t 96.00.74\n",
    "proc/driver/nvidia/gpus/0000:2b:00.0/information": "Model: \t NVIDIA H100\nVideo BIOS: \t 96.00.99\n",
    "sys/class/infiniband/mlx5_0/hca_type": "MT4129\n",
    "sys/class/infiniband/mlx5_0/board_id": "MT_0000000838\n",
    "sys/class/infiniband/mlx5_0/fw_ver": "28.39.1002\n",
    "etc/os-release": 'NAME="x"\nPRETTY_NAME="Ubuntu 24.04.2 LTS"\n',
    "usr/local/cuda/version.json": '{"cuda" : {"name" : "CUDA SDK", "version" : "12.8.1"}, "x": {"version": "9"}}',
}


@pytest.fixture
def node(tmp_path: Path) -> Path:
    for name, text in FILES.items():
        path = tmp_path / "node" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    commands = {
        "ldconfig -p": [0, "\tlibnccl.so.2 (libc6) => /x/libnccl.so.2\n\tlibnccl.so.2.26.2 (libc6)\n", ""],
        "python3 --version": [0, "Python 3.12.3\n", ""],
        "ofed_info -s": [0, "MLNX_OFED_LINUX-24.10-1.1.4.0:\n", ""],
        "sinfo --version": [1, "broken", ""],
    }
    answers = {"node": "n1", "now": 1700000000, "commands": commands}
    (tmp_path / "node/answers.json").write_text(json.dumps(answers))
    return tmp_path / "node"


def test_a_node_is_what_is_equal_on_equal_nodes(node: Path) -> None:
    assert take(recorded(node)) == {
        "cpu": "Xeon 8480C",
        "cpus": "2",
        "cuda": "12.8.1",
        "gpu.vbios": "1 x 96.00.74, 1 x 96.00.99",
        "gpus": "2 x NVIDIA H100",
        "hca.firmware": "1 x 28.39.1002",
        "hcas": "1 x MT4129 MT_0000000838",
        "kernel": "6.8.0-60-generic",
        "kernel.cmdline": "ro iommu=pt",
        "memory": "2015 GiB",
        "microcode": "0x2b",
        "nccl": "2.26.2",
        "nvidia.driver": "580.65.06",
        "ofed": "MLNX_OFED_LINUX-24.10-1.1.4.0",
        "os": "Ubuntu 24.04.2 LTS",
        "python": "Python 3.12.3",
    }


def test_differences_name_both_sides() -> None:
    assert differences({"a": "1", "b": "2"}, {"a": "1", "c": "3"}) == [("b", "2", ""), ("c", "", "3")]


def test_most_nodes_decide_what_is_right() -> None:
    nodes = {f"n{index}": {"driver": "580", "kernel": "6.8"} for index in range(4)}
    nodes["n2"] = {"driver": "570", "kernel": "6.8"}
    assert drift(nodes) == [Drift(node="n2", name="driver", value="570", majority="580", share=0.75)]
    del nodes["n0"]["driver"]
    assert [(d.node, d.value, d.majority) for d in drift(nodes)] == []  # two of four are no majority


def call(*words: str) -> Result:
    return CliRunner().invoke(muster, ["fingerprint", *words], standalone_mode=False)


def test_the_command_prints_and_compares(node: Path, tmp_path: Path) -> None:
    same, other = tmp_path / "a.json", tmp_path / "b.json"
    same.write_text(call("--replay", str(node), "--json").output)
    other.write_text(same.read_text().replace("580.65.06", "570.1"))
    assert call("--diff", str(same), "-", "--replay", str(node)).return_value == 0
    done = call("--diff", str(same), str(other))
    assert done.return_value == 1
    assert done.output == "nvidia.driver\n  - 580.65.06\n  + 570.1\n1 of 16 differ\n"
    assert json.loads(call("--diff", str(same), str(other), "--json").output) == [
        {"name": "nvidia.driver", "a": "580.65.06", "b": "570.1"}
    ]
    other.write_text("[]")
    assert "no fingerprint" in str(call("--diff", str(same), str(other)).exception)
    assert "No such file" in str(call("--diff", str(same), "none.json").exception)
