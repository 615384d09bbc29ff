"""What each choice of the method is worth: one setting changed at a time, the same budget for each.

    python benchmarks/ablation.py --model stories260K --out runs/ablation

Every variant trains from the same checkpoint, on the same prompts, for the same number of steps,
and is measured on the same prompts kept out of training. Stopped, it continues when run again.
"""

import argparse
from dataclasses import replace
from pathlib import Path

from common import save

from jacobi_forcing.config import CollectConfig, PackConfig, TrainConfig
from jacobi_forcing.data.files import read_json
from jacobi_forcing.stages import collect, pack, train

# What differs from the first line, in packing and in training.
VARIANTS: dict[str, tuple[dict, dict]] = {
    "noise-conditioned, progressive, w = 8, AR weight 10": ({}, {}),
    "mask clean-context": ({}, {"mask": "clean-context"}),
    "mask windowed": ({}, {"mask": "windowed"}),
    "schedule random": ({"schedule": "random"}, {}),
    "schedule reverse": ({"schedule": "reverse"}, {}),
    "AR weight 1": ({}, {"ar_weight": 1.0}),
    "window 4": ({"window": 4}, {}),
    "window 16": ({"window": 16}, {}),
    "teacher frozen": ({}, {"teacher": "frozen"}),
    "teacher fixed-point": ({}, {"teacher": "fixed-point"}),
    "reach 4": ({}, {"consistency_reach": 4}),
    "clean-context, online states": ({}, {"mask": "clean-context", "states": "online"}),
}


def main() -> None:
    """Train every variant, measure and save."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--model", required=True)
    parser.add_argument("--out", type=Path, default=Path("runs/ablation"))
    parser.add_argument("--prompts", default="self:4000")
    parser.add_argument("--max-steps", type=int, default=500)
    parser.add_argument("--batch-size", type=int, default=16)
    parser.add_argument("--learning-rate", type=float, default=1e-3)
    parser.add_argument("--block-size", type=int, default=16)
    parser.add_argument("--max-new-tokens", type=int, default=192)
    parser.add_argument("--eval-prompts", default="packed:100")
    parser.add_argument("--threads", type=int, default=2)
    args = parser.parse_args()

    trajectories = collect.run(
        CollectConfig(
            model=args.model,
            prompts=args.prompts,
            out=str(args.out / "trajectories"),
            block_size=args.block_size,
            max_new_tokens=args.max_new_tokens,
            batch_size=128,
            threads=args.threads,
        )
    )
    packing = PackConfig(trajectories=str(trajectories), out="-", phase="random", workers=2)
    training = TrainConfig(
        model=args.model,
        packed="-",
        out="-",
        learning_rate=args.learning_rate,
        max_steps=args.max_steps,
        batch_size=args.batch_size,
        eval_prompts=args.eval_prompts,
        threads=args.threads,
    )
    rows = []
    for number, (setting, (in_packing, in_training)) in enumerate(VARIANTS.items()):
        packed = replace(packing, **in_packing, out=str(args.out / f"{number}-packed"))
        if not (Path(packed.out) / "manifest.json").exists():
            pack.run(packed)
        out = args.out / f"{number}-model"
        train.run(replace(training, **in_training, packed=packed.out, out=str(out)))
        record = read_json(out / "run.json")
        rows.append({"setting": setting, "before": record["before"], "after": record["after"]})
        print(setting, record["after"], flush=True)
    save("ablation", rows, model=args.model, settings=vars(args) | {"out": str(args.out)})


if __name__ == "__main__":
    main()
