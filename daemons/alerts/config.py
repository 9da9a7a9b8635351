"""Whom alerts go to, and how many at most."""

from typing import Literal

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
    """[alerts] remind_hours: how often an open incident is told again; warnings are never.

    warnings: "tell" tells of a warning once and of its end, "quiet" keeps it to `muster incidents`.
    reopen_minutes: what comes back within so long goes on in the same incident and thread.
    flap_minutes: an incident that comes and goes is told at most so often.
    burst_messages: at most so many new messages in burst_seconds; what is above is folded into one.
    keep_days: how long incidents that are over, and their messages, stay in the record.
    """

    slack: SlackConfig = SlackConfig()
    webhook: WebhookConfig = WebhookConfig()
    remind_hours: Positive = 24.0
    warnings: Literal["tell", "quiet"] = "tell"
    reopen_minutes: Positive = 60.0
    flap_minutes: Positive = 30.0
    burst_messages: Count = 15
    burst_seconds: Positive = 600.0
    keep_days: Positive = 90.0
