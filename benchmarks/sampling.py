"""Sampling two ways: noise shared by draft and text (ours), and accepting a guess with p(guess).

    python benchmarks/sampling.py --model tiny-forced stories260K
    python benchmarks/sampling.py --model tiny-base tiny-forced --name sampled_problems

(With --prompts 1000 --temperatures 0.7 --ways recycling, in the latter case.)

The textbook way (speculative sampling of a draft without probabilities): a guess stays with the
probability that the model gives it, and where it falls, the token is drawn from the others. Both
ways draw from the model's own distribution; they differ in how often a guess is right. Counts
forwards, which do not depend on the machine, and problems that are solved.
"""

import argparse
import json
import statistics
from dataclasses import replace
from pathlib import Path

import torch
from common import save
from multiblock import benchmark_problems, benchmark_prompts

from jacobi_forcing.config import DecoderConfig
from jacobi_forcing.decoding import Finished, Noise, Request, decode
from jacobi_forcing.decoding.sampling import Sampling
from jacobi_forcing.decoding.strategies import make_strategy
from jacobi_forcing.evaluation.statistics import wilson
from jacobi_forcing.models import CausalLM, RaggedForward, load_model
from jacobi_forcing.models.loading import BUNDLED
from jacobi_forcing.problems.scoring import check_answers
from jacobi_forcing.progress import progress_bar

WAYS = {  # and whether rejected n-grams are tried again
    "shared noise": False,
    "recycling": True,
    "accept with p": False,
}
Counted = tuple[list[int], int]  # an answer, and its forwards


def with_shared_noise(
    model: CausalLM,
    prompts: list[list[int]],
    temperature: float,
    block_size: int,
    limit: int,
    recycles: bool,
) -> list[Counted]:
    """Decode with our sampler."""
    decoder = DecoderConfig(strategy="window", block_size=block_size)
    if not recycles:
        decoder = replace(decoder, pool_size=0)
    requests = [
        Request(i, ids, limit, Sampling(temperature=temperature, seed=i))
        for i, ids in enumerate(prompts)
    ]
    events = decode(
        model,
        requests,
        lambda request: make_strategy(decoder, model.vocab_tokens, request.index),
        batch_size=32,
        max_tokens=max(map(len, prompts)) + limit,
    )
    found = {e.request: e for e in events if isinstance(e, Finished)}
    return [(found[i].answer_ids, found[i].num_forwards) for i in range(len(prompts))]


@torch.inference_mode()
def accepting_with_p(
    model: CausalLM, prompt: list[int], temperature: float, block_size: int, limit: int, seed: int
) -> Counted:
    """Decode one prompt the textbook way.

    Guesses are the likeliest tokens of the forward before.
    """
    generator = torch.Generator().manual_seed(seed)
    noise = Noise("text", model.vocab_tokens, seed)
    forward = RaggedForward(model, 1, len(prompt) + limit)
    text, pending, guesses, num_forwards = list(prompt), list(prompt), [], 0
    while len(text) < len(prompt) + limit and text[-1] not in model.eos_ids:
        draft = guesses + noise.draw(text, block_size - 1 - len(guesses))
        draft = draft[: len(prompt) + limit - len(text) - 1]
        logits = forward.logits(0, [pending + draft], len(draft) + 1)[0].float()
        num_forwards += 1
        probs = (logits / temperature).softmax(-1)
        accepted: list[int] = []
        for guess, odds in zip(draft, probs, strict=False):
            if torch.rand((), generator=generator) >= odds[guess]:
                odds[guess] = 0  # the token is drawn from the others
                break
            accepted.append(guess)
            if guess in model.eos_ids:
                break
        if not accepted or accepted[-1] not in model.eos_ids:
            odds = probs[len(accepted)]
            accepted.append(int(torch.multinomial(odds, 1, generator=generator)))
        forward.keep(0, len(pending) + len(accepted) - 1, [])
        guesses = logits.argmax(-1)[len(accepted) :].tolist()
        text += accepted
        pending = text[-1:]
    return text[len(prompt) :], num_forwards


def counted(
    way: str, model: CausalLM, prompts: list[list[int]], temperature: float, size: int, limit: int
) -> list[Counted]:
    """Decode all prompts one way."""
    if way != "accept with p":
        return with_shared_noise(model, prompts, temperature, size, limit, WAYS[way])
    found = []
    with progress_bar(f"{model.name}, T = {temperature}", len(prompts)) as bar:
        for seed, prompt in enumerate(prompts):
            found.append(accepting_with_p(model, prompt, temperature, size, limit, seed))
            bar.advance()
    return found


def summary(model: CausalLM, counts: list[Counted]) -> dict[str, float]:
    """Say how many tokens a forward settled, and of problems, how many are solved."""
    tokens, forwards = sum(len(a) for a, _ in counts), sum(f for _, f in counts)
    per_prompt = [len(a) / f for a, f in counts]
    error = statistics.stdev(per_prompt) / len(per_prompt) ** 0.5
    found = {"tokens_per_forward": tokens / forwards, "standard_error": error}
    if model.name in BUNDLED:
        texts = [model.tokenizer.decode(a, skip_special_tokens=True) for a, _ in counts]
        solved = sum(check_answers(list(zip(benchmark_problems(len(counts)), texts, strict=True))))
        low, high = wilson(solved, len(counts))
        found |= {"accuracy": solved / len(counts), "accuracy_low": low, "accuracy_high": high}
    return found


def main() -> None:
    """Count and save."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--model", nargs="+", default=["tiny-forced"])
    parser.add_argument("--prompts", type=int, default=100)
    parser.add_argument("--temperatures", type=float, nargs="+", default=[0.3, 0.7, 1.0])
    parser.add_argument("--ways", nargs="+", choices=WAYS, default=list(WAYS))
    parser.add_argument("--block-size", type=int, default=16)
    parser.add_argument("--max-new-tokens", type=int, default=192)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--name", default="sampling")
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    rows = []
    for name in args.model:
        model = load_model(name)
        prompts = benchmark_prompts(model, args.prompts)
        limit = min(args.max_new_tokens, model.context_tokens - max(map(len, prompts)))
        for temperature in args.temperatures:
            for way in args.ways:
                counts = counted(way, model, prompts, temperature, args.block_size, limit)
                row = {"model": Path(name).name, "temperature": temperature, "way": way}
                rows.append(row | summary(model, counts))
                print(rows[-1], flush=True)
    save(args.name, rows, num_prompts=args.prompts, block_size=args.block_size)
    print(
        json.dumps([[r["way"], r["temperature"], round(r["tokens_per_forward"], 3)] for r in rows])
    )


if __name__ == "__main__":
    main()
