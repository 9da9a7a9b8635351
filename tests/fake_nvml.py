"""The NVML library of tests: built from nvml/nvml.c, loaded by the real pynvml, answering from an nvml.json."""

import hashlib
import os
import shutil
import subprocess
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import msgspec

from checks.gpu.answers import GROUPS

_SOURCE = Path(__file__).parent / "nvml/nvml.c"
# NVML's return codes, by the reason that a recording gives (nvml.h).
_CODES = {
    "not_supported": 3,
    "no_permission": 4,
    "lost": 15,
    "not_found": 6,
    "no_driver": 9,
    "no_library": 12,
    "mismatch": 18,
    "error": 999,
}
Tree = dict[str, Any]


def library() -> Path:
    """The directory that holds libnvidia-ml.so.1, built once for this source."""
    name = f"muster-fake-nvml-{os.getuid()}-{hashlib.sha256(_SOURCE.read_bytes()).hexdigest()[:12]}"
    directory = Path(tempfile.gettempdir()) / name
    built = directory / "libnvidia-ml.so.1"
    if not built.exists():
        directory.mkdir(mode=0o700, exist_ok=True)
        compiler = shutil.which("cc")
        assert compiler, "need('cc') before"
        part = directory / f"{os.getpid()}.so"
        command = [compiler, "-shared", "-fPIC", "-O1", "-Wall", "-Werror", "-Wl,-soname,libnvidia-ml.so.1"]
        subprocess.run([*command, "-o", str(part), str(_SOURCE)], check=True)
        part.replace(built)
    return directory


def lines(tree: Tree) -> str:
    """A recording's nvml.json as the library reads it."""
    found = [f"{key} {_value(value)}" for key, value in tree["system"].items()]
    if "gpus" not in tree["system"]:
        found.append(f"gpus {len(tree.get('gpus', []))}")
    for index, gpu in enumerate(tree.get("gpus", [])):
        if "missing" in gpu:
            found.append(f"{index} {_value(gpu)}")
            continue
        answers = tree.get("all", {}) | gpu
        found += [f"{index}.{key} {_value(value)}" for key, value in answers.items() if key in _QUESTIONS]
    return "\n".join(found) + "\n"


_QUESTIONS = {*(question for group in GROUPS.values() for question in group), "events"}


def _value(value: Any) -> str:
    if isinstance(value, dict):
        reason = value["missing"]
        return "!hang" if reason == "hung" else str(2**32 - 1) if reason == "sentinel" else f"!{_CODES[reason]}"
    if isinstance(value, list) and all(isinstance(part, list) for part in value):
        return " ".join(f"{pid}:{2**64 - 1 if size is None else size}" for pid, size in value) or "none"
    if isinstance(value, list):
        return " ".join("-" if part is None else str(int(part)) for part in value)
    return str(int(value)) if isinstance(value, bool) else str(value)


class FakeNvml:
    """A scenario that the library answers from, and the environment of a process that shall load it."""

    def __init__(self, directory: Path, tree: Tree) -> None:
        self._path = directory / "fake-nvml"
        self.environment: Mapping[str, str] = {"LD_LIBRARY_PATH": str(library()), "FAKE_NVML": str(self._path)}
        self.answer(tree)

    def answer(self, tree: Tree) -> None:
        """Answer from this tree from the next call on."""
        part = self._path.with_suffix(".part")
        part.write_text(lines(tree))
        part.replace(self._path)


def tree_of(directory: Path) -> Tree:
    """The nvml.json of a recording."""
    tree: Tree = msgspec.json.decode((directory / "nvml.json").read_bytes())
    return tree
