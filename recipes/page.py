"""Write the estimates of docs/recipes.md from the recipes themselves.

    python recipes/page.py [--check]

Lines between `<!-- estimate: RECIPE GPUS x GPU -->` and `<!-- end -->` are what
`jacobi force RECIPE --dry-run --gpus GPUS --gpu GPU` estimates.
"""

import re
import sys
from pathlib import Path

from jacobi_forcing.config import ForceConfig
from jacobi_forcing.stages import dry_run
from jacobi_forcing.stages.recipe import read_recipe

ROOT = Path(__file__).parent.parent
PAGE = ROOT / "docs" / "recipes.md"


def estimated(recipe: str, gpus: int, gpu: str) -> str:
    """List a recipe's estimates in Markdown."""
    path = ROOT / "recipes" / recipe
    config = ForceConfig(recipe=str(path), dry_run=True, gpus=gpus, gpu=gpu)
    # As many prompts as the training visits, whatever lies in the folder.
    stages = read_recipe(path)
    found, sources = dry_run.checked(config, stages)
    rounds = dry_run.estimates(
        config, stages, found, [s._replace(count=0, longest=0) for s in sources]
    )
    lines = []
    for number, estimate in enumerate(rounds, 1):
        lines += [f"- round {number}"]
        lines += [f"  - {line}" for line in dry_run.described(estimate)]
    return "\n".join(lines)


def filled(text: str) -> str:
    """Put fresh estimates into a page."""

    def fresh(match: re.Match) -> str:
        recipe, gpus, gpu = match[1], int(match[2]), match[3]
        start = f"<!-- estimate: {recipe} {gpus} x {gpu} -->"
        return f"{start}\n{estimated(recipe, gpus, gpu)}\n<!-- end -->"

    pattern = r"<!-- estimate: (\S+) (\d+) x (\w+) -->.*?<!-- end -->"
    return re.sub(pattern, fresh, text, flags=re.DOTALL)


def main() -> int:
    """Write the page, or with --check say whether it is out of date."""
    text = PAGE.read_text()
    fresh = filled(text)
    if "--check" not in sys.argv:
        PAGE.write_text(fresh)
    print("up to date" if fresh == text else "out of date")
    return int(fresh != text and "--check" in sys.argv)


if __name__ == "__main__":
    sys.exit(main())
