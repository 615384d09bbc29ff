"""What a collection holds, and why the rest was dropped: a table, and a page with histograms."""

import html
from pathlib import Path
from typing import Any

from rich.table import Table

from jacobi_forcing.data.files import replacing
from jacobi_forcing.drawing.template import fill

_REASONS = {
    "long-prompt": "the prompt is longer than --max-prompt-tokens; not decoded",
    "unfinished": "the answer ended without EOS",
    "short-answer": "the answer is shorter than --min-answer-tokens",
    "repetitive": "too few of the answer's n-grams are distinct",
    "verifier-false": "the verifier said no",
    "verifier-error": "the verifier raised an exception, or did not return True or False",
    "verifier-timeout": "the verifier overran its time limit",
    "verifier-died": "the verifier's process ended",
}


def table(report: dict[str, Any], *, prompts: str) -> Table:
    """Draw the figures that a terminal has room for; `prompts` is as for `write_page`."""
    drawn = Table(show_header=False)
    drawn.add_column()
    drawn.add_column(justify="right")
    for name, figure in _figures(report, prompts):
        drawn.add_row(name, figure)
    for reason, num in report["dropped"].items():
        drawn.add_row(f"dropped: {reason}", f"{num:,}")
    return drawn


def write_page(path: Path, report: dict[str, Any], *, model_name: str, prompts: str) -> None:
    """Write the page.

    Args:
        path: Written.
        report: What `data.counts.totals` gives.
        model_name: Named on the page.
        prompts: Where the prompts are from.

    Raises:
        DataError: `path` cannot be written.
    """
    figures = "".join(
        f"<div><dt>{html.escape(name)}</dt><dd>{figure}</dd></div>"
        for name, figure in _figures(report, prompts)
    )
    values = {
        "title": f"{report['num_prompts']:,} trajectories",
        "source": html.escape(f"{model_name} · {prompts}"),
        "figures": figures,
        "dropped": _bars(
            {f"{name}: {_REASONS.get(name, '')}": n for name, n in report["dropped"].items()}
        ),
        "tokens_per_forward": _bars(report["tokens_per_forward"]),
        "states_per_block": _bars(report["states_per_block"]),
    }
    with replacing(path) as temporary:
        temporary.write_text(fill("report.html", values), encoding="utf-8")


def _figures(report: dict[str, Any], prompts: str) -> list[tuple[str, str]]:
    """Name what is kept, in figures; only bundled problems have a check that an answer solves."""
    tokens, forwards = report["num_tokens"], report["num_forwards"]
    states, blocks = report["num_states"], report["num_blocks"]
    solved = [("solved", f"{report['num_solved']:,}")] * prompts.startswith("bundled:")
    return [
        ("kept", f"{report['num_prompts']:,}"),
        ("dropped", f"{report['num_dropped']:,}"),
        ("ended with EOS", f"{report['num_finished']:,}"),
        *solved,
        ("answer tokens", f"{tokens:,}"),
        ("tokens per forward", f"{tokens / forwards:.2f}" if forwards else "-"),
        ("states per block", f"{states / blocks:.1f}" if blocks else "-"),
    ]


def _bars(entries: dict[str, int]) -> str:
    """Draw a histogram as rows of a table, each bar as long as its share of the longest."""
    if not entries:
        return "<p>none</p>"
    most = max(entries.values())
    rows = "".join(
        f"<tr><th>{html.escape(name)}</th>"
        f'<td><i style="width:{100 * num / most:.1f}%"></i></td><td>{num:,}</td></tr>'
        for name, num in entries.items()
    )
    return f"<table>{rows}</table>"
