"""The random tokens that fill a draft where the model has not spoken yet."""

import random
from collections.abc import Sequence

from jacobi_forcing.config import NOISE_SOURCES
from jacobi_forcing.errors import ConfigError


class Noise:
    """Draws noise tokens with a generator of its own, so that the same seed gives the same drafts.

    Args:
        source: `text` draws from the row's own prompt and answer so far (the paper's way);
            `vocabulary` draws uniformly from all real tokens.
        vocab_tokens: Ids 0 .. vocab_tokens - 1 are real; a padded embedding may hold more.
        seed: Any integer or string.
    """

    def __init__(self, source: str, vocab_tokens: int, seed: int | str):
        if source not in NOISE_SOURCES:
            raise ConfigError(f"noise is {source!r}, must be one of {', '.join(NOISE_SOURCES)}.")
        self.source = source
        self.vocab_tokens = vocab_tokens
        self.random = random.Random(seed)
        self.num_drawn = 0  # tokens so far: each takes one number of the generator

    def draw(self, text: Sequence[int], num_tokens: int) -> list[int]:
        """Draw `num_tokens` ids, with replacement; `text` is the row's ids so far, not empty."""
        if num_tokens == 0:
            return []
        self.num_drawn += num_tokens
        if self.source == "text":
            return self.random.choices(text, k=num_tokens)
        return self.random.choices(range(self.vocab_tokens), k=num_tokens)
