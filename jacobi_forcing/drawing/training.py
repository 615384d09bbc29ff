"""One self-contained HTML page that draws a training: losses, learning rate, decoder tests.

Everything on it comes from the `run.json` that `train` writes, so it can be drawn again later.
"""

import html
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from jacobi_forcing.data.files import replacing
from jacobi_forcing.drawing.chart import Axis, Chart, Point, draw
from jacobi_forcing.drawing.template import fill

PAGE = "training.html"  # beside the checkpoint


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
    marks = {best: ""} if best else {}
    charts = [draw(chart, Axis(max(1, record["steps"])), marks) for chart in charts_of(record)]
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
    evaluated = evaluations(record)

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


def evaluations(record: dict[str, Any]) -> list[tuple[int, dict[str, float]]]:
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
