"""Models x decoders on the held-out bundled problems, every decoder beside AR of the same model.

python benchmarks/decoders.py --name ladder --problems 500 base=tiny-base forced=tiny-forced
"""

import argparse

import torch
from common import save

from jacobi_forcing import problems
from jacobi_forcing.decoding.compare import AUTOREGRESSIVE, Decoder, compare, summarize, wilson
from jacobi_forcing.models import load_model
from jacobi_forcing.models.probe import probe
from jacobi_forcing.problems.scoring import check_answers
from jacobi_forcing.progress import progress_bar

LOOKUP = Decoder("prompt-lookup", 11)  # 3-grams, 10 tokens


def main() -> None:
    """Measure and save."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("models", nargs="+", metavar="LABEL=MODEL")
    parser.add_argument("--name", default="ladder", help="results/NAME.json")
    parser.add_argument("--problems", type=int, default=500, help="of each kind")
    parser.add_argument("--block-sizes", type=int, nargs="+", default=[16])
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--max-new-tokens", type=int, default=256)
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    chosen = [p for kind in problems.KINDS for p in problems.held_out(kind, args.problems)]
    rows = []
    for labelled in args.models:
        label, _, name = labelled.partition("=")
        model = load_model(name)
        probe(model)
        decoders = [AUTOREGRESSIVE, LOOKUP]
        decoders += [Decoder(s, n) for n in args.block_sizes for s in ("jacobi", "window")]
        prompts = [model.tokenizer.encode(p.prompt) for p in chosen]
        with progress_bar(label, len(prompts)) as bar:
            runs = compare(
                model,
                prompts,
                decoders,
                max_new_tokens=args.max_new_tokens,
                on_prompt=bar.advance,
            )
        for decoder, its_runs in zip(decoders, runs, strict=True):
            texts = [model.tokenizer.decode(r.answer, skip_special_tokens=True) for r in its_runs]
            verdicts = check_answers(list(zip(chosen, texts, strict=True)))
            row = {"model": label, "strategy": decoder.strategy, "block_size": decoder.block_size}
            for kind in ("all", *problems.KINDS):
                members = [i for i, p in enumerate(chosen) if kind in ("all", p.kind)]
                solved = sum(verdicts[i] for i in members)
                low, high = wilson(solved, len(members))
                row[kind] = {
                    "num_problems": len(members),
                    "accuracy": solved / len(members),
                    "accuracy_low": low,
                    "accuracy_high": high,
                    **summarize(
                        [its_runs[i] for i in members], [runs[0][i] for i in members]
                    )._asdict(),
                }
            rows.append(row)
            print(label, decoder, row["all"])
    save(args.name, rows)


if __name__ == "__main__":
    main()
