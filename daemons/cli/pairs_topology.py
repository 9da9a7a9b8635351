"""Which nodes and leaves a sweep is about, from what people give: a count, host names, a file of any known form."""

import tomllib
from pathlib import Path

from checks.pairs.topology import (
    Topology,
    TopologyError,
    chosen,
    expand,
    flat,
    from_ibnetdiscover,
    from_slurm,
    grouped,
    uniform,
)
from daemons.errors import MusterError


def topology_of(count: int | None, hosts: str | None, source: Path | None, leaf_size: int = 0) -> Topology:
    """The topology that the options describe. Raises MusterError that says what is missing or wrong."""
    try:
        known = read(source) if source else None
        if hosts:
            return chosen(known, expand(hosts)) if known else flat(expand(hosts))
        if known:
            return known
        if count is None:
            raise MusterError("no nodes given: --nodes COUNT, --hosts LIST or --topology FILE")
        return uniform(count, leaf_size)
    except TopologyError as error:
        raise MusterError(f"{source or hosts}: {error}") from error


def read(source: Path) -> Topology:
    """A topology file: TOML, `scontrol show topology`, or `ibnetdiscover`. Raises MusterError or TopologyError."""
    try:
        text = source.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise MusterError(f"{source}: cannot be read: {getattr(error, 'strerror', None) or error}") from error
    if "SwitchName=" in text:
        return from_slurm(text)
    if '"S-' in text and "Switch" in text:
        return from_ibnetdiscover(text)
    return from_toml(text)


def from_toml(text: str) -> Topology:
    """The table `[leaves]`, and beside it `rails` and `rail_leaves`. Raises TopologyError."""
    try:
        tree = tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        raise TopologyError(f"neither TOML ({error}) nor scontrol's nor ibnetdiscover's output") from error
    leaves = tree.get("leaves")
    if not isinstance(leaves, dict) or not leaves:
        raise TopologyError('a table [leaves] with lines such as leaf01 = ["n1", "n2"] is wanted')
    wrong = [name for name, members in leaves.items() if not isinstance(members, list | str)]
    if wrong:
        raise TopologyError(f"leaves.{wrong[0]}: a list of hosts is wanted")
    groups = {name: expand(m) if isinstance(m, str) else [str(host) for host in m] for name, m in leaves.items()}
    rails = tree.get("rails", 1)
    if not isinstance(rails, int) or rails < 1:
        raise TopologyError("rails: a number from 1 is wanted")
    return grouped(groups, rails=rails, rail_leaves=bool(tree.get("rail_leaves", False)))
