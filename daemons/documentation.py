"""Writes docs/cli.md, docs/configuration.md and docs/metrics.md from the code: `make docs`; a test holds them fresh."""

import inspect
import sys
import types
import typing
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import click
import msgspec
from prometheus_client.core import Metric

from checks.registry import CHECKS
from daemons.cli import COMMANDS, muster
from daemons.config import Config
from daemons.metrics import BoardCollector
from daemons.node.board import Board

_GENERATED = "Generated from the code by `make docs`; a test holds it fresh.\n"
_WIDTH = 110


def pages() -> Mapping[str, str]:
    """File name -> content of every page that is generated here."""
    return {"cli.md": cli(), "configuration.md": configuration(), "metrics.md": metrics()}


def cli() -> str:
    """Every command with its options."""
    parts = ["# The command line\n", _GENERATED]
    parts.append(
        "`--json` prints one object; tables are for people. An error is one line that names what, where and the"
    )
    parts.append("remedy, and exit code 2.\n")
    root = click.Context(muster, info_name="muster", terminal_width=_WIDTH, max_content_width=_WIDTH)
    for entry in COMMANDS:
        command = muster.get_command(root, entry.name)
        assert command is not None
        parts += _command(entry.name, command, root, "##")
    return "\n".join(parts).rstrip() + "\n"


def _command(name: str, command: click.Command, parent: click.Context, heading: str) -> Iterator[str]:
    context = click.Context(command, info_name=name, parent=parent, terminal_width=_WIDTH, max_content_width=_WIDTH)
    yield f"{heading} {context.command_path}\n"
    yield f"```text\n{command.get_help(context)}\n```\n"
    if isinstance(command, click.Group):
        for below in command.list_commands(context):
            found = command.get_command(context, below)
            assert found is not None
            yield from _command(below, found, context, "###")


def configuration() -> str:
    """Every table and key of the file with its default."""
    parts = [
        "# The configuration\n",
        _GENERATED,
        "One TOML file: `--config FILE`, else `MUSTER_CONFIG`, else `/etc/muster/muster.toml`, else defaults alone. An",
        "unknown key or a wrong value is an error that names the key's path; `muster config check` says so beforehand,",
        "`muster config show` prints what is in force. Secrets are never in the file: they come from the environment",
        "or from systemd credentials ([alerts.md](alerts.md)).\n",
    ]
    for field in msgspec.structs.fields(Config):
        if field.name == "checks":
            parts.append("## [checks.NAME]\n\nOne table a check: see [checks.md](checks.md).\n")
        else:
            parts += _table(field.name, field.type)
    return "\n".join(parts).rstrip() + "\n"


def _table(path: str, struct: Any) -> Iterator[str]:
    yield f"## [{path}]\n"
    yield f"{_prose(struct)}\n"
    plain = [f for f in msgspec.structs.fields(struct) if not _is_struct(f.type)]
    if plain:
        yield "| key | default | type |\n|---|---|---|"
        yield from (f"| `{f.name}` | `{_default(f)}` | {_type(f.type)} |" for f in plain)
        yield ""
    for field in msgspec.structs.fields(struct):
        if _is_struct(field.type):
            yield from _table(f"{path}.{field.name}", field.type)


def _prose(struct: Any) -> str:
    """The docstring without the table's own name at its beginning."""
    text = inspect.cleandoc(struct.__doc__ or "")
    return text.partition("] ")[2] if text.startswith("[") else text


def _is_struct(kind: Any) -> bool:
    return isinstance(kind, type) and issubclass(kind, msgspec.Struct)


def _default(field: msgspec.structs.FieldInfo) -> str:
    value = field.default if field.default is not msgspec.NODEFAULT else field.default_factory
    value = value() if callable(value) else value
    return msgspec.json.encode(value).decode()


def _type(kind: Any) -> str:
    """A type as people say it, with its limits."""
    origin = typing.get_origin(kind)
    if origin is typing.Annotated:
        base, *notes = typing.get_args(kind)
        return ", ".join([_type(base), *(limit for note in notes for limit in _limits(note))])
    if origin is typing.Literal:
        return " or ".join(f"`{value}`" for value in typing.get_args(kind))
    if origin in (types.UnionType, typing.Union):
        return " or ".join(_type(part) for part in typing.get_args(kind) if part is not type(None))
    if origin is not None:
        name = getattr(origin, "__name__", str(origin)).lower()
        inside = ", ".join(_type(part) for part in typing.get_args(kind) if part is not Ellipsis)
        return f"{'list' if name == 'tuple' else 'table' if name in ('mapping', 'dict') else name} of {inside}"
    words = {"str": "text", "float": "number", "int": "whole number", "bool": "true or false"}
    return words.get(kind.__name__, str(kind.__name__))


def _limits(note: Any) -> Iterator[str]:
    for name, word in (("gt", ">"), ("ge", ">="), ("lt", "<"), ("le", "<=")):
        value = getattr(note, name, None)
        if value is not None:
            yield f"{word} {value:g}"


def metrics() -> str:
    """Every metric of the node agent with its labels' meaning."""
    parts = [
        "# The metrics\n",
        _GENERATED,
        "The node agent serves them at `/metrics`. A thing that vanished from the node has no series left; what it was",
        "is in `/findings`. Names end in their unit; counters end in `_total`.\n",
        "## The agent itself\n",
        "| metric | type | meaning |\n|---|---|---|",
    ]
    board = Board(node="", version="", started=0.0)
    own = {_name(metric): metric for metric in BoardCollector(lambda: board).collect()}
    measured = {f"muster_{name}" for check in CHECKS for name in check.metrics}
    parts += [f"| `{name}` | {m.type} | {m.documentation} |" for name, m in sorted(own.items()) if name not in measured]
    parts.append("\n## What the checks measure\n\nEach has the label `component`, such as `gpu/3` or `ib/mlx5_0/1`.\n")
    parts.append("| metric | check | meaning |\n|---|---|---|")
    parts += [
        f"| `muster_{name}` | [{check.name}](checks.md#{check.name}) | {text} |"
        for check in CHECKS
        for name, text in check.metrics.items()
    ]
    return "\n".join(parts).rstrip() + "\n"


def _name(metric: Metric) -> str:
    return f"{metric.name}_total" if metric.type == "counter" else metric.name


def write(directory: Path) -> None:
    """Write every page into the directory."""
    for name, text in pages().items():
        (directory / name).write_text(text)


if __name__ == "__main__":
    write(Path(sys.argv[1]))
