"""What a test needs of the machine, and how to get it: a missing part skips the test and is named at the end."""

import importlib.util
import os
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

# word -> (is it here, how to get it)
PARTS: dict[str, tuple[Callable[[], bool], str]] = {
    "root": (lambda: os.geteuid() == 0, "run as root"),
    "torch": (
        lambda: importlib.util.find_spec("torch") is not None,
        "pip install '.[trainer]' -c constraints.txt",
    ),
    "tokenizers": (
        lambda: importlib.util.find_spec("tokenizers") is not None,
        "pip install '.[tokenizer]' -c constraints.txt",
    ),
    "streaming": (
        lambda: importlib.util.find_spec("streaming") is not None,
        "pip install '.[streaming]' -c constraints.txt",
    ),
    "ip": (lambda: shutil.which("ip") is not None, "apt install iproute2"),
    "iperf3": (lambda: shutil.which("iperf3") is not None, "apt install iperf3"),
    "systemd-analyze": (lambda: shutil.which("systemd-analyze") is not None, "apt install systemd"),
    "postgresql": (lambda: bool(list(Path("/usr/lib/postgresql").glob("*/bin/postgres"))), "apt install postgresql"),
    "slurm": (lambda: all(map(shutil.which, ("slurmctld", "slurmd", "munged"))), "apt install slurm-wlm munge"),
    "promtool": (lambda: shutil.which("promtool") is not None, "apt install prometheus"),
    "cc": (lambda: shutil.which("cc") is not None, "apt install gcc libc6-dev"),
    "ibsim": (
        lambda: (
            all(shutil.which(name) for name in ("ibsim", "opensm", "iblinkinfo"))
            and Path("/usr/lib/x86_64-linux-gnu/umad2sim/libumad2sim.so").exists()
        ),
        "apt install ibsim-utils libumad2sim0 infiniband-diags opensm",
    ),
    "kmsg": (
        lambda: os.access("/dev/kmsg", os.R_OK | os.W_OK),
        "run as root with /dev/kmsg readable and writable",
    ),
}
MISSING: dict[str, str] = {}


def need(*words: str) -> None:
    """Skip the calling test (or module, at import) unless every named part is here."""
    for word in words:
        here, remedy = PARTS[word]
        if not here():
            MISSING[word] = remedy
            pytest.skip(f"needs {word}: {remedy}", allow_module_level=True)
