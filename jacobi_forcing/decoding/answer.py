"""Continue one prompt: the shortest way from text to text."""

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

from jacobi_forcing.config import DecoderConfig, from_mapping
from jacobi_forcing.decoding.batch import decode_one
from jacobi_forcing.decoding.events import Finished, Forward
from jacobi_forcing.decoding.sampling import GREEDY, Sampling
from jacobi_forcing.decoding.strategies import make_strategy
from jacobi_forcing.decoding.stream import TextStream
from jacobi_forcing.models import CausalLM
from jacobi_forcing.models.prompt_text import encode_prompt
from jacobi_forcing.models.tuning import fill_in


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


def answer(
    model: CausalLM,
    prompt: str | Sequence[int],
    *,
    max_new_tokens: int = 256,
    seed: int = 0,
    sampling: Sampling = GREEDY,
    stop: Sequence[str] | str = (),
    on_text: Callable[[str], None] = lambda _: None,
    tuned: bool = True,
    **decoder: Any,
) -> Answer:
    """Continue `prompt` with exactly the tokens that one at a time would give.

    Args:
        model: From `load_model`.
        prompt: Text, or token ids.
        max_new_tokens: Longest answer.
        seed: Of the noise; it changes how many forwards an answer takes, never the answer.
        sampling: How tokens are chosen; greedy by default. The same seed in it gives the same ids
            with every decoder.
        stop: A text, or several, that ends the answer and stays in it.
        on_text: Called with a piece of the answer, perhaps an empty one, after each forward;
            together they are its text.
        tuned: Take settings that are not in `decoder` from what `jacobi tune` found for this model,
            if that fits this machine (`models.tuning`). They change the speed, never the answer.
        **decoder: The fields of `DecoderConfig`: strategy, block_size, max_blocks and so on.

    Raises:
        ConfigError: A setting is unknown or out of range.
        DataError: The prompt is empty or longer than the model's context.
    """
    if tuned and model.tuning is not None:
        decoder = fill_in(decoder, model.tuning.settings())
    config = from_mapping(DecoderConfig, decoder, "answer")
    ids = encode_prompt(model.tokenizer, prompt) if isinstance(prompt, str) else list(prompt)
    state = make_strategy(config, model.vocab_tokens, seed)
    stream = TextStream(model.tokenizer)
    finished, forwards = decode_one(
        model,
        ids,
        state,
        max_new_tokens,
        lambda forward: on_text(stream.push(forward.accepted)),
        sampling=sampling,
        stop=stop,
    )
    on_text(stream.finish())
    text = model.tokenizer.decode(finished.answer_ids, skip_special_tokens=True)
    return Answer(text, finished, forwards)
