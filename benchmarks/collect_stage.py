"""Batched collection against the one-prompt-at-a-time way: `jacobi collect` itself, same prompts.

    python benchmarks/collect_stage.py --model tiny-base stories260K

Seconds are those of the whole stage: loading, decoding, checking answers, writing files.
"""

import argparse
import statistics
import tempfile
import time
from pathlib import Path

import torch
from common import save

from jacobi_forcing.config import CollectConfig
from jacobi_forcing.data.files import read_json, read_rows
from jacobi_forcing.models.loading import BUNDLED
from jacobi_forcing.stages import collect


def collected(config: CollectConfig) -> tuple[float, int, list[list[int]]]:
    """Run the stage in a folder that is thrown away: seconds, tokens, answers."""
    start = time.perf_counter()
    folder = collect.run(config)
    seconds = time.perf_counter() - start
    answers = [
        row["answer_ids"]
        for shard in sorted(folder.glob("*.parquet"))
        for row in read_rows(shard, ["answer_ids"])
    ]
    return seconds, read_json(folder / "manifest.json")["num_tokens"], answers


def compared(model: str, args: argparse.Namespace) -> list[dict]:
    """Collect with every way in turns, `repeats` times; the first way is what others stand by."""
    ways = [(record, size) for record in ("states", "answers") for size in args.batch_sizes]
    found: dict[tuple[str, int], list] = {way: [] for way in ways}
    for _ in range(args.repeats):
        for record, batch_size in ways:
            with tempfile.TemporaryDirectory() as folder:
                config = CollectConfig(
                    model=model,
                    prompts=f"{'bundled' if model in BUNDLED else 'self'}:{args.prompts}",
                    out=str(Path(folder) / "trajectories"),
                    record=record,
                    block_size=args.block_size,
                    max_new_tokens=args.max_new_tokens,
                    batch_size=batch_size,
                    dtype=args.dtype,
                    threads=args.threads,
                )
                found[record, batch_size].append(collected(config))
            print(model, record, batch_size, found[record, batch_size][-1][:2], flush=True)
    first = ways[0]
    one = statistics.median(seconds for seconds, _, _ in found[first])
    rows = []
    for (record, batch_size), runs in found.items():
        rates = [tokens / seconds for seconds, tokens, _ in runs]
        differing = sum(a != b for a, b in zip(runs[0][2], found[first][0][2], strict=True))
        rows.append(
            {
                "model": model,
                "record": record,
                "batch_size": batch_size,
                "prompts_per_second": args.prompts / statistics.median(r[0] for r in runs),
                "tokens_per_second": statistics.median(rates),
                "lowest": min(rates),
                "highest": max(rates),
                "times_one_at_a_time": one / statistics.median(r[0] for r in runs),
                "num_differing": differing,
            }
        )
    return rows


def main() -> None:
    """Measure and save."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--model", nargs="+", default=["tiny-base"])
    parser.add_argument("--name", default="collect_stage")
    parser.add_argument("--prompts", type=int, default=256)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--block-size", type=int, default=16)
    parser.add_argument("--max-new-tokens", type=int, default=192)
    parser.add_argument("--batch-sizes", type=int, nargs="+", default=[1, 128])
    parser.add_argument("--dtype", default="float32")
    parser.add_argument("--threads", type=int, default=2)
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    rows = [row for model in args.model for row in compared(model, args)]
    save(args.name, rows, num_prompts=args.prompts, block_size=args.block_size, dtype=args.dtype)


if __name__ == "__main__":
    main()
