"""Continue one prompt: the shortest way from text to text."""

from collections.abc import Sequence
from typing import NamedTuple

from jacobi_forcing.decoding.events import Finished, Forward
from jacobi_forcing.decoding.loop import decode_one
from jacobi_forcing.decoding.noise import Noise
from jacobi_forcing.decoding.strategies import make_strategy
from jacobi_forcing.models import CausalLM


class Answer(NamedTuple):
    """A continuation and how it came about."""

    text: str
    finished: Finished
    forwards: list[Forward]

    @property
    def ids(self) -> list[int]:
        """Token ids, the EOS included where there is one."""
        return self.finished.answer_ids

    @property
    def tokens_per_forward(self) -> float:
        """Committed tokens per forward pass, the prefill counted; 1.0 for AR."""
        return len(self.ids) / self.finished.num_forwards


def generate(
    model: CausalLM,
    prompt: str | Sequence[int],
    *,
    strategy: str = "window",
    block_size: int = 16,
    max_new_tokens: int = 256,
    noise: str = "text",
    seed: int = 0,
) -> Answer:
    """Continue `prompt` with exactly the model's own greedy tokens.

    Args:
        model: From `load_model`.
        prompt: Text, or token ids.
        strategy: `autoregressive`, `jacobi`, `window` or `prompt-lookup`.
        block_size: Tokens verified per forward (n), at least 2.
        max_new_tokens: Longest answer.
        noise: What fills a draft before the model has spoken: `text` or `vocabulary`.
        seed: Of the noise; it changes how many forwards an answer takes, never the answer.

    Raises:
        ConfigError: A setting is out of range.
        DataError: The prompt is empty or longer than the model's context.
    """
    ids = model.tokenizer.encode(prompt) if isinstance(prompt, str) else list(prompt)
    source = Noise(noise, model.vocab_tokens, seed)
    state = make_strategy(strategy, block_size, source)
    finished, forwards = decode_one(model, ids, state, max_new_tokens)
    text = model.tokenizer.decode(finished.answer_ids, skip_special_tokens=True)
    return Answer(text, finished, forwards)
