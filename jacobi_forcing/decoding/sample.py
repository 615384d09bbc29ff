"""Prompts sampled from the model itself: a base model's own text is all that trajectories need."""

import random

import torch

from jacobi_forcing.errors import ModelError
from jacobi_forcing.models import CausalLM, RaggedForward
from jacobi_forcing.progress import progress_bar

_BATCH = 256


@torch.inference_mode()
def sample_prompts(
    model: CausalLM, num_prompts: int, *, max_tokens: int, seed: int
) -> list[list[int]]:
    """Sample text beginnings of random lengths at temperature 1.

    Args:
        model: Sampled from its BOS, or from its EOS where it has none.
        num_prompts: How many.
        max_tokens: A prompt has 1 to max_tokens sampled tokens behind the BOS; fewer where it ends.
        seed: The same seed gives the same prompts.
    """
    start = model.tokenizer.bos_token_id
    start = min(model.eos_ids) if start is None else start
    if max_tokens >= model.context_tokens:
        raise ModelError(
            f"{model.name}: prompts of {max_tokens} tokens do not fit into its context of "
            f"{model.context_tokens}. Lower --self-prompt-tokens."
        )
    lengths = random.Random(f"prompts/{seed}").choices(range(1, max_tokens + 1), k=num_prompts)
    generator = torch.Generator().manual_seed(seed)
    prompts: list[list[int]] = []
    with progress_bar("sample prompts", num_prompts) as bar:
        for first in range(0, num_prompts, _BATCH):
            batch = lengths[first : first + _BATCH]
            rows = _sample(model, [start] * len(batch), max(batch), generator)
            prompts += [_cut(row, n, model) for row, n in zip(rows, batch, strict=True)]
            bar.advance(len(batch))
    return prompts


def _sample(
    model: CausalLM, first: list[int], num_tokens: int, generator: torch.Generator
) -> list[list[int]]:
    """Sample `num_tokens` tokens behind each of the first ones."""
    forward = RaggedForward(model, len(first), num_tokens)
    rows = [[token] for token in first]
    for step in range(num_tokens):
        forward.lengths = [step] * len(rows)
        logits = forward.logits(0, [[row[-1]] for row in rows], 1)[:, 0, : model.vocab_tokens]
        drawn = torch.multinomial(logits.float().softmax(-1).cpu(), 1, generator=generator)
        for row, token in zip(rows, drawn[:, 0].tolist(), strict=True):
            row.append(token)
    return rows


def _cut(row: list[int], num_tokens: int, model: CausalLM) -> list[int]:
    """Keep the start and `num_tokens` behind it, or those before the text ended."""
    kept = row[:1]
    for token in row[1 : num_tokens + 1]:
        if token in model.eos_ids or token == model.pad_id:
            break
        kept.append(token)
    return kept
