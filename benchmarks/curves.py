"""Draw the curves of results (`stories`, `batch_speed`, `miniature`) into docs/.

pip install matplotlib && python benchmarks/curves.py
"""

import json
from pathlib import Path

import paper
from matplotlib import pyplot

ROOT = Path(__file__).parent.parent


def stories() -> None:
    """Draw speed above, and below it what the text lost."""
    result = json.loads((ROOT / "benchmarks/results/stories.json").read_text())
    points = result["curves"]
    start = points[0]
    # The last row is the last model: the mean of the rounds, if the recipe has one.
    final = [row for row in result["rows"] if row["strategy"] == "window"][-1]
    points.append({**final, "line": "final", "step": points[-1]["step"]})
    labels = {"model": "a round's model: the mean of its trainings", "final": final["model"]}
    figure, (speed, loss, variety) = pyplot.subplots(
        3, 1, figsize=(7, 7.5), sharex=True, height_ratios=[2, 1, 1], layout="constrained"
    )
    for line in dict.fromkeys(point["line"] for point in points):
        own = [point for point in points if point["line"] == line]
        steps = [point["step"] for point in own]
        style = {"marker": "o", "color": "C1", "alpha": 0.6}
        if line in labels:
            style = {"marker": "o", "color": "C0", "linestyle": "none", "markersize": 9}
        if line == "final":
            style |= {"marker": "*", "color": "C2", "markersize": 15}
        known = speed.get_legend_handles_labels()[1]
        label = labels.get(line, "its trainings")
        speed.plot(
            steps,
            [point["tokens_per_forward"] for point in own],
            label=None if label in known else label,
            **style,
        )
        rises = [100 * (p["nll_under_original"] / start["nll_under_original"] - 1) for p in own]
        loss.plot(steps, rises, **style)
        changes = [100 * (p["distinct_8grams"] - start["distinct_8grams"]) for p in own]
        variety.plot(steps, changes, **style)
    loss.axhline(15, color="grey", linestyle=":")
    variety.axhline(-3, color="grey", linestyle=":")
    loss.set_yscale("symlog", linthresh=20)
    speed.set_ylabel("tokens per forward\n(window, block size 16)")
    loss.set_ylabel("NLL under the\noriginal, rise in %")
    variety.set_ylabel("distinct 8-grams,\nchange in points")
    variety.set_xlabel("training steps (dotted: the limits)")
    speed.legend()
    for axes in (speed, loss, variety):
        axes.grid(alpha=0.3)
    figure.savefig(ROOT / "docs/stories.png", dpi=110)


def batch() -> None:
    """Draw tokens per second of all rows together over the number of rows."""
    result = json.loads((ROOT / "benchmarks/results/batch_speed.json").read_text())
    figure, (speed, ratio) = pyplot.subplots(
        2, 1, figsize=(7, 5.5), sharex=True, layout="constrained"
    )
    for name in dict.fromkeys(row["decoder"] for row in result["rows"]):
        own = [row for row in result["rows"] if row["decoder"] == name]
        sizes = [row["batch_size"] for row in own]
        middle = [row["tokens_per_second"] for row in own]
        spread = [
            [m - row["lowest"] for m, row in zip(middle, own, strict=True)],
            [row["highest"] - m for m, row in zip(middle, own, strict=True)],
        ]
        speed.errorbar(sizes, middle, spread, marker="o", capsize=3, label=name)
        ratio.plot(sizes, [row["times_ar"] for row in own], marker="o")
    for axes in (speed, ratio):
        axes.set_xscale("log", base=2)
        axes.grid(alpha=0.3)
    speed.set_ylabel("tokens per second, all rows")
    ratio.set_ylabel("times AR")
    ratio.set_xlabel("rows decoded together (two CPU cores)")
    ratio.xaxis.set_major_formatter(lambda size, _: f"{size:g}")
    speed.legend()
    figure.savefig(ROOT / "docs/batch.png", dpi=110)


def miniature() -> None:
    """Draw tokens per forward over the block size, and what a wider forward costs."""
    result = json.loads((ROOT / "benchmarks/results/miniature.json").read_text())
    at = paper.Figures(result)
    figure, (speed, cost) = pyplot.subplots(1, 2, figsize=(9, 3.6), layout="constrained")
    sizes = (8, 16, 32, 64)
    kinds = {
        "plain Jacobi": lambda n: at.plain("jacobi", n),
        "running window": lambda n: at.plain("window", n),
        "multi-block, recycling": at.recycling,
    }
    for name, values in kinds.items():
        found = [paper.over_seeds(values(n)) for n in sizes]
        means, halves = [one.mean for one in found], [one.half for one in found]
        speed.errorbar(sizes, means, halves, marker="o", capsize=3, label=name)
    speed.set_xlabel("block size n")
    speed.set_ylabel("tokens per forward (tiny-forced)")
    speed.legend()
    widths = [row["width"] for row in at.widths]
    middle = [row["cost"] for row in at.widths]
    spread = [
        [row["cost"] - row["low"] for row in at.widths],
        [row["high"] - row["cost"] for row in at.widths],
    ]
    cost.errorbar(widths, middle, spread, marker="o", capsize=3, label="one thread of a CPU")
    cost.plot([1, 256], [1, 1], color="grey", linestyle=":", label="the paper, H200 and B200")
    cost.set_xlabel("tokens in a forward")
    cost.set_ylabel("times the cost of one")
    cost.set_yscale("log", base=2)
    cost.yaxis.set_major_formatter(lambda value, _: f"{value:g}")
    cost.legend()
    for axes in (speed, cost):
        axes.set_xscale("log", base=2)
        axes.xaxis.set_major_formatter(lambda size, _: f"{size:g}")
        axes.grid(alpha=0.3)
    figure.savefig(ROOT / "docs/miniature.png", dpi=110)


if __name__ == "__main__":
    stories()
    batch()
    miniature()
