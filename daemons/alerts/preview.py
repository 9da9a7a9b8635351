"""A message in the terminal, as near as it gets to how Slack shows it."""

import re
from collections.abc import Mapping
from typing import Any

from rich.console import Group, RenderableType
from rich.padding import Padding
from rich.panel import Panel
from rich.syntax import Syntax
from rich.text import Text

_DATE = re.compile(r"<!date\^\d+\^[^|>]*\|([^>]*)>")
# What Slack renders: fenced code, inline code, bold.
_SPAN = re.compile(r"`([^`\n]+)`|\*([^*\n]+)\*")
_FENCE = re.compile(r"```\n?(.*?)\n?```", re.DOTALL)


def preview(message: Mapping[str, Any], sender: str = "muster", width: int | None = None) -> RenderableType:
    """The panel of one message. message: what chat.postMessage gets (text, blocks). width: columns, None for all."""
    blocks = message.get("blocks") or [{"type": "section", "text": {"type": "mrkdwn", "text": message["text"]}}]
    parts = [part for block in blocks for part in _block(block)]
    return Panel(Group(*parts), title=sender, title_align="left", border_style="dim", width=width, padding=(0, 1))


def _block(block: Mapping[str, Any]) -> list[RenderableType]:
    match block.get("type"):
        case "header":
            return [Text(str(block["text"]["text"]), style="bold")]
        case "section":
            return _mrkdwn(str(block["text"]["text"]))
        case "context":
            return [Text.assemble(*(inline(str(e.get("text", "")), "dim") for e in block["elements"]))]
        case other:
            return [Text(f"[{other}]", style="dim")]


def _mrkdwn(source: str) -> list[RenderableType]:
    parts: list[RenderableType] = []
    end = 0
    for fence in _FENCE.finditer(source):
        if source[end : fence.start()].strip():
            parts.append(inline(source[end : fence.start()].strip()))
        code = Syntax(unescaped(fence[1]), "text", word_wrap=True, background_color="default")
        parts.append(Padding(code, (0, 0, 0, 2)))
        end = fence.end()
    if source[end:].strip():
        parts.append(inline(source[end:].strip()))
    return parts


def inline(source: str, style: str = "") -> Text:
    """One run of mrkdwn: bold, inline code and dates; everything else as it stands."""
    source = _DATE.sub(lambda date: date[1], source)
    text = Text(style=style)
    end = 0
    for span in _SPAN.finditer(source):
        text.append(unescaped(source[end : span.start()]))
        text.append(unescaped(span[1] or span[2]), style="cyan" if span[1] else "bold")
        end = span.end()
    text.append(unescaped(source[end:]))
    return text


def unescaped(source: str) -> str:
    """What the reader sees of escaped text."""
    return source.replace("\u2060", "").replace("&lt;", "<").replace("&gt;", ">").replace("&amp;", "&")
