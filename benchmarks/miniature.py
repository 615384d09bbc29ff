"""The paper's decoder tables and ablations in miniature, over several seeds.

    python benchmarks/miniature.py --threads 2
    python benchmarks/miniature.py --base FOLDER --forced FOLDER --name miniature_stories

A seed has its own held-out problems (or sampled beginnings) and its own noise in drafts. Forwards
are counted, which do not depend on the machine; only the last part, what a wider forward costs,
is timed. What needs training is in ablation.py (--choices method --seeds 3); `docs/miniature.md`
sets both beside the paper's figures.
"""

import argparse
import statistics
from collections.abc import Iterator
from dataclasses import asdict
from pathlib import Path
from typing import NamedTuple

import torch
from common import save

from jacobi_forcing import problems
from jacobi_forcing.config import DecoderConfig
from jacobi_forcing.decoding.compare import AUTOREGRESSIVE
from jacobi_forcing.decoding.cost import Clock, Shape, measure_curve
from jacobi_forcing.decoding.measure import decode_all
from jacobi_forcing.decoding.sample import sample_prompts
from jacobi_forcing.models import CausalLM, load_model
from jacobi_forcing.models.loading import BUNDLED
from jacobi_forcing.problems.problem import Problem
from jacobi_forcing.problems.scoring import check_answers
from jacobi_forcing.progress import progress_bar

WIDTHS = (1, 2, 4, 8, 16, 32, 64, 128, 256)


class Setting(NamedTuple):
    """One decoder and the parts of the page that show it."""

    parts: tuple[str, ...]
    decoder: DecoderConfig


def plain(strategy: str, size: int) -> DecoderConfig:
    """Make a decoder as the paper has it without recycling."""
    return DecoderConfig(strategy=strategy, block_size=size, pool_size=0)


def recycling(size: int, blocks: int = 2, ratio: float = 0.85, pool: int = 4) -> DecoderConfig:
    """Make the paper's multi-block decoder with rejection recycling."""
    return DecoderConfig(
        strategy="multiblock",
        block_size=size,
        max_blocks=blocks,
        spawn_ratio=ratio,
        pool_size=pool,
        branch_tokens=16,
    )


def settings() -> Iterator[Setting]:
    """Yield every decoder once, with all parts that it belongs to."""
    found: dict[DecoderConfig, list[str]] = {}

    def add(part: str, decoder: DecoderConfig) -> None:
        found.setdefault(decoder, []).append(part)

    for size in (8, 16, 32, 64):
        for decoder in (plain("jacobi", size), plain("window", size), recycling(size)):
            add("block size", decoder)
    for blocks in (1, 2, 3):
        add("blocks in flight", recycling(32, blocks=blocks))
    for ratio in (0.0, 0.25, 0.5, 0.75, 0.85, 1.0):
        add("spawn ratio", recycling(32, ratio=ratio))
    for pool in (0, 1, 2, 4, 8):
        add("pool", recycling(32, pool=pool))
    add("ours", DecoderConfig())
    for decoder, parts in found.items():
        yield Setting(tuple(parts), decoder)


def deal(base: CausalLM, count: int, seed: int) -> tuple[list[list[int]], list[Problem] | None]:
    """Give the prompts of one seed, and their problems where answers can be checked.

    Where they cannot, prompts are what the base samples, for both models.
    """
    if base.name not in BUNDLED:
        return sample_prompts(base, count, max_tokens=32, seed=2000 + seed), None
    # Not the problems of the README's table, whose seed is 0.
    chosen = [p for kind in problems.KINDS for p in problems.held_out(kind, count // 2, 100 + seed)]
    return [base.tokenizer.encode(p.prompt) for p in chosen], chosen


def judged(model: CausalLM, answers: list[list[int]], chosen: list[Problem] | None) -> dict:
    """Give the accuracy where answers can be checked."""
    if chosen is None:
        return {}
    texts = [model.tokenizer.decode(ids, skip_special_tokens=True) for ids in answers]
    verdicts = check_answers(list(zip(chosen, texts, strict=True)))
    return {"accuracy": sum(verdicts) / len(verdicts)}


def count_forwards(
    label: str, model: CausalLM, base: CausalLM, every: list[Setting], args
) -> Iterator[dict]:
    """Decode every seed's prompts with every decoder; yield a row for each."""
    with progress_bar(f"{label}: forwards", args.seeds * len(every)) as bar:
        for seed in range(args.seeds):
            prompts, chosen = deal(base, args.problems, seed)
            room = min(args.max_new_tokens, model.context_tokens - max(map(len, prompts)))
            limits = {"max_new_tokens": room, "batch_size": 50, "seed": seed}
            right = decode_all(model, prompts, AUTOREGRESSIVE, **limits).answers
            accuracy = judged(model, right, chosen)
            for parts, decoder in every:
                found = decode_all(model, prompts, decoder, **limits)
                yield {
                    "model": label,
                    "seed": seed,
                    "parts": parts,
                    **asdict(decoder),
                    "tokens_per_forward": found.tokens_per_forward,
                    "guesses_per_forward": sum(found.num_proposed) / sum(found.num_forwards),
                    "num_mismatches": sum(
                        a != b for a, b in zip(found.answers, right, strict=True)
                    ),
                    **accuracy,  # of the ids, which are those of AR
                }
                bar.advance()


def time_widths(label: str, model: CausalLM, args) -> Iterator[dict]:
    """Time forwards of several widths behind 128 tokens, in turns; yield a row for each."""
    context = 128
    clock = Clock(model, num_rows=1, max_tokens=context + WIDTHS[-1])
    turns = []
    for _ in range(args.turns):
        shapes = [Shape(1, context, width) for width in WIDTHS]
        curve = measure_curve(clock, shapes, [Shape(1, 0, 16)], seconds=1.0)
        turns.append([curve(*shape) for shape in shapes])
    for place, width in enumerate(WIDTHS):
        ratios = [turn[place] / turn[0] for turn in turns]
        low, middle, high = statistics.quantiles(ratios, n=4)
        yield {"model": label, "width": width, "cost": middle, "low": low, "high": high}


def main() -> None:
    """Count, time and save."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--base", default="tiny-base", help="before training")
    parser.add_argument("--forced", default="tiny-forced", help="and after")
    parser.add_argument("--problems", type=int, default=100, help="of each seed")
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--turns", type=int, default=9, help="of timing")
    parser.add_argument("--max-new-tokens", type=int, default=256)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--name", default="miniature")
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    every = list(settings())
    few = [s for s in every if s.decoder in (plain("jacobi", 16), plain("window", 16))]
    rows = []
    base, forced = load_model(args.base), load_model(args.forced)
    rows += count_forwards("base", base, base, few, args)
    rows += count_forwards("forced", forced, base, every, args)
    rows += time_widths("forced", forced, args)
    names = [Path(name).name for name in (args.base, args.forced)]
    save(args.name, rows, models=names, problems=args.problems, seeds=args.seeds)


if __name__ == "__main__":
    main()
