"""What generation_config.json says of texts, in our loop: transformers' own processors, row by row.

It may forbid tokens, favour them, or ask for a length. `model.generate` obeys, so our commands do
too, or refuse, or log what they leave out. Shapes: B = rows, V = vocabulary.
"""

import copy
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor
from transformers import (
    GenerationConfig,
    GenerationMixin,
    LogitsProcessor,
    LogitsProcessorList,
    PrefixConstrainedLogitsProcessor,
    RepetitionPenaltyLogitsProcessor,
)
from transformers.generation import (
    EncoderNoRepeatNGramLogitsProcessor,
    EncoderRepetitionPenaltyLogitsProcessor,
    GenerationMode,
    SynthIDTextWatermarkLogitsProcessor,
    UnbatchedClassifierFreeGuidanceLogitsProcessor,
)

from jacobi_forcing.config import check
from jacobi_forcing.decoding.sampling import Sampling
from jacobi_forcing.errors import JacobiForcingError, ModelError
from jacobi_forcing.models import CausalLM

_TOP_K = 50  # of `generate`, where it draws and nothing is said
_STATEFUL = (SynthIDTextWatermarkLogitsProcessor, UnbatchedClassifierFreeGuidanceLogitsProcessor)
# Settings that change the ids of `generate`, with the value, beside None, that changes nothing.
_NEUTRAL = {
    "do_sample": False,
    "repetition_penalty": 1.0,
    "encoder_repetition_penalty": 1.0,
    "no_repeat_ngram_size": 0,
    "encoder_no_repeat_ngram_size": 0,
    "min_length": 0,
    "min_new_tokens": 0,
    "remove_invalid_values": False,
    "bad_words_ids": None,
    "sequence_bias": None,
    "suppress_tokens": None,
    "begin_suppress_tokens": None,
    "forced_bos_token_id": None,
    "forced_eos_token_id": None,
    "exponential_decay_length_penalty": None,
    "watermarking_config": None,
    "stop_strings": None,
}
# Of those, what our loop does not do.
_NOT_DONE = {
    "num_beams": 1,
    "num_beam_groups": 1,
    "dola_layers": None,
    "constraints": None,
    "force_words_ids": None,
    "guidance_scale": 1.0,
    "token_healing": False,
    "max_time": None,
}
# What `generate` does after the temperature, and a Sampling has no field for; with the value,
# beside None, that changes nothing.
_DRAWING = {
    "top_h": None,
    "typical_p": 1.0,
    "epsilon_cutoff": 0.0,
    "eta_cutoff": 0.0,
    "watermarking_config": None,
}


def sampling_defaults(config: GenerationConfig, *, draws: bool) -> dict[str, Any]:
    """Give the fields of Sampling that a generation_config sets.

    Args:
        config: Of the checkpoint.
        draws: Include how tokens are drawn, where `generate` draws without arguments.
    """
    found = {name: getattr(config, name) for name in ("repetition_penalty", "min_new_tokens")}
    if draws and config.do_sample:
        top_k = _TOP_K if config.top_k is None else config.top_k
        found |= {"temperature": config.temperature or 1.0, "top_k": top_k}
        found |= {"top_p": config.top_p, "min_p": config.min_p}
    return {name: value for name, value in found.items() if value is not None}


def stop_strings(config: GenerationConfig) -> list[str]:
    """Give the texts that end an answer by a generation_config."""
    found = config.stop_strings
    return [found] if isinstance(found, str) else list(found or [])


def changing_settings(config: GenerationConfig) -> dict[str, Any]:
    """Give the settings because of which `generate` is not plain greedy decoding, by name."""
    known = _NEUTRAL | _NOT_DONE
    if config.get_generation_mode() is GenerationMode.CONTRASTIVE_SEARCH:
        known["penalty_alpha"] = None
    found = {name: getattr(config, name, None) for name in known}
    return {
        name: value
        for name, value in found.items()
        if value is not None and value != known[name] and value != []
    }


class Rules:
    """What a model's generation_config says of its texts, for requests to our loop.

    Args:
        model: What decodes. Its generation_config is read once, here.

    Raises:
        ModelError: generation_config asks for what our loop does not do, or cannot be obeyed; the
            message names the setting.
    """

    def __init__(self, model: CausalLM):
        self.model = model
        self.config = model.generation_config
        found = changing_settings(self.config)
        refused = [n for n in found if n in _NOT_DONE or n == "penalty_alpha"]
        try:
            processors = self._processors(Sampling(temperature=1.0), [0, 0], 2, model.eos_ids)
            scores = torch.zeros(1, model.config.vocab_size, device=model.device)
            ids = torch.zeros(1, 2, dtype=torch.long, device=model.device)
            LogitsProcessorList(processors)(ids, scores)
        except JacobiForcingError:
            refused.append("watermarking_config")
            processors = []
        except Exception as error:  # whatever transformers makes of values that it cannot use
            raise ModelError(
                f"{model.name}: generation_config.json cannot be obeyed: "
                f"{' '.join(str(error).split())[:200].rstrip('.')}. Correct or remove it there."
            ) from error
        if refused:
            raise ModelError(
                f"{model.name}: generation_config.json sets {', '.join(refused)}, which our "
                "decoding does not do. Remove that from generation_config.json, or decode with "
                "transformers' own generate."
            )
        self.is_empty = not processors

    def apply(
        self,
        sampling: Sampling,
        prompt_ids: Sequence[int],
        max_new_tokens: int,
        eos_ids: frozenset[int] | None = None,
    ) -> Sampling:
        """Add to a request's sampling what it has no fields for.

        Args:
            sampling: Its own fields are taken as they are: `sampling_defaults` has those of
                generation_config.
            prompt_ids: Of the request.
            max_new_tokens: Of the request.
            eos_ids: What ends the answer; by default the model's.
        """
        eos_ids = self.model.eos_ids if eos_ids is None else eos_ids
        if self.is_empty and (eos_ids == self.model.eos_ids or not sampling.min_new_tokens):
            return sampling
        processors = self._processors(sampling, prompt_ids, max_new_tokens, eos_ids)
        done = {"repetition_penalty": 1.0, "min_new_tokens": 0}  # by processors, in their order
        if self._draws_otherwise(sampling):
            done |= {"temperature": 1.0, "top_k": 0, "top_p": 1.0, "min_p": 0.0}
        return replace(sampling, **done, processors=(*sampling.processors, *processors))

    def _draws_otherwise(self, sampling: Sampling) -> bool:
        """Tell whether tokens are drawn in a way that Sampling has no fields for."""
        found = ((getattr(self.config, name, None), same) for name, same in _DRAWING.items())
        return sampling.temperature > 0 and any(value not in (None, same) for value, same in found)

    def _processors(
        self,
        sampling: Sampling,
        prompt_ids: Sequence[int],
        max_new_tokens: int,
        eos_ids: frozenset[int],
    ) -> list[LogitsProcessor]:
        """Make the processors that `generate` would make for one prompt."""
        if not isinstance(self.model.network, GenerationMixin):
            return []
        config = copy.deepcopy(self.config)
        config.do_sample = self._draws_otherwise(sampling)
        config.renormalize_logits = None  # changes no choice
        config.guidance_scale = None  # refused
        config.repetition_penalty = sampling.repetition_penalty
        config.min_new_tokens = sampling.min_new_tokens
        if config.min_new_tokens:
            config.min_length = None  # as `generate` has it: the former goes before
        config.max_length = len(prompt_ids) + max_new_tokens
        if config.do_sample:
            config.temperature, config.top_k = sampling.temperature, sampling.top_k
            config.top_p, config.min_p = sampling.top_p, sampling.min_p or None
        device = self.model.device
        config._eos_token_tensor = torch.tensor(sorted(eos_ids), device=device)
        ids = torch.tensor([list(prompt_ids)], device=device)
        found = self.model.network._get_logits_processor(
            generation_config=config,
            input_ids_seq_length=len(prompt_ids),
            encoder_input_ids=ids,
            device=device,
            model_kwargs={},
        )
        return [processor_of_row(processor, 0) for processor in found]


class PaddedProcessors:
    """Processors that see a row as `generate` shows it to them, padding included.

    Args:
        processors: As `generate` prepares them.
        row: Its number in the batch.
        padding: [pads] long, to the left of the prompt.
    """

    def __init__(self, processors: LogitsProcessorList, row: int, padding: Tensor):
        self.processors = LogitsProcessorList(processor_of_row(p, row) for p in processors)
        self.padding = padding

    def __call__(self, ids: Tensor, scores: Tensor) -> Tensor:
        """Process [B, V] scores of [B, length] ids, several texts of the same row."""
        padding = self.padding.to(ids.device).expand(len(ids), -1)
        return self.processors(torch.cat([padding, ids], dim=1), scores)


def processor_of_row(processor: LogitsProcessor, row: int) -> LogitsProcessor:
    """Make of a processor that knows all rows of the batch one that knows its own.

    Raises:
        ConfigError: What it does depends on more than its row's ids.
    """
    check(
        not isinstance(processor, _STATEFUL),
        f"{type(processor).__name__} depends on more than its row's ids, so a draft cannot be "
        "verified under it. Leave it out.",
    )
    if isinstance(processor, PrefixConstrainedLogitsProcessor):
        allowed = processor._prefix_allowed_tokens_fn
        return PrefixConstrainedLogitsProcessor(lambda _, ids: allowed(row, ids), 1)
    if isinstance(processor, EncoderRepetitionPenaltyLogitsProcessor):
        own = copy.copy(processor)
        own.encoder_input_ids = processor.encoder_input_ids[row : row + 1]
        return _EachRowAlone(own)
    if isinstance(processor, EncoderNoRepeatNGramLogitsProcessor):
        own = copy.copy(processor)
        own.generated_ngrams, own.batch_size = processor.generated_ngrams[row : row + 1], 1
        return _EachRowAlone(own)
    ignored = getattr(processor, "prompt_ignore_length", None)
    if isinstance(processor, RepetitionPenaltyLogitsProcessor) and isinstance(ignored, Tensor):
        return RepetitionPenaltyLogitsProcessor(processor.penalty, int(ignored[row]))
    return processor


class _EachRowAlone:
    """A processor that holds one row's facts, for several texts of that row."""

    def __init__(self, processor: LogitsProcessor):
        self.processor = processor

    def __call__(self, ids: Tensor, scores: Tensor) -> Tensor:
        """Process [B, V] scores of [B, length] ids."""
        pairs = zip(ids.split(1), scores.split(1), strict=True)
        return torch.cat([self.processor(*pair) for pair in pairs])
