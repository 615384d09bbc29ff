r"""Write a column of a hub dataset as prompts, in the form that `jacobi collect` reads.

    python recipes/prompts.py nvidia/OpenCodeInstruct --column input \\
        --where average_test_score=1.0 --num 40000 --out recipes/qwen2.5-coder-7b/prompts.jsonl
    python recipes/prompts.py nvidia/OpenMathInstruct-2 --column problem --suffix " /no_think" \\
        --num 32000 --out recipes/qwen3-8b/prompts.jsonl

The dataset is streamed: no more of it is downloaded than is written. Repeated prompts are left out.
Look at the dataset's page for its columns and its licence.
"""

import argparse
import itertools
import json
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import datasets


def prompts(
    rows: Iterable[dict[str, Any]], column: str, where: dict[str, str], suffix: str = ""
) -> Iterator[dict[str, Any]]:
    """Yield a record for every new prompt among rows whose columns have the values asked for."""
    seen = set()
    for number, row in enumerate(rows):
        text = str(row[column]).strip()
        if any(str(row[name]) != value for name, value in where.items()) or not text:
            continue
        if text in seen:
            continue
        seen.add(text)
        message = {"role": "user", "content": text + suffix}
        yield {"id": str(row.get("id", number)), "messages": [message]}


def main() -> None:
    """Stream and write."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("dataset")
    parser.add_argument("--split", default="train")
    parser.add_argument("--column", required=True, help="that holds the prompt")
    parser.add_argument("--where", nargs="*", default=[], metavar="COLUMN=VALUE")
    parser.add_argument("--suffix", default="", help="added to every prompt")
    parser.add_argument("--num", type=int, required=True)
    parser.add_argument("--out", type=Path, required=True)
    args = parser.parse_args()
    rows = datasets.load_dataset(args.dataset, split=args.split, streaming=True)
    where = dict(condition.split("=", 1) for condition in args.where)
    found = itertools.islice(prompts(rows, args.column, where, args.suffix), args.num)
    staging = args.out.with_suffix(".part")
    with staging.open("w", encoding="utf-8") as lines:
        num = sum(bool(lines.write(json.dumps(record) + "\n")) for record in found)
    staging.replace(args.out)
    print(f"{num} prompts in {args.out}")


if __name__ == "__main__":
    main()
