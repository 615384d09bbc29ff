"""Whether `jacobi tune` is right: its predictions against real decodes, its choice against all.

    python benchmarks/tune_check.py --models tiny-forced DIR --batch-sizes 1 4

Every candidate that the tuner knows is run for real, in turns, on the tuner's own prompts. The last
line printed is one JSON object.
"""

import argparse
import json
import statistics
import tempfile
import time
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch
from common import save

from jacobi_forcing.config import DecoderConfig, TuneConfig
from jacobi_forcing.decoding.measure import decode_all
from jacobi_forcing.decoding.predict import candidates, workload
from jacobi_forcing.drawing.tuning import decoder_name
from jacobi_forcing.models import CausalLM, load_model
from jacobi_forcing.progress import progress_bar
from jacobi_forcing.stages import tune

PACE = DecoderConfig(strategy="window", block_size=12, pool_size=0)
BETWEEN_PACES = 4


def tune_model(model: str, args: argparse.Namespace) -> dict[str, Any]:
    """Tune, and give what was found."""
    with tempfile.TemporaryDirectory() as folder:
        return tune.run(
            TuneConfig(
                model=model,
                out=str(Path(folder) / "tuning.json"),
                prompts=args.prompts,
                num_prompts=args.num_prompts,
                batch_size=max(args.batch_sizes),
                widest=args.widest,
                max_new_tokens=args.max_new_tokens,
                seconds=args.seconds,
                threads=args.threads,
            )
        )


def search(
    model: CausalLM,
    prompts: list[list[int]],
    num_rows: int,
    decoders: list[DecoderConfig],
    turns: int,
    args: argparse.Namespace,
) -> dict[DecoderConfig, float]:
    """Run decoders in turns; give the median of each one's speed, the pace's being 1.

    A turn takes minutes, and a shared machine is faster in some than in others: one decoder, the
    pace, is run before every few, and what counts is the ratio to the runs of it around each.
    """
    requests = workload(prompts, num_rows)

    def tokens_per_second(decoder: DecoderConfig) -> float:
        start = time.perf_counter()
        found = decode_all(
            model, requests, decoder, max_new_tokens=args.max_new_tokens, batch_size=num_rows
        )
        return found.num_tokens / (time.perf_counter() - start)

    speeds: dict[DecoderConfig, list[float]] = {decoder: [] for decoder in decoders}
    with progress_bar(f"{model.name}, {num_rows} rows", turns * len(decoders)) as bar:
        for turn in range(turns):
            order = decoders[:: 1 if turn % 2 else -1]
            before = tokens_per_second(PACE)
            for first in range(0, len(order), BETWEEN_PACES):
                group = order[first : first + BETWEEN_PACES]
                found = [tokens_per_second(decoder) for decoder in group]
                after = tokens_per_second(PACE)
                for place, (decoder, speed) in enumerate(zip(group, found, strict=True), 1):
                    part = place / (len(group) + 1)
                    speeds[decoder].append(speed / (before + part * (after - before)))
                    bar.advance()
                before = after
    return {decoder: statistics.median(found) for decoder, found in speeds.items()}


def compared(
    name: str,
    num_rows: int,
    found: dict[str, Any],
    speeds: dict[DecoderConfig, float],
    finals: dict[DecoderConfig, float],
) -> dict[str, Any]:
    """Hold what the tuner said beside what the search found.

    `speeds` are of all candidates; `finals` of the fastest of them, of AR and of what was chosen,
    run again: the fastest of many runs has luck in it, and without that it would always win.
    """
    chosen = found["chosen"][str(num_rows)]
    ar = next(speed for one, speed in speeds.items() if one.strategy == "autoregressive")
    known = {json.dumps(asdict(decoder)): speed for decoder, speed in speeds.items()}
    mine = finals[DecoderConfig(**chosen["decoder"])]
    # What was predicted beside what the tuner itself measured, in its own minutes; what it left
    # behind after a heat has been measured on few requests.
    tried = [one for one in chosen["tried"] if one["is_final"]]
    errors = [one["tokens_per_second"] / one["measured_tokens_per_second"] - 1 for one in tried]
    ar_error = 1 + errors[0]
    # All that it said of the others, beside AR as AR was predicted.
    said = found["predictions"][str(num_rows)]
    said_ar = next(o for o in said if o["decoder"]["strategy"] == "autoregressive")
    ratios = [
        (one["tokens_per_second"] / said_ar["tokens_per_second"])
        / (known[json.dumps(one["decoder"])] / ar)
        - 1
        for one in said
    ]
    best = max(finals, key=finals.__getitem__)
    final_ar = finals[DecoderConfig(**said_ar["decoder"])]
    return {
        "model": name,
        "num_rows": num_rows,
        "num_candidates": len(speeds),
        "best": decoder_name(asdict(best)),
        "best_times_ar": finals[best] / final_ar,
        "chosen": decoder_name(chosen["decoder"]),
        "chosen_times_ar": mine / final_ar,
        "part_of_best": mine / finals[best],
        "num_tried": len(tried),
        "largest_error_of_tried": max(errors, key=abs),
        "median_error_of_tried": statistics.median(map(abs, errors)),
        "largest_error_of_tried_against_ar": max(
            ((1 + error) / ar_error - 1 for error in errors), key=abs
        ),
        "median_error_of_tried_against_ar": statistics.median(
            abs((1 + error) / ar_error - 1) for error in errors[1:]
        ),
        "median_error_of_all_against_ar": statistics.median(map(abs, ratios)),
        "largest_error_of_all_against_ar": max(ratios, key=abs),
    }


def main() -> None:
    """Tune, search, compare and save."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--models", nargs="+", default=["tiny-forced"])
    parser.add_argument("--batch-sizes", type=int, nargs="+", default=[1, 4])
    parser.add_argument("--prompts", default="", help="as `jacobi tune` takes them")
    parser.add_argument("--num-prompts", type=int, default=12)
    parser.add_argument("--turns", type=int, default=3)
    parser.add_argument("--finals", type=int, default=6, help="of the search, run again")
    parser.add_argument("--widest", type=int, default=48)
    parser.add_argument("--max-new-tokens", type=int, default=128)
    parser.add_argument("--seconds", type=float, default=120)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--name", default="tune_check")
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    rows = []
    for name in args.models:
        found = tune_model(name, args)
        model = load_model(name)
        source = TuneConfig(model=name, prompts=args.prompts, num_prompts=args.num_prompts)
        prompts = tune.load_prompts(source, model)
        for num_rows in args.batch_sizes:
            every = list(candidates(args.widest))
            speeds = search(model, prompts, num_rows, every, args.turns, args)
            fastest = sorted(speeds, key=speeds.__getitem__)[-args.finals :]
            chosen = DecoderConfig(**found["chosen"][str(num_rows)]["decoder"])
            again = list(dict.fromkeys([every[0], chosen, *fastest]))
            finals = search(model, prompts, num_rows, again, 5 * args.turns, args)
            rows.append(compared(Path(name).name, num_rows, found, speeds, finals))
            print(rows[-1], flush=True)
    facts = {"turns": args.turns, "widest": args.widest, "seconds": args.seconds}
    save(args.name, rows, **facts)
    parts = {f"{row['model']} x {row['num_rows']}": row["part_of_best"] for row in rows}
    print(json.dumps({name: round(part, 3) for name, part in parts.items()}))


if __name__ == "__main__":
    main()
