"""A recorded node as a Host, with changes for one test: the recording stays as it is, the copy gets the fault."""

import os
import shutil
from pathlib import Path

import msgspec

from checks.base import Check, Finding, Memory
from checks.clock import ManualClock
from checks.host import Answers, FileSystemSize, Host, recorded

NODES = Path(__file__).parent / "fixtures/nodes"
# A boot id is read by whatever remembers anything: the healthy recordings' own, and one of a later boot.
NEXT_BOOT = "99999999-0000-4000-8000-000000000002"


class Node:
    """A copy of a recording in `directory`, with its own clock; `host` reads it."""

    def __init__(self, directory: Path, machine: str) -> None:
        shutil.copytree(NODES / machine, directory, symlinks=True, dirs_exist_ok=True)
        self.root = directory
        self.clock = ManualClock(now=msgspec.json.decode((directory / "answers.json").read_bytes(), type=Answers).now)

    @property
    def host(self) -> Host:
        return recorded(self.root, self.clock)

    def write(self, files: dict[str, str | bytes | None]) -> None:
        """Write files below the root; None takes a file, link or directory away."""
        for name, content in files.items():
            path = self.root / name
            if content is None:
                shutil.rmtree(path) if path.is_dir() and not path.is_symlink() else path.unlink()
                continue
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(content if isinstance(content, bytes) else content.encode())

    def link(self, name: str, target: str) -> None:
        """Make `name` a symbolic link."""
        path = self.root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.unlink(missing_ok=True)
        path.symlink_to(target)

    def answer(self, **fields: object) -> None:
        """Change fields of answers.json; those that are mappings are merged."""
        path = self.root / "answers.json"
        tree = msgspec.json.decode(path.read_bytes())
        for name, value in fields.items():
            new = msgspec.to_builtins(value)
            tree[name] = {**tree.get(name, {}), **new} if isinstance(new, dict) and name != "clock" else new
        path.write_bytes(msgspec.json.encode(tree))

    def reboot(self) -> None:
        """A later boot: another boot id, and the uptime starts anew."""
        self.write({"proc/sys/kernel/random/boot_id": f"{NEXT_BOOT}\n", "proc/uptime": "60.00 100.00\n"})

    def copy(self, source: str, target: str) -> None:
        """Copy a file or directory of the node to another name."""
        origin, copy = self.root / source, os.fsencode(self.root) + b"/" + os.fsencode(target)
        if origin.is_dir():
            shutil.copytree(origin, os.fsdecode(copy), symlinks=True)
        else:
            shutil.copy(origin, os.fsdecode(copy))


def look(check: Check, node: Node, memory: Memory | None = None, **settings: object) -> list[Finding]:
    """What one run of the check yields, with these settings."""
    config = msgspec.convert(settings, check.config)
    return list(check.run(node.host, config, {} if memory is None else memory))


def told(findings: list[Finding]) -> list[tuple[str, str, str, str]]:
    """Component, status, kind and summary of each."""
    return [(finding.component, str(finding.status), finding.kind, finding.summary) for finding in findings]


def troubles(findings: list[Finding]) -> list[tuple[str, str, str, str]]:
    """The same, of those that are not well."""
    return [line for line in told(findings) if line[1] not in ("ok", "skipped")]


def size(
    total: int, available: int, inodes: int = 1_000_000, inodes_available: int = 900_000, read_only: bool = False
) -> FileSystemSize:
    """What statvfs(3) would say."""
    return FileSystemSize(
        total=total, available=available, inodes=inodes, inodes_available=inodes_available, read_only=read_only
    )
