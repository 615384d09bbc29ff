"""The whole collect stage against the engine's own batched decode of the same prompts.

    python benchmarks/collect_stage.py --model tiny-base stories260K

In turns, medians. The stage's seconds hold everything: loading, tokenizing, decoding, journals,
shards, hashes, report; the decode's hold nothing but `decode_all` with the same strategy.
"""

import argparse
import json
import statistics
import tempfile
import time
from pathlib import Path

import torch
from common import save

from jacobi_forcing.config import CollectConfig, DecoderConfig
from jacobi_forcing.data.files import read_json
from jacobi_forcing.data.prompts import read_prompts
from jacobi_forcing.data.trajectories import read_all
from jacobi_forcing.decoding.measure import decode_all
from jacobi_forcing.decoding.sample import sample_prompts
from jacobi_forcing.models import CausalLM, load_model
from jacobi_forcing.models.loading import BUNDLED
from jacobi_forcing.problems import stream
from jacobi_forcing.stages import collect

STRATEGIES = {"states": "jacobi", "answers": "autoregressive"}


def write_prompts(path: Path, name: str, model: CausalLM, num: int) -> list[list[int]]:
    """Write prompts as text, problems or the model's own beginnings; return what is read back."""
    if name in BUNDLED:
        texts = [p.prompt for p, _ in zip(stream(seed=0), range(num), strict=False)]
    else:
        sampled = sample_prompts(model, num, max_tokens=32, seed=0)
        texts = [model.tokenizer.decode(ids, skip_special_tokens=True) or "a" for ids in sampled]
    path.write_text("".join(json.dumps({"prompt": text}) + "\n" for text in texts))
    found = read_prompts(str(path), model.tokenizer, context_tokens=model.context_tokens)
    return [prompt.ids for prompt in found]


def timed(function) -> tuple[float, float]:
    """Run a function; return wall and processor seconds."""
    wall, processor = time.perf_counter(), time.process_time()
    function()
    return time.perf_counter() - wall, time.process_time() - processor


def compared(name: str, record: str, folder: Path, args: argparse.Namespace) -> dict:
    """Time the stage and the bare decode in turns."""
    model = load_model(name, dtype=args.dtype)
    source = folder / "prompts.jsonl"
    prompts = write_prompts(source, name, model, args.prompts)
    num_blocks = -(-args.max_new_tokens // args.block_size)
    decoder = DecoderConfig(strategy=STRATEGIES[record], block_size=args.block_size)
    stage, bare, same = [], [], []
    for repeat in range(args.repeats):
        config = CollectConfig(
            model=name,
            prompts=str(source),
            out=str(folder / f"out-{repeat}"),
            record=record,
            block_size=args.block_size,
            max_new_tokens=args.max_new_tokens,
            batch_size=args.batch_size,
            dtype=args.dtype,
            threads=args.threads,
        )
        stage.append(timed(lambda config=config: collect.run(config)))
        decoded = []
        bare.append(
            timed(
                lambda decoded=decoded: decoded.append(
                    decode_all(
                        model,
                        prompts,
                        decoder,
                        max_new_tokens=num_blocks * args.block_size + 1,
                        batch_size=args.batch_size,
                    )
                )
            )
        )
        same.append([t.answer_ids for t in read_all(config.out)] == decoded[0].answers)
        print(name, record, "stage", stage[-1], "decode", bare[-1], flush=True)
    num_tokens = read_json(folder / "out-0" / "manifest.json")["num_tokens"]
    ratios = [b[0] / s[0] for s, b in zip(stage, bare, strict=True)]
    return {
        "model": Path(name).name,
        "record": record,
        "num_tokens": num_tokens,
        "stage_tokens_per_second": num_tokens / statistics.median(s for s, _ in stage),
        "decode_tokens_per_second": num_tokens / statistics.median(s for s, _ in bare),
        "ratio": statistics.median(s for s, _ in bare) / statistics.median(s for s, _ in stage),
        "lowest_ratio": min(ratios),
        "highest_ratio": max(ratios),
        "processor_ratio": statistics.median(c for _, c in bare)
        / statistics.median(c for _, c in stage),
        "same_answers": all(same),
    }


def main() -> None:
    """Measure and save."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--model", nargs="+", default=["tiny-base"])
    parser.add_argument("--name", default="collect_stage")
    parser.add_argument("--record", nargs="+", default=list(STRATEGIES), choices=STRATEGIES)
    parser.add_argument("--prompts", type=int, default=256)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--block-size", type=int, default=16)
    parser.add_argument("--max-new-tokens", type=int, default=192)
    parser.add_argument("--batch-size", type=int, default=64)
    parser.add_argument("--dtype", default="float32")
    parser.add_argument("--threads", type=int, default=2)
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    rows = []
    for name in args.model:
        for record in args.record:
            with tempfile.TemporaryDirectory() as folder:
                rows.append(compared(name, record, Path(folder), args))
    used = ("block_size", "max_new_tokens", "batch_size", "dtype")
    facts = {setting: getattr(args, setting) for setting in used}
    save(args.name, rows, num_prompts=args.prompts, **facts)


if __name__ == "__main__":
    main()
