"""What an evaluation came to: a table for the terminal, and one self-contained HTML page.

Everything on it comes from the summary and the answers' records.
"""

import html
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from rich import box
from rich.table import Table

from jacobi_forcing.data.files import replacing
from jacobi_forcing.drawing.chart import Axis, Chart, draw
from jacobi_forcing.drawing.scatter import Scatter, draw_scatter, legend
from jacobi_forcing.drawing.template import fill

_MOST_WORST = 24  # problems that are shown in full ...
_MOST_TEXT = 6000  # ... with so many characters of each text

_VERDICTS = {None: "", True: "solved", False: "not solved"}
_CHANGE = "change against the original's AR (McNemar p)"
_SPEED = "speed against AR, median (quartiles)"
ASSISTED = "Of assisted decoding the model's own forwards are counted, and all seconds."
_MISMATCHES = "answers that are not AR's"

Figures = dict[str, Any]


class Column(NamedTuple):
    """One figure of a decoder: its name, and how it is written."""

    name: str
    needs: str  # a figure without which there is nothing to write
    write: Callable[[Figures], str]

    def is_known(self, decoders: Iterable[Figures]) -> bool:
        """Tell whether some decoder has a figure for it."""
        return any(d.get(self.needs) is not None for d in decoders)

    def cell(self, figures: Figures) -> str:
        """Write a decoder's figure."""
        return "-" if figures.get(self.needs) is None else self.write(figures)


def _seconds(value: float) -> str:
    return f"{1000 * value:.0f} ms" if value < 1 else f"{value:.2f} s"


_ROWS = (
    Column(
        "accuracy",
        "accuracy",
        lambda d: f"{d['accuracy']:.1%} ({d['accuracy_low']:.1%} to {d['accuracy_high']:.1%})",
    ),
    Column(
        "answers cut off by the length limit",
        "num_cut_off",
        lambda d: f"{d['num_cut_off']} ({d['cut_off_share']:.0%})",
    ),
    Column(
        _CHANGE,
        "p_value",
        lambda d: f"{100 * d['accuracy_change']:+.1f} points (p = {d['p_value']:.2g})",
    ),
    Column(
        "solved only here / only by the original",
        "p_value",
        lambda d: f"{d['only_solved_here']} / {d['only_solved_by_original']}",
    ),
    Column(
        "tokens per forward",
        "tokens_per_forward",
        lambda d: (
            f"{d['tokens_per_forward']:.2f} \u00b1 {1.96 * d['tokens_per_forward_error']:.2f}"
        ),
    ),
    Column(
        "of solved problems",
        "tokens_per_forward_solved",
        lambda d: f"{d['tokens_per_forward_solved']:.2f}",
    ),
    Column(
        "of text that repeats 8 tokens",
        "tokens_per_forward_repeating",
        lambda d: f"{d['tokens_per_forward_repeating']:.2f} ({d['repeating_share']:.0%} of tokens)",
    ),
    Column(
        "of all other text",
        "tokens_per_forward_new",
        lambda d: f"{d['tokens_per_forward_new']:.2f}",
    ),
    Column(
        _SPEED,
        "speedup",
        lambda d: f"{d['speedup_median']:.2f}x ({d['speedup_low']:.2f} to {d['speedup_high']:.2f})",
    ),
    Column("over all problems", "speedup", lambda d: f"{d['speedup']:.2f}x"),
    Column(
        "without the prefill",
        "speedup_after_prefill",
        lambda d: f"{d['speedup_after_prefill']:.2f}x",
    ),
    Column("tokens per second", "tokens_per_second", lambda d: f"{d['tokens_per_second']:.1f}"),
    Column(
        "without the prefill",
        "tokens_per_second_after_prefill",
        lambda d: f"{d['tokens_per_second_after_prefill']:.1f}",
    ),
    Column(
        "time to first token, p50 / p95",
        "first_token_p50",
        lambda d: f"{_seconds(d['first_token_p50'])} / {_seconds(d['first_token_p95'])}",
    ),
    Column(
        "time per problem, p50 / p95",
        "seconds_p50",
        lambda d: f"{_seconds(d['seconds_p50'])} / {_seconds(d['seconds_p95'])}",
    ),
    Column(_MISMATCHES, "num_mismatches", lambda d: f"{d['num_mismatches']}"),
    Column(
        "where they part: token, gap of logits (median, largest)",
        "median_gap",
        lambda d: f"{d['median_first_place']:.0f}, {d['median_gap']:.3f}, {d['largest_gap']:.3f}",
    ),
)


_SHORT = (  # of a terminal's 80 columns
    Column(
        "accuracy",
        "accuracy",
        lambda d: (
            f"{100 * d['accuracy']:.1f}% "
            f"({100 * d['accuracy_low']:.0f}-{100 * d['accuracy_high']:.0f})"
        ),
    ),
    Column("cut\noff", "cut_off_share", lambda d: f"{100 * d['cut_off_share']:.0f}%"),
    Column(
        "against\noriginal",
        "p_value",
        lambda d: f"{100 * d['accuracy_change']:+.1f} (p {d['p_value']:.2g})",
    ),
    Column("tokens/\nforward", "tokens_per_forward", lambda d: f"{d['tokens_per_forward']:.2f}"),
    Column(
        "speed-up\n(quartiles)",
        "speedup",
        lambda d: f"{d['speedup_median']:.2f}x ({d['speedup_low']:.2f}-{d['speedup_high']:.2f})",
    ),
    Column("mis-\nmatch", "num_mismatches", lambda d: f"{d['num_mismatches']}"),
)


_OF_ENGINES = (  # instead of mismatches with AR, of which each engine has its own
    Column("tokens/\nsecond", "tokens_per_second", lambda d: f"{d['tokens_per_second']:.0f}"),
    Column("ids", "ids_digest", lambda d: d["ids_digest"][:6]),
)


def table(summary: Figures) -> Table:
    """Draw for a terminal what matters most."""
    decoders = summary["decoders"]
    drawn = Table(
        caption=ASSISTED if "assisted" in decoders else None,
        caption_justify="left",
        box=box.SIMPLE_HEAD,
        pad_edge=False,
        show_edge=False,
        padding=0,  # the space between columns is enough, and 80 hold no more
    )
    drawn.add_column("decoder", no_wrap=True)
    columns = columns_of(decoders.values())
    for column in columns:
        drawn.add_column(column.name, justify="right", no_wrap=True)
    for name, figures in decoders.items():
        drawn.add_row(name, *(column.cell(figures) for column in columns))
    return drawn


def columns_of(decoders: Iterable[Figures], num_engines: int = 1) -> list[Column]:
    """Choose what a terminal shows of decoders: figures that some of them have."""
    known = list(decoders)
    columns = _SHORT if num_engines == 1 else (*_SHORT[:-1], *_OF_ENGINES)
    return [column for column in columns if column.is_known(known)]


def cut_off_note(summary: Figures) -> str:
    """Say how many judged answers were cut off, and what to do; "" where none was."""
    num, of = summary.get("num_cut_off", 0), summary["num_problems"]
    if not num or "accuracy" not in summary:
        return ""
    limit = summary["settings"]["max_new_tokens"]
    were = f"{num} of {of} answers {'was' if num == 1 else 'were'} cut off"
    if summary["longest_cut_off_tokens"] < limit:
        return f"{were} where the model's context ends."
    return f"{were} at {limit:,} tokens: raise --max-new-tokens."


def engine_of(summary: Figures) -> str:
    """Name the engine that decoded, with its version; nothing where it was ours."""
    engine = summary.get("engine", "jacobi")
    return "" if engine == "jacobi" else f"{engine} {summary['engine_version']}"


def write_evaluation_page(path: Path, summary: Figures, records: Sequence[dict[str, Any]]) -> None:
    """Write the page of one evaluation.

    Raises:
        DataError: `path` cannot be written.
    """
    worst = _worst(summary, records)
    hardware = summary["hardware"]
    place = hardware["gpu"] or f"{hardware['cpu']}, {hardware['torch_threads']} threads"
    asked = f", asked as a {summary['style']}" if "style" in summary else ""
    page = fill(
        "evaluation.html",
        {
            "title": html.escape(f"{summary['model']}: {summary['problems']}"),
            "kind": "Evaluation",
            "heading": html.escape(summary["model"]),
            "summary": html.escape(
                f"{summary.get('benchmark', summary['problems'])}, n = {summary['num_problems']}"
                f"{asked}; {place}{_decoded_by(summary)}"
            ),
            "totals": f"<dl class=totals>{''.join(_totals(summary))}</dl>",
            "note": html.escape(
                " ".join(
                    filter(None, (cut_off_note(summary), divergence_note(summary), _note(summary)))
                )
            ),
            "table": _html_table(summary),
            "charts": "\n".join(_charts(summary, records)),
            "more": _section_of_worst(worst, len(records), "accuracy" in summary),
            "footer": html.escape(_footer(summary)),
        },
    )
    with replacing(path) as temporary:
        temporary.write_text(page, encoding="utf-8")


def divergence_note(summary: Figures) -> str:
    """Say how many answers part from AR's and what keeps them together; nothing if none does."""
    apart = {name: one for name, one in summary["decoders"].items() if "median_gap" in one}
    found = "; ".join(
        f"{name}: {one['num_different']} of {one['num_answers']} answers differ from AR's, at the "
        f"median from token {one['median_first_place']:.0f} on, where the logits of the two tokens "
        f"were {one['median_gap']:.3f} apart (at most {one['largest_gap']:.3f})"
        for name, one in apart.items()
    )
    return f"{found}. --exact decodes without such differences, at a cost." if found else ""


def _decoded_by(summary: Figures) -> str:
    engine, assistant = engine_of(summary), summary["settings"].get("assistant")
    return (f"; {engine}" if engine else "") + (f", assisted by {assistant}" if assistant else "")


def _note(summary: Figures) -> str:
    settings, engine = summary["settings"], engine_of(summary)
    together = settings["batch_size"]
    rows = "one at a time" if together == 1 else f"{together} together"
    where = f"{engine} and the same run" if engine else "the same engine and run"
    note = (
        f"The same problems in {where}, {rows}; decoders take turns in going "
        "first. A prefill counts as a forward and is inside the seconds, but where a line says "
        "otherwise. Intervals of 95 %."
    )
    note += " AR is this engine's own." if engine else ""
    return f"{note} {ASSISTED}" if settings.get("assistant") else note


def _footer(summary: Figures) -> str:
    ran = f"Programs ran with: {summary['sandbox']}. " if "sandbox" in summary else ""
    return (
        f"Greedy. {ran}Every answer is in a JSON file beside this page, every figure in "
        "summary.json."
    )


def _totals(summary: Figures) -> Iterable[str]:
    worth = []
    if "nll" in summary:
        worth = [("NLL under the original", f"{summary['nll']:.3f}")]
    elif "accuracy" in summary:
        worth = [("solved", f"{summary['accuracy']:.1%}")]
    for name, figure in (
        *worth,
        ("cut off", f"{summary['num_cut_off']} of {summary['num_problems']}"),
        ("tokens per forward", f"{summary['tokens_per_forward']:.2f}"),
        ("AR's speed", f"{summary['speedup']:.2f}x"),
        (_MISMATCHES, f"{summary['num_mismatches']}"),
    ):
        yield f"<div><dt>{name}</dt><dd>{figure}</dd></div>"


def _html_table(summary: Figures) -> str:
    decoders = summary["decoders"]
    head = "".join(f"<th>{html.escape(name)}</th>" for name in decoders)
    body = "".join(
        f"<tr><th>{row.name}</th>"
        + "".join(f"<td>{row.cell(figures)}</td>" for figures in decoders.values())
        + "</tr>"
        for row in _ROWS
        if row.is_known(decoders.values())
    )
    return f"<table><thead><tr><th></th>{head}</tr></thead><tbody>{body}</tbody></table>"


def _charts(summary: Figures, records: Sequence[dict[str, Any]]) -> Iterable[str]:
    decoders = summary["decoders"]
    if "accuracy" in summary:
        named = {n: (d["tokens_per_forward"], 100 * d["accuracy"]) for n, d in decoders.items()}
        bars = {n: (100 * d["accuracy_low"], 100 * d["accuracy_high"]) for n, d in decoders.items()}
        if "original_accuracy" in summary:
            named["original"] = (1.0, 100 * summary["original_accuracy"])
        yield draw_scatter(
            Scatter(
                "Accuracy against tokens per forward",
                "per cent of problems solved, with 95 % intervals",
                "tokens per forward",
                "accuracy, %",
                named=named,
                bars=bars,
            )
        )
    accepted = {
        name: list(enumerate((float(share) for share in d["acceptance"]), 1))
        for name, d in decoders.items()
    }
    if any(accepted.values()):
        last = max(len(points) for points in accepted.values())
        chart = Chart(
            "Acceptance by place",
            "share of drafts in which this guess and all before it were right",
            accepted,
            from_zero=True,
            is_named=False,
        )
        drawn = draw(chart, Axis(max(last, 2), lambda place: f"guess {place:g}", 1), {})
        yield drawn.replace("</section>", f"{legend(accepted)}</section>")
    answers = [record["answers"][summary["strategy"]] for record in records]
    clouds: dict[str, list[tuple[float, float]]] = {}
    for one in answers:
        name = "answers" if one["solved"] is None else "solved" if one["solved"] else "not solved"
        length = len(one["answer"])
        clouds.setdefault(name, []).append((length, length / len(one["settled"])))
    yield draw_scatter(
        Scatter(
            "Every problem",
            f"tokens per forward of {summary['strategy']} over the answer's length",
            "tokens of the answer",
            "tokens per forward",
            clouds=dict(sorted(clouds.items(), reverse=True)),
        )
    )


def _section_of_worst(worst: Sequence[str], num_problems: int, is_judged: bool) -> str:
    unsolved = "Not solved, or nearest" if is_judged else "Nearest"
    return (
        f"<section><h2>Worst cases</h2><p>{unsolved} to one token per forward; "
        f"{len(worst)} of {num_problems} problems.</p>{''.join(worst)}</section>"
    )


def _worst(summary: Figures, records: Sequence[dict[str, Any]]) -> list[str]:
    """Show the problems not solved, those first that the original solves, and the slowest."""
    name = summary["strategy"]

    def badness(record: dict[str, Any]) -> tuple[int, float]:
        one, original = record["answers"][name], record["answers"].get("original", {})
        is_lost = one["solved"] is False and original.get("solved") is True
        rate = len(one["answer"]) / len(one["settled"])
        return (0 if is_lost else 1 if one["solved"] is False else 2, rate)

    return [_case(record, name) for record in sorted(records, key=badness)[:_MOST_WORST]]


def _case(record: dict[str, Any], name: str) -> str:
    one = record["answers"][name]
    rate = len(one["answer"]) / len(one["settled"])
    verdict = _VERDICTS[one["solved"]]
    end = "cut off" if one["reason"] == "length" else f"ended by {html.escape(one['reason'])}"
    why = f" ({one['why']})" if one["why"] and not one["solved"] else ""
    sides = {"Asked": record["prompt"], f"Answered, {name}": one["text"]}
    if "original" in record["answers"]:
        theirs = record["answers"]["original"]
        title = ", ".join(filter(None, ("The original", _VERDICTS[theirs["solved"]])))
        sides[title] = theirs["text"]
    sides |= {"Reference": record["reference"]} if record["reference"] else {}
    shown = "".join(
        f"<div><h3>{html.escape(title)}</h3><pre>{html.escape(_shortened(text))}</pre></div>"
        for title, text in sides.items()
    )
    return (
        f"<details><summary>{html.escape(record['id'])} <span>{verdict}{', ' if verdict else ''}"
        f"{rate:.2f} tokens per forward, {len(one['answer'])} tokens, {end}"
        f"{html.escape(why)}</span></summary><div class=sides>{shown}</div></details>"
    )


def _shortened(text: str) -> str:
    rest = len(text) - _MOST_TEXT
    return text if rest <= 0 else f"{text[:_MOST_TEXT]}\n[{rest} characters more]"
