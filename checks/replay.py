"""A recorded node that lives: a base recording, an overlay that makes it a scenario, and events as time goes by.

A directory holds answers.json (what is no file), nvml.json (what NVML answers) and either the plain tree (proc/, sys/,
dev/kmsg, etc/) or the same packed into tree.toml, as `muster record` writes it. With a scenario.toml it is a scenario:
`base` names another recording beside it (or several, one laid over the other), and the rest says what is different
and what happens when. Nothing of the
recording is changed: it is laid out in a temporary directory, which its host removes when it is closed.
"""

import base64
import os
import re
import shutil
import tempfile
import threading
import tomllib
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, TypeVar

import msgspec

from checks.clock import Clock


class Change(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What is different from the base, or from `at` seconds on.

    files: path -> text. links: path -> target. binary: path -> base64. remove: paths, directories whole.
    nvml: "gpus.3.temperature", "all.power" or "system.driver_version" -> answer; "gpus.3" replaces a whole GPU,
    "absent" takes an answer out, "-" in a list stands for null, and "vanished" -> index makes NVML count one GPU less.
    kmsg: lines as the kernel logs them, each with the time at which it is applied. commands: as in answers.json.
    sizes: likewise. wrapped: the kernel log has overwritten all but its last line. reboot: the new boot id; the log
    begins again and the uptime at 0.
    """

    at: float = 0.0
    files: dict[str, str] = {}
    links: dict[str, str] = {}
    binary: dict[str, str] = {}
    remove: list[str] = []
    nvml: dict[str, Any] = {}
    kmsg: list[str] = []
    commands: dict[str, tuple[int, str, str]] = {}
    sizes: dict[str, dict[str, Any] | None] = {}
    wrapped: bool = False
    reboot: str = ""


class Scenario(Change, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """scenario.toml. about: one sentence. until, every: seconds that tests let go by, and the steps in which.

    expect: "check component status cause kind" of each trouble (for tests).
    """

    about: str = ""
    base: str | list[str] = []
    until: float = 0.0
    every: float = 0.0
    expect: list[str] = []
    events: list[Change] = []


class Tree(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """tree.toml: a packed tree. directories: empty ones."""

    files: dict[str, str] = {}
    links: dict[str, str] = {}
    binary: dict[str, str] = {}
    directories: list[str] = []


_T = TypeVar("_T")


class BadRecording(Exception):
    """The recording cannot be read; the message says what and where."""


class Replay:
    """A recording laid out in a temporary directory, as it is at the clock's present time once `begin` was called."""

    def __init__(self, directory: Path) -> None:
        """Raises BadRecording."""
        self._clock: Clock | None = None
        self._started = 0.0
        self._lock = threading.Lock()
        self._temporary = tempfile.TemporaryDirectory(
            prefix="muster-replay-", dir=_memory(), ignore_cleanup_errors=True
        )
        self.root = Path(self._temporary.name)
        self._answers: dict[str, Any] = {}
        self._pending: list[Change] = []
        self._uptime = 0.0
        self._booted_after = 0.0
        try:
            for layer, scenario in _layers(directory):
                self._lay(layer)
                self._uptime = _number(self.root / "proc/uptime")
                if scenario is not None:
                    self._apply(scenario)
                    self._pending += scenario.events
        except BaseException:
            self.close()
            raise
        self._pending.sort(key=lambda change: change.at)

    def begin(self, clock: Clock) -> None:
        """From now on time goes by as this clock does."""
        self._clock, self._started = clock, clock.monotonic()

    def answers(self) -> dict[str, Any]:
        """answers.json as it is now, after `catch_up`."""
        return self._answers

    def catch_up(self) -> bool:
        """Let happen what is due; True when something did."""
        if self._clock is None:
            return False
        with self._lock:
            elapsed = self._clock.monotonic() - self._started
            due = [change for change in self._pending if change.at <= elapsed]
            self._pending = self._pending[len(due) :]
            for change in due:
                self._apply(change)
            return bool(due)

    def uptime(self) -> float:
        """Seconds since boot, now. Not kept in proc/uptime: writing that before every look cost more than the look."""
        elapsed = self._clock.monotonic() - self._started if self._clock else 0.0
        return self._uptime + elapsed - self._booted_after

    def close(self) -> None:
        """Remove the temporary directory."""
        self._temporary.cleanup()

    def _lay(self, directory: Path) -> None:
        packed = directory / "tree.toml"
        if packed.exists():
            tree = _decode(packed, Tree)
            self._write(tree.files, tree.links, tree.binary)
            for name in tree.directories:
                (self.root / name).mkdir(parents=True, exist_ok=True)
        for name in ("proc", "sys", "dev", "etc", "run", "var"):
            if (directory / name).is_dir():
                shutil.copytree(directory / name, self.root / name, symlinks=True, dirs_exist_ok=True)
        if (directory / "nvml.json").exists():
            shutil.copy(directory / "nvml.json", self.root / "nvml.json")
        if (directory / "answers.json").exists():
            own: dict[str, Any] = msgspec.json.decode((directory / "answers.json").read_bytes())
            merged = {key: {**self._answers.get(key, {}), **own.get(key, {})} for key in ("commands", "sizes")}
            self._answers = {**self._answers, **own, **merged}

    def _write(self, files: Mapping[str, str], links: Mapping[str, str], binary: Mapping[str, str]) -> None:
        for name, text in files.items():
            self._place(name).write_text(text, encoding="utf-8")
        for name, encoded in binary.items():
            self._place(name).write_bytes(base64.b64decode(encoded))
        for name, target in links.items():
            path = self._place(name)
            self._remove(path)
            path.symlink_to(target)

    def _place(self, name: str) -> Path:
        path = self.root / name
        if not path.parent.resolve().is_relative_to(self.root.resolve()):
            raise BadRecording(f"{name}: a recording may not point outside itself")
        path.parent.mkdir(parents=True, exist_ok=True)
        if path.is_symlink():
            path.unlink()
        return path

    def _remove(self, path: Path) -> None:
        if path.is_dir() and not path.is_symlink():
            shutil.rmtree(path)
        else:
            path.unlink(missing_ok=True)

    def _apply(self, change: Change) -> None:
        if change.reboot:
            self._reboot(change.reboot, change.at)
        if change.wrapped:
            log = self._place("dev/kmsg")
            log.write_bytes(b"".join(log.read_bytes().splitlines(keepends=True)[-1:]))
        for name in change.remove:
            self._remove(self.root / name)
        self._write(change.files, change.links, change.binary)
        if "proc/uptime" in change.files:
            self._uptime, self._booted_after = _number(self.root / "proc/uptime"), change.at
        if change.nvml:
            self._answer_nvml(change.nvml)
        if change.kmsg:
            self._log(change.kmsg, change.at)
        for key, value in (("commands", change.commands), ("sizes", change.sizes)):
            if value:
                self._answers = {**self._answers, key: {**self._answers.get(key, {}), **value}}

    def _answer_nvml(self, changes: Mapping[str, Any]) -> None:
        path = self.root / "nvml.json"
        tree: dict[str, Any] = msgspec.json.decode(path.read_bytes()) if path.exists() else {"system": {}, "gpus": []}
        for name, value in changes.items():
            _set(tree, name.split("."), value)
        part = path.with_suffix(".part")
        part.write_bytes(msgspec.json.encode(tree))
        part.replace(path)

    def _log(self, lines: list[str], at: float) -> None:
        """Append records as /dev/kmsg gives them: level 4, facility kernel."""
        path = self._place("dev/kmsg")
        before = path.read_bytes() if path.exists() else b""
        last = re.findall(rb"^\d+,(\d+),(\d+),", before, re.MULTILINE)
        sequence = int(last[-1][0]) + 1 if last else 0
        seconds = self._uptime + at - self._booted_after
        records = [f"4,{sequence + n},{int(seconds * 1e6) + n},-;{line}" for n, line in enumerate(lines)]
        path.write_bytes(before + "".join(f"{record}\n" for record in records).encode())

    def _reboot(self, boot_id: str, at: float) -> None:
        self._write({"proc/sys/kernel/random/boot_id": boot_id, "dev/kmsg": ""}, {}, {})
        self._uptime, self._booted_after = 0.0, at


def _set(tree: Any, names: list[str], value: Any) -> None:
    """Put one answer in its place."""
    if names == ["vanished"]:
        _vanish(tree, value)
        return
    for name in names[:-1]:
        tree = tree[int(name)] if isinstance(tree, list) else tree.setdefault(name, {})
    if isinstance(tree, list):
        tree[int(names[-1])] = _nulls(value)
    elif value == "absent":
        tree.pop(names[-1], None)
    else:
        tree[names[-1]] = _nulls(value)


def _vanish(tree: dict[str, Any], index: int) -> None:
    """NVML no longer counts that GPU: the others move up, and no longer have it as a peer."""
    del tree["gpus"][index]
    for gpu in tree["gpus"]:
        for question in ("p2p_nvlink", "p2p_read"):
            if isinstance(gpu.get(question), list):
                del gpu[question][index]


def _nulls(value: Any) -> Any:
    if isinstance(value, list):
        return [_nulls(part) for part in value]
    return None if value == "-" else value


def _layers(directory: Path, above: tuple[Path, ...] = ()) -> Iterator[tuple[Path, Scenario | None]]:
    """The recordings that the directory builds on and itself, the lowest first. Raises BadRecording."""
    if directory in above:
        raise BadRecording(f"{directory}: is its own base")
    path = directory / "scenario.toml"
    scenario = _decode(path, Scenario) if path.exists() else None
    bases = scenario.base if scenario else []
    for base in [bases] if isinstance(bases, str) else bases:
        yield from _layers(directory.parent / base, (*above, directory))
    if not bases and not (directory / "answers.json").exists():
        raise BadRecording(f"{directory}/answers.json: no such file: a recording has an answers.json")
    yield directory, scenario


def _decode(path: Path, kind: type[_T]) -> _T:
    try:
        return msgspec.convert(tomllib.loads(path.read_text(encoding="utf-8")), kind)
    except (OSError, ValueError, msgspec.ValidationError) as error:
        raise BadRecording(f"{path}: {error}") from error


def _number(path: Path) -> float:
    return float(path.read_text().split()[0]) if path.exists() else 0.0


def _memory() -> str | None:
    """A place in memory for some hundreds of small files, or None for the usual one."""
    return "/dev/shm" if os.access("/dev/shm", os.W_OK) else None


def lives(directory: Path) -> bool:
    """Whether the directory has to be laid out first: a packed recording, or a scenario."""
    return (directory / "tree.toml").exists() or (directory / "scenario.toml").exists()
