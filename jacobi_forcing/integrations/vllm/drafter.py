"""One request's draft as a single chain, which is all that vLLM verifies. Knows nothing of vLLM."""

from collections.abc import Sequence

from jacobi_forcing.decoding.noise import Noise
from jacobi_forcing.decoding.pool import StatePool


class Drafter:
    """A streaming window (`strategies.Window`) whose open end continues old states.

    Our own decoder hangs n-grams of rejected states on the draft as branches. A chain has no
    branches, but places that the model has not spoken about yet: there they go, before noise does.

    Args:
        vocab_tokens: Ids 0 .. vocab_tokens - 1 are real.
        pool_size: Old states that are kept; 0 fills up with noise alone.
        seed: Of the noise, which never changes an answer.
    """

    def __init__(self, vocab_tokens: int, pool_size: int, seed: int | str):
        self.noise = Noise("text", vocab_tokens, seed)
        self.pool = StatePool(pool_size) if pool_size else None
        self.guesses: list[int] = []  # for the tokens behind the committed text

    def propose(self, text: Sequence[int], num_tokens: int) -> list[int]:
        """Guess the next tokens.

        Args:
            text: Prompt and committed ids, at least one.
            num_tokens: How many to guess.
        """
        guesses = self.guesses[:num_tokens]
        if self.pool is not None and len(guesses) < num_tokens:
            end = [*text[-3:], *guesses]
            found = next(self.pool.candidates(end), ())
            guesses += found[: num_tokens - len(guesses)]
        return guesses + self.noise.draw(text, num_tokens - len(guesses))

    def observe(self, accepted: list[int], tail: list[int]) -> None:
        """Learn from a forward: what it settled, and the model's choices for the places behind."""
        self.guesses = tail
        if self.pool is not None:
            self.pool.observe(accepted + tail)
