"""Draw the trainings' curves of `results/stories.json` into docs/stories.png.

pip install matplotlib && python benchmarks/curves.py
"""

import json
from pathlib import Path

from matplotlib import pyplot

ROOT = Path(__file__).parent.parent


def main() -> None:
    """Draw speed above, and below it what the text lost."""
    result = json.loads((ROOT / "benchmarks/results/stories.json").read_text())
    figure, (speed, loss, variety) = pyplot.subplots(
        3, 1, figsize=(7, 7.5), sharex=True, height_ratios=[2, 1, 1], layout="constrained"
    )
    for label, points in result["curves"].items():
        steps = [point["step"] for point in points]
        start = points[0]
        speed.plot(steps, [p["tokens_per_forward"] for p in points], marker="o", label=label)
        rises = [100 * (p["nll"] / start["nll"] - 1) for p in points]
        loss.plot(steps, rises, marker="o")
        changes = [100 * (p["distinct_8grams"] - start["distinct_8grams"]) for p in points]
        variety.plot(steps, changes, marker="o")
    loss.axhline(15, color="grey", linestyle=":")
    variety.axhline(-3, color="grey", linestyle=":")
    speed.set_ylabel("tokens per forward\n(window, block size 16)")
    loss.set_ylabel("NLL under the\noriginal, rise in %")
    variety.set_ylabel("distinct 8-grams,\nchange in points")
    variety.set_xlabel("training steps (dotted: the limits)")
    speed.legend()
    for axes in (speed, loss, variety):
        axes.grid(alpha=0.3)
    figure.savefig(ROOT / "docs/stories.png", dpi=110)


if __name__ == "__main__":
    main()
