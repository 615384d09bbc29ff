"""transformers' own `generate`: autoregressive, prompt lookup, assisted by a smaller model.

Greedy, eager, one prompt at a time. The package is one of ours, so it is always there.
"""

from collections.abc import Sequence
from functools import partial
from typing import Any

import torch
from transformers import GenerationConfig, StoppingCriteria, StoppingCriteriaList
from transformers.generation.streamers import BaseStreamer

from jacobi_forcing.data.trajectories import tokenizer_fingerprint
from jacobi_forcing.decoding.compare import Run, Way
from jacobi_forcing.errors import ConfigError
from jacobi_forcing.integrations.outside.transcript import Transcript
from jacobi_forcing.models import CausalLM
from jacobi_forcing.models.attention import attention

LOOKUP_TOKENS = 10  # that prompt lookup copies at most; its generator's own default


def ways(
    model: CausalLM,
    strategies: Sequence[str],
    prompts: Sequence[Sequence[int]],
    *,
    max_new_tokens: int,
    stop: Sequence[str] = (),
    assistant: CausalLM | None = None,
) -> list[Way]:
    """Give a way to decode for every strategy: `autoregressive`, `prompt-lookup`, `assisted`.

    Forwards are those of `model`, counted where it is called, the prefill as one. An assistant's
    are not counted, but inside the seconds. The checkpoint's generation_config is set aside, in
    place: it may bring penalties, or a cache that cannot be rolled back.

    Args:
        model: What answers.
        strategies: Names.
        prompts: Token ids.
        max_new_tokens: Longest answer; it ends where the context does.
        stop: Texts that end an answer and stay in it.
        assistant: What drafts for `assisted`; see `check_assistant`.

    Raises:
        ConfigError: Prompt lookup would guess beyond the context's end.
    """
    longest = max(map(len, prompts)) + max_new_tokens
    if "prompt-lookup" in strategies and longest + LOOKUP_TOKENS > model.context_tokens:
        raise ConfigError(
            f"transformers' prompt lookup guesses up to {LOOKUP_TOKENS} tokens beyond an answer's "
            f"end, but prompts with their answers take up to {longest} tokens, and the context of "
            f"{model.name} holds {model.context_tokens}. Lower --max-new-tokens to "
            f"{max_new_tokens - longest - LOOKUP_TOKENS + model.context_tokens}."
        )
    model.network.generation_config = GenerationConfig()
    more: dict[str, dict[str, Any]] = {
        "autoregressive": {},
        "prompt-lookup": {"prompt_lookup_num_tokens": LOOKUP_TOKENS},
        "assisted": {"assistant_model": assistant.network} if assistant else {},
    }

    def run(strategy: str, group: range) -> list[Run]:
        (index,) = group
        prompt = prompts[index]
        limit = min(max_new_tokens, model.context_tokens - len(prompt))
        return [_answer(model, prompt, limit, stop, more[strategy])]

    return [partial(run, strategy) for strategy in strategies]


def check_assistant(model: CausalLM, assistant: CausalLM, longest_tokens: int) -> None:
    """Raise ConfigError where one cannot draft for the other.

    Args:
        model: What answers.
        assistant: What drafts.
        longest_tokens: Of all prompts with their answers.
    """
    name = f"--assistant {assistant.name}"
    if tokenizer_fingerprint(assistant.tokenizer) != tokenizer_fingerprint(model.tokenizer):
        raise ConfigError(
            f"{name} has another tokenizer than {model.name}, so its drafts are other ids. Name a "
            "model with the same one."
        )
    ours, theirs = model.config.vocab_size, assistant.config.vocab_size
    if ours != theirs:  # transformers would turn drafts into text and back
        raise ConfigError(
            f"{name} embeds {theirs} ids and {model.name} {ours}, and transformers assists by ids "
            "only where these are as many. Name a model padded alike."
        )
    if assistant.context_tokens < min(longest_tokens, model.context_tokens):
        raise ConfigError(
            f"{name} has a context of {assistant.context_tokens} tokens, but prompts with their "
            f"answers take up to {longest_tokens}. Name another, or lower --max-new-tokens."
        )


def generated(
    model: CausalLM, prompt: Sequence[int], max_new_tokens: int, **more: Any
) -> list[int]:
    """Continue a prompt greedily as transformers does, with its own attention.

    Args:
        model: What answers.
        prompt: Token ids.
        max_new_tokens: Longest answer.
        **more: Arguments of `generate`.

    Returns:
        The answer's ids, the EOS included where there is one.
    """
    network = model.network
    ids = torch.tensor([prompt], device=model.device)  # [1, P]
    with attention(network, "sdpa"):  # where `load_model` has set ours
        # By its class: a checkpoint that brings our custom_generate may have replaced the method.
        found = type(network).generate(
            network,
            ids,
            attention_mask=torch.ones_like(ids),
            do_sample=False,
            max_new_tokens=max_new_tokens,
            eos_token_id=sorted(model.eos_ids),
            pad_token_id=model.pad_id,
            **more,
        )
    return found[0, len(prompt) :].tolist()


def _answer(
    model: CausalLM,
    prompt: Sequence[int],
    max_new_tokens: int,
    stop: Sequence[str],
    more: dict[str, Any],
) -> Run:
    """Decode one prompt; `more` are arguments of `generate`."""
    transcript, num_forwards = Transcript(model, stop), 0

    def count(*_: Any) -> None:
        nonlocal num_forwards
        num_forwards += 1

    hook = model.network.register_forward_hook(count)
    try:
        generated(
            model,
            prompt,
            max_new_tokens,
            streamer=_Listener(transcript),
            stopping_criteria=StoppingCriteriaList([_IsDone(transcript)] if stop else []),
            **more,
        )
    finally:
        hook.remove()
    transcript.close()
    run = transcript.run
    # On some devices generate runs one forward beyond the end and takes it back.
    run.settled += [0] * (num_forwards - len(run.settled))
    run.all_seconds = run.seconds
    return run


class _Listener(BaseStreamer):
    """Passes on what every forward settled."""

    def __init__(self, transcript: Transcript):
        self.transcript = transcript
        self._is_prompt = True  # comes first

    def put(self, value: torch.Tensor) -> None:
        """Take ids, [1, tokens] or [1]."""
        if not self._is_prompt:
            self.transcript.hear(value.flatten().tolist())
        self._is_prompt = False

    def end(self) -> None:
        """Nothing is held back."""


class _IsDone(StoppingCriteria):
    """Ends an answer that has met a stop text."""

    def __init__(self, transcript: Transcript):
        self.transcript = transcript

    def __call__(self, input_ids: torch.Tensor, scores: Any, **_: Any) -> torch.Tensor:
        """Give [1] booleans."""
        return torch.tensor([self.transcript.is_done], device=input_ids.device)
