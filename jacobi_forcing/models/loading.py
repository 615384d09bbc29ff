"""Load a causal LM and its tokenizer from a directory, a hub id, or a bundled name."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from transformers import (
    AutoConfig,
    AutoModelForCausalLM,
    AutoTokenizer,
    PreTrainedTokenizerBase,
    PreTrainedTokenizerFast,
)
from transformers.models.auto.tokenization_auto import get_tokenizer_config

from jacobi_forcing.errors import ConfigError, ModelError
from jacobi_forcing.models.causal_lm import CausalLM, refuse_by_config, wrap
from jacobi_forcing.models.probe import probe

BUNDLED = {
    name: Path(__file__).parent.parent / "bundled" / name for name in ("tiny-base", "tiny-forced")
}
_AS_IN_TOKENIZER_JSON = ("TokenizersBackend", "PreTrainedTokenizerFast")
_NEEDED = (
    "Needed is a folder with config.json, a tokenizer and model.safetensors, a hub id, tiny-base "
    "or tiny-forced."
)


def load_model(
    name: str,
    *,
    device: str = "auto",
    dtype: str = "auto",
    trust_remote_code: bool = False,
    probed: bool = True,
) -> CausalLM:
    """Load a causal LM that Jacobi decoding can run exactly.

    Args:
        name: Directory, hub id, `tiny-base` or `tiny-forced`.
        device: `cpu`, `cuda`, ... or `auto` for a GPU where there is one.
        dtype: `float32`, `bfloat16`, `float16`, or `auto`: the checkpoint's own on a GPU, float32
            on a CPU.
        trust_remote_code: Run model code from the checkpoint; off unless asked for.
        probed: Check with a few forwards that drafts change nothing (`models.probe`). They are
            longer than the model's attention window: seconds for a large model on a CPU.

    Raises:
        ModelError: Nothing readable is there, weights are missing, the model has no end-of-sequence
            token, its state cannot be rolled back (state-space and linear-attention models), or
            the probe finds other logits.
        ConfigError: No such device.
    """
    path = _path(name)
    device = _usable_device(device)
    if dtype == "auto" and device == "cpu":
        dtype = "float32"
    options = {"trust_remote_code": trust_remote_code}
    config = _read(name, lambda: AutoConfig.from_pretrained(path, **options))
    refuse_by_config(name, config)
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
    model = wrap(name, network.to(device).eval(), tokenizer)
    if probed:
        probe(model)
    return model


def load_tokenizer(name: str) -> PreTrainedTokenizerBase:
    """Load a model's tokenizer without its weights; raises ModelError where there is none."""
    path = _path(name)
    return _read(name, lambda: _load_tokenizer(path, {}))


def _path(name: str) -> str:
    """Give the folder or hub id that a name stands for; refuse what is no model's folder."""
    path = str(BUNDLED.get(name, name))
    if Path(path).is_dir() or name.startswith(("/", ".", "~")) or path.count("/") > 1:
        _check_folder(name, Path(path))
    return path


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
        torch.empty(1, device=device).tolist()  # of which `meta` is not capable
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
