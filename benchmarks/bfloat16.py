"""Answers that differ from AR's in half precision, and what --exact costs.

    python benchmarks/bfloat16.py --model DIR --prompts ../shared/data/gsm8k/test.jsonl

Decoders take turns on the same prompts in one process: AR, window and the default decoder, alone
and eight together, plain and with --exact. Every decoder is compared with AR of its own kind, and
AR at batch 1 with AR at batch 8.
"""

import argparse
import itertools
import json
import statistics
import time
from dataclasses import replace
from pathlib import Path

import torch
from common import save

from jacobi_forcing.config import DecoderConfig
from jacobi_forcing.decoding import Finished, Request, Sampling, decode, make_strategy
from jacobi_forcing.decoding.strategies import branch_tokens
from jacobi_forcing.evaluation.divergence import divergence
from jacobi_forcing.models import CausalLM, load_model
from jacobi_forcing.models.probe import find_shapes_once
from jacobi_forcing.progress import progress_bar

DECODERS = {
    "autoregressive": DecoderConfig(strategy="autoregressive"),
    "window": DecoderConfig(pool_size=0),
    "window, recycling": DecoderConfig(),
}


def main() -> None:
    """Decode, compare, print and save."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--model", required=True)
    parser.add_argument("--prompts", required=True)
    parser.add_argument("--limit", type=int, default=100)
    parser.add_argument("--max-new-tokens", type=int, default=48)
    parser.add_argument("--temperature", type=float, default=0.0, help="0 is greedy")
    parser.add_argument("--top-p", type=float, default=1.0)
    parser.add_argument("--dtype", default="bfloat16")
    parser.add_argument("--batch-sizes", type=int, nargs="+", default=[1, 8])
    parser.add_argument("--kinds", nargs="+", default=["plain", "exact"])
    parser.add_argument("--group", type=int, default=16, help="prompts that are decoded together")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--name", default="bfloat16")
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    plain = load_model(args.model, dtype=args.dtype)
    models = {"plain": plain, "exact": replace(plain, exact=find_shapes_once(plain))}
    prompts = _prompts(plain, args)
    kinds = list(itertools.product(args.kinds, args.batch_sizes, DECODERS))
    answers = {kind: [] for kind in kinds}
    seconds = {kind: [] for kind in kinds}  # of every chunk of prompts
    forwards = dict.fromkeys(kinds, 0)
    with progress_bar(args.dtype, len(prompts) * len(kinds)) as bar:
        for turn, first in enumerate(range(0, len(prompts), args.group)):
            some = prompts[first : first + args.group]
            for offset in range(len(kinds)):  # interleaved, each chunk from another beginning
                kind = kinds[(turn + offset) % len(kinds)]
                name, batch_size, decoder = kind
                start = time.perf_counter()
                found, num = _decode(models[name], some, DECODERS[decoder], batch_size, first, args)
                seconds[kind].append(time.perf_counter() - start)
                answers[kind] += found
                forwards[kind] += num
                bar.advance(len(some))
    rows = []
    for kind in kinds:
        name, batch_size, decoder = kind
        first = args.batch_sizes[0]
        reference = (name, batch_size, "autoregressive")
        plain_ar = (args.kinds[0], batch_size, "autoregressive")
        ratios = [a / b for a, b in zip(seconds[plain_ar], seconds[kind], strict=True)]
        quartiles = statistics.quantiles(ratios, n=4) if len(ratios) > 1 else ratios * 3
        rows.append(
            {
                "dtype": args.dtype,
                "kind": name,
                "batch_size": batch_size,
                "decoder": decoder,
                "tokens_per_forward": sum(map(len, answers[kind])) / forwards[kind],
                "speed_over_plain_ar": quartiles[1],
                "speed_low": quartiles[0],
                "speed_high": quartiles[2],
                "from_ar": divergence(plain, prompts, answers[reference], answers[kind]).summary(),
                "from_ar_alone": divergence(
                    plain, prompts, answers[name, first, "autoregressive"], answers[kind]
                ).summary(),
            }
        )
        print(rows[-1], flush=True)
    save(
        args.name,
        rows,
        model=args.model.rstrip("/").rpartition("/")[2],
        num_prompts=len(prompts),
        temperature=args.temperature,
        max_new_tokens=args.max_new_tokens,
        shapes=models["exact"].exact._asdict(),
    )


def _prompts(model: CausalLM, args) -> list[list[int]]:
    """Returns the ids of the first questions, asked as a chat."""
    lines = Path(args.prompts).read_text(encoding="utf-8").splitlines()[: args.limit]
    chats = [[{"role": "user", "content": json.loads(line)["question"]}] for line in lines]
    return [
        model.tokenizer.apply_chat_template(chat, add_generation_prompt=True, return_dict=False)
        for chat in chats
    ]


def _decode(model: CausalLM, prompts, decoder: DecoderConfig, batch_size: int, first: int, args):
    """Returns each prompt's answer, and all forwards; rows join and leave as they finish."""

    def request(number: int, ids: list[int]) -> Request:
        sampling = Sampling(temperature=args.temperature, top_p=args.top_p, seed=first + number)
        return Request(number, ids, args.max_new_tokens, sampling)

    def strategy(request: Request):
        return make_strategy(decoder, model.vocab_tokens, f"0/{first + request.index}")

    events = decode(
        model,
        list(itertools.starmap(request, enumerate(prompts))),
        strategy,
        batch_size=batch_size,
        max_tokens=max(map(len, prompts)) + args.max_new_tokens,
        branch_tokens=branch_tokens(decoder),
    )
    ends = sorted((e for e in events if isinstance(e, Finished)), key=lambda e: e.request)
    return [end.answer_ids for end in ends], sum(end.num_forwards for end in ends)


if __name__ == "__main__":
    main()
