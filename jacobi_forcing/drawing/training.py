"""One self-contained HTML page that draws a training: losses, learning rate, decoder tests.

Everything on it comes from the `run.json` that `train` writes, so it can be drawn again later.
"""

import html
import math
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from jacobi_forcing.data.files import replacing
from jacobi_forcing.drawing.template import fill

_WIDTH, _HEIGHT = 480, 230
_LEFT, _RIGHT, _TOP, _BOTTOM = 58, 16, 14, 30  # margins around the plot

Point = tuple[float, float]


class Chart(NamedTuple):
    """One drawing: values over optimizer steps."""

    title: str
    note: str
    series: dict[str, list[Point]]  # by name; the names of several are written at their ends
    limit: float | None = None  # a line that should not be crossed
    from_zero: bool = False  # let the axis begin at 0


def write_training_page(path: Path | str, record: dict[str, Any]) -> None:
    """Write the page of one training.

    Args:
        path: Written, its folder too where it is missing.
        record: What `train` writes into `run.json`.

    Raises:
        DataError: `path` cannot be written.
    """
    settings = record["settings"]
    best = record["best_checkpoint_step"]
    charts = [_draw(chart, record["steps"], best) for chart in charts_of(record)]
    page = fill(
        "training.html",
        {
            "title": html.escape(f"{settings['model']}: {record['steps']} steps"),
            "model": html.escape(settings["model"]),
            "summary": html.escape(_summary(record)),
            "totals": "".join(_totals(record)),
            "charts": "\n".join(charts),
        },
    )
    with replacing(Path(path)) as temporary:
        temporary.write_text(page, encoding="utf-8")


def charts_of(record: dict[str, Any]) -> list[Chart]:
    """Choose what to draw of a training: all that its log has values for."""
    settings = record["settings"]
    evaluated = _evaluations(record)

    def logged(name: str) -> dict[str, list[Point]]:
        return {name: [(line["step"], line[name]) for line in record["log"] if name in line]}

    def measured(*names: str) -> dict[str, list[Point]]:
        return {name: [(step, found[name]) for step, found in evaluated] for name in names}

    start = record["before"]
    charts = [
        Chart("AR loss", "clean stream, nats per token", logged("ar_loss")),
        Chart("Consistency loss", "noisy stream, nats per token", logged("consistency_loss")),
        Chart("Agreement", "noisy tokens whose choice is the teacher's", logged("agreement")),
        Chart("Learning rate", "of each step", logged("learning_rate"), from_zero=True),
        Chart("Gradient norm", "before it is clipped", logged("grad_norm"), from_zero=True),
        Chart(
            "Tokens per forward",
            f"{settings['eval_strategy']} decoder, held-out prompts",
            measured("tokens_per_forward"),
        ),
    ]
    if "accuracy" in start:
        floor = start["accuracy"] - settings["max_accuracy_drop"]
        note = "held-out problems solved; dashed: least for a best checkpoint"
        charts.append(Chart("Accuracy", note, measured("accuracy"), floor))
    if "nll" in start:
        ceiling = start["nll"] * (1 + settings["max_nll_rise"])
        note = "of answers under the original, nats per token; dashed: most for a best checkpoint"
        charts.append(Chart("Likelihood", note, measured("nll"), ceiling))
    if "drift" in start:
        note = "rise of the start's own answers' NLL, nats per token"
        charts.append(Chart("Drift", note, measured("drift")))
    accepted = [name for name in start if name.startswith("accepted_at_")]
    if accepted:
        note = "share of forwards in which the guess at that place was right"
        places = {name.removeprefix("accepted_at_"): s for name, s in measured(*accepted).items()}
        charts.append(Chart("Acceptance by place", note, places, from_zero=True))
    return [chart for chart in charts if any(chart.series.values())]


def _evaluations(record: dict[str, Any]) -> list[tuple[int, dict[str, float]]]:
    """Give every decoder test with its step: before training, on the way, of what was saved."""
    found = {0: record["before"]}
    for line in record["log"]:
        test = {n.removeprefix("eval_"): x for n, x in line.items() if n.startswith("eval_")}
        if test:
            found[line["step"]] = test
    last = record["best_checkpoint_step"] or record["steps"]
    found.setdefault(last, record["after"])
    return sorted(found.items())


def _summary(record: dict[str, Any]) -> str:
    settings = record["settings"]
    what = f"LoRA, rank {settings['lora_rank']}" if settings["lora_rank"] else "all weights"
    batch = settings["batch_size"] * settings["gradient_accumulation"]
    return (
        f"{what}; {record['num_sequences']} sequences, {batch} per step; states "
        f"{settings['states']}, mask {settings['mask']}, teacher {settings['teacher']}"
    )


def _totals(record: dict[str, Any]) -> Iterable[str]:
    before, after = record["before"], record["after"]
    speed = f"{before['tokens_per_forward']:.2f} → {after['tokens_per_forward']:.2f}"
    facts = {"tokens per forward": speed}
    if "accuracy" in after:
        facts["accuracy"] = f"{before['accuracy']:.1%} → {after['accuracy']:.1%}"
    if "nll" in after:
        facts["NLL under the original"] = f"{before['nll']:.3f} → {after['nll']:.3f}"
    facts["steps"] = str(record["steps"])
    if record["best_checkpoint_step"]:
        facts["best at step"] = str(record["best_checkpoint_step"])
    for name, value in facts.items():
        yield f"<div><dt>{name}</dt><dd>{value}</dd></div>"


def _draw(chart: Chart, num_steps: int, best: int | None) -> str:
    values = [y for points in chart.series.values() for _, y in points if math.isfinite(y)]
    values += [0.0] if not values else []  # nothing finite
    values += [] if chart.limit is None else [chart.limit]
    ticks = _ticks(min([0.0, *values] if chart.from_zero else values), max(values))
    low, high = ticks[0], ticks[-1]
    right, bottom = _WIDTH - _RIGHT, _HEIGHT - _BOTTOM

    def x_of(step: float) -> float:
        return _LEFT + (right - _LEFT) * step / max(1, num_steps)

    def y_of(value: float) -> float:
        return bottom - (bottom - _TOP) * (value - low) / (high - low)

    parts = [
        f'<line class="grid" x1="{_LEFT}" x2="{right}" y1="{y_of(t):.1f}" y2="{y_of(t):.1f}"/>'
        f'<text x="{_LEFT - 8}" y="{y_of(t) + 4:.1f}" text-anchor="end">{_number(t)}</text>'
        for t in ticks
    ]
    for step, anchor in ((0, "start"), (num_steps, "end")):
        where = f'x="{x_of(step):.1f}" y="{_HEIGHT - 8}" text-anchor="{anchor}"'
        parts.append(f"<text {where}>step {step}</text>")
    if best:
        x = x_of(best)
        parts.append(f'<line class="best" x1="{x:.1f}" x2="{x:.1f}" y1="{_TOP}" y2="{bottom}"/>')
    if chart.limit is not None:
        y = y_of(chart.limit)
        parts.append(f'<line class="limit" x1="{_LEFT}" x2="{right}" y1="{y:.1f}" y2="{y:.1f}"/>')
    for name, points in chart.series.items():
        placed = [(x_of(x), y_of(y), x, y) for x, y in points if math.isfinite(y)]
        parts += _line(placed)
        if len(chart.series) > 1 and placed:
            x, y = placed[-1][:2]
            parts.append(
                f'<text class="name" x="{x - 6:.1f}" y="{y - 7:.1f}" text-anchor="end">'
                f"{html.escape(name)}</text>"
            )
    return (
        f"<section><h2>{html.escape(chart.title)}</h2><p>{html.escape(chart.note)}</p>"
        f'<svg viewBox="0 0 {_WIDTH} {_HEIGHT}" role="img">{"".join(parts)}</svg></section>'
    )


def _line(placed: Sequence[tuple[float, float, float, float]]) -> Iterable[str]:
    """Draw a series; its points too where they are few, each with its figures on hover."""
    path = " ".join(f"{x:.1f},{y:.1f}" for x, y, _, _ in placed)
    yield f'<polyline class="series" points="{path}"/>'
    if len(placed) <= 40:
        for x, y, step, value in placed:
            title = f"<title>step {step:g}: {value:.4g}</title>"
            yield f'<circle class="point" cx="{x:.1f}" cy="{y:.1f}" r="3.5">{title}</circle>'


def _number(value: float) -> str:
    return f"{value:.1e}" if 0 < abs(value) < 1e-3 else f"{value:.6g}"


def _ticks(low: float, high: float) -> list[float]:
    """Choose 3 to 6 round numbers that lie around a range."""
    span = (high - low) or abs(high) or 1.0
    raw = span / 4
    power = 10.0 ** math.floor(math.log10(raw))
    step = next(power * m for m in (1, 2, 2.5, 5, 10) if power * m >= raw * 0.999)
    first, last = math.floor(low / step + 1e-9), math.ceil(high / step - 1e-9)
    return [i * step for i in range(first, max(last, first + 1) + 1)]
