"""Line charts as SVG: the pages of a training, of a run's rounds, and of a tuning."""

import html
import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import NamedTuple

_WIDTH, _HEIGHT = 480, 230
_LEFT, _RIGHT, _TOP, _BOTTOM = 58, 16, 14, 30  # margins around the plot

Point = tuple[float, float]


class Chart(NamedTuple):
    """One drawing: values over optimizer steps, or whatever its axis says."""

    title: str
    note: str
    series: dict[str, list[Point]]  # by name
    limit: float | None = None  # a line that should not be crossed
    from_zero: bool = False  # let the axis begin at 0
    is_named: bool = True  # names of several series are written at their ends
    points: Sequence[Point] = ()  # on their own, beside the series


class Axis(NamedTuple):
    """What values are drawn over; `last` is where it ends."""

    last: float
    name: Callable[[float], str] = lambda step: f"step {step:g}"
    first: float = 0
    is_log: bool = False

    def part(self, value: float) -> float:
        """Say how far along the axis a value lies, 0..1."""
        scale = math.log if self.is_log else float
        low, high = scale(self.first), scale(self.last)
        return (scale(value) - low) / ((high - low) or 1.0)


def draw(chart: Chart, axis: Axis, marks: Mapping[float, str]) -> str:
    """Draw a chart.

    Args:
        chart: What to draw; values that are not finite have no place.
        axis: What its values are over.
        marks: Places on the axis with a line of their own, and what is written there.
    """
    values = [y for points in chart.series.values() for _, y in points if math.isfinite(y)]
    values += [y for _, y in chart.points]
    values += [0.0] if not values else []  # nothing finite
    values += [] if chart.limit is None else [chart.limit]
    ticks = ticks_around(min([0.0, *values] if chart.from_zero else values), max(values))
    low, high = ticks[0], ticks[-1]
    right, bottom = _WIDTH - _RIGHT, _HEIGHT - _BOTTOM

    def x_of(place: float) -> float:
        return _LEFT + (right - _LEFT) * axis.part(place)

    def y_of(value: float) -> float:
        return bottom - (bottom - _TOP) * (value - low) / (high - low)

    parts = [
        f'<line class="grid" x1="{_LEFT}" x2="{right}" y1="{y_of(t):.1f}" y2="{y_of(t):.1f}"/>'
        f'<text x="{_LEFT - 8}" y="{y_of(t) + 4:.1f}" text-anchor="end">{_number(t)}</text>'
        for t in ticks
    ]
    for place, anchor in ((axis.first, "start"), (axis.last, "end")):
        where = f'x="{x_of(place):.1f}" y="{_HEIGHT - 8}" text-anchor="{anchor}"'
        parts.append(f"<text {where}>{axis.name(place)}</text>")
    for place, text in marks.items():
        x = x_of(place)
        # Near the right edge there is room before the line only.
        shift, anchor = (5, "start") if axis.part(place) < 0.8 else (-5, "end")
        parts.append(
            f'<line class="mark-line" x1="{x:.1f}" x2="{x:.1f}" y1="{_TOP}" y2="{bottom}"/>'
            f'<text x="{x + shift:.1f}" y="{_TOP - 4}" text-anchor="{anchor}">'
            f"{html.escape(text)}</text>"
        )
    if chart.limit is not None:
        y = y_of(chart.limit)
        parts.append(f'<line class="limit" x1="{_LEFT}" x2="{right}" y1="{y:.1f}" y2="{y:.1f}"/>')
    for number, (name, points) in enumerate(chart.series.items()):
        placed = [(x_of(x), y_of(y), x, y) for x, y in points if math.isfinite(y)]
        several = len(chart.series) > 1
        parts += _line(placed, name if several else "", axis, number)
        if several and chart.is_named and placed:
            x, y = placed[-1][:2]
            parts.append(
                f'<text class="name" x="{x - 6:.1f}" y="{y - 7:.1f}" text-anchor="end">'
                f"{html.escape(name)}</text>"
            )
    for place, value in chart.points:
        title = f"<title>measured, {axis.name(place)}: {value:.4g}</title>"
        where = f'cx="{x_of(place):.1f}" cy="{y_of(value):.1f}"'
        parts.append(f'<circle class="measured" {where} r="5">{title}</circle>')
    return (
        f"<section><h2>{html.escape(chart.title)}</h2><p>{html.escape(chart.note)}</p>"
        f'<svg viewBox="0 0 {_WIDTH} {_HEIGHT}" role="img">{"".join(parts)}</svg></section>'
    )


def _line(
    placed: Sequence[tuple[float, float, float, float]], name: str, axis: Axis, number: int
) -> Iterable[str]:
    """Draw a series; its points too where they are few, each with its figures on hover.

    Pages that tell series apart by colour do so by their number.
    """
    of = f"{html.escape(name)}, " if name else ""
    path = " ".join(f"{x:.1f},{y:.1f}" for x, y, _, _ in placed)
    yield f'<polyline class="series series-{number}" points="{path}"/>'
    if len(placed) <= 40:
        for x, y, place, value in placed:
            title = f"<title>{of}{axis.name(place)}: {value:.4g}</title>"
            where = f'cx="{x:.1f}" cy="{y:.1f}"'
            yield f'<circle class="point point-{number}" {where} r="3.5">{title}</circle>'


def _number(value: float) -> str:
    return f"{value:.1e}" if 0 < abs(value) < 1e-3 else f"{value:.6g}"


def ticks_around(low: float, high: float) -> list[float]:
    """Choose 3 to 6 round numbers that lie around a range."""
    span = (high - low) or abs(high) or 1.0
    raw = span / 4
    power = 10.0 ** math.floor(math.log10(raw))
    step = next(power * m for m in (1, 2, 2.5, 5, 10) if power * m >= raw * 0.999)
    first, last = math.floor(low / step + 1e-9), math.ceil(high / step - 1e-9)
    return [i * step for i in range(first, max(last, first + 1) + 1)]
