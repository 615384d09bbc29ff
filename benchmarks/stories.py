r"""A real pretrained model before and after: its speed, and what the original thinks of its text.

    python benchmarks/stories.py original=stories260K "round 1=forced/round-1/model" \
        "round 2=forced/round-2/model" --rounds forced/round-1 forced/round-2

Prompts are sampled from the first model, which judges every text by its likelihood; how often a
text repeats itself is counted. With --rounds, the checkpoints along the way are measured too,
where the recipe's [train] says `keep_checkpoints = true`.
"""

import argparse
from dataclasses import asdict
from pathlib import Path

import torch
from common import all_decoders, figures, measure, save
from transformers import AutoModelForCausalLM

from jacobi_forcing.config import DecoderConfig
from jacobi_forcing.decoding.measure import decode_all, distinct_ngrams, negative_log_likelihood
from jacobi_forcing.decoding.sample import sample_prompts
from jacobi_forcing.models import CausalLM, load_model
from jacobi_forcing.models.causal_lm import wrap


class Judge:
    """Decodes with `window` and lets the original judge the text."""

    def __init__(self, original: CausalLM, prompts: list[list[int]], limit: int, block_size: int):
        self.original = original
        self.prompts = prompts
        self.limit = limit
        self.decoder = DecoderConfig(strategy="window", block_size=block_size, pool_size=0)

    def text(self, answers: list[list[int]]) -> dict[str, float]:
        """Say how likely the original finds these answers, and how little they repeat."""
        return {
            "nll_under_original": negative_log_likelihood(self.original, self.prompts, answers),
            "distinct_8grams": distinct_ngrams(answers),
        }

    def point(self, model: CausalLM) -> dict[str, float]:
        """Measure one point of a curve."""
        decoded = decode_all(
            model, self.prompts, self.decoder, max_new_tokens=self.limit, batch_size=64
        )
        return {"tokens_per_forward": decoded.tokens_per_forward} | self.text(decoded.answers)


def curves(judge: Judge, rounds: list[Path]) -> list[dict]:
    """Measure the checkpoints that the rounds of `jacobi force` left, all on the same prompts.

    Returns:
        Points with `step`, counted over the rounds, and `line`: "round 1, member 2" or "model".
    """
    points = [{"line": "model", "step": 0} | judge.point(judge.original)]
    before = 0
    for number, folder in enumerate(rounds, 1):
        members = sorted(folder.glob("member-*")) or [folder / "model"]
        last = 0
        for member in members:
            line = f"round {number}, {member.name.replace('-', ' ')}"
            points.append({**points_of_model(points)[-1], "line": line})
            found = member.glob("steps/checkpoint-*")
            for checkpoint in sorted(found, key=lambda path: int(path.name.split("-")[1])):
                step = int(checkpoint.name.split("-")[1])
                network = AutoModelForCausalLM.from_pretrained(checkpoint).eval()
                model = wrap(str(checkpoint), network, judge.original.tokenizer)
                points.append({"line": line, "step": before + step} | judge.point(model))
                print(points[-1])
                last = max(last, step)
        before += last
        model = load_model(str(folder / "model"))
        points.append({"line": "model", "step": before} | judge.point(model))
        print(points[-1])
    return points


def points_of_model(points: list[dict]) -> list[dict]:
    """Choose the points of the rounds' models, each the start of the next round."""
    return [point for point in points if point["line"] == "model"]


def main() -> None:
    """Measure and save."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("models", nargs="+", metavar="LABEL=MODEL", help="the original first")
    parser.add_argument("--name", default="stories")
    parser.add_argument("--prompts", type=int, default=200)
    parser.add_argument("--timed", type=int, default=50, help="prompts timed at batch 1")
    parser.add_argument("--max-new-tokens", type=int, default=256)
    parser.add_argument("--block-size", type=int, default=16)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--seed", type=int, default=1000, help="other than the training's")
    parser.add_argument("--strategies", nargs="+", help="beside AR; all by default")
    parser.add_argument("--rounds", type=Path, nargs="*", default=[], help="folders, for curves")
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    named = dict(labelled.split("=", 1) for labelled in args.models)
    original = load_model(next(iter(named.values())))
    prompts = sample_prompts(original, args.prompts, max_tokens=32, seed=args.seed)
    judge = Judge(original, prompts, args.max_new_tokens, args.block_size)
    decoders = all_decoders([args.block_size])
    if args.strategies:
        wanted = args.strategies
        decoders = [one for one in decoders if one.strategy in wanted and one.pool_size == 0]
    rows = []
    for label, name in named.items():
        model = load_model(name)
        found = measure(
            model,
            prompts,
            decoders,
            max_new_tokens=args.max_new_tokens,
            num_timed=args.timed,
            label=label,
        )
        text = judge.text(found[0].decoded.answers)
        for one in found:
            rows.append({"model": label, **asdict(one.decoder), **text, **figures(one)})
            print(rows[-1])
    points = curves(judge, args.rounds) if args.rounds else []
    save(args.name, rows, num_prompts=args.prompts, num_timed=args.timed, curves=points)


if __name__ == "__main__":
    main()
