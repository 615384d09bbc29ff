"""Load a causal LM and its tokenizer from a directory, a hub id, or a bundled name."""

import dataclasses
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from transformers import (
    AutoConfig,
    AutoModelForCausalLM,
    AutoTokenizer,
    PretrainedConfig,
    PreTrainedTokenizerBase,
    PreTrainedTokenizerFast,
)
from transformers.models.auto.tokenization_auto import get_tokenizer_config

from jacobi_forcing.config import check
from jacobi_forcing.errors import ConfigError, JacobiForcingError, ModelError
from jacobi_forcing.models import adapters
from jacobi_forcing.models.attention import group_heads
from jacobi_forcing.models.bundled import BUNDLED
from jacobi_forcing.models.causal_lm import CausalLM, refuse_by_config, wrap
from jacobi_forcing.models.compiled import CompiledStep
from jacobi_forcing.models.probe import find_shapes_once, probe_once
from jacobi_forcing.models.quantized import WEIGHT_ONLY, check_kind, loading_options, quantized

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
    quantize: str = "",
    compile: bool = False,
    exact: bool = False,
) -> CausalLM:
    """Load a causal LM that Jacobi decoding can run exactly.

    Args:
        name: Directory, hub id, `tiny-base` or `tiny-forced`. A directory with LoRA adapters is
            loaded with its base, and they are merged into it.
        device: `cpu`, `cuda`, ... or `auto` for a GPU where there is one.
        dtype: `float32`, `bfloat16`, `float16`, or `auto`: the checkpoint's own on a GPU, float32
            on a CPU.
        trust_remote_code: Run model code from the checkpoint; off unless asked for.
        probed: Check with a few forwards that drafts change nothing but rounding (`models.probe`),
            unless these weights passed before.
        quantize: Numbers that linear layers hold (`models.quantized`): `int8` or `int4` to decode
            with, `nf4` for adapters to be trained beside them.
        compile: Compile the decoding step when it is first run: that takes from half a minute on,
            and every step is faster. A model that does not compile decodes eager, and a log line
            says why.
        exact: Run all forwards in fixed shapes, so that every decoder gives the same ids in any
            dtype, alone or in any batch (`models.exact`). AR then costs as much as 16 guesses.

    Raises:
        ModelError: Nothing readable is there, weights are missing, the model has no end-of-sequence
            token, its state cannot be rolled back (state-space and linear-attention models), the
            probe finds other logits, fixed shapes do not give fixed bits (`exact`), or adapters
            belong to another base.
        ConfigError: No such device, a package is missing that adapters or `quantize` need, or the
            model has layers that `quantize` is not for.
    """
    check_kind(quantize)
    path = _path(name)
    device = _usable_device(device)
    if dtype == "auto" and device == "cpu":
        dtype = "float32"
    options = {"trust_remote_code": trust_remote_code}
    first = "cpu" if quantize in WEIGHT_ONLY else device  # a GPU need not hold the weights whole
    if adapters.is_adapter(Path(path)):
        check(quantize != "nf4", f"{name}: holds adapters; train beside their base, or merge them.")
        model = _load_adapted(name, Path(path), dtype, first, options)
    else:
        model = _load_whole(name, path, dtype, first, options | loading_options(quantize, device))
    if quantize in WEIGHT_ONLY:
        model = quantized(model, quantize, device)
    group_heads(model.network)
    if probed:
        probe_once(model)
    if exact:
        check(not compile, "--exact runs eager forwards of one shape: leave --compile out.")
        return dataclasses.replace(model, exact=find_shapes_once(model))
    return dataclasses.replace(model, step=CompiledStep(model)) if compile else model


def _load_whole(name: str, path: str, dtype: str, device: str, options: dict[str, Any]) -> CausalLM:
    remote = {"trust_remote_code": options["trust_remote_code"]}
    config = _read(name, lambda: AutoConfig.from_pretrained(path, **remote))
    refuse_by_config(name, config)
    _drop_pad_without_embedding(config)
    tokenizer = _read(name, lambda: _load_tokenizer(path, remote))
    network, found = _read(
        name,
        lambda: AutoModelForCausalLM.from_pretrained(
            path,
            config=config,
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
    if "quantization_config" not in options:
        network.to(device)
    return wrap(name, network.eval(), tokenizer)


def _load_adapted(
    name: str, folder: Path, dtype: str, device: str, options: dict[str, Any]
) -> CausalLM:
    """Load adapters' base in float32, where merging loses nothing, and merge them into it."""
    path = adapters.read_base(name, folder).model
    try:
        base = load_model(path, device="cpu", dtype="float32", probed=False, **options)
    except ModelError as error:
        raise ModelError(f"{name}: the base of these adapters: {error}") from error
    network = _read(name, lambda: adapters.merged(name, folder, base))
    wanted = own_dtype(path) if dtype == "auto" else getattr(torch, dtype)
    has_tokenizer = (folder / "tokenizer.json").is_file()
    tokenizer = _load_tokenizer(str(folder), options) if has_tokenizer else base.tokenizer
    return wrap(name, network.to(device, wanted).eval(), tokenizer)


def _drop_pad_without_embedding(config: PretrainedConfig) -> None:
    """Leave out a pad token that has no embedding: nothing sees it, but transformers would fail."""
    text = config.get_text_config()
    pad_id = getattr(text, "pad_token_id", None)
    if pad_id is not None and not 0 <= pad_id < (getattr(text, "vocab_size", None) or pad_id + 1):
        text.pad_token_id = None


def own_dtype(name: str) -> torch.dtype:
    """Give the type in which a checkpoint is stored; of adapters, the one of their base."""
    path = Path(BUNDLED.get(name, name))
    if adapters.is_adapter(path):
        return own_dtype(adapters.read_base(name, path).model)
    return AutoConfig.from_pretrained(str(path)).dtype or torch.float32


def load_tokenizer(name: str) -> PreTrainedTokenizerBase:
    """Load a model's tokenizer without its weights; raises ModelError where there is none."""
    path = _path(name)
    return _read(name, lambda: _load_tokenizer(path, {}))


def _path(name: str) -> str:
    """Give the folder or hub id that a name stands for; refuse what is no model's folder."""
    path = str(BUNDLED.get(name, name))
    beside_one = "/" in path and Path(path.partition("/")[0]).is_dir()  # a file name, misspelt
    if Path(path).is_dir() or name.startswith(("/", ".", "~")) or path.count("/") > 1 or beside_one:
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
    if not adapters.is_adapter(folder) and not (folder / "config.json").is_file():
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
    except JacobiForcingError:
        raise
    except Exception as error:  # broken files surface as many kinds, deep inside transformers
        reason = " ".join(str(error).split())[:300].rstrip(".")
        raise ModelError(
            f"{name}: cannot load this as a causal language model: {reason}. {_NEEDED}"
        ) from error
