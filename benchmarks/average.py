"""Which weights for the mean of the start and the rounds: accuracy or likelihood, and speed.

    python benchmarks/average.py tiny-base ROUND_1 ROUND_2 --weights 1,0,0 0,0,1 0.1,0.3,0.6

The bundled problems judge by default, with another seed than the tables' so that the choice does
not see them. With --prompts self:N the first model judges: its likelihood of the greedy answers.
"""

import argparse

import torch
from common import save

from jacobi_forcing import problems
from jacobi_forcing.config import DecoderConfig
from jacobi_forcing.decoding.measure import (
    Decoded,
    decode_all,
    distinct_ngrams,
    negative_log_likelihood,
)
from jacobi_forcing.decoding.sample import sample_prompts
from jacobi_forcing.evaluation.statistics import wilson
from jacobi_forcing.models import CausalLM, load_model
from jacobi_forcing.problems.scoring import check_answers
from jacobi_forcing.progress import progress_bar
from jacobi_forcing.stages.average import mean_weights


class Problems:
    """Held-out problems of both kinds."""

    def __init__(self, model: CausalLM, count: int, seed: int):
        self.chosen = [p for kind in problems.KINDS for p in problems.held_out(kind, count, seed)]
        self.prompts = [model.tokenizer.encode(p.prompt) for p in self.chosen]

    def judge(self, model: CausalLM, decoded: Decoded) -> dict:
        """Give the share that is solved."""
        texts = [model.tokenizer.decode(a, skip_special_tokens=True) for a in decoded.answers]
        solved = sum(check_answers(list(zip(self.chosen, texts, strict=True))))
        low, high = wilson(solved, len(texts))
        return {"accuracy": solved / len(texts), "accuracy_low": low, "accuracy_high": high}


class Likelihood:
    """Prompts sampled from the first model, which judges the answers."""

    def __init__(self, model: CausalLM, count: int, seed: int):
        self.original = load_model(model.name)
        self.prompts = sample_prompts(model, count, max_tokens=32, seed=seed)

    def judge(self, model: CausalLM, decoded: Decoded) -> dict:
        """Give the answers' likelihood under the first model, and how much they repeat."""
        return {
            "nll": negative_log_likelihood(self.original, self.prompts, decoded.answers),
            "distinct_8grams": distinct_ngrams(decoded.answers),
        }


def main() -> None:
    """Measure and save."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("models", nargs="+", help="the start, and the rounds")
    parser.add_argument("--weights", nargs="+", required=True, metavar="W,W,...")
    parser.add_argument("--prompts", default="bundled:250", help="bundled:N of each kind; self:N")
    parser.add_argument("--seed", type=int, default=7)
    parser.add_argument("--max-new-tokens", type=int, default=256)
    parser.add_argument("--block-size", type=int, default=16)
    parser.add_argument("--pool-size", type=int, default=0, help="recycling: states kept")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--name", default="average")
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    models = [load_model(name, dtype="float32") for name in args.models]
    kind, _, count = args.prompts.partition(":")
    task = (Likelihood if kind == "self" else Problems)(models[0], int(count), args.seed)
    mean = load_model(args.models[0], dtype="float32")
    decoder = DecoderConfig(strategy="window", block_size=args.block_size, pool_size=args.pool_size)
    rows = []
    with progress_bar("averages", len(args.weights)) as bar:
        for text in args.weights:
            weights = [float(number) for number in text.split(",")]
            mean.network.load_state_dict(mean_weights(models, weights))
            decoded = decode_all(
                mean,
                task.prompts,
                decoder,
                max_new_tokens=args.max_new_tokens,
                batch_size=64,
            )
            found = task.judge(mean, decoded)
            speed = decoded.tokens_per_forward
            rows.append({"weights": weights, "tokens_per_forward": speed, **found})
            print(rows[-1], flush=True)
            bar.advance()
    facts = {name: getattr(args, name) for name in ("models", "prompts", "seed", "pool_size")}
    save(args.name, rows, **facts)


if __name__ == "__main__":
    main()
