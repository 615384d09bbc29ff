"""Where a decoder's answers part from AR's, and how nearly equal the two tokens were there.

In float32 they do not part. In bfloat16 and float16 a forward over more tokens rounds otherwise,
and the likeliest token may be another one wherever two are nearly equally likely.
"""

import statistics
from collections.abc import Sequence
from typing import NamedTuple

import torch

from jacobi_forcing.models import CausalLM
from jacobi_forcing.models.inference import inferring


class Parting(NamedTuple):
    """The first difference between two answers to a prompt."""

    place: int  # tokens of the answer before it
    gap: float  # between the logits of the two tokens, in nats; 0 where one answer just ends


class Divergence(NamedTuple):
    """How many of `num_answers` part from AR's, and where."""

    num_answers: int
    partings: list[Parting]

    def summary(self) -> dict[str, float | int | None]:
        """Returns counts, and medians over the answers that part; None where none does."""
        places = [parting.place for parting in self.partings]
        gaps = [parting.gap for parting in self.partings]
        return {
            "num_answers": self.num_answers,
            "num_different": len(places),
            "share_different": len(places) / self.num_answers if self.num_answers else 0.0,
            "median_first_place": statistics.median(places) if places else None,
            "median_gap": statistics.median(gaps) if gaps else None,
            "largest_gap": max(gaps) if gaps else None,
        }


@inferring
def divergence(
    model: CausalLM,
    prompts: Sequence[Sequence[int]],
    expected: Sequence[Sequence[int]],
    found: Sequence[Sequence[int]],
) -> Divergence:
    """Compare answers with AR's; a forward per parting gives the gap of logits there.

    Args:
        model: The model, in the dtype that the answers were decoded in.
        prompts: Token ids.
        expected: AR's ids per prompt.
        found: The decoder's ids per prompt.
    """
    partings = []
    for prompt, right, other in zip(prompts, expected, found, strict=True):
        pairs = enumerate(zip(right, other, strict=False))
        place = next((i for i, (a, b) in pairs if a != b), min(len(right), len(other)))
        if place == len(right) == len(other):
            continue
        gap = 0.0
        if place < min(len(right), len(other)):
            ids = torch.tensor([[*prompt, *right[:place]]], device=model.device)
            logits = model.logits(input_ids=ids, use_cache=False, num_outputs=1)[0, -1].float()
            gap = abs(float(logits[right[place]] - logits[other[place]]))
        partings.append(Parting(place, gap))
    return Divergence(len(prompts), partings)
