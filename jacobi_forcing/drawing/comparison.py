"""Evaluations beside each other: the paper's kind of table, and accuracy against speed."""

import html
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

from rich import box
from rich.table import Table

from jacobi_forcing.data.files import replacing
from jacobi_forcing.drawing.evaluation import Column, columns_of
from jacobi_forcing.drawing.scatter import Scatter, draw_scatter
from jacobi_forcing.drawing.template import fill


class Line(NamedTuple):
    """One decoder of one model."""

    model: str
    decoder: str
    figures: dict[str, Any]
    machine: str

    @property
    def name(self) -> str:
        """Name both."""
        return f"{self.model}, {self.decoder}"


def _title(summary: dict[str, Any]) -> str:
    return f"{summary.get('benchmark', summary['problems'])}, n = {summary['num_problems']}"


def _note(lines: Sequence[Line]) -> str:
    machines = list(dict.fromkeys(line.machine for line in lines))
    if len(machines) == 1:
        return f"All on {machines[0]}. Speed-up is against AR of the same model in the same run."
    return (
        f"Measured in different places ({'; '.join(machines)}): tokens per second do not compare. "
        "Speed-up is against AR of the same model in the same run."
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
    drawn.add_column("model, decoder", no_wrap=True)
    columns = columns_of([line.figures for line in lines])
    for column in columns:
        drawn.add_column(column.name, justify="right", no_wrap=True)
    model = None
    for line in lines:
        if line.model != model or line.decoder == lines[0].decoder:  # the next evaluation
            model = line.model
            drawn.add_row(model, style="bold")
        drawn.add_row(line.decoder, *_cells(line, columns))
    return drawn


def _cells(line: Line, columns: Sequence[Column]) -> list[str]:
    return [column.cell(line.figures) for column in columns]


def write_comparison_page(path: Path, lines: Sequence[Line], summary: dict[str, Any]) -> None:
    """Write the page.

    Raises:
        DataError: `path` cannot be written.
    """
    columns = columns_of([line.figures for line in lines])
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
        for name, key in (("tokens per forward", "tokens_per_forward"), ("speed-up", "speedup"))
    ]
