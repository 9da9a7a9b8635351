"""Notes what a check reads, file by file, so that a recording holds exactly that and nothing else of the machine.

A check runs in a killable child on a host whose paths note themselves when they are given to the system, whatever call
they are given to. What stands there is read once more afterwards; a file that is gone by then is left out.
"""

import base64
import contextlib
import stat
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path, PosixPath
from typing import Any

import msgspec

from checks.adjtimex import KernelClock
from checks.base import CheckConfig
from checks.gpu.answers import GROUPS
from checks.gpu.nvml import Nvml, RecordedSource, Source
from checks.host import Completed, FileSystemSize, Host, Unreadable
from checks.kmsg import Record
from checks.prober import ProbeError, ProbeHung, ProbeTimeout
from checks.replay import Tree

# Nothing of /proc and /sys that a check reads is larger; what is has been read by mistake.
_LARGEST_FILE = 1_000_000
# The kernel itself follows 40 links; a path of sysfs has some ten parts besides.
_MOST_LINKS = 200


class Notes(msgspec.Struct, kw_only=True):
    """What one check read. failed: what could not be read, in words."""

    tree: Tree = msgspec.field(default_factory=Tree)
    sizes: dict[str, FileSystemSize | None] = {}
    commands: dict[str, tuple[int, str, str]] = {}
    clock: KernelClock | None = None
    failed: list[str] = []


def noting_path(note: Callable[[str], None]) -> type[Path]:
    """A path class whose every path, and every path made from it, tells `note` when it is given to the system."""

    class Noting(PosixPath):
        def __fspath__(self) -> str:
            text = super().__fspath__()
            note(text)
            return text

        def __str__(self) -> str:
            text = super().__str__()
            note(text)
            return text

    return Noting


class NotingHost(Host):
    """The machine, with a note of every file, command and size that it is asked for."""

    # Host has slots and says which fields there are; these two are set beside them.
    paths: set[str]
    notes: Notes

    @classmethod
    def open(cls, root: Path, node: str, nvml: Source) -> "NotingHost":
        """Notes on the machine whose root is `root`, with NVML's answers taken from `nvml`."""
        paths: set[str] = set()
        host = cls(root=noting_path(paths.add)(root), node=node)
        host.paths, host.notes = paths, Notes()
        host.nvml = Nvml(nvml, host.clock, host.gpu_addresses)
        return host

    def size(self, mount: str, deadline: float) -> FileSystemSize:
        """See Host."""
        try:
            self.notes.sizes[mount] = Host.size(self, mount, deadline)
        except (ProbeTimeout, ProbeHung):
            self.notes.sizes[mount] = None
            raise
        return self.notes.sizes[mount]  # type: ignore[return-value]  # just set

    def run(self, command: Sequence[str], deadline: float) -> Completed:
        """See Host."""
        done = Host.run(self, command, deadline)
        self.notes.commands[" ".join(command)] = (done.returncode, done.stdout, done.stderr)
        return done

    def kernel_clock(self) -> KernelClock:
        """See Host."""
        self.notes.clock = Host.kernel_clock(self)
        return self.notes.clock

    def kernel_records(self, after: int) -> Iterator[Record]:
        """See Host; the log is noted as a file of records."""
        records = list(Host.kernel_records(self, after))
        text = "".join(f"{_raw(record)}\n" for record in records)
        self.notes.tree.files["dev/kmsg"] = text
        return iter(records)


def _raw(record: Record) -> str:
    priority = record.facility << 3 | record.level
    return f"{priority},{record.sequence},{round(record.seconds * 1e6)},-;{record.text}"


def note_check(name: str, config: CheckConfig, root: str, node: str, nvml: str) -> Notes:
    """Run that check here (in a killable child) and give what it read. nvml: path of the nvml.json to answer from."""
    from checks.registry import by_name

    host = NotingHost.open(Path(root), node, RecordedSource(Path(nvml)))
    try:
        for _ in by_name(name).run(host, config, {}):
            pass
    except (Unreadable, ProbeError, OSError) as error:
        host.notes.failed.append(f"{name}: {error}")
    finally:
        host.close()
    for word in ("sys/kernel/random/boot_id", "uptime"):
        with contextlib.suppress(Unreadable):
            host.read(host.proc / word)
    collect(Path(root), sorted(host.paths), host.notes)
    return host.notes


def collect(root: Path, paths: Sequence[str], notes: Notes) -> None:
    """Put what stands at the paths into the notes: files by content, links as links, directories with their names."""
    for path in paths:
        with contextlib.suppress(OSError, ValueError):
            _collect_one(root, Path(path), notes)


def _collect_one(root: Path, path: Path, notes: Notes) -> None:
    real = root
    parts = list(path.relative_to(root).parts)
    for _ in range(_MOST_LINKS):
        if not parts:
            break
        if parts[0] == "..":
            real, parts = real.parent, parts[1:]
            continue
        step = real / parts[0]
        if not step.is_symlink():
            real, parts = step, parts[1:]
            continue
        target = step.readlink()
        notes.tree.links[str(step.relative_to(root))] = str(target)
        onward = [*(target.parts[1:] if target.is_absolute() else target.parts), *parts[1:]]
        real, parts = (root if target.is_absolute() else real), onward
    else:
        raise OSError(f"{path}: links without end")
    _collect_real(root, real, notes)


def _collect_real(root: Path, real: Path, notes: Notes) -> None:
    name = str(real.relative_to(root))
    mode = real.stat().st_mode
    if stat.S_ISDIR(mode):
        notes.tree.directories.append(name)
        for child in sorted(real.iterdir()):
            _collect_name(root, child, notes)
    elif stat.S_ISREG(mode) and name != "dev/kmsg":
        with real.open("rb") as file:
            _put(notes.tree, name, file.read(_LARGEST_FILE))


def _collect_name(root: Path, child: Path, notes: Notes) -> None:
    """A name in a directory that was listed: it has to be there, its content only if it was read too."""
    name = str(child.relative_to(root))
    if child.is_symlink():
        notes.tree.links[name] = str(child.readlink())
    elif child.is_dir():
        notes.tree.directories.append(name)
    elif name not in notes.tree.files and name not in notes.tree.binary:
        notes.tree.files[name] = ""


def _put(tree: Tree, name: str, content: bytes) -> None:
    tree.files.pop(name, None)
    try:
        tree.files[name] = content.decode("utf-8")
    except UnicodeDecodeError:
        tree.binary[name] = base64.b64encode(content).decode()


def merge(into: Notes, other: Notes) -> None:
    """Add what another check read; a file that both read keeps the longer content (a listing knows only the name)."""
    for name, text in other.tree.files.items():
        if len(text) >= len(into.tree.files.get(name, "")):
            into.tree.files[name] = text
    into.tree.links.update(other.tree.links)
    into.tree.binary.update(other.tree.binary)
    into.tree.directories.extend(other.tree.directories)
    into.sizes.update(other.sizes)
    into.commands.update(other.commands)
    into.clock = other.clock or into.clock
    into.failed.extend(other.failed)


def nvml_answers(source: Source) -> dict[str, Any]:
    """Everything that NVML answers, as nvml.json has it: what all GPUs say once, the rest by GPU."""
    try:
        system = dict(source.driver())
    except ProbeError as error:
        return {"system": {"driver": {"missing": "hung", "text": str(error)}}, "all": {}, "gpus": []}
    if "driver" in system:
        return {"system": system, "all": {}, "gpus": []}
    count = system.pop("gpus")
    gpus = [_gpu_answers(source, index) for index in range(count if isinstance(count, int) else 0)]
    talking = [gpu for gpu in gpus if "missing" not in gpu]
    common = {
        question: answer
        for question, answer in (talking[0] if len(talking) > 1 else {}).items()
        if all(gpu[question] == answer for gpu in talking)
    }
    own = [{q: a for q, a in gpu.items() if q not in common or "missing" in gpu} for gpu in gpus]
    return {"system": system, "all": common, "gpus": own}


def _gpu_answers(source: Source, index: int) -> dict[str, Any]:
    answers: dict[str, Any] = {}
    for group in GROUPS:
        try:
            answers.update(source.gpu(index, group))
        except ProbeError as error:
            return {"missing": "hung", "text": str(error)}
    first = answers["pci"]
    if isinstance(first, dict) and first.get("missing") == "lost":
        return dict(first)
    return answers


def write(directory: Path, notes: Notes, answers: Mapping[str, Any], nvml: Mapping[str, Any]) -> None:
    """Write the recording: answers.json, nvml.json, tree.toml. Raises OSError."""
    directory.mkdir(parents=True, exist_ok=True)
    (directory / "answers.json").write_bytes(_pretty(answers))
    (directory / "nvml.json").write_bytes(_pretty(nvml))
    (directory / "tree.toml").write_text(packed(notes.tree), encoding="utf-8")


def _pretty(tree: Mapping[str, Any]) -> bytes:
    return msgspec.json.format(msgspec.json.encode(tree), indent=1) + b"\n"


def packed(tree: Tree) -> str:
    """The tree as tree.toml has it."""
    holders = {str(Path(name).parent) for name in (*tree.files, *tree.links, *tree.binary, *tree.directories)}
    empty = sorted({name for name in tree.directories if name not in holders and name not in tree.links})
    lines = [
        "# A tree of files as `muster record` packs it: path = what it holds.",
        f"directories = {_toml(empty)}",
        "",
    ]
    for title, table in (("files", tree.files), ("links", tree.links), ("binary", tree.binary)):
        lines += [f"[{title}]", *(f"{_toml(name)} = {_toml(table[name])}" for name in sorted(table)), ""]
    return "\n".join(lines)


def _toml(value: str | list[str]) -> str:
    # JSON's strings are TOML's, but for the delete character, which TOML wants escaped.
    return msgspec.json.encode(value).decode().replace("\x7f", "\\u007f")
