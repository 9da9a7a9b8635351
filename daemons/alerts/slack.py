"""Slack by bot token: an incident is one message in the channel, and what follows stands in its thread.

Slack promises no idempotent posting (client_msg_id is its own clients' affair, by its maintainers' word in
slackapi/java-slack-sdk issue 852), so a message carries its UUID as metadata, and one that may have been sent is
looked for in the channel before it is sent again.
"""

import functools
import http.client
import json
import logging
import socket
import ssl
import urllib.error
from collections.abc import Callable, Mapping
from typing import Any

from slack_sdk.errors import SlackApiError
from slack_sdk.web.client import WebClient

from daemons.alerts.blocks import TEXT_CHARS
from daemons.alerts.message import line
from daemons.alerts.posts import Outcome, Post, Result, Thread

TIMEOUT_SECONDS = 10
# Slack bears one message a second in a channel, short bursts above (docs.slack.dev/apis/web-api/rate-limits).
PACE_SECONDS = 1.0
# How far back a message is looked for: 3 pages of what Slack gives, 15 to 100 messages each.
_PAGES = 3
_PAGE = 100
_DEFAULT_RETRY_AFTER = 30.0

# Slack says of these that the operation may have succeeded before they were raised.
_UNSURE_ERRORS = frozenset(
    {"fatal_error", "internal_error", "service_unavailable", "request_timeout", "team_added_to_org"}
)
_LIMITED = frozenset({"ratelimited", "rate_limited", "message_limit_exceeded"})
_UNFIT = frozenset({"msg_too_long", "invalid_blocks", "invalid_blocks_format", "msg_blocks_too_long", "no_text"})
_NO_THREAD = frozenset({"thread_not_found", "cannot_reply_to_message", "message_not_found"})
_NO_UPDATE = frozenset({"message_not_found", "cant_update_message", "edit_window_closed", "channel_not_found"})
_REMEDIES = {
    "invalid_auth": "the token is wrong: copy the Bot User OAuth Token again",
    "not_authed": "the token is empty",
    "token_revoked": "the token was revoked: install the app again and set the new one",
    "token_expired": "the token has expired: set a new one, or turn token rotation off",
    "account_inactive": "the app or its workspace was removed: install it again",
    "channel_not_found": "no such channel, or a private one without the app: invite it there (/invite @app)",
    "not_in_channel": "the app is not in the channel: invite it there (/invite @app) or give it chat:write.public",
    "is_archived": "the channel is archived: set another in alerts.slack.channel",
    "missing_scope": "give the app the scope it lacks and install it again",
    "restricted_action": "the workspace does not let apps post there: ask its administrators",
}


class SlackSender:
    """chat.postMessage, chat.update and, after an answer that never came, conversations.history or .replies."""

    def __init__(
        self, token: str, channel: str, api_url: str, pace: float = PACE_SECONDS, timeout: int = TIMEOUT_SECONDS
    ) -> None:
        quiet = logging.getLogger("muster.alerts.slack_sdk")
        quiet.setLevel(logging.CRITICAL)  # it logs every failed request; we say it once, with the remedy
        self._client = WebClient(
            token=token,
            base_url=api_url if api_url.endswith("/") else f"{api_url}/",
            timeout=timeout,
            retry_handlers=[],  # its own would send again after a connection that broke behind an accepted message
            logger=quiet,
        )
        self.asked = channel
        self.pace = pace
        self._place = ""

    def send(self, post: Post, thread: Thread | None) -> Outcome:
        """Send it; one that Slack cannot show as blocks goes as plain text rather than not at all."""
        message = json.loads(post.body)
        if post.method == "update":
            assert thread is not None, "an update has a message to change"
            outcome = self._call(functools.partial(self._update, message, thread), _NO_UPDATE)
        else:
            outcome = self._call(functools.partial(self._post, post, message, thread))
            if thread is not None and outcome.result is Result.NEEDLESS:
                outcome = self._call(functools.partial(self._post, post, message, None))
        if outcome.result is Result.UNFIT and message.get("blocks"):
            plain = {"text": message["text"], "broadcast": message.get("broadcast", False)}
            call = self._update if post.method == "update" else functools.partial(self._post, post)
            outcome = self._call(functools.partial(call, plain, thread))  # type: ignore[arg-type]
        return outcome

    def _post(self, post: Post, message: Mapping[str, Any], thread: Thread | None) -> Any:
        answer_to: dict[str, Any] = {}
        if thread:
            answer_to = {"thread_ts": thread.ts, "reply_broadcast": bool(message.get("broadcast"))}
        return self._client.chat_postMessage(
            channel=thread.place if thread else self._place or self.asked,
            text=message["text"][:TEXT_CHARS],
            blocks=message.get("blocks"),
            metadata=_metadata(post.message),
            unfurl_links=False,
            unfurl_media=False,
            **answer_to,
        )

    def _update(self, message: Mapping[str, Any], thread: Thread) -> Any:
        return self._client.chat_update(
            channel=thread.place, ts=thread.ts, text=message["text"][:TEXT_CHARS], blocks=message.get("blocks", [])
        )

    def find(self, post: Post, thread: Thread | None) -> Outcome:
        """Look for the message by the UUID in its metadata; where that is not allowed, it counts as not sent."""
        place = thread.place if thread else self._place or self.asked
        if place.startswith("#"):
            return Outcome(result=Result.MISSING, reason="cannot be looked for in a channel given by name: use its id")
        outcome = self._call(functools.partial(self._search, post.message, place, thread))
        if outcome.result in (Result.UNSURE, Result.UNFIT, Result.NEEDLESS):
            return Outcome(result=Result.LATER, reason=outcome.reason, wait=outcome.wait)
        if outcome.result is Result.REFUSED and _without_right(outcome.reason):
            why = "sent again without looking for it: give the app channels:history (private: groups:history)"
            return Outcome(result=Result.MISSING, reason=why)
        if outcome.result is Result.SENT and not outcome.ts:
            return Outcome(result=Result.MISSING)
        return outcome

    def _search(self, message: str, place: str, thread: Thread | None) -> dict[str, str]:
        cursor = ""
        for _ in range(_PAGES):
            more: dict[str, Any] = {"cursor": cursor} if cursor else {}
            if thread:
                page: Any = self._client.conversations_replies(
                    channel=place, ts=thread.ts, limit=_PAGE, include_all_metadata=True, **more
                )
            else:
                page = self._client.conversations_history(channel=place, limit=_PAGE, include_all_metadata=True, **more)
            for found in page["messages"]:
                payload = (found.get("metadata") or {}).get("event_payload") or {}
                if payload.get("id") == message:
                    return {"channel": place, "ts": found["ts"]}
            cursor = (page.get("response_metadata") or {}).get("next_cursor") or ""
            if not cursor:
                break
        return {"channel": place, "ts": ""}

    def check(self) -> Outcome:
        """Whether the token is good; ts holds nothing, place the workspace's name."""
        return self._call(lambda: {"channel": self._client.auth_test().get("team", ""), "ts": ""})

    def _call(self, request: Callable[[], Any], needless: frozenset[str] = _NO_THREAD) -> Outcome:
        try:
            answer = request()
        except SlackApiError as error:
            return refused(error, needless)
        except urllib.error.URLError as error:
            return unreached(error.reason)
        except (OSError, http.client.HTTPException, ValueError) as error:
            return Outcome(result=Result.UNSURE, reason=f"no answer from Slack: {_why(error)}")
        self._place = answer.get("channel") or self._place
        return Outcome(result=Result.SENT, place=answer.get("channel") or "", ts=answer.get("ts") or "")


def refused(error: SlackApiError, needless: frozenset[str]) -> Outcome:
    """What an answer other than ok means."""
    response: Any = error.response
    status, name = response.status_code, str(response.get("error", ""))
    headers = {str(key).lower(): value for key, value in (response.headers or {}).items()}
    if status == 429 or name in _LIMITED:
        wait = retry_after(headers.get("retry-after"))
        return Outcome(result=Result.LATER, reason=f"Slack asks to wait {wait:.0f} s", wait=wait)
    if status >= 500 or name in _UNSURE_ERRORS:
        return Outcome(result=Result.UNSURE, reason=f"Slack answered {status} {line(name, 120)}")
    if name in needless:
        return Outcome(result=Result.NEEDLESS, reason=name)
    if name in _UNFIT:
        return Outcome(result=Result.UNFIT, reason=f"Slack refuses the message: {name}")
    needed = f" (needs {response.get('needed')})" if response.get("needed") else ""
    remedy = f": {_REMEDIES[name]}" if name in _REMEDIES else ""
    return Outcome(result=Result.REFUSED, reason=f"Slack refuses: {line(name, 120)}{needed}{remedy}")


def unreached(reason: object) -> Outcome:
    """A request that failed while it was sent: one that never reached a server is surely not posted."""
    surely = isinstance(reason, (ConnectionRefusedError, socket.gaierror, ssl.SSLCertVerificationError))
    unreachable = isinstance(reason, OSError) and reason.errno in (101, 113)  # network, host unreachable
    return Outcome(
        result=Result.LATER if surely or unreachable else Result.UNSURE, reason=f"Slack not reached: {_why(reason)}"
    )


def retry_after(header: object) -> float:
    """Seconds that the server asks for; half a minute when it does not say."""
    first = header[0] if isinstance(header, list) and header else header
    try:
        return max(1.0, float(str(first)))
    except ValueError:
        return _DEFAULT_RETRY_AFTER


def _metadata(message: str) -> dict[str, Any]:
    return {"event_type": "muster_alert", "event_payload": {"id": message}}


def _without_right(reason: str) -> bool:
    return any(name in reason for name in ("missing_scope", "channel_not_found", "not_in_channel"))


def _why(error: object) -> str:
    return line(str(error), 200) or type(error).__name__
