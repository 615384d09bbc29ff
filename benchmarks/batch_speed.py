"""Tokens per second of all rows together, by batch size: AR, full blocks, and automatic width.

    python benchmarks/batch_speed.py --model tiny-forced

All take turns on the same prompts in one process. The last line printed is one JSON object.
"""

import argparse
import json
import statistics
import time

import torch
from common import save
from multiblock import benchmark_prompts

from jacobi_forcing.config import DecoderConfig
from jacobi_forcing.decoding.compare import AUTOREGRESSIVE
from jacobi_forcing.decoding.measure import decode_all
from jacobi_forcing.decoding.width import AutoWidth
from jacobi_forcing.models import load_model
from jacobi_forcing.progress import progress_bar


def main() -> None:
    """Time, print and save."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--model", default="tiny-forced")
    parser.add_argument("--batch-sizes", type=int, nargs="+", default=[1, 2, 4, 8, 16, 32, 64])
    parser.add_argument("--prompts", type=int, default=8, help="per row, but 32 at least")
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--max-new-tokens", type=int, default=256)
    parser.add_argument("--block-size", type=int, default=16)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--name", default="batch_speed")
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    model = load_model(args.model)
    window = DecoderConfig(block_size=args.block_size)
    ways = ("autoregressive", "window, recycling", "the same, automatic width")
    rows = []
    with progress_bar(args.model, len(args.batch_sizes) * args.repeats * len(ways)) as bar:
        for size in args.batch_sizes:
            prompts = benchmark_prompts(model, max(32, args.prompts * size))
            limit = min(args.max_new_tokens, model.context_tokens - max(map(len, prompts)))
            speeds: dict[str, list[float]] = {way: [] for way in ways}
            answers, widest = {}, 0
            for repeat in range(args.repeats):
                for turn in range(len(ways)):
                    way = ways[(repeat + turn) % len(ways)]
                    # A fresh one each time: what it costs to find the width is inside.
                    width = AutoWidth(args.block_size - 1) if "automatic" in way else None
                    start = time.perf_counter()
                    found = decode_all(
                        model,
                        prompts,
                        AUTOREGRESSIVE if way == ways[0] else window,
                        max_new_tokens=limit,
                        batch_size=size,
                        width=width,
                    )
                    speeds[way].append(found.num_tokens / (time.perf_counter() - start))
                    answers[way] = found.answers
                    if width is not None:
                        widest = width.limit(size)
                    bar.advance()
            ar = statistics.median(speeds[ways[0]])
            rows += [
                {
                    "batch_size": size,
                    "decoder": way,
                    "tokens_per_second": statistics.median(speeds[way]),
                    "lowest": min(speeds[way]),
                    "highest": max(speeds[way]),
                    "times_ar": statistics.median(speeds[way]) / ar,
                    "guesses_at_the_end": widest if "automatic" in way else None,
                    "num_mismatches": sum(
                        a != b for a, b in zip(answers[way], answers[ways[0]], strict=True)
                    ),
                }
                for way in ways
            ]
            print(*rows[-3:], sep="\n", flush=True)
    save(args.name, rows, model=args.model, block_size=args.block_size, repeats=args.repeats)
    auto = {row["batch_size"]: row["times_ar"] for row in rows if row["decoder"] == ways[2]}
    print(json.dumps({str(size): round(times, 3) for size, times in auto.items()}))


if __name__ == "__main__":
    main()
