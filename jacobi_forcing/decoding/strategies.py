"""What to guess next: the decoders, as state machines over token ids that know nothing of models.

One loop runs them all. Before each forward a strategy is asked for its guesses at the tokens
behind the committed text; after it, it learns which tokens were accepted and what the model would
have said behind the wrong ones. Guesses only ever change how many forwards an answer takes, never
the answer.
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
    """Block after block, each from noise to its fixed point (paper 2.1; Alg. 1 with K = 1).

    The first block's noise rides along with the prefill, so its first iteration is free. A block is
    full when all its tokens are accepted; the next one starts from fresh noise, because the
    trajectories of training start so.
    """

    def __init__(self, block_size: int, noise: Noise):
        self.block_size = block_size
        self.noise = noise
        self.guesses: list[int] = []  # for the tokens behind the committed text

    def guess(self, text: Sequence[int], offset: int, limit: int) -> list[int]:
        """Propose the rest of the current block, from noise where it has just begun."""
        num_missing = self.block_size - offset % self.block_size
        if not self.guesses:
            self.guesses = self.noise.draw(text, num_missing)
        return self.guesses[: min(num_missing, limit)]

    def observe(self, num_accepted: int, tail: list[int]) -> None:
        """Keep the model's own choices for the rest of the block, right or wrong."""
        self.guesses = tail[: max(len(self.guesses) - num_accepted, 0)]


class Window:
    """A streaming window: the draft moves along with the committed text and is always full.

    No forward is spent on finishing a block, which third parties measured at 0.3 to 0.5 tokens per
    forward more than fixed blocks. A forward verifies `block_size` tokens: the newest committed one
    and block_size - 1 guesses.
    """

    def __init__(self, block_size: int, noise: Noise):
        self.block_size = block_size
        self.noise = noise
        self.guesses: list[int] = []  # for the tokens behind the committed text

    def guess(self, text: Sequence[int], offset: int, limit: int) -> list[int]:
        """Propose the model's previous choices, filled up with noise."""
        num_missing = self.block_size - 1 - len(self.guesses)
        self.guesses += self.noise.draw(text, num_missing)
        return self.guesses[:limit]

    def observe(self, num_accepted: int, tail: list[int]) -> None:
        """Keep the model's own choices behind the accepted tokens."""
        self.guesses = tail


class PromptLookup:
    """The rival that needs no training: copy what followed the last three tokens before.

    A baseline that shows how much of a speed-up is owed to text that repeats itself.
    """

    NGRAM_TOKENS = 3

    def __init__(self, block_size: int):
        self.num_guesses = block_size - 1
        self.latest: dict[tuple[int, ...], int] = {}  # n-gram -> where its last continuation is
        self.num_indexed = self.NGRAM_TOKENS

    def guess(self, text: Sequence[int], offset: int, limit: int) -> list[int]:
        """Propose what followed the same three tokens when they last occurred."""
        n = self.NGRAM_TOKENS
        for end in range(self.num_indexed, len(text)):
            self.latest[tuple(text[end - n : end])] = end
        self.num_indexed = max(self.num_indexed, len(text))
        start = self.latest.get(tuple(text[-n:]))
        return [] if start is None else list(text[start : start + min(self.num_guesses, limit)])

    def observe(self, num_accepted: int, tail: list[int]) -> None:
        """Nothing to learn: the text holds it all."""


class KnownAnswer:
    """Check a whole given answer in the prefill; from its first wrong token on, decode AR.

    Where an answer is the model's own greedy one already, one forward shows it: collecting then
    costs one forward per prompt.
    """

    def __init__(self, answer: Sequence[int]):
        self.answer = answer

    def guess(self, text: Sequence[int], offset: int, limit: int) -> list[int]:
        """Propose the answer at the prefill, and nothing later."""
        return list(self.answer[:limit]) if offset == 0 else []

    def observe(self, num_accepted: int, tail: list[int]) -> None:
        """Nothing to learn: what was right is committed, and the rest is of no use."""


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
