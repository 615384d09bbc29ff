"""A drop-in for transformers' `generate`: the same call, the same ids, fewer forwards.

    model.generate(**inputs, custom_generate=jacobi_forcing.generate, strategy="window")

`generate` reads the settings, prepares processors, criteria and inputs as always, and then calls
this instead of its own loop. It hands on only what stands in the signature by name.
"""

import inspect
import warnings
import weakref
from collections.abc import Sequence
from dataclasses import fields
from typing import Any, NamedTuple

import torch
from torch import Tensor
from transformers import (
    GenerationConfig,
    GenerationMixin,
    LogitsProcessorList,
    PreTrainedModel,
    PreTrainedTokenizerBase,
)
from transformers.generation import (
    EosTokenCriteria,
    GenerateDecoderOnlyOutput,
    GenerationMode,
    MaxLengthCriteria,
    StoppingCriteriaList,
    StopStringCriteria,
)
from transformers.generation.streamers import BaseStreamer

from jacobi_forcing.config import DecoderConfig, check
from jacobi_forcing.decoding import Finished, Request, Sampling, decode, make_strategy, strategies
from jacobi_forcing.decoding.generation import PaddedProcessors
from jacobi_forcing.decoding.stops import Stop
from jacobi_forcing.errors import DataError, JacobiForcingError
from jacobi_forcing.models import CausalLM
from jacobi_forcing.models.attention import grouped_heads
from jacobi_forcing.models.causal_lm import refuse_training, refuse_unsupported
from jacobi_forcing.models.probe import probe
from jacobi_forcing.models.tuning import Tuning, fill_in

# What `generate` always hands on. Everything else is an input of the model that we would lose.
_PREPARED = (
    *("attention_mask", "position_ids", "past_key_values", "use_cache", "logits_to_keep"),
    *("cache_position", "return_dict", "output_attentions", "output_hidden_states"),
)
# Arguments that ask for our decoding, and that transformers' own does not know.
_OURS = {f.name for f in fields(DecoderConfig)} | {"seed"}
_OURS |= {"jacobi_streamer", "jacobi_stop", "jacobi_tokenizer"}
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
        stopping_criteria: Prepared by `generate`, those of the caller among them. The lengths and
            EOS of transformers' own classes are read, also where the caller brings them; all others
            are asked about one row at a time.
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
        jacobi_stop: Texts that end an answer, in place of `stop_strings`: `generate` takes the
            `tokenizer` of those away before a callable sees it. So does
            `stopping_criteria=[StopStringCriteria(tokenizer, texts)]`.
        jacobi_tokenizer: For jacobi_stop.
        **model_kwargs: What else `generate` prepares: `attention_mask`, positions that follow from
            it, and a cache, which is refused if it is filled. Other inputs are refused.

    Returns:
        [B, longest] long, prompts included, padded on the right; in a GenerateDecoderOnlyOutput
        that holds `sequences` only where `return_dict_in_generate` is set.

    Raises:
        ConfigError: A way of decoding that this is not.
        DataError: A prompt is as long as the model's context.
        ModelError: The model fails the probe, or is in training mode.
    """
    check(
        stopping_criteria is not None,
        "jacobi_forcing.generate is called by transformers. Call "
        "model.generate(..., custom_generate=jacobi_forcing.generate).",
    )
    refuse_training(_name(model), model)  # also where it was probed before
    config = generation_config or model.generation_config
    held_back = _held_back()
    for name in ("assistant_model", "synced_gpus"):
        check(not held_back.get(name), f"Jacobi decoding does not do {name}. Leave it out.")
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
    check(
        not jacobi_stop or jacobi_tokenizer is not None,
        "jacobi_stop needs jacobi_tokenizer, to know what tokens say.",
    )
    if jacobi_stop:
        texts = StopStringCriteria(jacobi_tokenizer, jacobi_stop)
        stopping_criteria = StoppingCriteriaList([*stopping_criteria, texts])
    ends = _ends(stopping_criteria, input_ids.shape[1])
    pad = getattr(config, "_pad_token_tensor", None)
    pad_id = min(ends.eos_ids, default=0) if pad is None else int(pad)
    with grouped_heads(model):
        wrapped = _wrap(model, ends.eos_ids, pad_id)  # probed as it will decode
    tuning = _known[model]
    decoder = DecoderConfig(**fill_in(given, tuning.settings(len(input_ids))) if tuning else given)
    streamer = held_back.get("streamer") if jacobi_streamer is None else jacobi_streamer
    check(
        streamer is None or len(input_ids) == 1,
        f"a streamer takes one row, but input_ids has {len(input_ids)}.",
    )
    # Named in the signature, it would be taken from `generate`, which then makes another.
    attention_mask = model_kwargs.get("attention_mask")
    requests = _requests(input_ids, attention_mask, logits_processor, ends, config, seed)
    _check_context(wrapped, requests)
    if jacobi_streamer is not None:
        streamer.put(input_ids.cpu())
    with grouped_heads(model):
        answers = _decode(wrapped, decoder, requests, streamer)
        longest = max(map(len, answers.values()))
        # Without an EOS `generate` lets all rows grow until the last one is at its end.
        short = [] if ends.pads else [r for r in requests if len(answers[r.index]) < longest]
        if short:
            short = [request._replace(max_new_tokens=longest, stop=()) for request in short]
            answers |= _decode(wrapped, decoder, short, None)
    padded = [ids + [wrapped.pad_id] * (longest - len(ids)) for _, ids in sorted(answers.items())]
    added = torch.tensor(padded, dtype=input_ids.dtype, device=input_ids.device)
    sequences = torch.cat([input_ids, added], dim=1)
    if config.return_dict_in_generate:
        return GenerateDecoderOnlyOutput(sequences=sequences)
    return sequences


def generate_or_ordinary(model: PreTrainedModel, *arguments: Any, **settings: Any) -> Any:
    """Decode with ours what ours can do, and with transformers' own `generate` all else.

    What `custom_generate/generate.py` of a checkpoint calls: transformers puts that in the place of
    `model.generate`, and code that never heard of us calls it too.

    Args:
        model: Of the checkpoint.
        *arguments: Of `generate`, by position.
        **settings: Of `generate`, and of ours.

    Raises:
        JacobiForcingError: Ours was asked for by one of its own arguments, and cannot do it; or it
            failed when a streamer had been given text.
    """
    ordinary = type(model).generate  # not the model's own attribute, which leads here
    names = list(inspect.signature(GenerationMixin.generate).parameters)[1:]
    settings |= dict(zip(names, arguments, strict=False))
    streamer = _Watched(settings.get("streamer"))
    if settings.get("custom_generate") is not None or _heals(model, settings):
        return ordinary(model, **settings)
    try:
        changed = {} if streamer.inner is None else {"streamer": None, "jacobi_streamer": streamer}
        changed |= _with_stop_strings(model, settings)
        return ordinary(model, **settings | changed | {"custom_generate": generate})
    except JacobiForcingError as error:
        if _OURS & settings.keys() or streamer.is_used:
            raise
        warnings.warn(
            f"{error} Here transformers' own generate decodes instead, one token at a time.",
            stacklevel=3,
        )
    return ordinary(model, **settings)


def _setting(model: PreTrainedModel, settings: dict[str, Any], name: str) -> Any:
    """Find what `generate` would take for one of its settings."""
    if settings.get(name) is not None:
        return settings[name]
    given = getattr(settings.get("generation_config"), name, None)
    return getattr(model.generation_config, name, None) if given is None else given


def _heals(model: PreTrainedModel, settings: dict[str, Any]) -> bool:
    """Tell whether a tokenizer is needed that `generate` would not have beside a callable."""
    return bool(_setting(model, settings, "token_healing"))


def _with_stop_strings(model: PreTrainedModel, settings: dict[str, Any]) -> dict[str, Any]:
    """Make of `stop_strings`, which need the tokenizer, the criterion that they would become."""
    texts, tokenizer = _setting(model, settings, "stop_strings"), settings.get("tokenizer")
    if texts is None or tokenizer is None:
        return {}
    criteria = list(settings.get("stopping_criteria") or [])
    if not any(type(rule) is StopStringCriteria for rule in criteria):  # the caller's goes before
        criteria.append(StopStringCriteria(tokenizer, texts))
    return {"stop_strings": None, "stopping_criteria": criteria}


class _Watched(BaseStreamer):
    """A streamer, and whether it was given anything."""

    def __init__(self, inner: BaseStreamer | None):
        self.inner, self.is_used = inner, False

    def put(self, value: Tensor) -> None:
        """Hand ids on."""
        self.is_used = True
        self.inner.put(value)

    def end(self) -> None:
        """Hand the end on."""
        self.inner.end()


def _held_back() -> dict[str, Any]:
    """Find the arguments that `generate` has, and tells no callable of, such as `streamer`.

    It has shown the prompt to a streamer already, whose reader would wait for the rest for ever.
    """
    frame = inspect.currentframe()
    while frame is not None and frame.f_code is not _GENERATE:
        frame = frame.f_back
    return dict(frame.f_locals) if frame is not None else {}


class _Ends(NamedTuple):
    """When answers end."""

    max_new_tokens: int
    eos_ids: frozenset[int]
    pads: bool  # whether `generate` pads rows that are at their end, or lets them grow
    others: StoppingCriteriaList  # to be asked


def _ends(criteria: StoppingCriteriaList, num_prompt: int) -> _Ends:
    """Read what the loop does itself: to ask would take a tensor and a wait for every token.

    A length or an EOS that the caller gave stands in the list in place of the one from the
    settings.
    """
    lengths = [rule.max_length for rule in criteria if type(rule) is MaxLengthCriteria]
    eos = [rule.eos_token_id for rule in criteria if type(rule) is EosTokenCriteria]
    return _Ends(
        # `generate` asks after a token only.
        max(1, min(lengths) - num_prompt),
        frozenset(token for ids in eos for token in ids.flatten().tolist()),
        any(hasattr(rule, "eos_token_id") for rule in criteria),
        StoppingCriteriaList(
            rule for rule in criteria if type(rule) not in (MaxLengthCriteria, EosTokenCriteria)
        ),
    )


def _refuse_other_ways(config: GenerationConfig, model_kwargs: dict[str, Any]) -> None:
    mode = config.get_generation_mode()
    refused = {
        "prompt lookup (prompt_lookup_num_tokens; ours is strategy='prompt-lookup')": bool(
            config.prompt_lookup_num_tokens
        ),
        "a quantized cache (cache_implementation)": config.cache_implementation == "quantized",
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


def _name(model: PreTrainedModel) -> str:
    return model.name_or_path or model.config.model_type


def _wrap(model: PreTrainedModel, eos_ids: frozenset[int], pad_id: int) -> CausalLM:
    wrapped = CausalLM(_name(model), model, None, eos_ids, pad_id)
    if model not in _known:
        refuse_unsupported(wrapped.name, model)
        probe(wrapped)
        _known[model] = wrapped.tuning
    return wrapped


def _check_context(model: CausalLM, requests: list[Request]) -> None:
    """Refuse prompts that fill the context, and warn where answers may end with it."""
    longest, context = max(len(request.prompt_ids) for request in requests), model.context_tokens
    if longest >= context:
        raise DataError(
            f"a prompt has {longest} tokens, but the context of {model.name} holds {context} with "
            "the answer, and Jacobi decoding does not go beyond. Shorten it."
        )
    asked = max(len(request.prompt_ids) + request.max_new_tokens for request in requests)
    if asked > context:
        warnings.warn(
            f"prompt and answer may take {asked} tokens, but the context of {model.name} holds "
            f"{context}. Jacobi decoding ends there; transformers' own generate goes on.",
            stacklevel=4,
        )


def _requests(
    input_ids: Tensor,
    attention_mask: Tensor | None,
    processors: LogitsProcessorList | None,
    ends: _Ends,
    config: GenerationConfig,
    seed: int | None,
) -> list[Request]:
    if seed is None:
        seed = int(torch.randint(2**62, ()))
    check(
        isinstance(seed, int) and 0 <= seed < 2**64,
        f"seed is {seed!r}, must be from 0 to 2**64 - 1.",
    )
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
            processors=[PaddedProcessors(processors, index, row[:num_pad])] if processors else (),
            seed=(seed + index) % 2**64,
        )
        stop = _stop(ends.others, row) if ends.others else ()
        prompt = row[num_pad:].tolist()
        requests.append(Request(index, prompt, ends.max_new_tokens, sampling, stop))
    return requests


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


def _decode(
    model: CausalLM,
    decoder: DecoderConfig,
    requests: list[Request],
    streamer: BaseStreamer | None,
) -> dict[int, list[int]]:
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
    return answers
