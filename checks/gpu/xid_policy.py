"""What every XID means, what NVIDIA says to do and what muster makes of it: data in xid.toml, read and checked here."""

import tomllib
from collections.abc import Mapping
from functools import cache
from importlib.resources import files
from typing import Literal

import msgspec

from checks.base import ClearRule, Status

Class = Literal["hardware", "driver", "application", "secondary", "informational", "unused"]


class XidMeaning(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True, rename={"fault": "class"}):
    """One code. fault: who is at fault by NVIDIA's trigger conditions ("class" in the file).

    immediate, investigate: NVIDIA's action words ("" where none is noted). status, cause, clear: ours for a node that
    logs it. why: where we differ, or how we read it. source: key of [sources].
    """

    meaning: str
    fault: Class
    immediate: str
    status: Status
    clear: ClearRule
    source: str
    investigate: str = ""
    cause: str = ""
    why: str = ""


class _Policy(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    sources: dict[str, str]
    actions: dict[str, str]
    xid: dict[int, XidMeaning]


class Override(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """[checks.xid.override.NN]: what this site makes of a code; what is left out stays as shipped.

    status: ok, warn or fail. clear: quiet, reboot or acknowledged. advice: replaces NVIDIA's action in our words.
    """

    status: Literal["ok", "warn", "fail"] | None = None
    cause: str | None = None
    clear: Literal["quiet", "reboot", "acknowledged"] | None = None
    advice: str | None = None


# A code that the catalogue does not have: never ok, because nobody can say what it means.
UNLISTED = XidMeaning(
    meaning="not in the catalogue that muster ships",
    fault="unused",
    immediate="CONTACT_SUPPORT",
    status=Status.WARN,
    cause="gpu.driver",
    clear=ClearRule.QUIET,
    why="Newer than our copy of the catalogue: warn, never ok.",
    source="catalogue",
)


@cache
def _policy() -> _Policy:
    text = files("checks.gpu").joinpath("xid.toml").read_text(encoding="utf-8")
    # TOML keys are text: strict=False lets them become the numbers that they are.
    return msgspec.convert(tomllib.loads(text), _Policy, strict=False)


def load() -> Mapping[int, XidMeaning]:
    """Every code of the shipped catalogue, by number."""
    return _policy().xid


def sources() -> Mapping[str, str]:
    """Where the entries come from, by the word that XidMeaning.source holds."""
    return _policy().sources


def action(word: str) -> str:
    """NVIDIA's action word as advice in plain words; "" for none."""
    return _policy().actions[word] if word else ""


def meaning(code: int, overrides: Mapping[int, Override] | None = None) -> XidMeaning:
    """The code as this site judges it; UNLISTED for one that the catalogue lacks."""
    found = load().get(code, UNLISTED)
    override = (overrides or {}).get(code)
    if override is None:
        return found
    changes: dict[str, object] = {"why": "overridden by this site's configuration"}
    if override.status is not None:
        changes["status"] = Status(override.status)
    if override.clear is not None:
        changes["clear"] = ClearRule(override.clear)
    if override.cause is not None:
        changes["cause"] = override.cause
    return msgspec.structs.replace(found, **changes)


def advice(code: int, overrides: Mapping[int, Override] | None = None) -> str:
    """What to do about the code: the site's own words, else NVIDIA's immediate action and then its investigation."""
    override = (overrides or {}).get(code)
    if override is not None and override.advice is not None:
        return override.advice
    found = load().get(code, UNLISTED)
    words = [found.immediate] if found.immediate else []
    if found.investigate and found.investigate != "IGNORE":
        words.append(found.investigate)
    return "; then ".join(action(word) for word in words) or action("CONTACT_SUPPORT")
