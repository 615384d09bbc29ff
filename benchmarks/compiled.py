"""The compiled decoding step against the eager one, at batch 1, and what compiling takes.

    python benchmarks/compiled.py --model tiny-forced

All in turns in one process, after every shape has been compiled; answers are compared.
"""

import argparse
import json
import statistics
import time

import torch
from common import save
from multiblock import benchmark_prompts

from jacobi_forcing.config import DecoderConfig
from jacobi_forcing.decoding.measure import decode_all
from jacobi_forcing.models import load_model

ENGINES = ("eager", "compiled")
DECODERS = {
    "autoregressive": DecoderConfig(strategy="autoregressive"),
    "window 8, recycling": DecoderConfig(block_size=8),
    "window 16, recycling": DecoderConfig(),
}


def main() -> None:
    """Time, print and save."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--model", default="tiny-forced")
    parser.add_argument("--prompts", type=int, default=10)
    parser.add_argument("--repeats", type=int, default=7)
    parser.add_argument("--max-new-tokens", type=int, default=192)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--name", default="compiled")
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    models = {engine: load_model(args.model, compile=engine == "compiled") for engine in ENGINES}
    prompts = benchmark_prompts(models["eager"], args.prompts)
    limit = min(args.max_new_tokens, models["eager"].context_tokens - max(map(len, prompts)))

    def timed(engine: str, decoder: DecoderConfig) -> tuple[float, list[list[int]]]:
        start = time.perf_counter()
        found = decode_all(models[engine], prompts, decoder, max_new_tokens=limit)
        return time.perf_counter() - start, found.answers

    compiling = sum(timed("compiled", decoder)[0] for decoder in DECODERS.values())
    seconds: dict[tuple[str, str], list[float]] = {}
    mismatches = 0
    for _ in range(args.repeats):
        for name, decoder in DECODERS.items():
            (eager, right), (fast, answers) = (timed(engine, decoder) for engine in ENGINES)
            seconds.setdefault((name, "eager"), []).append(eager)
            seconds.setdefault((name, "compiled"), []).append(fast)
            mismatches += sum(a != b for a, b in zip(right, answers, strict=True))
    rows = []
    for (name, engine), found in seconds.items():
        ratios = {
            "times_eager": (seconds[name, "eager"], found),
            "times_eager_ar": (seconds["autoregressive", "eager"], found),
            "times_own_ar": (seconds["autoregressive", engine], found),
        }
        row = {"decoder": name, "engine": engine, "seconds": statistics.median(found)}
        for ratio, (usual, own) in ratios.items():
            each = [a / b for a, b in zip(usual, own, strict=True)]
            low, median, high = statistics.quantiles(each, n=4)
            row |= {ratio: median, f"{ratio}_low": low, f"{ratio}_high": high}
        rows.append(row)
    facts = {"model": args.model, "num_prompts": args.prompts, "num_mismatches": mismatches}
    save(args.name, rows, first_seconds=compiling, **facts)
    print(json.dumps([[r["decoder"], r["engine"], round(r["times_eager"], 2)] for r in rows]))


if __name__ == "__main__":
    main()
