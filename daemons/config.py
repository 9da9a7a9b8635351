"""One TOML file, decoded into frozen structs that stand beside what they configure; defaults live in code only."""

import os
import re
import tomllib
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, get_args

import msgspec

from checks.base import CheckConfig
from checks.registry import CHECKS
from daemons.alerts.config import AlertsConfig
from daemons.classify_config import ClassifyConfig
from daemons.engines.choose import EngineConfig
from daemons.errors import ConfigError
from daemons.fleet.config import FleetConfig
from daemons.node.config import NodeConfig
from daemons.section import Section
from daemons.supervisor.config import RunConfig

DEFAULT_PATH = Path("/etc/muster/muster.toml")
# Named where a person would put a secret: the remedy is better than "unknown key".
_SECRET_KEY = re.compile(r"(token|secret|password|webhook_url|app_token)$")

# One struct field per registered check, so that an unknown check or key is an error that names its path.
ChecksConfig = msgspec.defstruct(
    "ChecksConfig",
    [(check.name, check.config, check.config()) for check in CHECKS],
    frozen=True,
    kw_only=True,
    forbid_unknown_fields=True,
)


class Config(Section, frozen=True, kw_only=True):
    """The whole file."""

    node: NodeConfig = NodeConfig()
    fleet: FleetConfig = FleetConfig()
    alerts: AlertsConfig = AlertsConfig()
    engine: EngineConfig = EngineConfig()
    run: RunConfig = RunConfig()
    classify: ClassifyConfig = ClassifyConfig()
    checks: ChecksConfig = ChecksConfig()  # type: ignore[valid-type]

    def check(self, name: str) -> CheckConfig:
        """What the check of that name is told."""
        found = getattr(self.checks, name)
        assert isinstance(found, CheckConfig)
        return found


def load(path: Path | None, environment: Mapping[str, str] = os.environ) -> Config:
    """The configuration of `path`, else of MUSTER_CONFIG, else of the default path if there is one, else defaults.

    Raises ConfigError with file, key and remedy.
    """
    chosen = path or (Path(environment["MUSTER_CONFIG"]) if environment.get("MUSTER_CONFIG") else None)
    if chosen is None:
        if not DEFAULT_PATH.exists():
            return Config()
        chosen = DEFAULT_PATH
    try:
        text = chosen.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(f"{chosen}: cannot be read: {getattr(error, 'strerror', None) or error}") from error
    return parse(text, str(chosen))


def parse(text: str, name: str) -> Config:
    """The configuration in a TOML text; `name` is what errors call the file. Raises ConfigError."""
    try:
        tree = tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        raise ConfigError(f"{name}: not valid TOML: {error}") from error
    for key in _keys(tree):
        if _SECRET_KEY.search(key):
            raise ConfigError(
                f"{name}: {key}: secrets do not belong in the file: give it as an environment variable or a systemd"
                f" credential (see `muster alerts --help`)"
            )
    try:
        return msgspec.convert(tree, Config)
    except msgspec.ValidationError as error:
        raise ConfigError(f"{name}: {explain(error, tree)}") from error


def _keys(tree: Mapping[str, Any], path: str = "") -> Iterator[str]:
    for key, value in tree.items():
        yield f"{path}{key}"
        if isinstance(value, Mapping):
            yield from _keys(value, f"{path}{key}.")


def explain(error: msgspec.ValidationError, tree: Mapping[str, Any]) -> str:
    """msgspec's message as `key.path: what is wrong; what would be right`."""
    message, _, where = str(error).partition(" - at `$")
    path = where.rstrip("`").replace("[...]", "[*]").lstrip(".")
    if unknown := re.search(r"unknown field `(.+)`", message):
        key = f"{path}.{unknown[1]}".lstrip(".")
        known = ", ".join(_known(path)) or "none"
        return f"{key}: unknown key; known here: {known}"
    if "[" in path:  # an entry of a table or list, which msgspec does not name
        return f"{path}: {message[0].lower()}{message[1:]}"
    value = _value(tree, path)
    return f"{path or 'file'}: {value!r} is wrong: {message[0].lower()}{message[1:]}"


def _known(path: str) -> list[str]:
    struct: Any = Config
    for part in filter(None, path.split(".")):
        name, entry, _ = part.partition("[")
        struct = next(f.type for f in msgspec.structs.fields(struct) if f.encode_name == name)
        if entry:
            struct = get_args(struct)[-1]
    return sorted(field.encode_name for field in msgspec.structs.fields(struct))


def _value(tree: Mapping[str, Any], path: str) -> Any:
    value: Any = tree
    for part in filter(None, path.split(".")):
        value = value.get(part) if isinstance(value, Mapping) else value
    return value


def as_tree(config: Config) -> dict[str, Any]:
    """The effective configuration as plain values, for `muster config show`."""
    tree = msgspec.to_builtins(config)
    assert isinstance(tree, dict)
    return tree
