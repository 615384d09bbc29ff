"""Tokens per second at batch 1: our decoders, and transformers' generate, on the same weights.

    python benchmarks/decode_speed.py --model tiny-forced --prompts 40

All take turns on every prompt in one process. The last line printed is one JSON object.
"""

import argparse
import json
import statistics
import time
from collections.abc import Callable, Sequence
from typing import Any

import torch
from common import save
from multiblock import benchmark_prompts

from jacobi_forcing.config import DecoderConfig
from jacobi_forcing.decoding.measure import decode_all
from jacobi_forcing.decoding.width import AutoWidth
from jacobi_forcing.integrations.outside.generate import generated
from jacobi_forcing.models import CausalLM, load_model

Way = Callable[[list[int]], list[int]]


def ours(model: CausalLM, max_new_tokens: int, width: AutoWidth | None = None, **settings) -> Way:
    """Decode with one of our decoders; what `width` learns is kept from prompt to prompt."""
    decoder = DecoderConfig(**settings)

    def run(prompt: list[int]) -> list[int]:
        found = decode_all(model, [prompt], decoder, max_new_tokens=max_new_tokens, width=width)
        return found.answers[0]

    return run


def transformers(model: CausalLM, max_new_tokens: int, **settings) -> Way:
    """Decode with generate."""
    return lambda prompt: generated(model, prompt, max_new_tokens, **settings)


def take_turns(ways: dict[str, Way], prompts: Sequence[list[int]]) -> list[dict[str, Any]]:
    """Time every way on every prompt, in turns, after a warm-up; one row for each.

    `autoregressive` has to be among them: answers and seconds are held against its.
    """
    names = list(ways)
    seconds: dict[str, list[float]] = {name: [] for name in names}
    num_tokens, mismatches = 0, dict.fromkeys(names, 0)
    for way in ways.values():
        way(prompts[0])
    for number, prompt in enumerate(prompts):
        answers = {}
        for turn in range(len(names)):
            name = names[(number + turn) % len(names)]
            start = time.perf_counter()
            answers[name] = ways[name](prompt)
            seconds[name].append(time.perf_counter() - start)
        right = answers["autoregressive"]
        num_tokens += len(right)
        for name, answer in answers.items():
            mismatches[name] += answer != right
    rows = []
    for name in names:
        ratios = [a / b for a, b in zip(seconds["autoregressive"], seconds[name], strict=True)]
        low, median, high = statistics.quantiles(ratios, n=4)
        rows.append(
            {
                "decoder": name,
                "tokens_per_second": num_tokens / sum(seconds[name]),
                "times_our_ar": median,
                "times_our_ar_low": low,
                "times_our_ar_high": high,
                "num_mismatches": mismatches[name],
            }
        )
    return rows


def main() -> None:
    """Time, print and save."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--model", default="tiny-forced")
    parser.add_argument("--prompts", type=int, default=40)
    parser.add_argument("--max-new-tokens", type=int, default=256)
    parser.add_argument("--block-size", type=int, default=16)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--name", default="decode_speed")
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    model = load_model(args.model)
    prompts = benchmark_prompts(model, args.prompts)
    limit = min(args.max_new_tokens, model.context_tokens - max(map(len, prompts)))
    size = {"block_size": args.block_size}
    plain, widest = size | {"pool_size": 0}, args.block_size - 1
    ways: dict[str, Way] = {
        "autoregressive": ours(model, limit, strategy="autoregressive"),
        "jacobi": ours(model, limit, strategy="jacobi", **plain),
        "window": ours(model, limit, strategy="window", **plain),
        "window, recycling (the default)": ours(model, limit, **size),
        "the same, automatic width": ours(model, limit, AutoWidth(widest), **size),
        "multiblock": ours(model, limit, strategy="multiblock", **plain),
        "multiblock, recycling": ours(model, limit, strategy="multiblock", **size),
        "generate": transformers(model, limit),
        "generate, prompt lookup": transformers(model, limit, prompt_lookup_num_tokens=10),
    }
    rows = take_turns(ways, prompts)
    theirs = next(row for row in rows if row["decoder"] == "generate")["tokens_per_second"]
    for row in rows:
        row["times_generate"] = row["tokens_per_second"] / theirs
    save(args.name, rows, model=args.model, num_prompts=len(prompts), block_size=args.block_size)
    print(json.dumps({row["decoder"]: round(row["times_our_ar"], 3) for row in rows}))


if __name__ == "__main__":
    main()
