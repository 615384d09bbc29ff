"""What a training step needs memory for, and what to lower when there is not enough."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import NamedTuple

import torch
from torch import nn

from jacobi_forcing.config import TrainConfig
from jacobi_forcing.errors import ConfigError

_GIB = 2**30
_LAYER_VALUES = 34  # values kept per token and hidden unit of a layer without checkpointing


class Estimate(NamedTuple):
    """Bytes of one process without sharding; rough, the larger parts only."""

    weights: int
    gradients: int
    optimizer: int
    activations: int
    masks: int
    logits: int

    @property
    def total(self) -> int:
        """All of it."""
        return sum(self)

    def __str__(self) -> str:
        parts = (f"{name} {size / _GIB:.2g}" for name, size in self._asdict().items())
        return f"{', '.join(parts)} GiB"


def estimate(
    network: nn.Module, config: TrainConfig, longest: int, num_processes: int = 1
) -> Estimate:
    """Estimate a step's memory.

    Args:
        network: What is trained, adapters included.
        config: Its training.
        longest: Tokens of the longest sequence.
        num_processes: They share a batch.
    """
    shape = network.config.get_text_config()
    trained = [p for p in network.parameters() if p.requires_grad]
    rows = config.batch_size // num_processes
    size = 2 if config.bf16 else next(network.parameters()).element_size()
    per_layer = 1 if config.gradient_checkpointing else _LAYER_VALUES
    # Of checkpointed layers one at a time is whole.
    values = shape.num_hidden_layers * per_layer + (_LAYER_VALUES if per_layer == 1 else 0)
    tokens = rows * longest
    chunk = min(config.loss_chunk_tokens or tokens, tokens)
    return Estimate(
        weights=sum(p.numel() * p.element_size() for p in network.parameters()),
        gradients=sum(p.numel() * p.element_size() for p in trained),
        optimizer=sum(2 * p.numel() * p.element_size() for p in trained),
        activations=tokens * shape.hidden_size * values * size,
        masks=rows * longest**2 * 4,
        logits=5 * chunk * shape.vocab_size * 4,  # their gradient, softmax, target and its logits
    )


@contextmanager
def explained(found: Estimate, config: TrainConfig) -> Iterator[None]:
    """Turn running out of memory into a ConfigError that says what to lower."""
    try:
        yield
    except (torch.OutOfMemoryError, MemoryError, RuntimeError) as error:
        text = str(error)
        is_memory = isinstance(error, torch.OutOfMemoryError | MemoryError)
        if not is_memory and "can't allocate memory" not in text:
            raise
        raise ConfigError(
            f"out of memory in training. A step needs about {found.total / _GIB:.2g} GiB: {found}. "
            f"{_advice(found, config)}"
        ) from error


def _advice(found: Estimate, config: TrainConfig) -> str:
    """Say what to lower first: what the largest part depends on."""
    of_model = found.weights + found.gradients + found.optimizer
    if of_model > found.activations + found.masks + found.logits:
        if not config.lora_rank:
            return (
                "Most is the model itself: train adapters (--lora-rank 16), or shard it (--fsdp)."
            )
        return "Most is the model itself: hold it in --dtype bfloat16, or take --quantize 4bit."
    if found.logits > found.activations + found.masks:
        return "Lower --loss-chunk-tokens."
    if found.activations > found.masks and not config.gradient_checkpointing:
        return "Add --gradient-checkpointing, or lower --batch-size."
    if config.batch_size > 1:
        return (
            f"Lower --batch-size to {config.batch_size // 2} and double --gradient-accumulation: "
            "the steps stay the same."
        )
    return "Pack again with a lower --max-length."
