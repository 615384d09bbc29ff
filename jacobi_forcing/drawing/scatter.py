"""Scatter plots as SVG: many points at little cost, and a few that have names.

Colours go by number; the page that shows them chooses which.
"""

import html
from collections.abc import Iterable, Mapping, Sequence
from typing import NamedTuple

from jacobi_forcing.drawing.chart import ticks_around

_WIDTH, _HEIGHT = 480, 260
_LEFT, _RIGHT, _TOP, _BOTTOM = 58, 18, 14, 44  # margins around the plot
_COLOURS = 6  # that pages know; then they begin again

Point = tuple[float, float]


class Scatter(NamedTuple):
    """One drawing: clouds of points by name, or single points with names of their own."""

    title: str
    note: str
    x_name: str
    y_name: str
    clouds: Mapping[str, Sequence[Point]] = {}
    named: Mapping[str, Point] = {}
    bars: Mapping[str, tuple[float, float]] = {}  # intervals over y of named points
    diagonal: bool = False  # where x equals y


def draw_scatter(scatter: Scatter) -> str:
    """Draw it; a cloud is one path, so that thousands of points stay small."""
    points = [p for cloud in scatter.clouds.values() for p in cloud] + [*scatter.named.values()]
    ends = [end for bar in scatter.bars.values() for end in bar]
    x_ticks = ticks_around(min(x for x, _ in points), max(x for x, _ in points))
    y_values = [y for _, y in points] + ends
    y_ticks = ticks_around(min(y_values), max(y_values))
    right, bottom = _WIDTH - _RIGHT, _HEIGHT - _BOTTOM

    def x_of(x: float) -> float:
        return _LEFT + (right - _LEFT) * (x - x_ticks[0]) / (x_ticks[-1] - x_ticks[0])

    def y_of(y: float) -> float:
        return bottom - (bottom - _TOP) * (y - y_ticks[0]) / (y_ticks[-1] - y_ticks[0])

    parts = [
        f'<line class="grid" x1="{_LEFT}" x2="{right}" y1="{y_of(t):.1f}" y2="{y_of(t):.1f}"/>'
        f'<text x="{_LEFT - 8}" y="{y_of(t) + 4:.1f}" text-anchor="end">{t:.4g}</text>'
        for t in y_ticks
    ]
    parts += [
        f'<text x="{x_of(t):.1f}" y="{bottom + 18}" text-anchor="middle">{t:.4g}</text>'
        for t in x_ticks
    ]
    parts.append(
        f'<text x="{(_LEFT + right) / 2}" y="{_HEIGHT - 6}" text-anchor="middle">'
        f"{html.escape(scatter.x_name)}</text>"
    )
    if scatter.diagonal:
        low, high = max(x_ticks[0], y_ticks[0]), min(x_ticks[-1], y_ticks[-1])
        line = f'x1="{x_of(low):.1f}" y1="{y_of(low):.1f}" x2="{x_of(high):.1f}"'
        parts.append(f'<line class="limit" {line} y2="{y_of(high):.1f}"/>')
    for number, (name, cloud) in enumerate(scatter.clouds.items()):
        path = "".join(f"M{x_of(x):.1f} {y_of(y):.1f}h0" for x, y in cloud)
        title = f"<title>{html.escape(name)}: {len(cloud):,}</title>"
        parts.append(f'<path class="cloud cloud-{number}" d="{path}">{title}</path>')
    for place, (name, (x, y)) in enumerate(scatter.named.items()):
        number = place % _COLOURS
        if name in scatter.bars:
            low, high = scatter.bars[name]
            across = f'x1="{x_of(x):.1f}" x2="{x_of(x):.1f}"'
            along = f'y1="{y_of(low):.1f}" y2="{y_of(high):.1f}"'
            parts.append(f'<line class="bar series-{number}" {across} {along}/>')
        title = f"<title>{html.escape(name)}: {x:.4g}, {y:.4g}</title>"
        parts.append(
            f'<circle class="point point-{number}" cx="{x_of(x):.1f}" cy="{y_of(y):.1f}" r="5">'
            f"{title}</circle>"
        )
    label = html.escape(f"{scatter.y_name} over {scatter.x_name}")
    counts = [f"{name}, {len(cloud):,}" for name, cloud in scatter.clouds.items()]
    return (
        f"<section><h2>{html.escape(scatter.title)}</h2><p>{html.escape(scatter.note)}</p>"
        f'<svg viewBox="0 0 {_WIDTH} {_HEIGHT}" role="img" aria-label="{label}">'
        f"{''.join(parts)}</svg>{legend([*counts, *scatter.named])}</section>"
    )


def legend(names: Iterable[str]) -> str:
    """List names beside the colours of their numbers."""
    entries = "".join(
        f'<li><i class="dot dot-{number % _COLOURS}"></i>{html.escape(name)}</li>'
        for number, name in enumerate(names)
    )
    return f"<ul class=legend>{entries}</ul>"
