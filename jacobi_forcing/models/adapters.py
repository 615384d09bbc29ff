"""LoRA adapters on disk: a folder that is a model together with the base it was trained beside."""

import json
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple

import torch
from torch import nn
from transformers import PreTrainedModel

from jacobi_forcing.errors import ConfigError, ModelError
from jacobi_forcing.models.causal_lm import CausalLM

CONFIG = "adapter_config.json"  # PEFT's
WEIGHTS = "adapter_model.safetensors"  # PEFT's
BASE = "base.json"  # ours: which base, exactly


class Base(NamedTuple):
    """What adapters belong to."""

    model: str  # by a name that it can be loaded by from any folder of this machine
    dtype: str | None  # of its weights while the adapters were trained
    weights: str | None  # their fingerprint; None where it is not known


def is_adapter(folder: Path) -> bool:
    """Tell whether a folder holds adapters instead of a whole model."""
    return (folder / CONFIG).is_file() and not (folder / "config.json").is_file()


def read_base(name: str, folder: Path) -> Base:
    """Read what adapters belong to; from PEFT's own file where others trained them."""
    try:
        if (folder / BASE).is_file():
            return Base(**json.loads((folder / BASE).read_text(encoding="utf-8")))
        peft = json.loads((folder / CONFIG).read_text(encoding="utf-8"))
        return Base(peft["base_model_name_or_path"], None, None)
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise ModelError(f"{name}: its {CONFIG} or {BASE} cannot be read: {error!r}.") from error


def merged(name: str, folder: Path, found: CausalLM) -> PreTrainedModel:
    """Merge a folder's adapters into their base.

    Args:
        name: Of the adapters, for errors.
        folder: Theirs.
        found: What now goes by the base's name, in float32; changed in place.

    Raises:
        ConfigError: PEFT is not installed.
        ModelError: This is not the base that they were trained beside, or the weights are no
            safetensors.
    """
    try:
        from peft import PeftModel
    except ImportError as error:
        raise ConfigError(
            f"{name}: holds LoRA adapters, but PEFT is not installed. Run: pip install "
            "'jacobi-forcing[lora]'"
        ) from error
    if not (folder / WEIGHTS).is_file():
        raise ModelError(f"{name}: has no {WEIGHTS}; adapters in other files are not loaded.")
    base = read_base(name, folder)
    if base.weights is not None:
        weights = found.weights_fingerprint(getattr(torch, base.dtype))
        if weights != base.weights:
            raise ModelError(
                f"{name}: these adapters were trained beside other weights than those that are now "
                f"at {base.model} ({base.weights}, found {weights}). Put that model back, or train "
                "the adapters again."
            )
    with _untied(found.network), without_peft_notices():
        return PeftModel.from_pretrained(found.network, str(folder)).merge_and_unload()


@contextmanager
def _untied(network: PreTrainedModel) -> Iterator[None]:
    """Give a tied LM head weights of its own for a while, and for good if they come to differ.

    An adapter at the embedding or at the head was trained beside the other one as it was. Merged
    into weights that both use, it would change both.
    """
    head, embedding = network.get_output_embeddings(), network.get_input_embeddings()
    is_tied = head is not None and head.weight is embedding.weight
    if is_tied:
        head.weight = nn.Parameter(head.weight.detach().clone())
    yield
    if is_tied:
        # Either may have been replaced by a module that was trained whole.
        head, embedding = network.get_output_embeddings(), network.get_input_embeddings()
        is_tied = torch.equal(head.weight, embedding.weight)
        if is_tied:
            head.weight = embedding.weight
        network.config.tie_word_embeddings = is_tied
        network.config.get_text_config().tie_word_embeddings = is_tied


@contextmanager
def without_peft_notices() -> Iterator[None]:
    """Keep notices of PEFT 0.21 from users: what they ask for is done here, or not the user's."""
    with warnings.catch_warnings():
        # A name that transformers 5.23 gives up.
        warnings.filterwarnings("ignore", message=".*is_gradient_checkpointing.*")
        # Adapters at tied weights: refused where they are made, untied where they are merged.
        warnings.filterwarnings("ignore", message=".*tie_word_embeddings.*")
        yield
