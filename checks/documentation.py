"""Writes docs/checks.md from the checks themselves: `python -m checks.documentation > docs/checks.md`.

What a check reads and advises is taken from its source, so that the page cannot say anything that the code does not.
"""

import ast
import functools
import importlib
import inspect
import sys
import textwrap
from collections.abc import Iterable, Iterator
from pathlib import Path
from types import ModuleType

import msgspec

from checks.base import Check, CheckConfig, ClearRule
from checks.registry import CHECKS

_TITLES = {
    "gpu": "GPU",
    "fabric": "Fabric",
    "storage": "Storage",
    "system": "System",
}
# What every check has: explained once, at the top of the page.
_SHARED = frozenset(field.name for field in msgspec.structs.fields(CheckConfig))
# Modules that are machinery, not something that is read.
_MACHINERY = frozenset(
    f"checks.{name}"
    for name in ("base", "host", "prober", "runner", "registry", "clock", "devices", "counters", "replay")
)
# A method of Host -> what asking it reads.
_READS = {
    "size": "statvfs(2) of each file system, in a killable child",
    "walk": "a walk over the file system, bounded in time, in a killable child",
    "throughput": "a small timed read and write past the page cache, in a killable child",
    "kernel_records": "/dev/kmsg",
    "kernel_clock": "adjtimex(2)",
    "boot_id": "/proc/sys/kernel/random/boot_id",
    "uptime": "/proc/uptime",
    "nvml": "NVML, in a killable child",
}


def page() -> str:
    """The whole page."""
    parts = [_HEAD]
    area = ""
    for check in CHECKS:
        module = _module(check)
        here = module.__name__.split(".")[1]
        if here != area:
            parts.append(f"## {_TITLES[here]}\n")
            area = here
        parts.append("\n".join(_section(check, module)))
    return "\n".join(parts).rstrip() + "\n"


_HEAD = """# The checks

Generated from the code by `python -m checks.documentation > docs/checks.md`; a test holds it fresh.

`muster scan` runs every check once, the node agent runs each at its interval. A check says `ok`, `warn`, `fail`,
`unknown` (it could not tell: missing driver, tool or answer) or `skipped` (it does not apply here, and says why).
`unknown` and `skipped` never count as `ok`.

A check is configured under `[checks.NAME]`. All of them have:

| key | meaning |
|---|---|
| `enabled` | whether it runs at all |
| `interval` | seconds between runs |
| `deadline` | seconds after which a run is given up |
| `consecutive` | how many runs in a row must see a trouble before it is opened |
| `boot_grace` | seconds after boot during which troubles are noted but not opened |
| `unknown_grace` | seconds for which `unknown` is borne before it is opened |
| `clear_after` | clean runs that clear a trouble |
| `quiet_seconds` | silence that clears an event |

GPU, InfiniBand, EFA and NVMe checks are tested on recorded and simulated machines; not measured on hardware.
"""


def _section(check: Check, module: ModuleType) -> Iterator[str]:
    config = check.config()
    yield f"### {check.name}\n"
    yield f"{_flow(module.__doc__ or '')}\n"
    yield f"Reads: {'; '.join(_reads(module)) or 'nothing of the machine'}.\n"
    yield f"Every {config.interval:g} s. {_clears(check, config)}\n"
    if thresholds := _flow(inspect.getdoc(check.config) or ""):
        yield f"{thresholds}\n"
    if own := [field for field in msgspec.structs.fields(check.config) if field.name not in _SHARED]:
        yield "| key | default |\n|---|---|"
        yield from (f"| `{field.name}` | `{_default(getattr(config, field.name))}` |" for field in own)
        yield ""
    yield from _rules(module)
    if advice := _advice(module):
        yield "What to do:\n"
        yield from (f"- {text}" for text in advice)
        yield ""
    if check.metrics:
        yield "| metric | meaning |\n|---|---|"
        yield from (f"| `muster_{name}` | {text} |" for name, text in check.metrics.items())
        yield ""


def _clears(check: Check, config: CheckConfig) -> str:
    rule = {
        ClearRule.CLEAN_RUNS: f"Cleared by {config.clear_after} runs that look and no longer see it.",
        ClearRule.REBOOT: "Cleared by a reboot after which it is not seen.",
        ClearRule.ACKNOWLEDGED: "Cleared by a person: `muster incidents resolve`.",
        ClearRule.QUIET: f"Cleared by {config.quiet_seconds / 3600:g} h in which it does not come again.",
    }[check.clear]
    needs = f"Opened by {config.consecutive} runs in a row. " if config.consecutive > 1 else ""
    grace = f"Not opened in the first {config.boot_grace:g} s after boot. " if config.boot_grace else ""
    return f"{needs}{grace}{rule}"


def _default(value: object) -> str:
    return msgspec.json.encode(value).decode() if value != "" else '""'


def _rules(module: ModuleType) -> Iterator[str]:
    """The rules beside a module that has some as data, as a table."""
    rules = Path(inspect.getfile(module)).with_suffix(".toml")
    load = getattr(module, "load", None)
    if load is None or not rules.exists():
        return
    yield "| rule | status | cause | what to do |\n|---|---|---|---|"
    yield from (f"| `{rule.id}` | {rule.status} | `{rule.cause}` | {rule.advice} |" for rule in load())
    yield ""


def _reads(module: ModuleType) -> list[str]:
    """Files, commands and calls that the module and what it imports of `checks` ask the host for."""
    found: dict[str, None] = {}
    for tree in _trees(module):
        for node in ast.walk(tree):
            found.update(dict.fromkeys(_asked(node)))
    return sorted(found)


def _asked(node: ast.AST) -> Iterator[str]:
    """What one expression reads of the machine."""
    if isinstance(node, ast.BinOp) and isinstance(node.op, ast.Div):
        root, path = _path(node)
        if root and path:
            yield f"`/{root}/{path}`"
    elif isinstance(node, ast.Attribute) and node.attr == "nvml" and _is_host(node.value):
        yield _READS["nvml"]
    elif isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute) and _is_host(node.func.value):
        first = node.args[0] if node.args else None
        if node.func.attr == "devices" and isinstance(first, ast.Constant):
            yield f"`/sys/class/{first.value!s}`"
        elif node.func.attr in _READS:
            text = _READS[node.func.attr]
            yield f"`{text}`" if text.startswith("/") else text
    elif isinstance(node, ast.Tuple) and (command := _command(node)):
        yield f"`{command}`"


def _path(node: ast.BinOp) -> tuple[str, str]:
    """("sys", "class/net") of `host.sys / "class/net"`, with what is not constant as *; ("", "") for anything else."""
    left, right = node.left, node.right
    part = str(right.value) if isinstance(right, ast.Constant) else "*"
    if isinstance(left, ast.BinOp) and isinstance(left.op, ast.Div):
        root, before = _path(left)
        return root, f"{before}/{part}"
    if isinstance(left, ast.Attribute) and left.attr in ("proc", "sys", "dev", "etc") and _is_host(left.value):
        return left.attr, part
    return "", ""


# Programs that a check may ask; a tuple that begins with one of them is a command.
_PROGRAMS = frozenset(("chronyc", "systemctl", "nvme", "smartctl", "nvidia-smi"))


def _command(node: ast.Tuple) -> str:
    words = [element.value for element in node.elts if isinstance(element, ast.Constant)]
    if not words or words[0] not in _PROGRAMS or not isinstance(words[0], str) or len(node.elts) < 2:
        return ""
    return " ".join(str(word) for word in words)


def _is_host(node: ast.expr) -> bool:
    return isinstance(node, ast.Name) and node.id == "host"


def _advice(module: ModuleType) -> list[str]:
    """Every advice that the module's own source can give, with what it fills in as <name>."""
    tree = ast.parse(inspect.getsource(module))
    places = {
        function.name: [argument.arg for argument in function.args.args].index("advice")
        for function in ast.walk(tree)
        if isinstance(function, ast.FunctionDef) and "advice" in [argument.arg for argument in function.args.args]
    }
    found: dict[str, None] = {}
    for node in ast.walk(tree):
        for value in _advising(node, places):
            found.update(dict.fromkeys(_texts(value)))
    return list(found)


def _advising(node: ast.AST, places: dict[str, int]) -> Iterator[ast.expr]:
    """The expressions that become somebody's advice."""
    if isinstance(node, ast.keyword | ast.Assign) and _names_advice(node):
        yield node.value
    elif (
        isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and len(node.args) > places.get(node.func.id, 99)
    ):
        yield node.args[places[node.func.id]]
    elif isinstance(node, ast.FunctionDef) and "advice" in node.name:
        yield from (inner.value for inner in ast.walk(node) if isinstance(inner, ast.Return) and inner.value)


def _names_advice(node: ast.keyword | ast.Assign) -> bool:
    if isinstance(node, ast.keyword):
        return node.arg == "advice"
    return any("advice" in ast.unparse(target).lower() for target in node.targets)


def _texts(node: ast.expr) -> Iterator[str]:
    """The texts that an expression can give."""
    if isinstance(node, ast.Constant) and isinstance(node.value, str):
        if " " in node.value:
            yield node.value
    elif isinstance(node, ast.JoinedStr):
        yield "".join(_piece(value) for value in node.values)
    elif isinstance(node, ast.Dict):
        for value in node.values:
            yield from _texts(value)
    elif isinstance(node, ast.IfExp):
        yield from _texts(node.body)
        yield from _texts(node.orelse)
    elif isinstance(node, ast.Tuple):
        for element in node.elts:
            yield from _texts(element)


def _piece(node: ast.expr) -> str:
    if isinstance(node, ast.Constant):
        return str(node.value)
    name = ast.unparse(node.value) if isinstance(node, ast.FormattedValue) else "?"
    return f"<{name.rsplit('.', 1)[-1] if name.replace('.', '').isidentifier() else 'name'}>"


def _trees(module: ModuleType) -> Iterator[ast.Module]:
    """The module's source and that of the modules of `checks` it stands on, each once."""
    waiting, seen = [module.__name__], set(_MACHINERY)
    while waiting:
        name = waiting.pop()
        if name in seen or not name.startswith("checks."):
            continue
        seen.add(name)
        tree = _tree(name)
        yield tree
        waiting += _imported(tree)


@functools.cache
def _tree(name: str) -> ast.Module:
    return ast.parse(inspect.getsource(importlib.import_module(name)))


def _imported(tree: ast.Module) -> Iterable[str]:
    for node in ast.walk(tree):
        if isinstance(node, ast.ImportFrom) and node.module == "checks":
            yield from (f"checks.{alias.name}" for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module:
            yield node.module


def _module(check: Check) -> ModuleType:
    return importlib.import_module(check.run.__module__)


def _flow(text: str) -> str:
    """A docstring's paragraphs, each on one line: Markdown does the wrapping."""
    paragraphs = textwrap.dedent(text).strip().split("\n\n")
    return "\n\n".join(" ".join(paragraph.split()) for paragraph in paragraphs)


if __name__ == "__main__":
    sys.stdout.write(page())
