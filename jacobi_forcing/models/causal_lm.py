"""A loaded causal LM, and the facts that decoding and training need about it."""

import hashlib
import inspect
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import torch
from torch import Tensor
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from jacobi_forcing.errors import ModelError
from jacobi_forcing.models.attention import choose_kernels
from jacobi_forcing.models.tuning import Tuning, find_tuning


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
    def device(self) -> torch.device:
        """Where the weights are."""
        return self.network.device

    @property
    def dtype(self) -> torch.dtype:
        """The weights' floating-point type."""
        return self.network.dtype

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
    if pad_id is not None and not 0 <= pad_id < network.get_input_embeddings().num_embeddings:
        pad_id = None  # nothing ever sees padding, but it must have an embedding
    return CausalLM(
        name=name,
        network=network,
        tokenizer=tokenizer,
        eos_ids=eos_ids,
        pad_id=min(eos_ids) if pad_id is None else pad_id,
    )


def refuse_unsupported(name: str, network: PreTrainedModel) -> None:
    """Raise ModelError where state cannot be rolled back, or attention takes no masks of ours."""
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
    for source in (getattr(network, "generation_config", None), network.config, tokenizer):
        ids = getattr(source, "eos_token_id", None)
        if ids is not None:
            return frozenset([ids] if isinstance(ids, int) else ids)
    return frozenset()
