"""The figures of docs/figures.md as HTML: a place for the script, its data, and tables without it.

A page has `<!-- figure: NAME -->` and `<!-- end -->` around a line for readers on GitHub; the site
puts the figure there. docs/assets/figures.js draws it from the data in the page, so that it works
from a file too. The tables need no script: they are what a screen reader or a printer gets.
"""

import html
import json
import re
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from jacobi_forcing.drawing.template import script_json

PATH = Path(__file__).with_name("figures.json")
MARKER = re.compile(r"<!-- figure: (\w+) -->.*?<!-- end -->", flags=re.DOTALL)
TITLES = {
    "decode": "One answer, forward by forward",
    "schedule": "How noisy each block is",
    "mask": "Who sees whom",
    "blocks": "Several blocks and branches in flight",
}
_STREAMS = ("prompt", "noisy", "clean")


def load() -> dict[str, Any]:
    """Read what record_figures.py wrote."""
    return json.loads(PATH.read_text(encoding="utf-8"))


def put_in(page: str) -> str:
    """Replace the markers of an HTML page by figures, and add their data once."""
    names = MARKER.findall(page)
    if not names:
        return page
    figures = load()
    page = MARKER.sub(lambda match: figure(match[1], figures), page)
    used = {name: figures[name] for name in ("texts", "problem", *dict.fromkeys(names))}
    data = f'<script type="application/json" id="jf-data">{script_json(used)}</script>'
    return page + data


def figure(name: str, figures: dict[str, Any]) -> str:
    """Write one figure: the element that the script fills, and its table."""
    title = html.escape(TITLES[name])
    return (
        f'<figure class="jf" data-figure="{name}" data-search-exclude role="group" '
        f'aria-labelledby="jf-{name}"><figcaption id="jf-{name}">{title}</figcaption>'
        f'<div class="jf-stage"><p class="jf-wait">This figure needs JavaScript. '
        f"The table below has the same facts.</p></div>"
        f"<details><summary>As a table</summary>{TABLES[name](figures)}</details></figure>"
    )


def _table(head: Sequence[str], rows: Iterable[Sequence[Any]]) -> str:
    """Write a table; every cell is text."""

    def line(kind: str, cells: Iterable[Any]) -> str:
        return "<tr>" + "".join(f"<{kind}>{html.escape(str(c))}</{kind}>" for c in cells) + "</tr>"

    body = "".join(line("td", row) for row in rows)
    head_row = line("th", head)
    return (
        f'<div class="jf-table"><table><thead>{head_row}</thead><tbody>{body}</tbody></table></div>'
    )


def _said(figures: dict[str, Any], tokens: Iterable[int]) -> str:
    """Write tokens apart; a blank by itself is a dot."""
    words = (figures["texts"][token].strip(" ").replace("\n", "↵") for token in tokens)
    return " ".join(word or "·" for word in words)


def _decode_table(figures: dict[str, Any]) -> str:
    rows = [
        (
            run["model"],
            number,
            _said(figures, forward["guesses"]) or "none",
            _said(figures, forward["choices"][: forward["accepted"]]),
        )
        for run in figures["decode"]["runs"]
        for number, forward in enumerate(run["forwards"], 1)
    ]
    return _table(("model", "forward", "guesses", "settled by it"), rows)


def _schedule_table(figures: dict[str, Any]) -> str:
    noise = figures["schedule"]["noise"]
    rows = [
        (case["schedule"], case["window"], block, f"{aim:.2f}", f"{noise[block][state]:.2f}")
        for case in figures["schedule"]["cases"]
        for block, (aim, state) in enumerate(zip(case["aims"], case["taken"], strict=True))
    ]
    return _table(("schedule", "window", "block", "aim", "noise ratio of the state taken"), rows)


def _mask_table(figures: dict[str, Any]) -> str:
    drawn = figures["mask"]
    names = [_mask_name(drawn, token) for token in range(len(drawn["stream"]))]
    firsts = {name: names.index(name) for name in dict.fromkeys(names)}
    rows = []
    for variant, seen in drawn["variants"].items():
        for name in firsts:
            last = seen[len(names) - 1 - names[::-1].index(name)]  # its last token sees the most
            others = [o for o, first in firsts.items() if o != name and last[first] == "1"]
            rows.append((variant, name, ", ".join([*others, "itself, causally"])))
    return _table(("mask", "tokens of", "see"), rows)


def _mask_name(drawn: dict[str, Any], token: int) -> str:
    stream, block = _STREAMS[drawn["stream"][token]], drawn["block"][token]
    return stream if block < 0 else f"{stream} {block}"


def _blocks_table(figures: dict[str, Any]) -> str:
    rows = []
    for number, forward in enumerate(figures["blocks"]["forwards"], 1):
        trunk = forward["trunk"]
        branches = {source for source in forward["sources"][trunk:]}
        rows.append(
            (
                number,
                max(forward["sources"][:trunk], default=0) + 1,
                len(branches),
                sum(node >= trunk for node in forward["path"]),
                _said(figures, forward["held"][: forward["accepted"]]),
            )
        )
    head = ("forward", "blocks in flight", "branches", "right guesses of a branch", "settled by it")
    return _table(head, rows)


TABLES = {
    "decode": _decode_table,
    "schedule": _schedule_table,
    "mask": _mask_table,
    "blocks": _blocks_table,
}
