"""A loaded causal LM, and the facts that decoding and training need about it."""

import hashlib
import inspect
import logging
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

import torch
from torch import Tensor
from transformers import GenerationConfig, PreTrainedModel, PreTrainedTokenizerBase

from jacobi_forcing.errors import ModelError
from jacobi_forcing.models.attention import choose_kernels
from jacobi_forcing.models.tuning import Tuning, find_tuning

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class CausalLM:
    """A loaded model and the facts that decoding and training need about it."""

    name: str
    network: PreTrainedModel
    tokenizer: PreTrainedTokenizerBase | None  # None where a caller brings a bare network
    eos_ids: frozenset[int]
    pad_id: int
    step: Any = None  # its compiled decoding step (`models.compiled`), where it was asked for
    float_fingerprint: str = ""  # of the weights before they were quantized, where they were
    exact: Any = None  # shapes of forwards that give the same bits (`models.exact`), if asked for

    def __post_init__(self) -> None:
        choose_kernels(self.device)

    @property
    def config(self):
        """The model's Hugging Face configuration; of a multimodal one, that of its text part."""
        return self.network.config.get_text_config()

    @property
    def generation_config(self) -> GenerationConfig:
        """What `generate` does without arguments; empty where the network has none."""
        return getattr(self.network, "generation_config", None) or GenerationConfig()

    @property
    def device(self) -> torch.device:
        """Where the weights are."""
        return self.network.device

    @property
    def dtype(self) -> torch.dtype:
        """The weights' floating-point type."""
        return self.network.dtype

    @cached_property
    def chat_eos_ids(self) -> frozenset[int]:
        """The ids that end an answer in a chat: `eos_ids`, and all that a chat may end with.

        These are the EOS of the tokenizer, of generation_config.json and of config.json, and the
        special token that ends an assistant's turn in the chat template. Raw prompts end as in
        `model.generate`, at `eos_ids`.
        """
        if self.tokenizer is None:
            return self.eos_ids
        turn_end = _turn_end(self.tokenizer)
        named = [
            *(_ids(source) for source in _eos_sources(self.network, self.tokenizer)),
            frozenset([] if turn_end is None else [turn_end]),
        ]
        return self.eos_ids.union(*named)

    def for_chat(self) -> "CausalLM":
        """Return the same model, with answers that end at any of `chat_eos_ids`."""
        if self.eos_ids == self.chat_eos_ids:
            return self
        return replace(self, eos_ids=self.chat_eos_ids)

    @cached_property
    def vocab_tokens(self) -> int:
        """Number of real tokens: embeddings may be padded beyond the tokenizer's vocabulary."""
        if self.tokenizer is None:
            return self.config.vocab_size
        return min(len(self.tokenizer), self.config.vocab_size)

    @property
    def context_tokens(self) -> int:
        """Longest sequence the model has positions for.

        Some rotary embeddings change all positions' angles once any position is beyond the length
        of their pretraining: a draft, or another row, could change what is settled already. Such
        models are decoded up to that length, where they do not.
        """
        positions = getattr(self.config, "max_position_embeddings", None) or 1 << 30
        rope = getattr(self.config, "rope_parameters", None) or {}
        for part in [rope, *rope.values()]:
            if isinstance(part, dict) and part.get("rope_type") in ("longrope", "dynamic"):
                before = part.get("original_max_position_embeddings") or positions
                before = getattr(self.config, "original_max_position_embeddings", None) or before
                positions = min(positions, before)
        return positions

    @cached_property
    def tuning(self) -> Tuning | None:
        """What `jacobi tune` found for this model, where it fits this machine; looked up once."""
        return find_tuning(self)

    def weights_fingerprint(self, dtype: torch.dtype | None = None) -> str:
        """Hash some of every weight: any training changes it, and it is quick for any size.

        `dtype` rounds them first, as they would be if they had been loaded in that type. Quantized
        weights have the hash of those that they were made of.
        """
        if self.float_fingerprint:
            return self.float_fingerprint
        digest = hashlib.sha256()
        for name, weight in self.network.named_parameters():
            some = weight.detach().flatten()[-64:].to(dtype or weight.dtype).float().cpu()
            digest.update(name.encode() + some.numpy().tobytes())
        return digest.hexdigest()[:16]

    @cached_property
    def keeps_logits(self) -> bool:
        """Whether its forward leaves out the logits that nobody asks for."""
        return "logits_to_keep" in inspect.signature(self.network.forward).parameters

    def logits(self, *, num_outputs: int, **inputs) -> Tensor:
        """Run the public forward; return [B, num_outputs, V] logits of the last positions."""
        if self.keeps_logits:
            return self.network(**inputs, logits_to_keep=num_outputs).logits
        return self.network(**inputs).logits[:, -num_outputs:]


def wrap(name: str, network: PreTrainedModel, tokenizer: PreTrainedTokenizerBase) -> CausalLM:
    """Describe a network that is already in memory; raises ModelError like `load_model`."""
    refuse_unsupported(name, network)
    eos_ids = _eos_ids(network, tokenizer)
    if not eos_ids:
        raise ModelError(
            f"{name}: neither the tokenizer nor generation_config.json names an end-of-sequence "
            "token, so decoding would not know where to stop. Set eos_token in "
            "tokenizer_config.json."
        )
    pad_id = tokenizer.pad_token_id
    if pad_id is not None and not 0 <= pad_id < len(network.get_input_embeddings().weight):
        pad_id = None  # nothing ever sees padding, but it must have an embedding
    model = CausalLM(
        name=name,
        network=network,
        tokenizer=tokenizer,
        eos_ids=eos_ids,
        pad_id=min(eos_ids) if pad_id is None else pad_id,
    )
    _report_chat_ends(model)
    return model


def refuse_training(name: str, network: PreTrainedModel) -> None:
    """Raise ModelError where a network, or a part of it, is in training mode."""
    if not isinstance(network, PreTrainedModel):  # a wrapper of ours switches modes itself
        return
    part = next((part for part, module in network.named_modules() if module.training), None)
    if part is None:
        return
    checkpoints = any(getattr(m, "gradient_checkpointing", False) for m in network.modules())
    reason = "with gradient checkpointing" if checkpoints else "where dropout is active"
    raise ModelError(
        f"{name}: {f'its module {part}' if part else 'the model'} is in training mode, {reason}, "
        "so it cannot be decoded. Call model.eval() first."
    )


def refuse_unsupported(name: str, network: PreTrainedModel) -> None:
    """Raise ModelError where a bare network cannot be decoded.

    That is in training mode, where its state cannot be rolled back, or where its attention takes no
    masks of ours.
    """
    refuse_training(name, network)
    attention = str(network.config._attn_implementation)
    if attention.startswith(("flex", "flash", "paged")):  # flex_attention breaks the process
        raise ModelError(
            f"{name}: attends with {attention}, which takes no masks of other shapes. Load it with "
            "attn_implementation='sdpa'."
        )
    refuse_by_config(name, network.config)
    if getattr(network, "_is_stateful", False):
        raise ModelError(_cannot_roll_back(name, network.config.model_type))


def refuse_by_config(name: str, config) -> None:
    """Raise ModelError for a configuration with a running state, or attention in chunks."""
    recurrent = {"linear_attention", "mamba", "recurrent", "conv", "lightning_attention"}
    config = config.get_text_config()
    types = getattr(config, "layer_types", None) or ()
    if "chunked_attention" in types:
        raise ModelError(
            f"{name}: {config.model_type} attends in chunks, which our masks do not know. This "
            "family is not supported."
        )
    found = recurrent.intersection(types)
    state_space = ("mamba", "rwkv", "jamba", "zamba", "bamba", "recurrent_gemma", "xlstm", "lfm2")
    if found or config.model_type.startswith(state_space):
        raise ModelError(_cannot_roll_back(name, config.model_type))


def _cannot_roll_back(name: str, family: str) -> str:
    return (
        f"{name}: {family} keeps a running state that cannot be rolled back, so rejected draft "
        "tokens would stay in it. Use a model whose layers are all attention."
    )


def _eos_ids(network: PreTrainedModel, tokenizer: PreTrainedTokenizerBase) -> frozenset[int]:
    """The ids that end `model.generate`, in the order transformers looks for them."""
    for source in _eos_sources(network, tokenizer):
        ids = _ids(source)
        if ids:
            return ids
    return frozenset()


def _eos_sources(network: PreTrainedModel, tokenizer: PreTrainedTokenizerBase) -> tuple:
    """List what may name an EOS, in the order transformers looks for one."""
    configs = (network.config, network.config.get_text_config())
    return (getattr(network, "generation_config", None), *configs, tokenizer)


def _ids(source: Any) -> frozenset[int]:
    """Read the EOS ids that a configuration or a tokenizer names."""
    ids = getattr(source, "eos_token_id", None)
    if ids is None:
        return frozenset()
    return frozenset(torch.as_tensor(ids).flatten().tolist())


def _turn_end(tokenizer: PreTrainedTokenizerBase) -> int | None:
    """Find the special token that directly follows an assistant's turn in the chat template."""
    if tokenizer.chat_template is None:
        return None
    said = "Xyzzy"
    for form in (said, [{"type": "text", "text": said}]):  # templates read one or the other
        turns = [{"role": "user", "content": form}, {"role": "assistant", "content": form}]
        try:
            _, found, rest = tokenizer.apply_chat_template(turns, tokenize=False).rpartition(said)
        except Exception:  # whatever a template makes of what it does not expect
            continue
        if found:
            return _special_at_start(tokenizer, rest.lstrip())
    return None


def _special_at_start(tokenizer: PreTrainedTokenizerBase, text: str) -> int | None:
    """Return the id of the longest special token that a text begins with."""
    special = {
        str(token): token_id
        for token_id, token in tokenizer.added_tokens_decoder.items()
        if token.special
    }
    special |= dict(zip(tokenizer.all_special_tokens, tokenizer.all_special_ids, strict=True))
    names = sorted(filter(text.startswith, special), key=len)
    return special[names[-1]] if names else None


def _report_chat_ends(model: CausalLM) -> None:
    """Log where chats end at more tokens than raw prompts do."""
    if model.tokenizer.chat_template is None or model.chat_eos_ids == model.eos_ids:
        return
    more = model.chat_eos_ids - model.eos_ids
    raw, chat = (
        ", ".join(f"{name} ({i})" for i, name in zip(ids, _names(model, ids), strict=True))
        for ids in (sorted(model.eos_ids), sorted(more))
    )
    logger.info(
        "%s: generate ends at %s, but its tokenizer, config.json or chat template ends a turn with "
        "%s too. Chats end at any of them, raw prompts at the former only.",
        model.name,
        raw,
        chat,
    )


def _names(model: CausalLM, ids: list[int]) -> list[str]:
    return [str(name) for name in model.tokenizer.convert_ids_to_tokens(ids)]
