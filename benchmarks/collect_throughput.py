"""Batched collection against the one-prompt-at-a-time way, on the same prompts in one run.

python benchmarks/collect_throughput.py --model tiny-base --prompts 256
"""

import argparse
import statistics
import time

import torch
from common import save

from jacobi_forcing.config import DecoderConfig
from jacobi_forcing.data.prompts import read_prompts
from jacobi_forcing.decoding.measure import decode_all
from jacobi_forcing.decoding.sample import sample_prompts
from jacobi_forcing.models import load_model


def main() -> None:
    """Measure and save."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--model", default="tiny-base")
    parser.add_argument("--name", default="collect_throughput")
    parser.add_argument("--prompts", type=int, default=256)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--block-size", type=int, default=16)
    parser.add_argument("--max-new-tokens", type=int, default=192)
    parser.add_argument("--batch-sizes", type=int, nargs="+", default=[1, 16, 64, 128])
    parser.add_argument("--threads", type=int, default=2)
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    model = load_model(args.model)
    if args.model in ("tiny-base", "tiny-forced"):
        source = f"bundled:{args.prompts}"
        prompts = [p.ids for p in read_prompts(source, model.tokenizer, context_tokens=512)]
    else:
        prompts = sample_prompts(model, args.prompts, max_tokens=32, seed=0)

    rates: dict[int, list[float]] = {size: [] for size in args.batch_sizes}
    answers = {}
    for _ in range(args.repeats):
        for size in args.batch_sizes:
            start = time.perf_counter()
            decoded = decode_all(
                model,
                prompts,
                DecoderConfig(strategy="jacobi", block_size=args.block_size, pool_size=0),
                max_new_tokens=args.max_new_tokens,
                batch_size=size,
            )
            rates[size].append(decoded.num_tokens / (time.perf_counter() - start))
            answers[size] = decoded.answers
            print(f"batch {size}: {rates[size][-1]:.0f} tokens per second")
    one = statistics.median(rates[args.batch_sizes[0]])
    rows = [
        {
            "batch_size": size,
            "tokens_per_second": statistics.median(found),
            "lowest": min(found),
            "highest": max(found),
            "times_one_at_a_time": statistics.median(found) / one,
            "same_answers": answers[size] == answers[args.batch_sizes[0]],
        }
        for size, found in rates.items()
    ]
    save(args.name, rows, model=args.model, num_prompts=args.prompts, block_size=args.block_size)


if __name__ == "__main__":
    main()
