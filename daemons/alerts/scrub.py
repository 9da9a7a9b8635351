"""Tokens, keys and passwords stand in logs and command lines; a channel that many people read must never show them."""

import importlib
from collections.abc import Callable
from functools import cache
from typing import Any

REMOVED = "***"
# Names of values that are secret. The name has to end so: `max_tokens` and `tokenizer` are no secrets.
_SECRET_NAME = (
    r"[\w.-]*(?:password|passwd|passphrase|pwd|secret|token|credentials?|api[_-]?key|access[_-]?key(?:[_-]?id)?"
    r"|secret[_-]?key|private[_-]?key|account[_-]?key|signing[_-]?key|encryption[_-]?key|client[_-]?secret|webhook[_-]?url"
    r"|signature|sig|cookie|authorization)"
)
_VALUE = (
    r"""(?:\\?"(?:[^"\\\n]|\\[^"\n])*\\?"|'[^'\n]*'"""
    r"""|(?:bearer|basic|token|digest|negotiate)\s+[^\s"',;]+|[^\s"',;&{}\[\]()]+)"""
)
# Tried from left to right in one pass. RE2 runs in time linear in the text, whatever an attacker writes into a log.
_SHAPES = (
    # A key file, also one cut off before its end or with its lines joined by a literal \n.
    r"(?P<block>-----BEGIN [A-Z0-9 ]*PRIVATE KEY(?: BLOCK)?-----"
    r"(?:(?:[^-]|-[^-])*-----END [A-Z0-9 ]*PRIVATE KEY(?: BLOCK)?-----"
    r"|(?:\s|\\[nr]|[A-Za-z0-9+/=]{16,}|[A-Za-z0-9+/]+=+)*[A-Za-z0-9+/=]*))",
    # The capability addresses of Slack, Discord and Teams are secrets themselves.
    r"(?P<hook>https?://(?:hooks\.slack(?:-gov)?\.com|discord(?:app)?\.com/api/webhooks|[\w.-]+\.webhook\.office\.com)/[^\s\"'<>|]+)",
    r"(?P<scheme>\b[a-zA-Z][a-zA-Z0-9+.-]*://)(?P<user>[^\s/?#\"'<>@:]*)(?P<password>:[^\s/?#\"'<>]*)?@",
    # Headers.
    r"(?P<cookie>(?:set-)?cookie:[ \t]*)(?P<jar>[^\n\"']+)",
    rf"""(?P<name>(?:--)?{_SECRET_NAME})(?P<set>\\?["']?\s*(?:=>|:=|[:=])\s*)(?P<value>{_VALUE})""",
    rf"(?P<option>--{_SECRET_NAME}[ \t]+)(?P<given>[^\s\"'-][^\s\"']*|\"[^\"\n]*\"|'[^'\n]*')",
    r"(?P<auth>\b(?:bearer|basic)\s+)(?P<credential>[A-Za-z0-9._~+/=-]{8,})",
    # Tokens that tell themselves by their beginning: Slack, AWS, GitHub, GitLab, Hugging Face, OpenAI and Anthropic,
    # NVIDIA, Google, npm, PyPI, Docker, Stripe, JSON web tokens.
    r"(?P<token>\b(?:(?-i:xox[a-z]-[A-Za-z0-9-]{6,}|xapp-[A-Za-z0-9-]{6,}|xoxe\.[A-Za-z0-9.-]{6,}"
    r"|(?:AKIA|ASIA|ABIA|ACCA)[A-Z0-9]{16}|gh[pousr]_[A-Za-z0-9]{16,}|github_pat_\w{20,}|glpat-[\w-]{16,}"
    r"|hf_[A-Za-z0-9]{16,}|api_org_[A-Za-z0-9]{16,}|sk-[A-Za-z0-9_-]{20,}|nvapi-[\w-]{20,}|AIza[\w-]{35}|ya29\.[\w-]{20,}"
    r"|npm_[A-Za-z0-9]{30,}|pypi-[\w-]{40,}|dckr_pat_[\w-]{20,}|[sr]k_live_[A-Za-z0-9]{16,}"
    r"|eyJ[\w-]{8,}\.eyJ[\w-]{8,}\.[\w-]*)))",
)
# Words of a vocabulary, not of an account.
_TOKENIZER_WORDS = ("pad", "eos", "bos", "unk", "mask", "sep", "cls", "special", "next", "per", "first", "last", "stop")


def scrub(text: str) -> str:
    """The text with every secret in it replaced by ***; what only looks a little like one stays readable."""
    return str(_pattern().sub(_replacement, text))


@cache
def _pattern() -> Any:
    re2: Any = importlib.import_module("re2")  # 3 MB: only a process that has something to tell needs it

    options = re2.Options()
    options.case_sensitive = False
    return re2.compile("|".join(_SHAPES), options)


def _replacement(match: Any) -> str:
    for group, rule in _RULES.items():
        if match.group(group) is not None:
            return rule(match)
    raise AssertionError("a shape without a rule")


def _named(match: Any) -> str:
    name, value = match.group("name"), match.group("value")
    if _harmless(name.lower(), value):
        return str(match.group(0))
    quote = next((q for q in ('\\"', '"', "'") if value.startswith(q)), "")
    return f"{name}{match.group('set')}{quote}{REMOVED}{quote}"


def _harmless(name: str, value: str) -> bool:
    """A vocabulary's token, a number of tokens, and a value that says there is none."""
    bare = value.strip("\\\"'").lower()
    if bare in ("", "none", "null", "true", "false", "unset", "missing", REMOVED):
        return True
    if not name.endswith(("token", "sig", "signature")):
        return False
    stem = name.rsplit("token", 1)[0].rstrip("_-. ")
    return bare.replace(".", "").isdigit() or stem.endswith(_TOKENIZER_WORDS)


def _credential(match: Any) -> str:
    """`Basic configuration` is prose: what is encoded or random has a digit, or capitals inside."""
    value = match.group("credential")
    encoded = any(c.isdigit() or c in "=+/" for c in value) or value[1:].lower() != value[1:]
    return f"{match.group('auth')}{REMOVED}" if encoded else str(match.group(0))


def _address(match: Any) -> str:
    # `git@` and the like are accounts everybody knows; whatever stands before a password, or alone, may be a token.
    if match.group("password") is None and match.group("user") in ("", "git", "hg", "root"):
        return str(match.group(0))
    return f"{match.group('scheme')}{REMOVED}@"


_RULES: dict[str, Callable[[Any], str]] = {
    "block": lambda match: "[private key removed]",
    "hook": lambda match: (
        match.group("hook").split("/", 3)[0] + "//" + match.group("hook").split("/")[2] + "/" + REMOVED
    ),
    "scheme": _address,
    "cookie": lambda match: match.group("cookie") + REMOVED,
    "name": _named,
    "option": lambda match: match.group("option") + REMOVED,
    "auth": _credential,
    "token": lambda match: REMOVED,
}
