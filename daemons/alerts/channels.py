"""The ways out: which are set up, and what is missing of those that are not."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Protocol

from daemons.alerts.config import AlertsConfig
from daemons.alerts.credentials import Credentials
from daemons.alerts.posts import Outcome, Post, Thread

SLACK = "slack"
WEBHOOK = "webhook"
NAMES = (SLACK, WEBHOOK)


class Sender(Protocol):
    """Sends one message and says what became of it; never raises for what a network or a server does.

    asked: the place as it was configured. pace: seconds between two messages.
    """

    @property
    def asked(self) -> str: ...
    @property
    def pace(self) -> float: ...
    def send(self, post: Post, thread: Thread | None) -> Outcome: ...
    def find(self, post: Post, thread: Thread | None) -> Outcome:
        """Whether a message that may have been sent was: SENT, MISSING, or why that cannot be told yet."""
        ...


@dataclass(frozen=True, slots=True, kw_only=True)
class Channels:
    """senders: by name, those that can be used. wanted: where messages are queued. missing: by name, the remedy."""

    senders: Mapping[str, Sender] = field(default_factory=dict)
    wanted: tuple[str, ...] = ()
    missing: Mapping[str, str] = field(default_factory=dict)


def channels(config: AlertsConfig, secrets: Credentials) -> Channels:
    """The channels of this configuration. With none at all, messages are queued for Slack until it is set up."""
    senders: dict[str, Sender] = {}
    missing: dict[str, str] = {}
    if secrets.slack_token and config.slack.channel:
        from daemons.alerts.slack import SlackSender

        senders[SLACK] = SlackSender(secrets.slack_token, config.slack.channel, config.slack.api_url)
    elif secrets.slack_webhook:
        from daemons.alerts.slack_webhook import SlackWebhookSender

        senders[SLACK] = SlackWebhookSender(secrets.slack_webhook)
    elif secrets.slack_token:
        missing[SLACK] = "a token but no channel: set alerts.slack.channel"
    elif config.slack.channel:
        missing[SLACK] = "no credentials: set MUSTER_SLACK_TOKEN or the systemd credential slack_token"
    if config.webhook.url:
        from daemons.alerts.webhook import WebhookSender

        senders[WEBHOOK] = WebhookSender(config.webhook.url, secrets.webhook_token)
    if not senders and not missing:
        missing[SLACK] = (
            "alerts go nowhere: set MUSTER_SLACK_TOKEN and alerts.slack.channel, or alerts.webhook.url"
            " (docs/alerts.md); until then see `muster incidents list`"
        )
    wanted = tuple(name for name in NAMES if name in senders or name in missing)
    return Channels(senders=senders, wanted=wanted, missing=missing)
