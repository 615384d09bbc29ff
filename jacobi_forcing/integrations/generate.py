"""A drop-in for transformers' `generate`: the same call, the same ids, fewer forwards.

    model.generate(**inputs, custom_generate=jacobi_forcing.generate, strategy="window")

`generate` reads the settings, prepares processors, criteria and inputs as always, and then calls
this instead of its own loop. It hands on only what stands in the signature by name.
"""

import copy
import inspect
import weakref
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor
from transformers import (
    GenerationConfig,
    GenerationMixin,
    LogitsProcessor,
    LogitsProcessorList,
    PreTrainedModel,
    PreTrainedTokenizerBase,
    RepetitionPenaltyLogitsProcessor,
)
from transformers.generation import (
    EncoderNoRepeatNGramLogitsProcessor,
    EncoderRepetitionPenaltyLogitsProcessor,
    EosTokenCriteria,
    GenerateDecoderOnlyOutput,
    GenerationMode,
    MaxLengthCriteria,
    PrefixConstrainedLogitsProcessor,
    StoppingCriteriaList,
    SynthIDTextWatermarkLogitsProcessor,
    UnbatchedClassifierFreeGuidanceLogitsProcessor,
)
from transformers.generation.streamers import BaseStreamer

from jacobi_forcing.config import DecoderConfig, check
from jacobi_forcing.decoding import Finished, Request, Sampling, decode, make_strategy, strategies
from jacobi_forcing.decoding.stops import Stop, StopStrings
from jacobi_forcing.models import CausalLM
from jacobi_forcing.models.attention import grouped_heads
from jacobi_forcing.models.causal_lm import refuse_unsupported
from jacobi_forcing.models.probe import probe
from jacobi_forcing.models.tuning import Tuning, fill_in

# What `generate` always hands on. Everything else is an input of the model that we would lose.
_PREPARED = (
    *("attention_mask", "position_ids", "past_key_values", "use_cache", "logits_to_keep"),
    *("cache_position", "return_dict", "output_attentions", "output_hidden_states"),
)
_STATEFUL = (SynthIDTextWatermarkLogitsProcessor, UnbatchedClassifierFreeGuidanceLogitsProcessor)
_GENERATE = inspect.unwrap(GenerationMixin.generate).__code__
# What `jacobi tune` found for each model that was probed: both are looked at once.
_known: weakref.WeakKeyDictionary[PreTrainedModel, Tuning | None] = weakref.WeakKeyDictionary()


@torch.no_grad()
def generate(
    model: PreTrainedModel,
    input_ids: Tensor,
    logits_processor: LogitsProcessorList | None = None,
    stopping_criteria: StoppingCriteriaList | None = None,
    generation_config: GenerationConfig | None = None,
    *,
    strategy: str | None = None,
    block_size: int | None = None,
    max_blocks: int | None = None,
    spawn_ratio: float | None = None,
    pool_size: int | None = None,
    pool: str | None = None,
    branch_tokens: int | None = None,
    noise: str | None = None,
    seed: int | None = None,
    jacobi_streamer: BaseStreamer | None = None,
    jacobi_stop: Sequence[str] = (),
    jacobi_tokenizer: PreTrainedTokenizerBase | None = None,
    **model_kwargs: Any,
) -> Tensor | GenerateDecoderOnlyOutput:
    """Decode as `generate` would, several tokens per forward.

    Greedy ids equal those of `generate`. Sampled ones follow the same law, but are those of `seed`
    and the same for every decoder and batch size; row i takes seed + i.

    Args:
        model: Any causal LM that passes the probe.
        input_ids: [B, L] long, padded on the left.
        logits_processor: Prepared by `generate`; each may look at its own row only, and its result
            may depend on that row's ids only: one that counts its calls is wrong here.
        stopping_criteria: Prepared by `generate`; asked about one row at a time.
        generation_config: Prepared by `generate`.
        strategy: This and the following, see DecoderConfig. What is not given comes from the
            `tuning.json` beside the model's weights, if it fits this machine, else from there.
        block_size: n.
        max_blocks: K.
        spawn_ratio: r.
        pool_size: Of recycling.
        pool: Of recycling.
        branch_tokens: Of recycling.
        noise: Of drafts.
        seed: Of sampling; None draws one from torch's generator.
        jacobi_streamer: A TextStreamer or the like, for one row; so is `streamer`.
        jacobi_stop: Texts that end an answer, in place of `stop_strings`, whose `tokenizer`
            `generate` does not hand on either.
        jacobi_tokenizer: For jacobi_stop.
        **model_kwargs: What else `generate` prepares: `attention_mask`, positions that follow from
            it, and a cache, which is refused if it is filled. Other inputs are refused.

    Returns:
        [B, longest] long, prompts included, padded on the right; in a GenerateDecoderOnlyOutput
        where `return_dict_in_generate` is set.

    Raises:
        ConfigError: A way of decoding that this is not.
        ModelError: The model fails the probe.
    """
    config = generation_config or model.generation_config
    assistant, streamer = _held_back()
    check(assistant is None, "Jacobi decoding needs no assistant_model. Leave it out.")
    _refuse_other_ways(config, model_kwargs)
    asked = {
        "strategy": strategy,
        "block_size": block_size,
        "max_blocks": max_blocks,
        "spawn_ratio": spawn_ratio,
        "pool_size": pool_size,
        "pool": pool,
        "branch_tokens": branch_tokens,
        "noise": noise,
    }
    given = {name: value for name, value in asked.items() if value is not None}
    with grouped_heads(model):
        wrapped = _wrap(model, config)  # probed as it will decode
    tuning = _known[model]
    decoder = DecoderConfig(**fill_in(given, tuning.settings(len(input_ids))) if tuning else given)
    if jacobi_streamer is not None:
        streamer = jacobi_streamer
        streamer.put(input_ids.cpu())
    check(
        streamer is None or len(input_ids) == 1,
        f"a streamer takes one row, but input_ids has {len(input_ids)}.",
    )
    check(
        not jacobi_stop or jacobi_tokenizer is not None,
        "jacobi_stop needs jacobi_tokenizer, to know what tokens say.",
    )
    stop = StopStrings(jacobi_tokenizer, jacobi_stop) if jacobi_stop else None
    # Named in the signature, it would be taken from `generate`, which then makes another.
    attention_mask = model_kwargs.get("attention_mask")
    requests = _requests(
        input_ids, attention_mask, logits_processor, stopping_criteria, stop, config, seed
    )
    with grouped_heads(model):
        answers = _decode(wrapped, decoder, requests, streamer)
    longest = max(map(len, answers))
    padded = [[*answer, *[wrapped.pad_id] * (longest - len(answer))] for answer in answers]
    added = torch.tensor(padded, dtype=input_ids.dtype, device=input_ids.device)
    sequences = torch.cat([input_ids, added], dim=1)
    if config.return_dict_in_generate:
        return GenerateDecoderOnlyOutput(sequences=sequences)
    return sequences


def _held_back() -> tuple[Any, Any]:
    """Find the `assistant_model` and `streamer` that `generate` has, and tells no callable of.

    It has shown the prompt to the streamer already, whose reader would wait for the rest for ever.
    """
    frame = inspect.currentframe()
    while frame is not None and frame.f_code is not _GENERATE:
        frame = frame.f_back
    found = frame.f_locals if frame is not None else {}
    return found.get("assistant_model"), found.get("streamer")


def _refuse_other_ways(config: GenerationConfig, model_kwargs: dict[str, Any]) -> None:
    mode = config.get_generation_mode()
    refused = {
        "prompt lookup (prompt_lookup_num_tokens; ours is strategy='prompt-lookup')": bool(
            config.prompt_lookup_num_tokens
        ),
        "output_scores": bool(config.output_scores),
        "output_logits": bool(config.output_logits),
        "output_attentions": bool(config.output_attentions),
        "output_hidden_states": bool(config.output_hidden_states),
        "classifier-free guidance (guidance_scale)": (config.guidance_scale or 1) != 1,
        "input embeddings (inputs_embeds)": model_kwargs.get("inputs_embeds") is not None,
        mode.value.replace("_", " "): mode
        not in (GenerationMode.GREEDY_SEARCH, GenerationMode.SAMPLE),
    }
    refused |= {
        f"the input {name}": value is not None
        for name, value in model_kwargs.items()
        if name not in _PREPARED
    }
    for name, found in refused.items():
        check(not found, f"Jacobi decoding does not do {name}. Leave it out.")
    mask, positions = model_kwargs.get("attention_mask"), model_kwargs.get("position_ids")
    if positions is not None:
        expected = torch.arange(positions.shape[-1], device=positions.device).expand_as(positions)
        if mask is not None:
            expected = (mask.long().cumsum(-1) - 1).clamp(min=0)
        shown = torch.ones_like(positions) if mask is None else mask
        check(
            torch.equal(positions * shown, expected * shown),
            "position_ids are not those of the text, but Jacobi decoding counts from 0. Leave them "
            "out.",
        )
    past = model_kwargs.get("past_key_values")
    check(
        past is None or past.get_seq_length() == 0,
        "past_key_values holds tokens already, but Jacobi decoding keeps a cache of its own. Leave "
        "it out.",
    )


def _wrap(model: PreTrainedModel, config: GenerationConfig) -> CausalLM:
    eos = config.eos_token_id
    eos_ids = [] if eos is None else [eos] if isinstance(eos, int) else list(eos)
    pad_id = config.pad_token_id
    if pad_id is None:
        pad_id = eos_ids[0] if eos_ids else 0  # as generate chooses it
    name = model.name_or_path or model.config.model_type
    wrapped = CausalLM(name, model, None, frozenset(eos_ids), pad_id)
    if model not in _known:
        refuse_unsupported(wrapped.name, model)
        probe(wrapped)
        _known[model] = wrapped.tuning
    return wrapped


def _requests(
    input_ids: Tensor,
    attention_mask: Tensor | None,
    processors: LogitsProcessorList | None,
    criteria: StoppingCriteriaList | None,
    stop: Stop | None,
    config: GenerationConfig,
    seed: int | None,
) -> list[Request]:
    if seed is None:
        seed = int(torch.randint(2**62, ()))
    check(
        isinstance(seed, int) and 0 <= seed < 2**64,
        f"seed is {seed!r}, must be from 0 to 2**64 - 1.",
    )
    # The loop knows these two itself; asking them would take a tensor and a wait for every token.
    criteria = StoppingCriteriaList(
        rule for rule in criteria or () if type(rule) not in (MaxLengthCriteria, EosTokenCriteria)
    )
    max_new_tokens = config.max_length - input_ids.shape[1]
    requests = []
    for index, row in enumerate(input_ids):
        num_pad = 0 if attention_mask is None else int((attention_mask[index] == 0).sum())
        check(
            attention_mask is None or not attention_mask[index, :num_pad].any(),
            f"row {index} is padded on the right or in the middle; decoder-only models need "
            "padding_side='left'.",
        )
        sampling = Sampling(
            # Processors divide by the temperature and truncate themselves.
            temperature=1.0 if config.do_sample else 0.0,
            processors=[_Padded(processors, index, row[:num_pad])] if processors else (),
            seed=(seed + index) % 2**64,
        )
        rules = [_stop(criteria, row)] if criteria else []
        rules += [stop] if stop is not None else []
        prompt = row[num_pad:].tolist()
        requests.append(Request(index, prompt, max_new_tokens, sampling, _any(rules) or ()))
    return requests


class _Padded:
    """Processors that see a row as `generate` shows it, padding included."""

    def __init__(self, processors: LogitsProcessorList, row: int, padding: Tensor):
        self.processors = LogitsProcessorList(_of_row(p, row) for p in processors)
        self.padding = padding

    def __call__(self, ids: Tensor, scores: Tensor) -> Tensor:
        """Process [rows, V] scores of [rows, length] ids."""
        padding = self.padding.to(ids.device).expand(len(ids), -1)
        return self.processors(torch.cat([padding, ids], dim=1), scores)


def _of_row(processor: LogitsProcessor, row: int) -> LogitsProcessor:
    """Make of a processor that knows all rows of the batch one that knows its own."""
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
        """Process [rows, V] scores of [rows, length] ids."""
        pairs = zip(ids.split(1), scores.split(1), strict=True)
        return torch.cat([self.processor(*pair) for pair in pairs])


def _stop(criteria: StoppingCriteriaList, prompt: Tensor) -> Stop:
    def is_met(answer: Sequence[int]) -> bool:
        text = torch.cat([prompt, torch.tensor(answer, device=prompt.device)])
        found = [torch.as_tensor(rule(text[None], None)) for rule in criteria]
        check(
            all(one.numel() == 1 for one in found),
            "a stopping criterion answers for several rows, but is asked about one row at a time. "
            "Let it look at the ids it is given only.",
        )
        return any(bool(one) for one in found)

    return is_met


def _any(rules: Sequence[Stop]) -> Stop | None:
    return (lambda answer: any(rule(answer) for rule in rules)) if rules else None


def _decode(
    model: CausalLM,
    decoder: DecoderConfig,
    requests: list[Request],
    streamer: BaseStreamer | None,
) -> list[list[int]]:
    answers: dict[int, list[int]] = {}
    longest = max(len(request.prompt_ids) + request.max_new_tokens for request in requests)
    for event in decode(
        model,
        requests,
        lambda request: make_strategy(decoder, model.vocab_tokens, request.index),
        batch_size=len(requests),
        max_tokens=longest,
        branch_tokens=strategies.branch_tokens(decoder),
    ):
        if isinstance(event, Finished):
            answers[event.request] = event.answer_ids
        elif streamer is not None:
            streamer.put(torch.tensor(event.accepted))
    if streamer is not None:
        streamer.end()
    return [answers[request.index] for request in requests]
