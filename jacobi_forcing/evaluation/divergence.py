"""Where a decoder's answers part from AR's, and how nearly equal the two tokens were there.

In float32 they do not part. In bfloat16 and float16 a forward over more tokens rounds otherwise,
and the likeliest token may be another one wherever two are nearly equally likely.
"""

import statistics
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

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

    @staticmethod
    def of(records: Sequence[Mapping[str, Any]], name: str) -> "Divergence":
        """Collect a decoder's partings from the records of an evaluation."""
        found = [record["answers"][name].get("parting") for record in records]
        return Divergence(len(found), [Parting(**one) for one in found if one])


@inferring
def parting(
    model: CausalLM, prompt: Sequence[int], expected: Sequence[int], found: Sequence[int]
) -> Parting | None:
    """Find where an answer parts from AR's; one forward gives the gap of logits there.

    Args:
        model: The model, in the dtype that the answers were decoded in.
        prompt: Token ids.
        expected: AR's ids.
        found: The decoder's ids.
    """
    pairs = enumerate(zip(expected, found, strict=False))
    place = next((i for i, (a, b) in pairs if a != b), min(len(expected), len(found)))
    if place == len(expected) == len(found):
        return None
    if place == min(len(expected), len(found)):
        return Parting(place, 0.0)
    ids = torch.tensor([[*prompt, *expected[:place]]], device=model.device)
    logits = model.logits(input_ids=ids, use_cache=False, num_outputs=1)[0, -1].float()
    return Parting(place, abs(float(logits[expected[place]] - logits[found[place]])))


def divergence(
    model: CausalLM,
    prompts: Sequence[Sequence[int]],
    expected: Sequence[Sequence[int]],
    found: Sequence[Sequence[int]],
) -> Divergence:
    """Compare many answers with AR's; arguments as for `parting`, a list of each."""
    triples = zip(prompts, expected, found, strict=True)
    partings = [parting(model, *triple) for triple in triples]
    return Divergence(len(prompts), [one for one in partings if one is not None])
