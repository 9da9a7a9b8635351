"""Tokens come from the environment or from systemd, never from the file."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from daemons.errors import ConfigError


@dataclass(frozen=True, slots=True, kw_only=True)
class Credentials:
    """What opens the channels; empty for none. Never shown: not in a repr, a log or an error."""

    slack_token: str = field(default="", repr=False)
    slack_webhook: str = field(default="", repr=False)
    webhook_token: str = field(default="", repr=False)


def credentials(environment: Mapping[str, str]) -> Credentials:
    """The secrets of this process: MUSTER_SLACK_TOKEN and so on, else the files that systemd's LoadCredential= made.

    Raises ConfigError for a credential that cannot be read or is plainly none.
    """
    found = Credentials(
        slack_token=secret("slack_token", environment),
        slack_webhook=secret("slack_webhook", environment),
        webhook_token=secret("webhook_token", environment),
    )
    if found.slack_webhook and not found.slack_webhook.startswith(("https://", "http://")):
        raise ConfigError("MUSTER_SLACK_WEBHOOK: is no address; copy the whole https://hooks.slack.com/... of the app")
    if found.slack_token and not found.slack_token.startswith("xox"):
        raise ConfigError("MUSTER_SLACK_TOKEN: is no Slack token; copy the Bot User OAuth Token, it begins with xoxb-")
    return found


def secret(name: str, environment: Mapping[str, str]) -> str:
    """The secret MUSTER_NAME of the environment, else the systemd credential `name`, else "". Raises ConfigError."""
    given = environment.get(f"MUSTER_{name.upper()}", "").strip()
    directory = environment.get("CREDENTIALS_DIRECTORY", "")
    if given or not directory:
        return given
    path = Path(directory) / name
    try:
        return path.read_text(encoding="utf-8").strip()
    except FileNotFoundError:
        return ""
    except (OSError, UnicodeDecodeError) as error:
        why = getattr(error, "strerror", None) or "not text"
        raise ConfigError(f"{path}: credential cannot be read: {why}") from error
