"""A model's architecture without its weights: of full size but empty, or small and random."""

import json
from pathlib import Path
from typing import NamedTuple

import torch
from huggingface_hub import try_to_load_from_cache
from tokenizers import Tokenizer, decoders, models, pre_tokenizers
from transformers import (
    AutoConfig,
    AutoModelForCausalLM,
    PretrainedConfig,
    PreTrainedModel,
    PreTrainedTokenizerBase,
    PreTrainedTokenizerFast,
)

from jacobi_forcing.errors import ModelError
from jacobi_forcing.models import adapters
from jacobi_forcing.models.causal_lm import refuse_by_config
from jacobi_forcing.models.loading import BUNDLED, load_tokenizer
from jacobi_forcing.models.saving import save_network, save_tokenizer
from jacobi_forcing.models.small import small

# Renders messages where the tokenizer, and with it the model's own template, is missing.
_TEMPLATE = "{% for m in messages %}{{ m.role }}: {{ m.content }}\n{% endfor %}assistant: "


class Architecture(NamedTuple):
    """What is known of a model without its weights."""

    config: PretrainedConfig
    source: str  # where the configuration was found
    tokenizer: PreTrainedTokenizerBase
    has_own_tokenizer: bool


def find_architecture(name: str, beside: Path) -> Architecture:
    """Find a model's configuration and tokenizer without asking the network.

    Args:
        name: Directory, hub id, `tiny-base` or `tiny-forced`.
        beside: A folder that may hold the configuration of a model that is not here, as
            `config.json`.

    Raises:
        ModelError: There is no configuration, or one that cannot be used.
    """
    folder = _local_folder(name)
    config_folder = folder or beside
    if not (config_folder / "config.json").is_file():
        raise ModelError(
            f"{name}: neither a folder here nor in the hub's cache, and {beside} has no "
            "config.json with its architecture. Download it, or put its config.json there."
        )
    try:
        config = AutoConfig.from_pretrained(str(config_folder))
    except (OSError, ValueError, KeyError) as error:
        raise ModelError(f"{config_folder}/config.json: cannot be read: {error}") from error
    refuse_by_config(name, config)
    if folder is not None:
        return Architecture(config, str(folder), load_tokenizer(str(folder)), True)
    return Architecture(config, f"{beside}/config.json", byte_tokenizer(config), False)


def _local_folder(name: str) -> Path | None:
    """Give the folder that a name stands for, if it is on this machine."""
    path = Path(BUNDLED.get(name, name))
    if path.is_dir():
        is_adapter = adapters.is_adapter(path)
        return _local_folder(adapters.read_base(name, path).model) if is_adapter else path
    cached = try_to_load_from_cache(name, "config.json") if name.count("/") == 1 else None
    return Path(cached).parent if isinstance(cached, str) else None


def byte_tokenizer(config: PretrainedConfig) -> PreTrainedTokenizerFast:
    """Make a stand-in for a tokenizer that is missing: a token per byte, ids from 0 to 255.

    EOS and pad are behind them; the model's own ids for these stay out of reach.
    """
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    ids = {token: number for number, token in enumerate([*alphabet, "<eos>", "<pad>"])}
    if config.get_text_config().vocab_size < len(ids):
        raise ModelError(f"a vocabulary of {config.vocab_size} is too small for a token per byte.")
    backend = Tokenizer(models.BPE(vocab=ids, merges=[]))
    backend.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    backend.decoder = decoders.ByteLevel()
    return PreTrainedTokenizerFast(
        tokenizer_object=backend, eos_token="<eos>", pad_token="<pad>", chat_template=_TEMPLATE
    )


def empty_network(config: PretrainedConfig, dtype: torch.dtype) -> PreTrainedModel:
    """Make the network in its full size on the meta device: shapes, and no memory."""
    with torch.device("meta"):
        return AutoModelForCausalLM.from_config(config, dtype=dtype)


def save_small(found: Architecture, folder: Path, seed: int) -> None:
    """Save a small random model of the architecture, with its tokenizer, as a model's folder.

    Raises:
        ModelError: The family cannot be built that small.
    """
    config = small(found.config)
    if not found.has_own_tokenizer:
        config.eos_token_id = found.tokenizer.eos_token_id
        config.pad_token_id = found.tokenizer.pad_token_id
    torch.manual_seed(seed)
    try:
        network = AutoModelForCausalLM.from_config(config, dtype=torch.float32)
    except (ValueError, RuntimeError, TypeError, KeyError) as error:
        raise ModelError(f"{config.model_type}: cannot be made small: {error}") from error
    save_network(network, folder)
    save_tokenizer(found.tokenizer, folder)
    # What these say goes before what was saved so far, and names ids of the real tokenizer.
    (folder / "generation_config.json").write_text(json.dumps({"eos_token_id": _eos(config)}))


def _eos(config: PretrainedConfig) -> int | list[int]:
    return config.get_text_config().eos_token_id
