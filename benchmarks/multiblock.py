"""Tokens per forward by block size, blocks in flight, spawn ratio and pool (the paper's ablation).

    python benchmarks/multiblock.py --model tiny-forced --problems 100

Counts forwards, which do not depend on the machine; decode_speed.py measures seconds.
"""

import argparse
from collections.abc import Iterator, Sequence
from dataclasses import asdict
from itertools import product

import torch
from common import save

from jacobi_forcing import problems
from jacobi_forcing.config import DecoderConfig
from jacobi_forcing.decoding.compare import AUTOREGRESSIVE
from jacobi_forcing.decoding.measure import decode_all
from jacobi_forcing.decoding.sample import sample_prompts
from jacobi_forcing.models import CausalLM, load_model
from jacobi_forcing.models.loading import BUNDLED
from jacobi_forcing.problems.problem import Problem
from jacobi_forcing.progress import progress_bar


def benchmark_prompts(model: CausalLM, num_prompts: int, seed: int = 1000) -> list[list[int]]:
    """Take held-out problems for the bundled pair, half of each kind; else sample beginnings."""
    if model.name not in BUNDLED:
        return sample_prompts(model, num_prompts, max_tokens=32, seed=seed)
    return [model.tokenizer.encode(p.prompt) for p in benchmark_problems(num_prompts)]


def benchmark_problems(num_problems: int) -> list[Problem]:
    """Take held-out problems, half of each kind."""
    return [p for kind in problems.KINDS for p in problems.held_out(kind, num_problems // 2, 0)]


def decoders(
    block_sizes: Sequence[int],
    max_blocks: Sequence[int],
    spawn_ratios: Sequence[float],
    recycling: Sequence[tuple[int, str, int]],
) -> Iterator[DecoderConfig]:
    """Yield every combination once: one block in flight has no spawn ratio."""
    for size in block_sizes:
        for num, pool, tokens in recycling:
            found = {"block_size": size, "pool_size": num, "pool": pool, "branch_tokens": tokens}
            yield DecoderConfig(strategy="window", **found)
            if max_blocks:
                yield DecoderConfig(strategy="jacobi", **found)
            for blocks in max_blocks:
                for ratio in spawn_ratios:
                    yield DecoderConfig(
                        strategy="multiblock", max_blocks=blocks, spawn_ratio=ratio, **found
                    )


def main() -> None:
    """Count and save."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--model", default="tiny-forced")
    parser.add_argument("--problems", type=int, default=100, help="or sampled prompts")
    parser.add_argument("--max-new-tokens", type=int, default=256)
    parser.add_argument("--block-sizes", type=int, nargs="+", default=[8, 16, 32])
    parser.add_argument("--max-blocks", type=int, nargs="*", default=[2, 3], help="or window only")
    parser.add_argument("--spawn-ratios", type=float, nargs="+", default=[0.0, 0.5, 0.85])
    parser.add_argument("--pool-sizes", type=int, nargs="+", default=[0, 1, 4])
    parser.add_argument("--pools", nargs="+", default=["states"], help="states, text, both")
    parser.add_argument("--branch-tokens", type=int, nargs="+", default=[16])
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--name", default="multiblock")
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    branches = product(args.pool_sizes, args.pools, args.branch_tokens)
    # Without branches it is the same wherever they would come from.
    recycling = dict.fromkeys(b if b[0] else (0, "states", 0) for b in branches)
    grid = list(decoders(args.block_sizes, args.max_blocks, args.spawn_ratios, list(recycling)))
    model = load_model(args.model)
    prompts = benchmark_prompts(model, args.problems)
    room = model.context_tokens - max(map(len, prompts))
    limits = {"max_new_tokens": min(args.max_new_tokens, room), "batch_size": 50}
    right = decode_all(model, prompts, AUTOREGRESSIVE, **limits).answers
    rows = []
    with progress_bar(args.model, len(grid)) as bar:
        for decoder in grid:
            found = decode_all(model, prompts, decoder, **limits)
            rows.append(
                {
                    "model": args.model,
                    **asdict(decoder),
                    "tokens_per_forward": found.tokens_per_forward,
                    "standard_error": found.standard_error,
                    "guesses_per_forward": sum(found.num_proposed) / sum(found.num_forwards),
                    "recycled_per_forward": sum(found.num_recycled) / sum(found.num_forwards),
                    "num_mismatches": sum(
                        a != b for a, b in zip(found.answers, right, strict=True)
                    ),
                }
            )
            bar.advance()
    save(args.name, rows, num_prompts=len(prompts))


if __name__ == "__main__":
    main()
