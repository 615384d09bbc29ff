"""What requests are read and answers written by: all of a model but its weights."""

from typing import NamedTuple

from transformers import GenerationConfig, PreTrainedTokenizerBase

from jacobi_forcing.models import CausalLM


class Facts(NamedTuple):
    """What the web side knows of a model; it may be in another process than the weights."""

    tokenizer: PreTrainedTokenizerBase
    eos_ids: frozenset[int]
    vocab_size: int  # ids that have an embedding
    generation: GenerationConfig  # what `generate` does without arguments
    chat_eos_ids: frozenset[int]  # see `CausalLM`


def facts_of(model: CausalLM) -> Facts:
    """Take them from a loaded model."""
    return Facts(
        model.tokenizer,
        model.eos_ids,
        model.config.vocab_size,
        model.generation_config,
        model.chat_eos_ids,
    )
