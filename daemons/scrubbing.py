"""Takes out of a recording what names a machine, its parts and its people, the same thing always by the same word."""

import re
import socket
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from daemons.alerts.scrub import scrub

_UUID = r"\b(?:GPU-|MIG-)?[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}\b"
# Three of four groups of four hex digits make no GUID: a PCI address (0000:3b:00.0) has two digits between its colons.
_GUID = r"(?<![0-9a-f:])[0-9a-f]{4}:[0-9a-f]{4}:[0-9a-f]{4}:[0-9a-f]{4}(?![0-9a-f:])"
_GID = r"(?<![0-9a-f:])(?:[0-9a-f]{4}:){7}[0-9a-f]{4}(?![0-9a-f:])"
_MAC = r"(?<![0-9a-f:])(?:[0-9a-f]{2}:){5}[0-9a-f]{2}(?![0-9a-f:])"
_IPV4 = r"(?<![\d.])(?!127\.|0\.0\.0\.0|255\.)(?:\d{1,3}\.){3}\d{1,3}(?![\d.])"
_NAMES = re.compile(
    f"(?P<uuid>{_UUID})|(?P<gid>{_GID})|(?P<guid>{_GUID})|(?P<mac>{_MAC})|(?P<ip>{_IPV4})", re.IGNORECASE
)
# Versions look like IPv4 addresses; in these places four numbers with dots are one.
_VERSIONS = ("version", "fw_ver", "vbios")


@dataclass(slots=True)
class Scrubber:
    """Replaces; remembers what by what. words: whole words to replace everywhere, such as host name and serials."""

    words: Mapping[str, str]
    _given: dict[str, str] = field(default_factory=dict)
    _counts: dict[str, int] = field(default_factory=dict)

    @classmethod
    def of(cls, node: str, nvml: Mapping[str, Any]) -> "Scrubber":
        """One that knows this node's names and the serials of its GPUs."""
        words = {
            name: "node" for name in {node, socket.gethostname(), socket.getfqdn()} if name and name != "localhost"
        }
        for index, gpu in enumerate(nvml.get("gpus", [])):
            serial = gpu.get("serial")
            if isinstance(serial, str) and serial:
                words[serial] = f"SERIAL{index:04d}"
        return cls(words)

    def tree(self, value: Any, key: str = "") -> Any:
        """The value with every text in it, keys included, without names."""
        if isinstance(value, dict):
            return {self.text(str(name)): self.tree(part, str(name)) for name, part in value.items()}
        if isinstance(value, list):
            return [self.tree(part, key) for part in value]
        if not isinstance(value, str):
            return value
        if key.endswith("/cmdline"):
            return value.split("\x00")[0].split(" ")[0]  # what follows may hold anything
        return self.text(value, version=any(word in key for word in _VERSIONS))

    def text(self, value: str, version: bool = False) -> str:
        """One text without names and secrets."""
        for word in sorted(self.words, key=len, reverse=True):
            value = re.sub(rf"(?<![\w-]){re.escape(word)}(?![\w-])", self.words[word], value)
        return scrub(_NAMES.sub(lambda found: self._replace(found, version), value))

    def _replace(self, found: re.Match[str], version: bool) -> str:
        kind = found.lastgroup or ""
        old = found[0]
        if version and kind == "ip":
            return old
        if old not in self._given:
            number = self._counts[kind] = self._counts.get(kind, 0) + 1
            self._given[old] = _FORMS[kind](old, number, self)
        return self._given[old]

    def guid(self, old: str) -> str:
        """The GUID's replacement: a GID ends in its port's GUID and shall go on doing so."""
        return self.text(old)


def _uuid(old: str, number: int, scrubber: Scrubber) -> str:
    prefix = old[:4] if old[3:4] == "-" else ""
    return f"{prefix}00000000-0000-4000-8000-{number:012x}"


def _gid(old: str, number: int, scrubber: Scrubber) -> str:
    return f"fe80:0000:0000:0000:{scrubber.guid(old[20:])}"


_FORMS: Mapping[str, Callable[[str, int, Scrubber], str]] = {
    "uuid": _uuid,
    "gid": _gid,
    "guid": lambda old, number, scrubber: f"0000:0000:0000:{number:04x}",
    "mac": lambda old, number, scrubber: f"02:00:00:00:{number >> 8:02x}:{number & 255:02x}",
    "ip": lambda old, number, scrubber: f"192.0.2.{number % 254 + 1}",
}
