"""One real message through every channel that is set up, to see whether alerts would arrive."""

import uuid

import msgspec

from daemons.alerts.blocks import slack_message
from daemons.alerts.body import VERSION
from daemons.alerts.channels import SLACK, Channels
from daemons.alerts.message import OVER_MARK, Note, line, text
from daemons.alerts.posts import Outcome, Post
from daemons.incidents import Kind


def trial_note(node: str) -> Note:
    """The message: it asks for nothing."""
    return Note(
        id=str(uuid.uuid4()),
        kind=Kind.OPENED,
        mark=OVER_MARK,
        severity="test",
        title=f"alerts of {line(node, 80)} arrive here",
        summary="Sent by `muster alerts test`. Nothing is wrong and nothing is to be done.",
        command="muster incidents list",
    )


def try_channels(made: Channels, told: Note, now: float) -> dict[str, Outcome]:
    """Send it once through each; what became of it, by channel."""
    outcomes = {}
    for name, sender in made.senders.items():
        content = slack_message(told) if name == SLACK else _body(told, now)
        post = Post(
            id=0,
            channel=name,
            method="post",
            message=told.id,
            subject="test",
            number=1,
            kind="test",
            at=now,
            title=told.title,
            body=msgspec.json.encode(content),
        )
        outcomes[name] = sender.send(post, None)
    return outcomes


def _body(told: Note, now: float) -> dict[str, object]:
    return {
        "version": VERSION,
        "id": told.id,
        "subject": "test",
        "number": 1,
        "kind": "test",
        "at": now,
        "severity": "test",
        "title": told.title,
        "text": text(told),
        "incident": None,
        "storm": None,
    }
