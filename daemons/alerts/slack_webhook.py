"""Slack by incoming webhook, the simple case: single messages, no threads, nothing to look for afterwards."""

import http.client
import json
import logging
import urllib.error

from slack_sdk.webhook.client import WebhookClient

from daemons.alerts.message import line
from daemons.alerts.posts import Outcome, Post, Result, Thread
from daemons.alerts.slack import PACE_SECONDS, TIMEOUT_SECONDS, retry_after, unreached

_GONE = "the webhook is gone: make a new one in the app's settings and set MUSTER_SLACK_WEBHOOK"
_UNFIT = ("invalid_blocks", "invalid_payload", "no_text", "msg_too_long")


class SlackWebhookSender:
    """POST to the secret address. Its answer holds no time stamp, so that an update is never sent."""

    asked = "incoming webhook"

    def __init__(self, address: str, pace: float = PACE_SECONDS, timeout: int = TIMEOUT_SECONDS) -> None:
        quiet = logging.getLogger("muster.alerts.slack_sdk")
        quiet.setLevel(logging.CRITICAL)  # its errors would show the address
        self._client = WebhookClient(address, timeout=timeout, retry_handlers=[], logger=quiet)
        self.pace = pace

    def send(self, post: Post, thread: Thread | None) -> Outcome:
        """Send it; as plain text when Slack refuses the blocks."""
        message = json.loads(post.body)
        outcome = self._send(message["text"], message.get("blocks"))
        if outcome.result is Result.UNFIT and message.get("blocks"):
            outcome = self._send(message["text"], None)
        return outcome

    def find(self, post: Post, thread: Thread | None) -> Outcome:
        """Nothing can be read through a webhook: rather twice than never."""
        return Outcome(result=Result.MISSING, reason="sent again: a webhook cannot tell whether the first one arrived")

    def _send(self, text: str, blocks: list[dict[str, object]] | None) -> Outcome:
        try:
            answer = self._client.send(text=text, blocks=blocks, unfurl_links=False, unfurl_media=False)
        except urllib.error.URLError as error:
            return unreached(error.reason)
        except (OSError, http.client.HTTPException, ValueError) as error:
            return Outcome(result=Result.UNSURE, reason=f"no answer from Slack: {type(error).__name__}")
        if answer.status_code == 200:
            return Outcome(result=Result.SENT)
        if answer.status_code == 429:
            headers = {str(key).lower(): value for key, value in answer.headers.items()}
            wait = retry_after(headers.get("retry-after"))
            return Outcome(result=Result.LATER, reason=f"Slack asks to wait {wait:.0f} s", wait=wait)
        said = f"{answer.status_code} {line(answer.body, 80)}"
        if answer.status_code >= 500:
            return Outcome(result=Result.UNSURE, reason=f"Slack answered {said}")
        if any(word in answer.body for word in _UNFIT):
            return Outcome(result=Result.UNFIT, reason=f"Slack refuses the message: {said}")
        return Outcome(result=Result.REFUSED, reason=f"Slack refuses: {said}: {_GONE}")
