"""Whom alerts go to, and how many at most."""

from daemons.section import Count, Positive, Section


class SlackConfig(Section, frozen=True, kw_only=True):
    """[alerts.slack] channel: id or #name, with a bot token; without one, an incoming webhook is used.

    Secrets come from the environment or systemd credentials: MUSTER_SLACK_TOKEN or credential slack_token,
    MUSTER_SLACK_WEBHOOK or credential slack_webhook. api_url: for a proxy in front of Slack.
    """

    channel: str = ""
    api_url: str = "https://slack.com/api/"


class WebhookConfig(Section, frozen=True, kw_only=True):
    """[alerts.webhook] url: gets one JSON object per message by POST; empty for none.

    A bearer token may be given as MUSTER_WEBHOOK_TOKEN or credential webhook_token.
    """

    url: str = ""


class AlertsConfig(Section, frozen=True, kw_only=True):
    """[alerts] remind_hours: how often an open incident is told again.

    burst_messages: at most so many new messages in burst_seconds; what is above is folded into one.
    """

    slack: SlackConfig = SlackConfig()
    webhook: WebhookConfig = WebhookConfig()
    remind_hours: Positive = 24.0
    burst_messages: Count = 15
    burst_seconds: Positive = 600.0
