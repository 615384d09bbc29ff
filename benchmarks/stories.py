"""A real pretrained model before and after: its speed, and what the original thinks of its text.

    python benchmarks/stories.py original=stories260K "round 1=runs/.../model"

Prompts are sampled from the first model, which judges every text by its likelihood; how often a
text repeats itself is counted. Trainings' own measurements step by step come along as curves.
"""

import argparse
import json
from pathlib import Path

import torch
from common import all_decoders, figures, measure, save

from jacobi_forcing.decoding.measure import distinct_ngrams, negative_log_likelihood
from jacobi_forcing.decoding.sample import sample_prompts
from jacobi_forcing.models import load_model


def curve(model: Path) -> list[dict]:
    """Read the decoder evaluations out of a training's record, if it has one."""
    record = json.loads((model / "run.json").read_text()) if (model / "run.json").exists() else {}
    if "log" not in record:
        return []
    names = ("nll", "distinct_8grams", "tokens_per_forward")
    start = {"step": 0, **{name: record["before"][name] for name in names}}
    return [start] + [
        {"step": line["step"], **{name: line[f"eval_{name}"] for name in names}}
        for line in record["log"]
        if "eval_nll" in line
    ]


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
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    named = dict(labelled.split("=", 1) for labelled in args.models)
    original = load_model(next(iter(named.values())))
    prompts = sample_prompts(original, args.prompts, max_tokens=32, seed=args.seed)
    rows = []
    for label, name in named.items():
        model = load_model(name)
        found = measure(
            model,
            prompts,
            all_decoders([args.block_size]),
            max_new_tokens=args.max_new_tokens,
            num_timed=args.timed,
            label=label,
        )
        answers = found[0].decoded.answers
        text = {
            "nll_under_original": negative_log_likelihood(original, prompts, answers),
            "distinct_8grams": distinct_ngrams(answers),
        }
        for one in found:
            rows.append({"model": label, **one.decoder.__dict__, **text, **figures(one)})
            print(rows[-1])
    curves = {label: found for label, name in named.items() if (found := curve(Path(name)))}
    save(args.name, rows, num_prompts=args.prompts, num_timed=args.timed, curves=curves)


if __name__ == "__main__":
    main()
