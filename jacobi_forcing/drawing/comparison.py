"""Evaluations beside each other: the paper's kind of table, and accuracy against speed."""

import html
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

from rich import box
from rich.table import Table

from jacobi_forcing.data.files import replacing
from jacobi_forcing.drawing.evaluation import ASSISTED, Column, columns_of
from jacobi_forcing.drawing.scatter import Scatter, draw_scatter
from jacobi_forcing.drawing.template import fill


class Line(NamedTuple):
    """One decoder of one model in one engine."""

    model: str
    decoder: str
    figures: dict[str, Any]
    machine: str
    asked: str  # how: what accuracy depends on, beside the model
    engine: str = ""  # its name and version; nothing where it is ours

    @property
    def name(self) -> str:
        """Name all of them."""
        return f"{self.title}, {self.decoder}"

    @property
    def title(self) -> str:
        """Name the model, and the engine where it is not ours."""
        return f"{self.model}, {self.engine}" if self.engine else self.model


def _title(summary: dict[str, Any]) -> str:
    return f"{summary.get('benchmark', summary['problems'])}, n = {summary['num_problems']}"


def _num_engines(lines: Sequence[Line]) -> int:
    return len({line.engine for line in lines})


def _note(lines: Sequence[Line]) -> str:
    machines = list(dict.fromkeys(line.machine for line in lines))
    ways = list(dict.fromkeys(f"{line.title}: {line.asked}" for line in lines))
    if _num_engines(lines) == 1:
        speed = "Speed-up is against AR of the same model in the same run."
    else:
        speed = (
            "Speed-up is against AR of the same model and engine in the same run; lines of one "
            "model whose ids are the same gave the same answers."
        )
    if len({line.asked for line in lines}) > 1:
        speed += f" Asked in different ways ({'; '.join(ways)}): accuracies do not compare."
    if any(line.decoder == "assisted" for line in lines):
        speed += f" {ASSISTED}"
    if len(machines) == 1:
        return f"All on {machines[0]}. {speed}"
    return (
        f"Measured in different places ({'; '.join(machines)}): tokens per second do not compare. "
        f"{speed}"
    )


def table(lines: Sequence[Line], summary: dict[str, Any]) -> Table:
    """Draw the table for a terminal; `summary` is any of the evaluations'."""
    drawn = Table(
        title=_title(summary),
        title_justify="left",
        caption=_note(lines),
        caption_justify="left",
        box=box.SIMPLE_HEAD,
        pad_edge=False,
        show_edge=False,
        padding=(0, 1, 0, 0),
    )
    drawn.add_column("model, decoder", overflow="fold")  # a long path costs no figure its place
    columns = columns_of([line.figures for line in lines], _num_engines(lines))
    for column in columns:
        drawn.add_column(column.name, justify="right", no_wrap=True)
    title = None
    for line in lines:
        if line.title != title or line.decoder == lines[0].decoder:  # the next evaluation
            title = line.title
            for name in filter(None, (line.model, line.engine)):
                drawn.add_row(name, style="bold")
        drawn.add_row(line.decoder, *_cells(line, columns))
    return drawn


def _cells(line: Line, columns: Sequence[Column]) -> list[str]:
    return [column.cell(line.figures) for column in columns]


def write_comparison_page(path: Path, lines: Sequence[Line], summary: dict[str, Any]) -> None:
    """Write the page.

    Raises:
        DataError: `path` cannot be written.
    """
    columns = columns_of([line.figures for line in lines], _num_engines(lines))
    names = [column.name.replace("-\n", "").replace("\n", " ") for column in columns]
    head = "".join(f"<th>{html.escape(name)}</th>" for name in names)
    body = "".join(
        f"<tr><th>{html.escape(line.name)}</th>"
        + "".join(f"<td>{cell}</td>" for cell in _cells(line, columns))
        + "</tr>"
        for line in lines
    )
    page = fill(
        "evaluation.html",
        {
            "title": html.escape(f"Comparison: {_title(summary)}"),
            "kind": "Comparison",
            "heading": html.escape(summary.get("benchmark", summary["problems"])),
            "summary": html.escape(_title(summary)),
            "totals": "",
            "note": html.escape(_note(lines)),
            "table": f"<table><thead><tr><th></th>{head}</tr></thead><tbody>{body}</tbody></table>",
            "charts": "\n".join(_charts(lines)),
            "more": "",
            "footer": "Every figure is in the evaluations' summary.json.",
        },
    )
    with replacing(path) as temporary:
        temporary.write_text(page, encoding="utf-8")


def _charts(lines: Sequence[Line]) -> list[str]:
    judged = [line for line in lines if "accuracy" in line.figures]
    if not judged:
        return []
    bars = {
        line.name: (100 * line.figures["accuracy_low"], 100 * line.figures["accuracy_high"])
        for line in judged
    }
    # Speed-ups of different engines are against different AR.
    speed = ("speed-up", "speedup")
    if _num_engines(lines) > 1:
        speed = ("tokens per second", "tokens_per_second")
    return [
        draw_scatter(
            Scatter(
                f"Accuracy against {name}",
                "per cent of problems solved, with 95 % intervals",
                name,
                "accuracy, %",
                named={
                    line.name: (line.figures[key], 100 * line.figures["accuracy"])
                    for line in judged
                },
                bars=bars,
            )
        )
        for name, key in (("tokens per forward", "tokens_per_forward"), speed)
    ]
