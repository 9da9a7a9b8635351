"""`muster fingerprint`: what this node is made of, and where two nodes differ."""

import sys
from collections.abc import Mapping
from pathlib import Path

import click
import msgspec

from daemons.errors import MusterError


@click.command()
@click.option("--json", "as_json", is_flag=True, help="One JSON object: name -> value.")
@click.option(
    "--diff",
    nargs=2,
    type=click.Path(path_type=Path),
    metavar="A B",
    help="Compare two files that `muster fingerprint --json` wrote; - is this node.",
)
@click.option("--replay", type=click.Path(path_type=Path), metavar="DIR", help="Of a recorded node.")
@click.pass_obj
def command(config_path: Path | None, as_json: bool, diff: tuple[Path, Path] | None, replay: Path | None) -> int:
    """Software and hardware versions of this node. With --diff: exit 0 when they are equal, 1 when not."""
    if diff is None:
        facts = _here(config_path, replay)
        sys.stdout.write(msgspec.json.encode(facts).decode() + "\n" if as_json else _lines(facts))
        return 0
    from checks.fingerprint import differences

    one, other = (_here(config_path, replay) if str(path) == "-" else _file(path) for path in diff)
    found = differences(one, other)
    if as_json:
        sys.stdout.write(
            msgspec.json.encode([dict(zip(("name", "a", "b"), row, strict=True)) for row in found]).decode()
        )
        sys.stdout.write("\n")
    else:
        for name, left, right in found:
            click.echo(f"{name}\n  - {left or '(nothing)'}\n  + {right or '(nothing)'}")
        click.echo(f"{len(found)} of {len(one.keys() | other.keys())} differ" if found else "no difference")
    return 1 if found else 0


def _here(config_path: Path | None, replay: Path | None) -> Mapping[str, str]:
    from checks.fingerprint import take
    from daemons.cli.scan import open_host
    from daemons.config import load

    host = open_host(load(config_path), replay)
    try:
        return take(host)
    finally:
        host.close()


def _file(path: Path) -> Mapping[str, str]:
    try:
        return msgspec.json.decode(path.read_bytes(), type=dict[str, str])
    except OSError as error:
        raise MusterError(f"{path}: {error.strerror}") from error
    except msgspec.MsgspecError as error:
        raise MusterError(f"{path}: no fingerprint ({error}): `muster fingerprint --json` writes one") from error


def _lines(facts: Mapping[str, str]) -> str:
    width = max(map(len, facts), default=0)
    return "".join(f"{name:<{width}}  {value}\n" for name, value in facts.items())
