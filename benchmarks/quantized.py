"""Weights in fewer bits: memory, distance from the whole model, and seconds at batch 1.

    python benchmarks/quantized.py --model tiny-forced --prompts 40

Every way to hold the weights decodes every prompt, AR and window, all in turns in one process. The
last line printed is one JSON object. Needs torchao.
"""

import argparse
import json
import statistics
import time
from collections.abc import Sequence
from importlib.metadata import version
from typing import Any

import torch
from common import save
from decode_speed import Way, ours
from multiblock import benchmark_prompts
from torch import Tensor

from jacobi_forcing.models import CausalLM, load_model
from jacobi_forcing.progress import progress_bar

HELD = (
    *(("", "float32"), ("int8", "float32"), ("int4", "float32")),
    *(("", "bfloat16"), ("int8", "bfloat16"), ("int4", "bfloat16")),
)
DECODERS = ("autoregressive", "window")


def num_bytes(model: CausalLM) -> int:
    """Count the bytes of all weights; a torchao tensor's are those of the tensors inside."""
    found = 0
    for weight in model.network.parameters():
        inside = [weight]
        if hasattr(weight, "__tensor_flatten__"):
            inside = [getattr(weight, name) for name in weight.__tensor_flatten__()[0]]
        found += sum(tensor.numel() * tensor.element_size() for tensor in inside)
    return found


@torch.inference_mode()
def log_probs(model: CausalLM, prompt: Sequence[int], answer: Sequence[int]) -> Tensor:
    """Give [T, V] log probabilities of what may stand in each of an answer's T places."""
    ids = torch.tensor([[*prompt, *answer]])
    logits = model.network(ids).logits[0, len(prompt) - 1 : -1]
    return logits.float().log_softmax(-1)


def divergence(
    whole: CausalLM, model: CausalLM, prompts: Sequence[list[int]], answers: Sequence[list[int]]
) -> float:
    """Give KL(whole || model), nats per token of the whole model's own answers."""
    total, num_tokens = 0.0, 0
    for prompt, answer in zip(prompts, answers, strict=True):
        wanted, given = (log_probs(m, prompt, answer) for m in (whole, model))
        total += float((wanted.exp() * (wanted - given)).sum())
        num_tokens += len(answer)
    return total / num_tokens


def in_turns(
    ways: dict[Any, Way], prompts: Sequence[list[int]]
) -> tuple[dict[Any, list[list[int]]], dict[Any, list[float]]]:
    """Decode every prompt in every way, in turns, after a warm-up; give answers and seconds."""
    names = list(ways)
    answers: dict[Any, list[list[int]]] = {name: [] for name in names}
    seconds: dict[Any, list[float]] = {name: [] for name in names}
    for way in ways.values():
        way(prompts[0])
    with progress_bar("quantized", len(prompts)) as bar:
        for number, prompt in enumerate(prompts):
            for turn in range(len(names)):
                name = names[(number + turn) % len(names)]
                start = time.perf_counter()
                answers[name].append(ways[name](prompt))
                seconds[name].append(time.perf_counter() - start)
            bar.advance()
    return answers, seconds


def main() -> None:
    """Time, compare, print and save."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--model", default="tiny-forced")
    parser.add_argument("--prompts", type=int, default=40)
    parser.add_argument("--max-new-tokens", type=int, default=128)
    parser.add_argument("--block-size", type=int, default=16)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--name", default="quantized")
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    models = {
        held: load_model(args.model, device="cpu", dtype=held[1], quantize=held[0]) for held in HELD
    }
    whole = models[HELD[0]]
    prompts = benchmark_prompts(whole, args.prompts)
    limit = min(args.max_new_tokens, whole.context_tokens - max(map(len, prompts)))
    ways = {
        (held, strategy): ours(model, limit, strategy=strategy, block_size=args.block_size)
        for held, model in models.items()
        for strategy in DECODERS
    }
    answers, seconds = in_turns(ways, prompts)
    right, base = answers[HELD[0], "autoregressive"], seconds[HELD[0], "autoregressive"]
    rows = []
    for held, model in models.items():
        own = answers[held, "autoregressive"]
        row: dict[str, Any] = {"quantize": held[0], "dtype": held[1], "bytes": num_bytes(model)}
        row["equal_answers"] = sum(a == b for a, b in zip(own, right, strict=True))
        row["divergence"] = divergence(whole, model, prompts, right)
        pairs = zip(answers[held, "window"], own, strict=True)
        row["num_mismatches"] = sum(a != b for a, b in pairs)
        for strategy in DECODERS:
            taken = seconds[held, strategy]
            speeds = [a / b for a, b in zip(base, taken, strict=True)]
            num_tokens = sum(map(len, answers[held, strategy]))
            row[f"{strategy}_tokens_per_second"] = num_tokens / sum(taken)
            row[f"{strategy}_times_float32_ar"] = statistics.median(speeds)
        rows.append(row)
    facts = {"model": args.model, "num_prompts": len(prompts), "block_size": args.block_size}
    save(args.name, rows, torchao=version("torchao"), **facts)
    print(json.dumps({f"{r['quantize']} {r['dtype']}": r["window_times_float32_ar"] for r in rows}))


if __name__ == "__main__":
    main()
