"""The matrix for people: shades in a terminal, an SVG file, or rows for a spreadsheet."""

import html
from collections.abc import Mapping, Sequence

from checks.pairs.runner import Answer, Outcome

Cells = Mapping[tuple[str, str], float]

_SHADES = " .:-=+*#"
_SIZE = 14


def cells(outcomes: Sequence[Outcome]) -> dict[tuple[str, str], float]:
    """(from, to) -> GB/s over all rails, by the last measurement of each; 0 where nothing came through."""
    found: dict[tuple[str, str], float] = {}
    for outcome in outcomes:
        if outcome.answer is Answer.UNKNOWN:
            continue
        found[outcome.a, outcome.b] = sum(rate.gigabytes for rate in outcome.forth)
        found[outcome.b, outcome.a] = sum(rate.gigabytes for rate in outcome.back)
    return found


def text(nodes: Sequence[str], values: Cells) -> str:
    """One line a node (sending), one sign a receiver: '#' as fast as the median, blank at half of it or less, '?' not
    measured, 'X' nothing came through."""
    middle = _median(values)
    width = max(map(len, nodes), default=0)
    lines = []
    for source in nodes:
        row = "".join("\\" if source == sink else _sign(values.get((source, sink)), middle) for sink in nodes)
        lines.append(f"{source:>{width}} {row}")
    return "\n".join(lines)


def _sign(value: float | None, middle: float) -> str:
    if value is None:
        return "?"
    if value <= 0:
        return "X"
    share = min(max(2 * value / middle - 1, 0.0), 1.0) if middle else 0.0
    return _SHADES[min(int(share * len(_SHADES) * 0.999 + 0.6), len(_SHADES) - 1)]


def svg(nodes: Sequence[str], values: Cells, title: str) -> str:
    """A stand-alone SVG: a square per direction, hover for the figure; rows send, columns receive."""
    middle = _median(values)
    margin = 12 + 7 * max(map(len, nodes), default=0)
    side = margin + _SIZE * len(nodes) + 10
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" width="{side}" height="{side + 20}" font-family="sans-serif"'
        ' font-size="10">',
        f'<text x="4" y="14" font-size="12">{html.escape(title)}</text>',
    ]
    for y, source in enumerate(nodes):
        parts.append(f'<text x="4" y="{margin + y * _SIZE + 11}">{html.escape(source)}</text>')
        for x, sink in enumerate(nodes):
            if source != sink:
                parts.append(
                    _square(margin + x * _SIZE, margin + y * _SIZE, source, sink, values.get((source, sink)), middle)
                )
    return "\n".join([*parts, "</svg>", ""])


def _square(x: int, y: int, source: str, sink: str, value: float | None, middle: float) -> str:
    told = "not measured" if value is None else f"{value:.3f} GB/s"
    name = html.escape(f"{source} to {sink}: {told}")
    return (
        f'<rect x="{x}" y="{y}" width="{_SIZE - 1}" height="{_SIZE - 1}" fill="{_colour(value, middle)}">'
        f"<title>{name}</title></rect>"
    )


def _colour(value: float | None, middle: float) -> str:
    """Grey: not measured; else from red (half the median or less) over yellow to green."""
    if value is None or not middle:
        return "#cccccc"
    share = min(max(2 * value / middle - 1, 0.0), 1.0)
    return f"hsl({round(120 * share)},70%,45%)"


def csv(nodes: Sequence[str], values: Cells) -> str:
    """from,to,gigabytes: one measured direction a line."""
    rows = [f"{a},{b},{values[a, b]:.6f}" for a in nodes for b in nodes if (a, b) in values]
    return "\n".join(["from,to,gigabytes_per_second", *rows, ""])


def _median(values: Cells) -> float:
    ordered = sorted(value for value in values.values() if value > 0)
    return ordered[len(ordered) // 2] if ordered else 0.0
