"""What people read, compared whole; Slack's limits and its markup hold whatever a log held."""

import io
import json
from typing import Any

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from incident_changes import START, Story, finding
from rich.console import Console

from checks.base import Status
from daemons.alerts import blocks as limits
from daemons.alerts.blocks import SlackMessage, escape, fenced, slack_message
from daemons.alerts.body import body
from daemons.alerts.config import AlertsConfig
from daemons.alerts.message import EVIDENCE_CHARS, clean, lasted, message_id, note, text
from daemons.alerts.preview import preview
from daemons.incidents import Kind, Tell, acknowledge

LOST = finding(
    evidence="NVRM: Xid (PCI:0000:4e:00): 79, GPU has fallen off the bus.\nMUSTER_SLACK_TOKEN=xoxb-123456789012-secret",
    advice="Drain the node and reset it; if it comes back, return the GPU.",
)


def opened(*found: Any, config: AlertsConfig | None = None) -> Tell:
    story = Story(config)
    story.happens(*(("opened", each) for each in found or (LOST,)))
    return story.tells[-1]


def shown(tell: Tell) -> SlackMessage:
    return slack_message(note(tell))


def test_a_new_incident_in_block_kit_compared_whole() -> None:
    tell = opened()
    message = shown(tell)
    assert message.blocks == [
        {"type": "header", "text": {"type": "plain_text", "text": "✖ FAIL  gpu.lost on n12", "emoji": False}},
        {"type": "section", "text": {"type": "mrkdwn", "text": "GPU fell off the bus"}},
        {
            "type": "section",
            "text": {
                "type": "mrkdwn",
                "text": "*Where*  n12 gpu/3\n*Since*  <!date^1700000000^{date_short_pretty} {time_secs}|2023-11-14"
                " 22:13:20 UTC>",
            },
        },
        {
            "type": "section",
            "text": {
                "type": "mrkdwn",
                "text": "```\nNVRM: Xid (PCI:0000:4e:00): 79, GPU has fallen off the bus.\nMUSTER_SLACK_TOKEN=***\n```",
                "verbatim": True,
            },
        },
        {
            "type": "section",
            "text": {
                "type": "mrkdwn",
                "text": "*What to do*  Drain the node and reset it; if it comes back, return the GPU.",
            },
        },
        {
            "type": "context",
            "elements": [{"type": "mrkdwn", "text": f"Look further: `muster incidents show {tell.subject}`"}],
        },
    ]
    assert message.metadata() == {"event_type": "muster_alert", "event_payload": {"id": message_id(tell)}}


def test_the_plain_text_compared_whole() -> None:
    tell = opened()
    assert text(note(tell)).splitlines() == [
        "✖ FAIL gpu.lost on n12: GPU fell off the bus",
        "where: n12 gpu/3",
        "since: 2023-11-14 22:13:20 UTC",
        "NVRM: Xid (PCI:0000:4e:00): 79, GPU has fallen off the bus.",
        "MUSTER_SLACK_TOKEN=***",
        "what to do: Drain the node and reset it; if it comes back, return the GPU.",
        f"look further: muster incidents show {tell.subject}",
    ]


def test_the_webhook_body_compared_whole() -> None:
    tell = opened()
    assert body(tell) == {
        "version": 1,
        "id": message_id(tell),
        "subject": tell.subject,
        "number": 1,
        "kind": "opened",
        "at": START,
        "severity": "fail",
        "title": "gpu.lost on n12",
        "text": text(note(tell)),
        "incident": {
            "id": tell.subject,
            "cause": "gpu.lost",
            "severity": "fail",
            "state": "open",
            "summary": "GPU fell off the bus",
            "evidence": "NVRM: Xid (PCI:0000:4e:00): 79, GPU has fallen off the bus.\nMUSTER_SLACK_TOKEN=***",
            "advice": "Drain the node and reset it; if it comes back, return the GPU.",
            "opened": START,
            "resolved": None,
            "nodes": ["n12"],
            "affected": [{"node": "n12", "component": "gpu/3", "check": "gpu_count", "status": "fail"}],
            "components": 1,
            "count": 1,
            "flaps": 0,
            "who": "",
            "note": "",
        },
        "storm": None,
    }


def first_lines(story: Story) -> list[str]:
    return [text(note(tell)).splitlines()[0] for tell in story.tells]


def test_every_form_of_an_incident_says_what_is_new() -> None:
    story = Story()
    warning, failure = finding(status=Status.WARN), finding()
    well = finding(status=Status.OK, summary="8 GPUs")
    story.happens(("opened", warning))
    story.happens(("worsened", failure), after=60)
    story.passes(24 * 3600)
    story.happens(("cleared", well), after=60)
    story.happens(("opened", failure), after=60)
    story.passes(1800)
    assert first_lines(story) == [
        "▲ WARN gpu.lost on n12: GPU fell off the bus",
        "✖ FAIL worse: gpu.lost on n12: GPU fell off the bus",
        "✖ FAIL still open: gpu.lost on n12: GPU fell off the bus",
        "✔ OVER over: gpu.lost on n12: GPU fell off the bus",
        "✖ FAIL back again: gpu.lost on n12: GPU fell off the bus",
    ]
    over = note(story.tells[3])
    assert (over.lines, over.until - over.since, over.evidence, over.advice) == (("8 GPUs",), 86520.0, "", "")
    assert note(story.tells[4]).lines == ("came back 1 time",)


def test_what_spreads_counts_its_components_and_names_a_few() -> None:
    tell = opened(*(finding(f"gpu/{n}") for n in range(10)))
    told = note(tell)
    assert told.where == "n12 gpu/0, n12 gpu/1, n12 gpu/2, n12 gpu/3, n12 gpu/4, n12 gpu/5 and 4 more"
    assert told.lines == ("10 components",)


def test_a_failure_over_before_anybody_was_told_says_so() -> None:
    story = Story()
    story.happens(("opened", finding()), ("cleared", finding(status=Status.OK, summary="8 GPUs")))
    assert first_lines(story) == ["✔ OVER failed and over again: gpu.lost on n12: GPU fell off the bus"]


def test_an_acknowledgement_names_who_and_why() -> None:
    story = Story()
    story.happens(("opened", finding()))
    incident = story.tells[0].subject
    _, (tell,) = acknowledge(story.situation, incident, "mara", "vendor <case> 7", START + 60)
    assert note(tell).lines == ("acknowledged by mara: vendor <case> 7",)
    facts = shown(tell).blocks[2]["text"]["text"]
    assert facts.endswith("acknowledged by mara: vendor &lt;case&gt; 7")


def test_an_unknown_without_a_cause_is_named_by_its_check() -> None:
    tell = opened(finding("gpu", Status.UNKNOWN, cause="", summary="driver does not answer", source="nvml"))
    assert text(note(tell)).splitlines()[0] == "? UNKNOWN nvml:unknown on n12: driver does not answer"


def test_a_job_is_named_by_its_id() -> None:
    tell = opened(finding("job/8841/rank/5", cause="net.infiniband", summary="rank 5 lost its peer"))
    assert text(note(tell)).splitlines()[0] == "✖ FAIL job/8841: net.infiniband: rank 5 lost its peer"


def test_a_storm_says_how_many_and_what_they_share() -> None:
    config = AlertsConfig(burst_messages=1)
    tell = opened(*(finding(node=f"n{n}", cause="net.infiniband") for n in range(4)), config=config)
    assert text(note(tell)).splitlines() == [
        "✖ STORM 3 incidents, 3 still open: Told together, 3 findings. What they share:",
        "cause: net.infiniband (3)",
        "check: gpu_count (3)",
        "node: n1 (1), n2 (1), n3 (1)",
        "look further: muster incidents list",
    ]
    assert body(tell)["storm"]["by_node"][0] == {"name": "n1", "findings": 1}
    assert shown(tell).broadcast is True


def test_the_id_of_a_message_is_the_same_in_every_process() -> None:
    assert message_id(Tell(subject="ab12cd34", number=2, kind=Kind.RESOLVED, at=0.0)) == (
        "e3fb8532-89e4-5ade-a623-ef4e965089fd"
    )


def test_markup_in_a_log_stays_text() -> None:
    assert escape("<!channel> a & b `x`") == "&lt;!channel&gt; a &amp; b `\u2060x`\u2060"
    assert "```" not in fenced("a\n```\n<@U123>").removeprefix("```").removesuffix("```")


def test_terminal_codes_and_reversed_text_are_removed() -> None:
    assert clean("\x1b[31mred\x1b[0m\x07 \u202egnp.exe\u202c") == "red gnp.exe"


@pytest.mark.parametrize(
    ("seconds", "words"),
    [(0, "0 s"), (119, "119 s"), (120, "2 min"), (7199, "119 min"), (12000, "3 h 20 min"), (180_000, "2 d 2 h")],
)
def test_lengths_of_time_as_people_say_them(seconds: int, words: str) -> None:
    assert lasted(seconds) == words


NASTY = st.text(alphabet=st.sampled_from("`<>&*_~ab\n|\\\x1b\u202e "), max_size=8000)


@settings(max_examples=60, deadline=None)
@given(NASTY, NASTY, NASTY)
def test_slack_limits_hold_whatever_a_finding_says(summary: str, evidence: str, advice: str) -> None:
    long = finding(
        "gpu/" + "3" * 500, cause="c" * 400, node="n" * 300, summary=summary, evidence=evidence, advice=advice
    )
    message = shown(opened(long))
    assert len(message.text) <= limits.TEXT_CHARS
    assert 1 <= len(message.blocks) <= limits.BLOCKS
    for block in message.blocks:
        if block["type"] == "header":
            assert 1 <= len(block["text"]["text"]) <= limits.HEADER_CHARS
        elif block["type"] == "section":
            assert 1 <= len(block["text"]["text"]) <= limits.SECTION_CHARS
    assert all(" " not in name and "<" not in name for name in mentions(message))


def mentions(message: SlackMessage) -> list[str]:
    """What Slack would take for a mention or link: nothing but our own date."""
    found = json.dumps(message.blocks, ensure_ascii=False).split("<")[1:]
    return [each for each in found if not each.startswith("!date^")]


def test_long_evidence_is_cut_and_says_so() -> None:
    told = note(opened(finding(evidence="\n".join(f"line {n}" for n in range(40)))))
    assert told.evidence.splitlines()[-1] == "… 28 more lines"
    assert len(note(opened(finding(evidence="x" * 10_000))).evidence) <= EVIDENCE_CHARS


def test_the_preview_shows_what_slack_would() -> None:
    screen = Console(file=io.StringIO(), width=90, color_system=None)
    told = note(opened(finding(summary="a < b & `c`", evidence="x <y>", advice="Look.")))
    screen.print(preview(msgspec.to_builtins(slack_message(told)), width=80))
    lines = [line.strip("│ ").rstrip() for line in screen.file.getvalue().splitlines()]  # type: ignore[attr-defined]
    assert lines[1:8] == [
        "✖ FAIL  gpu.lost on n12",
        "a < b & c",
        "Where  n12 gpu/3",
        "Since  2023-11-14 22:13:20 UTC",
        "x <y>",
        "What to do  Look.",
        f"Look further: {told.command}",
    ]
