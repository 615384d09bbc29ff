"""Load a causal LM and its tokenizer from a directory, a hub id, or a bundled name."""

import hashlib
import inspect
from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from transformers import (
    AutoConfig,
    AutoModelForCausalLM,
    AutoTokenizer,
    PreTrainedModel,
    PreTrainedTokenizerBase,
    PreTrainedTokenizerFast,
)
from transformers.models.auto.tokenization_auto import get_tokenizer_config

from jacobi_forcing.errors import ConfigError, ModelError

BUNDLED = {
    name: Path(__file__).parent.parent / "bundled" / name for name in ("tiny-base", "tiny-forced")
}
_AS_IN_TOKENIZER_JSON = ("TokenizersBackend", "PreTrainedTokenizerFast")
_NEEDED = (
    "Needed is a folder with config.json, a tokenizer and model.safetensors, a hub id, tiny-base "
    "or tiny-forced."
)


@dataclass(frozen=True)
class CausalLM:
    """A loaded model and the facts that decoding and training need about it."""

    name: str
    network: PreTrainedModel
    tokenizer: PreTrainedTokenizerBase | None  # None where a caller brings a bare network
    eos_ids: frozenset[int]
    pad_id: int

    @property
    def config(self):
        """The model's Hugging Face configuration."""
        return self.network.config

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
        """Longest sequence the model has positions for."""
        return getattr(self.config, "max_position_embeddings", None) or 1 << 30

    def weights_fingerprint(self) -> str:
        """Hash some of every weight: any training changes it, and it is quick for any size."""
        digest = hashlib.sha256()
        for name, weight in self.network.named_parameters():
            some = weight.detach().flatten()[-64:].float().cpu()
            digest.update(name.encode() + some.numpy().tobytes())
        return digest.hexdigest()[:16]

    @cached_property
    def _keeps_logits(self) -> bool:
        return "logits_to_keep" in inspect.signature(self.network.forward).parameters

    def logits(self, *, num_outputs: int, **inputs) -> Tensor:
        """Run the public forward; return [B, num_outputs, V] logits of the last positions."""
        if self._keeps_logits:
            return self.network(**inputs, logits_to_keep=num_outputs).logits
        return self.network(**inputs).logits[:, -num_outputs:]


def load_model(
    name: str,
    *,
    device: str = "auto",
    dtype: str = "auto",
    trust_remote_code: bool = False,
) -> CausalLM:
    """Load a causal LM that Jacobi decoding can run exactly.

    Args:
        name: Directory, hub id, `tiny-base` or `tiny-forced`.
        device: `cpu`, `cuda`, ... or `auto` for a GPU where there is one.
        dtype: `float32`, `bfloat16`, `float16`, or `auto`: the checkpoint's own on a GPU, float32
            on a CPU.
        trust_remote_code: Run model code from the checkpoint; off unless asked for.

    Raises:
        ModelError: Nothing readable is there, weights are missing, the model has no end-of-sequence
            token, or its state cannot be rolled back (state-space and linear-attention models).
        ConfigError: No such device.
    """
    path = str(BUNDLED.get(name, name))
    if Path(path).is_dir() or name.startswith(("/", ".", "~")) or path.count("/") > 1:
        _check_folder(name, Path(path))
    device = _usable_device(device)
    if dtype == "auto" and device == "cpu":
        dtype = "float32"
    options = {"trust_remote_code": trust_remote_code}
    config = _read(name, lambda: AutoConfig.from_pretrained(path, **options))
    _refuse_recurrent(name, config)
    tokenizer = _read(name, lambda: _load_tokenizer(path, options))
    network, found = _read(
        name,
        lambda: AutoModelForCausalLM.from_pretrained(
            path,
            dtype=dtype,
            use_safetensors=True,  # a pickled checkpoint can run code when it is opened
            output_loading_info=True,
            ignore_mismatched_sizes=True,  # they are refused below, by name
            **options,
        ),
    )
    lost = sorted(found["missing_keys"]) + [key for key, *_ in found["mismatched_keys"]]
    if lost:
        raise ModelError(
            f"{name}: {len(lost)} weights are missing or not of the shape that config.json asks "
            f"for, {lost[0]} among them; they would be random. Get the checkpoint again."
        )
    return wrap(name, network.to(device).eval(), tokenizer)


def wrap(name: str, network: PreTrainedModel, tokenizer: PreTrainedTokenizerBase) -> CausalLM:
    """Describe a network that is already in memory; raises ModelError like `load_model`."""
    refuse_stateful(name, network)
    eos_ids = _eos_ids(network, tokenizer)
    if not eos_ids:
        raise ModelError(
            f"{name}: neither the tokenizer nor generation_config.json names an end-of-sequence "
            "token, so decoding would not know where to stop. Set eos_token in "
            "tokenizer_config.json."
        )
    pad_id = tokenizer.pad_token_id
    return CausalLM(
        name=name,
        network=network,
        tokenizer=tokenizer,
        eos_ids=eos_ids,
        pad_id=min(eos_ids) if pad_id is None else pad_id,
    )


def refuse_stateful(name: str, network: PreTrainedModel) -> None:
    """Raise ModelError for a network whose state cannot be rolled back."""
    _refuse_recurrent(name, network.config)
    if getattr(network, "_is_stateful", False):
        raise ModelError(_cannot_roll_back(name, network.config.model_type))


def _load_tokenizer(path: str, options: dict[str, Any]) -> PreTrainedTokenizerBase:
    """Load the tokenizer that the checkpoint declares.

    For some families, qwen2 among them, AutoTokenizer takes the family's own class whatever is
    declared, and splits text otherwise than tokenizer.json says; without that file it makes an
    empty tokenizer. Both would pass without a word.
    """
    declared = get_tokenizer_config(path).get("tokenizer_class")
    loader = PreTrainedTokenizerFast if declared in _AS_IN_TOKENIZER_JSON else AutoTokenizer
    tokenizer = loader.from_pretrained(path, **options)
    if not tokenizer.encode("a", add_special_tokens=False):
        raise ValueError("its tokenizer is empty; tokenizer.json is missing or broken")
    return tokenizer


def _check_folder(name: str, folder: Path) -> None:
    if not (folder / "config.json").is_file():
        found = "a folder without config.json" if folder.is_dir() else "no such folder"
        raise ModelError(f"{name}: {found}. {_NEEDED}")


def _usable_device(device: str) -> str:
    if device == "auto":
        return "cuda" if torch.cuda.is_available() else "cpu"
    try:
        torch.empty(1, device=device)
    except (RuntimeError, AssertionError) as error:  # AssertionError where PyTorch has no CUDA
        reason = str(error).partition("\n")[0]
        raise ConfigError(f"--device is {device!r}, which cannot be used: {reason}") from error
    return device


def _read(name: str, load: Callable[[], Any]) -> Any:
    try:
        return load()
    except Exception as error:  # broken files surface as many kinds, deep inside transformers
        reason = " ".join(str(error).split())[:300].rstrip(".")
        raise ModelError(
            f"{name}: cannot load this as a causal language model: {reason}. {_NEEDED}"
        ) from error


def _refuse_recurrent(name: str, config) -> None:
    recurrent = {"linear_attention", "mamba", "recurrent", "conv", "lightning_attention"}
    found = recurrent.intersection(getattr(config, "layer_types", None) or ())
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
