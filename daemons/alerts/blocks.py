"""A message in Slack's Block Kit, within Slack's limits whatever a log held."""

from typing import Any

import msgspec

from daemons.alerts.message import Note, cut, lasted, stamp, text
from daemons.incidents import Kind

# Slack refuses a message above any of these (docs.slack.dev/reference/block-kit/blocks, chat.postMessage).
HEADER_CHARS = 150
SECTION_CHARS = 3000
BLOCKS = 50
TEXT_CHARS = 40000
# Below Slack's advice of 4000 characters a text; what is longer stands in `muster incidents show`.
_FALLBACK_CHARS = 3500
# A word joiner between backticks: three in a row would end the code block, and Slack knows no escape for them.
_APART = "`\u2060"

# People see an answer in a thread only if they follow it: these are shown in the channel as well.
LOUD_REPLIES = frozenset({Kind.WORSENED, Kind.GREW, Kind.REOPENED, Kind.REMINDER, Kind.STORM})


class SlackMessage(msgspec.Struct, frozen=True, kw_only=True):
    """What chat.postMessage and chat.update get. broadcast: show an answer in the channel too."""

    id: str
    text: str
    blocks: list[dict[str, Any]]
    broadcast: bool = False

    def metadata(self) -> dict[str, Any]:
        """By which the message is found again in the channel's history."""
        return {"event_type": "muster_alert", "event_payload": {"id": self.id}}


def escape(plain: str) -> str:
    """Plain text as mrkdwn: no mention, link or code block can come out of it."""
    return entities(plain).replace("`", _APART)


def entities(plain: str) -> str:
    """The three characters that Slack reads as control characters, in any text."""
    return plain.replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")


def slack_message(told: Note) -> SlackMessage:
    """The message for Slack."""
    blocks: list[dict[str, Any]] = [_header(told)]
    if told.summary:
        blocks.append(_section(escape(told.summary)))
    if facts := _facts(told):
        blocks.append(_section("\n".join(facts)))
    if told.evidence:
        blocks.append(_code(told.evidence))
    if told.advice:
        blocks.append(_section(f"*What to do*  {escape(told.advice)}"))
    if told.command:
        blocks.append({"type": "context", "elements": [_mrkdwn(f"Look further: `{escape(told.command)}`")]})
    return SlackMessage(
        id=told.id,
        text=entities(cut(text(told), _FALLBACK_CHARS)),
        blocks=blocks[:BLOCKS],
        broadcast=told.kind in LOUD_REPLIES,
    )


def _header(told: Note) -> dict[str, Any]:
    head = cut(f"{told.mark} {told.severity.upper()}  {told.title}", HEADER_CHARS)
    return {"type": "header", "text": {"type": "plain_text", "text": head, "emoji": False}}


def _facts(told: Note) -> list[str]:
    facts = []
    if told.where:
        facts.append(f"*Where*  {escape(told.where)}")
    if told.since:
        until = f", lasted {lasted(told.until - told.since)}" if told.until else ""
        facts.append(f"*Since*  {_moment(told.since)}{until}")
    return facts + [escape(each) for each in told.lines]


def _moment(seconds: float) -> str:
    """In the reader's own time zone; the text behind the bar is for clients that cannot."""
    return f"<!date^{int(seconds)}^{{date_short_pretty}} {{time_secs}}|{stamp(seconds)}>"


def _section(mrkdwn: str) -> dict[str, Any]:
    return {"type": "section", "text": _mrkdwn(mrkdwn)}


def _code(evidence: str) -> dict[str, Any]:
    return {"type": "section", "text": {**_mrkdwn(fenced(evidence)), "verbatim": True}}


def fenced(evidence: str) -> str:
    """A code block that nothing in it can end, within the limit of a section."""
    room = SECTION_CHARS - len("```\n\n```")
    inner = escape(evidence)
    while len(inner) > room:  # what is escaped grows: cut the plain text, never an entity
        evidence = cut(evidence, max(1, len(evidence) - max(1, (len(inner) - room) // 6)))
        inner = escape(evidence)
    return f"```\n{inner}\n```"


def _mrkdwn(mrkdwn: str) -> dict[str, Any]:
    return {"type": "mrkdwn", "text": mrkdwn}
