"""What to guess next: the decoders, as state machines over token ids that know nothing of models.

One loop runs them all. Before each forward a strategy is asked for its guesses at the tokens
behind the committed text; after it, it learns which tokens were accepted and what the model would
have said behind the wrong ones. Guesses only ever change how many forwards an answer takes, never the answer.
"""

from collections.abc import Sequence
from typing import Protocol

from jacobi_forcing.config import STRATEGIES
from jacobi_forcing.decoding.noise import Noise
from jacobi_forcing.errors import ConfigError


class Strategy(Protocol):
    """The state of one request's draft."""

    def guess(self, text: Sequence[int], offset: int, limit: int) -> list[int]:
        """Propose the next tokens.

        Args:
            text: Prompt and committed ids.
            offset: Answer tokens committed so far; 0 means that this is the prefill.
            limit: Most guesses that can still be of use, >= 0.

        Returns:
            0 to `limit` ids for answer positions offset, offset + 1, ...
        """

    def observe(self, num_accepted: int, tail: list[int]) -> None:
        """Learn from a forward.

        Args:
            num_accepted: Tokens committed by it, >= 1.
            tail: The model's choices behind the first wrong guess, for the positions that follow
                the accepted tokens; empty when every guess was right.
        """


class Autoregressive:
    """One token per forward: no guesses at all."""

    def guess(self, text: Sequence[int], offset: int, limit: int) -> list[int]:
        """Propose nothing."""
        return []

    def observe(self, num_accepted: int, tail: list[int]) -> None:
        """Nothing to learn."""


class Jacobi:
    """Block after block, each iterated from noise to its fixed point (paper 2.1 and 3.4, K = 1).

    The first block's noise rides along with the prefill, so its first iteration is free. A block is
    full when all its tokens are accepted; the next one starts from fresh noise, because the
    trajectories of training start so.
    """

    def __init__(self, block_size: int, noise: Noise):
        self.block_size = block_size
        self.noise = noise
        self.draft: list[int] = []

    def guess(self, text: Sequence[int], offset: int, limit: int) -> list[int]:
        """Propose the rest of the current block, from noise where it has just begun."""
        num_missing = self.block_size - offset % self.block_size
        if not self.draft:
            self.draft = self.noise.draw(text, num_missing)
        return self.draft[: min(num_missing, limit)]

    def observe(self, num_accepted: int, tail: list[int]) -> None:
        """Keep the model's own choices for the rest of the block, right or wrong."""
        self.draft = tail[: max(len(self.draft) - num_accepted, 0)]


class Window:
    """A streaming window: the draft moves along with the committed text and is always full.

    No forward is spent on finishing a block, which third parties measured at 0.3 to 0.5 tokens per
    forward more than fixed blocks. A forward verifies `block_size` tokens: the newest committed one
    and block_size - 1 guesses.
    """

    def __init__(self, block_size: int, noise: Noise):
        self.block_size = block_size
        self.noise = noise
        self.draft: list[int] = []

    def guess(self, text: Sequence[int], offset: int, limit: int) -> list[int]:
        """Propose the model's previous choices, filled up with noise."""
        num_missing = self.block_size - 1 - len(self.draft)
        self.draft += self.noise.draw(text, num_missing)
        return self.draft[:limit]

    def observe(self, num_accepted: int, tail: list[int]) -> None:
        """Keep the model's own choices behind the accepted tokens."""
        self.draft = tail


class PromptLookup:
    """The draft-free rival: copy what followed the text's last tokens when they last occurred.

    A baseline that shows how much of a speed-up is owed to text that repeats itself.
    """

    NGRAM_TOKENS = 3

    def __init__(self, block_size: int):
        self.num_guesses = block_size - 1

    def guess(self, text: Sequence[int], offset: int, limit: int) -> list[int]:
        """Propose the continuation of the latest earlier place with the same last three tokens."""
        n = self.NGRAM_TOKENS
        key = list(text[-n:])
        for start in range(len(text) - n - 1, -1, -1):
            if list(text[start : start + n]) == key:
                return list(text[start + n : start + n + min(self.num_guesses, limit)])
        return []

    def observe(self, num_accepted: int, tail: list[int]) -> None:
        """Nothing to learn: the text holds it all."""


def make_strategy(name: str, block_size: int, noise: Noise) -> Strategy:
    """Make the state machine of one request.

    Raises:
        ConfigError: No such strategy, or a block size below 2.
    """
    if name == "autoregressive":
        return Autoregressive()
    if block_size < 2:
        raise ConfigError(
            f"block_size is {block_size}, must be at least 2: one token per block is plain "
            "autoregressive decoding (--strategy autoregressive)."
        )
    if name == "jacobi":
        return Jacobi(block_size, noise)
    if name == "window":
        return Window(block_size, noise)
    if name == "prompt-lookup":
        return PromptLookup(block_size)
    raise ConfigError(f"strategy is {name!r}, must be one of {', '.join(STRATEGIES)}.")
