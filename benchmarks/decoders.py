"""Models x decoders on the held-out bundled problems, every decoder beside AR of the same model.

    python benchmarks/decoders.py tiny-base=tiny-base tiny-forced=tiny-forced --between ROUND=FOLDER

Models given with --between stand between the first model and the others, with AR and window only.
"""

import argparse
from dataclasses import asdict

import torch
from common import Measured, all_decoders, figures, measure, save

from jacobi_forcing import problems
from jacobi_forcing.config import DecoderConfig
from jacobi_forcing.decoding.measure import Decoded
from jacobi_forcing.evaluation.statistics import wilson
from jacobi_forcing.models import load_model
from jacobi_forcing.problems.problem import Problem
from jacobi_forcing.problems.scoring import check_answers


def row(label: str, found: Measured, chosen: list[Problem], verdicts: list[bool]) -> dict:
    """Give a decoder's figures on all problems and on each kind."""
    line = {"model": label, **asdict(found.decoder)}
    for kind in ("all", *problems.KINDS):
        members = [i for i, p in enumerate(chosen) if kind in ("all", p.kind)]
        part = Decoded(*([column[i] for i in members] for column in found.decoded))
        solved = sum(verdicts[i] for i in members)
        low, high = wilson(solved, len(members))
        line[kind] = {
            "num_problems": len(members),
            "accuracy": solved / len(members),
            "accuracy_low": low,
            "accuracy_high": high,
            "tokens_per_forward": part.tokens_per_forward,
        }
    return line | figures(found)


def main() -> None:
    """Measure and save."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("models", nargs="+", metavar="LABEL=MODEL")
    parser.add_argument("--between", nargs="*", default=[], metavar="LABEL=MODEL")
    parser.add_argument("--name", default="ladder", help="results/NAME.json")
    parser.add_argument("--problems", type=int, default=500, help="of each kind")
    parser.add_argument("--timed", type=int, default=100, help="problems timed at batch 1")
    parser.add_argument("--block-sizes", type=int, nargs="+", default=[16])
    parser.add_argument("--default-only", action="store_true", help="beside AR")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--max-new-tokens", type=int, default=256)
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    chosen = [p for kind in problems.KINDS for p in problems.held_out(kind, args.problems)]
    rows = []
    first, *others = args.models
    few = [DecoderConfig(block_size=n) for n in args.block_sizes]
    every = few if args.default_only else all_decoders(args.block_sizes)
    for labelled in [first, *args.between, *others]:
        label, _, name = labelled.partition("=")
        model = load_model(name)
        prompts = [model.tokenizer.encode(p.prompt) for p in chosen]
        for found in measure(
            model,
            prompts,
            few if labelled in args.between else every,
            max_new_tokens=args.max_new_tokens,
            num_timed=args.timed,
            label=label,
        ):
            texts = [
                model.tokenizer.decode(ids, skip_special_tokens=True)
                for ids in found.decoded.answers
            ]
            verdicts = check_answers(list(zip(chosen, texts, strict=True)))
            rows.append(row(label, found, chosen, verdicts))
            print(rows[-1])
    save(args.name, rows, num_timed=args.timed)


if __name__ == "__main__":
    main()
