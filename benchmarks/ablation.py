"""What each choice of the method is worth: one setting changed at a time, the same budget for each.

    python benchmarks/ablation.py --model stories260K --out runs/ablation
    python benchmarks/ablation.py --model tiny-base --choices loss --name loss_tiny

The prompts are the model's own (self:N), or bundled problems: --prompts bundled:8000
--eval-prompts bundled:200.

Every variant trains from the same checkpoint, on the same prompts, for the same number of steps,
with each of --seeds (order of the data, noise), and is measured on the same prompts kept out of
training. Stopped, it continues when run again.
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
# The losses, with drafts made while training. The AR loss learns the original's distributions: with
# hard targets so short a training loses texts altogether, and hides what else differs.
LOSS: Variants = {
    "teacher self, AR targets of the original": ({}, {}),
    "teacher frozen": ({}, {"teacher": "frozen"}),
    "teacher fixed-point (hard targets)": ({}, {"teacher": "fixed-point"}),
    "noise from the vocabulary": ({}, {"noise": "vocabulary"}),
    "every pair of blocks weighs the same": ({}, {"consistency_per": "pair"}),
    "each token weighs 0.8 of the one before": ({}, {"consistency_decay": 0.8}),
    "all tokens of a draft learn": ({}, {"consistency_from": "start"}),
    "AR weight 4 to 12": (
        {},
        {"ar_weight": 4.0, "ar_weight_schedule": "linear", "ar_weight_end": 12.0},
    ),
    "AR weight 12 to 4": (
        {},
        {"ar_weight": 12.0, "ar_weight_schedule": "linear", "ar_weight_end": 4.0},
    ),
    "AR targets: the answers (hard)": ({}, {"ar_teacher": "fixed-point"}),
    "each token weighs 0.8 of the one before, AR weight 11": (
        {},
        {"consistency_decay": 0.8, "ar_weight": 11.0},
    ),
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
            "ar_teacher": "frozen",
            "ar_weight": 8.0,
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
    parser.add_argument("--variants", help="numbers of some, such as 0,1,4; all by default")
    parser.add_argument("--seeds", type=int, default=1, help="trainings of each variant")
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
    every = [*variants.items()]
    wanted = args.variants.split(",") if args.variants else range(len(every))
    rows = []
    # Seed by seed, so that a run that is stopped has compared all variants with the seeds it has.
    for seed in range(args.seeds):
        for number in map(int, wanted):
            setting, (in_packing, in_training) = every[number]
            # What only the training sees differently is packed once.
            name = f"{number}-packed" if in_packing else "packed"
            packed = replace(packing, **in_packing, out=str(args.out / name))
            if not (Path(packed.out) / "manifest.json").exists():
                pack.run(packed)
            out = args.out / f"{number}-seed-{seed}"
            settings = in_training | {"packed": packed.out, "out": str(out), "seed": seed}
            if not (out / "run.json").exists():
                train.run(replace(training, **settings))
            record = read_json(out / "run.json")
            rows.append(
                {
                    "setting": setting,
                    "seed": seed,
                    "before": record["before"],
                    "after": record["after"],
                    "commit": record["commit"],  # the training's own, which may be an earlier one
                }
            )
            print(setting, seed, record["after"], flush=True)
    settings = vars(args) | {"model": Path(args.model).name, "out": args.out.name}
    save(args.name, rows, model=settings["model"], settings=settings)


if __name__ == "__main__":
    main()
