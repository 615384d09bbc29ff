"""Sampling two ways: noise shared by draft and text (ours), and accepting a guess with p(guess).

    python benchmarks/sampling.py --model tiny-forced stories260K

The textbook way (speculative sampling of a draft without probabilities): a guess stays with the
probability that the model gives it, and where it falls, the token is drawn from the others. Both
ways draw from the model's own distribution; they differ in how often a guess is right. Counts
forwards, which do not depend on the machine.
"""

import argparse
import json
import statistics

import torch
from common import save
from multiblock import benchmark_prompts

from jacobi_forcing.config import DecoderConfig
from jacobi_forcing.decoding import Finished, Noise, Request, decode
from jacobi_forcing.decoding.sampling import Sampling
from jacobi_forcing.decoding.strategies import make_strategy
from jacobi_forcing.models import CausalLM, RaggedForward, load_model
from jacobi_forcing.progress import progress_bar


def with_shared_noise(
    model: CausalLM, prompts: list[list[int]], temperature: float, block_size: int, limit: int
) -> list[tuple[int, int]]:
    """Decode with our sampler; give each prompt's tokens and forwards."""
    decoder = DecoderConfig(strategy="window", block_size=block_size, pool_size=0)
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
    return [(len(found[i].answer_ids), found[i].num_forwards) for i in range(len(prompts))]


@torch.inference_mode()
def accepting_with_p(
    model: CausalLM, prompt: list[int], temperature: float, block_size: int, limit: int, seed: int
) -> tuple[int, int]:
    """Decode one prompt the textbook way; guesses are the likeliest tokens of the forward before.

    Returns:
        Its tokens and forwards.
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
    return len(text) - len(prompt), num_forwards


def main() -> None:
    """Count and save."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--model", nargs="+", default=["tiny-forced"])
    parser.add_argument("--prompts", type=int, default=100)
    parser.add_argument("--temperatures", type=float, nargs="+", default=[0.3, 0.7, 1.0])
    parser.add_argument("--block-size", type=int, default=16)
    parser.add_argument("--max-new-tokens", type=int, default=192)
    parser.add_argument("--threads", type=int, default=2)
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    rows = []
    for name in args.model:
        model = load_model(name)
        prompts = benchmark_prompts(model, args.prompts)
        limit = min(args.max_new_tokens, model.context_tokens - max(map(len, prompts)))
        for temperature in args.temperatures:
            setting = (temperature, args.block_size, limit)
            shared = with_shared_noise(model, prompts, *setting)
            textbook = []
            with progress_bar(f"{name}, T = {temperature}", len(prompts)) as bar:
                for seed, prompt in enumerate(prompts):
                    textbook.append(accepting_with_p(model, prompt, *setting, seed))
                    bar.advance()
            for way, counts in (("shared noise", shared), ("accept with p", textbook)):
                tokens, forwards = (sum(column) for column in zip(*counts, strict=True))
                per_prompt = [t / f for t, f in counts]
                error = statistics.stdev(per_prompt) / len(per_prompt) ** 0.5
                row = {"model": name, "temperature": temperature, "way": way}
                row |= {"tokens_per_forward": tokens / forwards, "standard_error": error}
                rows.append(row)
                print(f"{name}  T {temperature}  {way:14} {tokens / forwards:.3f} +- {error:.3f}")
    save("sampling", rows, num_prompts=args.prompts, block_size=args.block_size)
    print(
        json.dumps([[r["way"], r["temperature"], round(r["tokens_per_forward"], 3)] for r in rows])
    )


if __name__ == "__main__":
    main()
