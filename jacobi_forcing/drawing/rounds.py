"""One self-contained HTML page that compares the rounds of a run, and a table for the terminal."""

import html
from collections.abc import Callable, Iterable, Sequence
from itertools import accumulate
from pathlib import Path
from typing import Any, NamedTuple
from urllib.parse import quote

from rich.table import Table

from jacobi_forcing.data.files import replacing
from jacobi_forcing.drawing.chart import Axis, Chart, Point, draw
from jacobi_forcing.drawing.template import fill
from jacobi_forcing.drawing.training import evaluations


class Model(NamedTuple):
    """One checkpoint of a run, and what was measured of it."""

    name: str
    report: dict[str, Any] | None  # what `evaluate` wrote
    test: dict[str, float] | None  # the decoder test of its training
    links: dict[str, str]  # files beside the page, by what they hold
    is_member: bool = False  # of a round whose model is a mean


class Learned(NamedTuple):
    """What a round learned from, and how."""

    name: str
    collected: dict[str, Any]  # manifest of its trajectories; empty where it is gone
    packed: dict[str, Any]  # manifest of its sequences; so too
    mixed: list[str]  # rounds whose trajectories were packed with its own
    trainings: dict[str, dict[str, Any]]  # what `train` wrote, by the model's name
    settings: dict[str, Any]
    links: dict[str, str]

    @property
    def num_steps(self) -> int:
        """Optimizer steps of its longest training."""
        return max(record["steps"] for record in self.trainings.values())


class Comparison(NamedTuple):
    """A run so far."""

    model: str  # its start
    num_rounds: int  # of the recipe, done or not
    models: list[Model]  # the start first
    rounds: list[Learned]  # those that are done


class _Column(NamedTuple):
    """A figure of every model."""

    title: str
    figure: Callable[[dict[str, Any]], str]
    needs: str  # a name in the report or test, without which there is no figure


def write_rounds_page(path: Path, run: Comparison) -> None:
    """Write the page of a run, done or not.

    Raises:
        DataError: `path` cannot be written.
    """
    offsets = [0, *accumulate(learned.num_steps for learned in run.rounds)]
    marks = {step: learned.name for step, learned in zip(offsets, run.rounds, strict=False)}
    axis = Axis(max(1, offsets[-1]))
    page = fill(
        "rounds.html",
        {
            "title": html.escape(f"{run.model}: {len(run.rounds)} of {run.num_rounds} rounds"),
            "model": html.escape(run.model),
            "summary": f"{len(run.rounds)} of {run.num_rounds} rounds are done",
            "totals": "".join(_totals(run)),
            "models": _models_table(run),
            "notes": html.escape(" ".join(_notes(run))),
            "learned": _learned_table(run.rounds),
            "settings": _settings_table(run.rounds),
            "charts": "\n".join(draw(chart, axis, marks) for chart in charts_of(run)),
        },
    )
    with replacing(path) as temporary:
        temporary.write_text(page, encoding="utf-8")


def table(run: Comparison) -> Table:
    """Draw the figures that a terminal has room for."""
    reported = _columns(run, "report")
    columns = [("report", c) for c in reported] or [("test", c) for c in _columns(run, "test")]
    drawn = Table("model", *(column.title for _, column in columns))
    for model in run.models:
        if not model.is_member or not reported:
            drawn.add_row(model.name, *(_cell(model, kind, column) for kind, column in columns))
    return drawn


def charts_of(run: Comparison) -> list[Chart]:
    """Choose what to draw: the steps of all rounds one behind another."""
    offsets = [0, *accumulate(learned.num_steps for learned in run.rounds)]

    def series(of: Callable[[dict], Iterable[Point]]) -> dict[str, list[Point]]:
        found = {
            name: [(offset + step, value) for step, value in of(record)]
            for offset, learned in zip(offsets, run.rounds, strict=False)
            for name, record in learned.trainings.items()
        }
        return {name: points for name, points in found.items() if points}

    def logged(name: str) -> dict[str, list[Point]]:
        return series(lambda r: [(line["step"], line[name]) for line in r["log"] if name in line])

    def tested(name: str) -> dict[str, list[Point]]:
        return series(lambda r: [(s, found[name]) for s, found in evaluations(r) if name in found])

    asked = "held-out prompts of each training, before it and on the way"
    found = [
        ("Tokens per forward", asked, tested("tokens_per_forward")),
        ("Accuracy", "of the held-out problems of each training", tested("accuracy")),
        ("Likelihood", f"NLL of answers in nats per token; {asked}", tested("nll")),
        ("AR loss", "clean stream, nats per token", logged("ar_loss")),
        ("Consistency loss", "noisy stream, nats per token", logged("consistency_loss")),
    ]
    return [Chart(*one, is_named=False) for one in found if one[2]]


def _columns(run: Comparison, kind: str) -> list[_Column]:
    """Give the figures that some model's `report` or `test` has."""
    start = getattr(run.models[0], kind) or {}

    def nll(found: dict) -> str:
        rise = f" ({found['nll'] / start['nll'] - 1:+.0%})" if start.get("nll") else ""
        return f"{found['nll']:.3f}{rise}"

    every = [
        _Column("accuracy", _accuracy, "accuracy"),
        _Column("NLL", nll, "nll"),
        _Column("distinct 8-grams", lambda f: f"{f['distinct_8grams']:.1%}", "distinct_8grams"),
        _Column(
            "tokens per forward", lambda f: f"{f['tokens_per_forward']:.2f}", "tokens_per_forward"
        ),
        _Column("speed-up over its AR", _speedup, "speedup_median"),
        _Column("mismatches", lambda f: f"{f['num_mismatches']:,}", "num_mismatches"),
    ]
    figures = [getattr(model, kind) or {} for model in run.models]
    return [column for column in every if any(column.needs in found for found in figures)]


def _accuracy(found: dict[str, Any]) -> str:
    if "accuracy_low" not in found:
        return f"{found['accuracy']:.1%}"
    low, high = found["accuracy_low"], found["accuracy_high"]
    return f"{found['accuracy']:.1%} ({low:.1%} to {high:.1%})"


def _speedup(found: dict[str, Any]) -> str:
    low, high = found["speedup_low"], found["speedup_high"]
    return f"{found['speedup_median']:.2f}x ({low:.2f} to {high:.2f})"


def _cell(model: Model, kind: str, column: _Column) -> str:
    found = getattr(model, kind) or {}
    return column.figure(found) if column.needs in found else "-"


def _models_table(run: Comparison) -> str:
    groups = {"report": "evaluation", "test": "test in training"}
    columns = [(kind, column) for kind in groups for column in _columns(run, kind)]
    kinds = [kind for kind, _ in columns]
    above = "".join(
        f'<th colspan="{kinds.count(kind)}">{title}</th>'
        for kind, title in groups.items()
        if kind in kinds
    )
    names = "".join(f"<th>{html.escape(column.title)}</th>" for _, column in columns)
    rows = "".join(
        f"<tr{' class=member' if model.is_member else ''}><th>{html.escape(model.name)}</th>"
        + "".join(f"<td>{html.escape(_cell(model, *one))}</td>" for one in columns)
        + f"<td>{_pages(model.links)}</td></tr>"
        for model in run.models
    )
    head = f"<tr><td></td>{above}<td></td></tr><tr><th>model</th>{names}<th>files</th></tr>"
    return f"<table><thead>{head}</thead><tbody>{rows}</tbody></table>"


def _learned_table(rounds: Sequence[Learned]) -> str:
    names = ("round", "answers", "prompts kept", "dropped", "tokens", "tokens per forward")
    names += ("packed", "in sequences", "mixed with", "trainings", "steps", "files")
    rows = []
    for learned in rounds:
        made, packed = learned.collected, learned.packed
        temperature = learned.settings["collect.temperature"]
        # Known answers are checked whole: their ratio says nothing of a decoder.
        forwards = made.get("num_forwards") if made.get("record") == "states" else None
        figures = [
            f"sampled at {temperature:g}" if temperature else "greedy",
            *(_count(made, name) for name in ("num_prompts", "num_dropped", "num_tokens")),
            f"{made['num_tokens'] / forwards:.2f}" if forwards else "-",
            *(_count(packed, name) for name in ("num_documents", "num_sequences")),
            ", ".join(learned.mixed) or "-",
            f"{len(learned.trainings)}",
            ", ".join(sorted({f"{r['steps']:,}" for r in learned.trainings.values()})),
        ]
        cells = "".join(f"<td>{html.escape(figure)}</td>" for figure in figures)
        rows.append(
            f"<tr><th>{html.escape(learned.name)}</th>{cells}<td>{_pages(learned.links)}</td></tr>"
        )
    return _table(names, rows)


def _count(manifest: dict[str, Any], name: str) -> str:
    return f"{manifest[name]:,}" if name in manifest else "-"


def _settings_table(rounds: Sequence[Learned]) -> str:
    """Show the settings that are not the same in all rounds."""
    names = dict.fromkeys(name for learned in rounds for name in learned.settings)
    rows = []
    for name in names:
        values = [learned.settings.get(name, "-") for learned in rounds]
        if any(value != values[0] for value in values):
            cells = "".join(f"<td>{html.escape(str(value)) or '-'}</td>" for value in values)
            rows.append(f"<tr><th>{html.escape(name)}</th>{cells}</tr>")
    if not rows:
        return "<p>None, so far.</p>"
    return _table(("setting", *(learned.name for learned in rounds)), rows)


def _table(names: Iterable[str], rows: Iterable[str]) -> str:
    head = "".join(f"<th>{html.escape(name)}</th>" for name in names)
    return f"<table><thead><tr>{head}</tr></thead><tbody>{''.join(rows)}</tbody></table>"


def _pages(links: dict[str, str]) -> str:
    return " ".join(
        f'<a href="{html.escape(quote(target))}">{html.escape(name)}</a>'
        for name, target in links.items()
    )


def _notes(run: Comparison) -> Iterable[str]:
    """Say what the figures were measured with."""
    report = next((model.report for model in run.models if model.report), None)
    if report is not None:
        settings = report["settings"]
        yield f"Evaluation: {settings['strategy']} decoder, block size {settings['block_size']}, on"
        yield f"{report['problems']}, n = {report['num_problems']};"
        if "nll" in report:
            yield "NLL of the answers under the start, nats per token;"
        else:
            yield "accuracy with its 95 % interval;"
        yield "speed-up: median over prompts and quartiles."
    settings = next(iter(run.rounds[0].trainings.values()))["settings"]
    yield f"Test in training: {settings['eval_strategy']} decoder on {settings['eval_prompts']},"
    yield "which need not be the same prompts in every round."


def _totals(run: Comparison) -> Iterable[str]:
    kind = "report" if run.models[0].report else "test"
    measured = [found for model in run.models if (found := getattr(model, kind))]
    speeds = [f"{found['tokens_per_forward']:.2f}" for found in (measured[0], measured[-1])]
    facts = {
        "tokens per forward": " → ".join(speeds),
        "rounds done": f"{len(run.rounds)} of {run.num_rounds}",
        "steps": f"{sum(learned.num_steps for learned in run.rounds):,}",
    }
    if "accuracy" in measured[-1]:
        facts["accuracy"] = " → ".join(f"{measured[i]['accuracy']:.1%}" for i in (0, -1))
    if "nll" in measured[-1]:
        facts["NLL"] = " → ".join(f"{measured[i]['nll']:.3f}" for i in (0, -1))
    for name, value in facts.items():
        yield f"<div><dt>{html.escape(name)}</dt><dd>{html.escape(value)}</dd></div>"
