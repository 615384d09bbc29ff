"""Decode many prompts and count: the numbers that training, evaluating and benchmarking share."""

import math
from collections.abc import Sequence
from typing import NamedTuple

import torch

from jacobi_forcing.config import DecoderConfig
from jacobi_forcing.decoding.batch import decode
from jacobi_forcing.decoding.events import Finished
from jacobi_forcing.decoding.request import Request
from jacobi_forcing.decoding.strategies import branch_tokens, make_strategy
from jacobi_forcing.decoding.width import Width
from jacobi_forcing.models import CausalLM
from jacobi_forcing.models.inference import inferring

_MOST_LOGITS = 1 << 28  # at a time, of a likelihood: 1 GiB in float32, three times that in all


class Decoded(NamedTuple):
    """The answers to a list of prompts, in their order."""

    answers: list[list[int]]  # ids, the EOS included where there is one
    num_forwards: list[int]  # per prompt, the prefill included
    num_proposed: list[int]  # per prompt, guesses in all forwards, branches included
    num_recycled: list[int]  # per prompt, right ones that only a branch had
    num_right: list[list[int]]  # per prompt, of each of its forwards, guesses that were right

    @property
    def num_tokens(self) -> int:
        """Committed tokens of all answers."""
        return sum(map(len, self.answers))

    @property
    def tokens_per_forward(self) -> float:
        """Committed tokens per forward pass, prefill included; 1.0 for AR."""
        return self.num_tokens / sum(self.num_forwards)

    def acceptance(self, place: int) -> float:
        """Give the share of forwards whose first `place` guesses were all right, 0..1."""
        found = [num for forwards in self.num_right for num in forwards]
        return sum(num >= place for num in found) / len(found)

    @property
    def standard_error(self) -> float:
        """Of tokens per forward, over prompts: that of a ratio of two means, linearised."""
        ratio = self.tokens_per_forward
        off = [len(a) - ratio * n for a, n in zip(self.answers, self.num_forwards, strict=True)]
        return math.sqrt(sum(one * one for one in off)) / sum(self.num_forwards)


@inferring
def decode_all(
    model: CausalLM,
    prompts: Sequence[Sequence[int]],
    decoder: DecoderConfig,
    *,
    max_new_tokens: int,
    batch_size: int = 1,
    seed: int = 0,
    width: Width | None = None,
) -> Decoded:
    """Decode prompts greedily with one decoder; `width` as for DecodingLoop."""

    def make(request: Request):
        return make_strategy(decoder, model.vocab_tokens, f"{seed}/{request.index}")

    events = decode(
        model,
        [Request(i, ids, max_new_tokens) for i, ids in enumerate(prompts)],
        make,
        batch_size=batch_size,
        max_tokens=max(map(len, prompts)) + max_new_tokens,
        branch_tokens=branch_tokens(decoder),
        width=width,
    )
    answers: dict[int, Finished] = {}
    num_proposed, num_recycled = [0] * len(prompts), [0] * len(prompts)
    num_right: list[list[int]] = [[] for _ in prompts]
    for event in events:
        if isinstance(event, Finished):
            answers[event.request] = event
        else:
            num_proposed[event.request] += event.num_proposed
            num_recycled[event.request] += event.num_recycled
            num_right[event.request].append(len(event.path))
    ordered = [answers[i] for i in range(len(prompts))]
    return Decoded(
        [f.answer_ids for f in ordered],
        [f.num_forwards for f in ordered],
        num_proposed,
        num_recycled,
        num_right,
    )


@inferring
def negative_log_likelihood(
    model: CausalLM,
    prompts: Sequence[Sequence[int]],
    answers: Sequence[Sequence[int]],
    batch_size: int = 32,
) -> float:
    """Give the mean over all answer tokens of -log p(token | prompt, answer before it), in nats."""
    total, count = 0.0, 0
    longest = max(len(p) + len(a) for p, a in zip(prompts, answers, strict=True))
    at_once = max(1, min(batch_size, _MOST_LOGITS // (longest * model.config.vocab_size)))
    for first in range(0, len(prompts), at_once):
        pairs = list(zip(prompts, answers, strict=True))[first : first + at_once]
        texts = [torch.tensor([*p, *a]) for p, a in pairs]
        ids = torch.nn.utils.rnn.pad_sequence(texts, True, model.pad_id).to(model.device)
        # Padding lies behind every text, so a causal model needs no mask to ignore it.
        logits = model.network(input_ids=ids, use_cache=False, attention_mask=torch.ones_like(ids))
        log_probs = logits.logits[:, :-1].float().log_softmax(-1)
        chosen = log_probs.gather(-1, ids[:, 1:, None])[..., 0]
        for row, (prompt, answer) in zip(chosen, pairs, strict=True):
            total -= float(row[len(prompt) - 1 : len(prompt) + len(answer) - 1].sum())
            count += len(answer)
    return total / max(count, 1)


def distinct_ngrams(answers: Sequence[Sequence[int]], n: int = 8) -> float:
    """Give the share of distinct n-grams within answers, 0..1: low where a text repeats itself."""
    distinct = total = 0
    for answer in answers:
        grams = [tuple(answer[i : i + n]) for i in range(len(answer) - n + 1)]
        distinct += len(set(grams))
        total += len(grams)
    return distinct / total if total else 1.0
