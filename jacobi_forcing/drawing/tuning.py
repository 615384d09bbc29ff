"""One self-contained HTML page of a tuning: what is free, where the knee is, what was chosen.

Everything on it comes from the file that `tune` writes.
"""

import html
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from rich.table import Table

from jacobi_forcing.data.files import replacing
from jacobi_forcing.drawing.chart import Axis, Chart, Point, draw
from jacobi_forcing.drawing.template import fill

_DRAFTING = ("window", "jacobi", "multiblock")


def write_tuning_page(path: Path, result: dict[str, Any]) -> None:
    """Write the page of one tuning.

    Raises:
        DataError: `path` cannot be written.
    """
    machine = result["machine"]
    page = fill(
        "tuning.html",
        {
            "title": html.escape(f"{result['model']}: tuning"),
            "model": html.escape(result["model"]),
            "summary": html.escape(
                f"{machine['device']}, {machine['dtype']}, {machine['threads']} threads, "
                f"{'compiled' if machine['compile'] else 'eager'}, torch {machine['torch']}; "
                f"{result['num_prompts']} prompts, {result['num_tokens']} answer tokens"
            ),
            "totals": "".join(_totals(result)),
            "reasons": "".join(f"<li>{html.escape(line)}</li>" for line in _reasons(result)),
            "tried": _tried_table(result),
            "charts": "\n".join(_charts(result)),
        },
    )
    with replacing(path) as temporary:
        temporary.write_text(page, encoding="utf-8")


def _reasons(result: dict[str, Any]) -> Iterable[str]:
    yield from (why(result, rows) for rows in result["chosen"])
    if result.get("left_out"):  # older files do not say
        yield f"The time was too short for: {'; '.join(result['left_out'])}."


def chosen_table(result: dict[str, Any]) -> Table:
    """Draw for a terminal what was chosen, and what it was chosen from."""
    names = ("rows", "decoder", "tokens/\nforward", "predicted\ntokens/s", "measured\ntokens/s")
    table = Table(*names, "against\nAR", title="Tried, in turns; * is what was chosen")
    for rows, chosen in result["chosen"].items():
        for one in _ranked(chosen["tried"]):
            if not one["is_final"]:
                continue  # the page has them
            is_best = one["decoder"] == chosen["decoder"]
            name = decoder_name(one["decoder"])
            table.add_row(rows, name + " *" * is_best, *_figures(one), style="bold" * is_best)
        table.add_section()
    every = [one for chosen in result["chosen"].values() for one in chosen["tried"]]
    num_behind = sum(not one["is_final"] for one in every)
    if num_behind:
        table.caption = f"{num_behind} more were slower in a heat; the page has them"
    return table


def decoder_name(decoder: dict[str, Any]) -> str:
    """Name a decoder with the settings that matter for it."""
    strategy = decoder["strategy"]
    if strategy == "autoregressive":
        return strategy
    name = f"{strategy} {decoder['block_size']}"
    if strategy == "multiblock":
        name += f" x {decoder['max_blocks']}, spawn {decoder['spawn_ratio']:g}"
    if strategy != "prompt-lookup" and decoder["pool_size"]:
        name += f", recycling {decoder['pool_size']} / {decoder['branch_tokens']}"
    return name


def why(result: dict[str, Any], rows: str) -> str:
    """Say in a sentence what was chosen for a number of rows, and why."""
    chosen = result["chosen"][rows]
    subject = f"{rows} row{'s' * (rows != '1')}: {decoder_name(chosen['decoder'])}"
    if chosen["decoder"]["strategy"] == "autoregressive":
        others = [one for one in chosen["tried"][1:] if one["is_final"]]
        best = max(others, key=lambda one: one["times_ar"], default=None)
        if best is None:
            return f"{subject}, because nothing else fitted into memory."
        return (
            f"{subject}, because nothing is faster turn for turn: "
            f"{decoder_name(best['decoder'])} settles {best['measured_tokens_per_forward']:.2f} "
            f"tokens per forward and reaches {best['times_ar']:.2f} times its speed in the median, "
            f"{best['times_ar_low']:.2f} in the lower quartile."
        )
    settled, faster = chosen["measured_tokens_per_forward"], chosen["times_ar"]
    return (
        f"{subject}, because it settles {settled:.2f} tokens per forward and a step takes "
        f"{settled / faster:.2f} times as long as AR's: {faster:.2f} times AR's tokens per second."
    )


def _ranked(tried: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Finalists first, the fastest first."""
    return sorted(tried, key=lambda one: (not one["is_final"], -one["times_ar"]))


def _figures(one: dict[str, Any]) -> list[str]:
    return [
        f"{one['measured_tokens_per_forward']:.2f}",
        f"{one['tokens_per_second']:.0f}",
        f"{one['measured_tokens_per_second']:.0f}",
        f"{one['times_ar']:.2f}x",
    ]


def _totals(result: dict[str, Any]) -> Iterable[str]:
    for rows, chosen in result["chosen"].items():
        label = f"AR's speed, {rows} row{'s' * (rows != '1')}"
        yield f"<div><dt>{label}</dt><dd>{chosen['times_ar']:.2f}x</dd></div>"
    free = " / ".join(str(width) for width in result["free_width"].values())
    yield f"<div><dt>tokens per row that are free</dt><dd>{free}</dd></div>"


def _tried_table(result: dict[str, Any]) -> str:
    names = ("rows, decoder", "tokens per forward", "predicted", "measured", "off by", "against AR")
    head = "".join(f"<th>{name}</th>" for name in names)
    body = []
    for rows, chosen in result["chosen"].items():
        for one in _ranked(chosen["tried"]):
            settled, predicted, measured, times = _figures(one)
            off = one["tokens_per_second"] / one["measured_tokens_per_second"] - 1
            cells = (settled, predicted, measured, f"{off:+.0%}", times)
            kind = " class=chosen" if one["decoder"] == chosen["decoder"] else ""
            kind = kind if one["is_final"] else " class=behind"
            body.append(
                f"<tr{kind}><th>{rows}: {html.escape(decoder_name(one['decoder']))}</th>"
                + "".join(f"<td>{cell}</td>" for cell in cells)
                + "</tr>"
            )
    return f"<table><thead><tr>{head}</tr></thead><tbody>{''.join(body)}</tbody></table>"


def _charts(result: dict[str, Any]) -> Iterable[str]:
    widths = sorted({row["width"] for row in result["curve"]})
    axis = Axis(widths[-1], lambda width: f"{width:g} token{'s' * (width != 1)}", 1, True)
    for rows, chosen in result["chosen"].items():
        free = result["free_width"][rows]
        of = f"{rows} row{'s' * (rows != '1')}"
        by_context = _milliseconds(result, int(rows))
        curve = Chart(
            f"Milliseconds per forward, {of}",
            f"over tokens per row, behind {' / '.join(by_context)} tokens; dotted: the widest that "
            "costs at most 10 % more than one token",
            {f"behind {context} tokens": points for context, points in by_context.items()},
            from_zero=True,
            is_named=False,
        )
        yield draw(curve, axis, {free: f"free up to {free}"})
        speeds = Chart(
            f"Tokens per second, {of}",
            "predicted, of the fastest decoder of each block size; circles: measured; dashed: AR "
            "as measured",
            {"predicted": _speeds(result, rows)},
            limit=chosen["tried"][0]["measured_tokens_per_second"],
            from_zero=True,
            points=_measured(chosen),
        )
        size = chosen["decoder"]["block_size"]
        is_ar = chosen["decoder"]["strategy"] == "autoregressive"
        yield draw(speeds, axis, {} if is_ar else {size: "chosen"})
    places = {"accepted": [(n, part) for n, part in enumerate(result["acceptance"], 1)]}
    accepted = Chart(
        "Acceptance by place",
        "share of the wide decode's drafts in which this guess and all before it were right",
        places,
        from_zero=True,
    )
    last = len(result["acceptance"])
    yield draw(accepted, Axis(last, lambda place: f"guess {place:g}", 1), {})


def _milliseconds(result: dict[str, Any], num_rows: int) -> dict[str, list[Point]]:
    """Give the curve behind each context."""
    found: dict[str, list[Point]] = {}
    for row in result["curve"]:
        if row["num_rows"] == num_rows:
            points = found.setdefault(str(row["context_tokens"]), [])
            points.append((row["width"], 1000 * row["seconds"]))
    return {name: sorted(points) for name, points in found.items()}


def _speeds(result: dict[str, Any], rows: str) -> list[Point]:
    """Give the best prediction for every block size."""
    best: dict[int, float] = {}
    for one in result["predictions"][rows]:
        decoder, speed = one["decoder"], one["tokens_per_second"]
        if decoder["strategy"] in _DRAFTING:
            size = decoder["block_size"]
            best[size] = max(speed, best.get(size, 0.0))
    return sorted(best.items())


def _measured(chosen: dict[str, Any]) -> list[Point]:
    """Give what was measured of decoders with a block size."""
    return [
        (one["decoder"]["block_size"], one["measured_tokens_per_second"])
        for one in chosen["tried"]
        if one["decoder"]["strategy"] in _DRAFTING
    ]
