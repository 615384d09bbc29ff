"""What each choice of the method is worth: one setting changed at a time, the same budget for each.

    python benchmarks/ablation.py --model stories260K --out runs/ablation
    python benchmarks/ablation.py --model tiny-base --choices loss --name loss_tiny

The prompts are the model's own (self:N), or bundled problems: --prompts bundled:8000
--eval-prompts bundled:200.

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

Variants = dict[str, tuple[dict, dict]]  # what differs from the first line, in packing and training

# The paper's choices, from recorded states.
METHOD: Variants = {
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
# The losses, with drafts made while training.
LOSS: Variants = {
    "online drafts, teacher self, AR weight 10": ({}, {}),
    "the same, another seed": ({}, {"seed": 1}),
    "teacher frozen": ({}, {"teacher": "frozen"}),
    "teacher fixed-point (hard targets)": ({}, {"teacher": "fixed-point"}),
    "noise from the vocabulary": ({}, {"noise": "vocabulary"}),
    "every pair of blocks weighs the same": ({}, {"consistency_per": "pair"}),
    "each token weighs 0.8 of the one before": ({}, {"consistency_decay": 0.8}),
    "all tokens of a draft learn": ({}, {"consistency_from": "start"}),
    "AR weight 5 to 15": (
        {},
        {"ar_weight": 5.0, "ar_weight_schedule": "linear", "ar_weight_end": 15.0},
    ),
    "AR weight 15 to 5": (
        {},
        {"ar_weight": 15.0, "ar_weight_schedule": "linear", "ar_weight_end": 5.0},
    ),
    "AR teacher frozen": ({}, {"ar_teacher": "frozen"}),
}
CHOICES: dict[str, tuple[Variants, dict, dict]] = {  # variants, collecting, training
    "method": (METHOD, {}, {}),
    "loss": (
        LOSS,
        {"record": "answers"},
        {
            "states": "online",
            "mask": "clean-context",
            "consistency_reach": 8,
            "drafts_per_block": 3,
        },
    ),
}


def main() -> None:
    """Train every variant, measure and save."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--model", required=True)
    parser.add_argument("--choices", choices=CHOICES, default="method")
    parser.add_argument("--name", default="ablation")
    parser.add_argument("--bf16", action="store_true")
    parser.add_argument("--first", type=int, help="so many variants; all by default")
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
    variants, in_collecting, of_all = CHOICES[args.choices]

    trajectories = collect.run(
        CollectConfig(
            model=args.model,
            prompts=args.prompts,
            out=str(args.out / "trajectories"),
            block_size=args.block_size,
            max_new_tokens=args.max_new_tokens,
            batch_size=128,
            threads=args.threads,
            **in_collecting,
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
        bf16=args.bf16,
        threads=args.threads,
        **of_all,
    )
    rows = []
    some = [*variants.items()][: args.first]
    for number, (setting, (in_packing, in_training)) in enumerate(some):
        packed = replace(packing, **in_packing, out=str(args.out / f"{number}-packed"))
        if not (Path(packed.out) / "manifest.json").exists():
            pack.run(packed)
        out = args.out / f"{number}-model"
        train.run(replace(training, **in_training, packed=packed.out, out=str(out)))
        record = read_json(out / "run.json")
        rows.append({"setting": setting, "before": record["before"], "after": record["after"]})
        print(setting, record["after"], flush=True)
    settings = vars(args) | {"model": Path(args.model).name, "out": args.out.name}
    save(args.name, rows, model=settings["model"], settings=settings)


if __name__ == "__main__":
    main()
