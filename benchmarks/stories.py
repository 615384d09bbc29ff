"""A real pretrained model before and after: its speed, and what the original thinks of its text.

    python benchmarks/stories.py --original ../shared/models/stories260K --forced runs/.../model

Prompts are sampled from the original; texts are judged by the original's likelihood and by how
often they repeat themselves.
"""

import argparse
import json
from pathlib import Path

import torch
from common import all_decoders, figures, measure, save

from jacobi_forcing.decoding.measure import distinct_ngrams, negative_log_likelihood
from jacobi_forcing.decoding.sample import sample_prompts
from jacobi_forcing.models import load_model


def curve(forced: Path) -> list[dict]:
    """Read the decoder evaluations out of a training's record."""
    record = forced / "run.json"
    if not record.exists():
        return []
    lines = json.loads(record.read_text())["log"]
    names = ("nll", "distinct_8grams", "tokens_per_forward")
    return [
        {"step": line["step"], **{name: line[f"eval_{name}"] for name in names}}
        for line in lines
        if "eval_nll" in line
    ]


def main() -> None:
    """Measure and save."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--original", required=True)
    parser.add_argument("--forced", nargs="+", required=True, help="one folder per round")
    parser.add_argument("--name", default="stories")
    parser.add_argument("--prompts", type=int, default=200)
    parser.add_argument("--timed", type=int, default=50, help="prompts timed at batch 1")
    parser.add_argument("--max-new-tokens", type=int, default=200)
    parser.add_argument("--block-size", type=int, default=16)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--seed", type=int, default=1000, help="other than the training's")
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    original = load_model(args.original)
    prompts = sample_prompts(original, args.prompts, max_tokens=32, seed=args.seed)
    rows = []
    for name in [args.original, *args.forced]:
        model = load_model(name)
        found = measure(
            model,
            prompts,
            all_decoders([args.block_size]),
            max_new_tokens=args.max_new_tokens,
            num_timed=args.timed,
            label=Path(name).name,
        )
        answers = found[0].decoded.answers
        text = {
            "nll_under_original": negative_log_likelihood(original, prompts, answers),
            "distinct_8grams": distinct_ngrams(answers),
        }
        for one in found:
            rows.append({"model": name, **one.decoder.__dict__, **text, **figures(one)})
            print(rows[-1])
    curves = {name: curve(Path(name)) for name in args.forced}
    save(args.name, rows, num_prompts=args.prompts, num_timed=args.timed, curves=curves)


if __name__ == "__main__":
    main()
