"""What a training step needs memory for, and what to lower when there is not enough."""

from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from typing import NamedTuple

import torch
from torch import nn

from jacobi_forcing.config import TrainConfig
from jacobi_forcing.errors import ConfigError
from jacobi_forcing.training.adapters import bare

_GIB = 2**30
_LAYER_VALUES = 34  # values kept per token and hidden unit of a layer without checkpointing


class Estimate(NamedTuple):
    """Bytes of one process; rough, the larger parts only."""

    weights: int
    gradients: int
    optimizer: int
    casts: int
    copies: int
    activations: int
    masks: int
    logits: int
    tests: int = 0  # what a whole network for tests, or the start, needs beyond a step

    @property
    def total(self) -> int:
        """All of it."""
        return sum(self)

    @property
    def of_model(self) -> int:
        """What is there whatever a batch holds."""
        return self.weights + self.gradients + self.optimizer + self.casts + self.copies

    def __str__(self) -> str:
        parts = (f"{name} {size / _GIB:.2g}" for name, size in self._asdict().items() if size)
        return f"{', '.join(parts)} GiB"


def estimate(
    network: nn.Module, config: TrainConfig, longest: int, num_processes: int = 1
) -> Estimate:
    """Estimate a step's memory; the network may lie on the meta device, where it has none.

    With `fsdp` every process holds the whole model until it is sharded, and the first one decodes
    the tests with a whole copy, between steps: beside its shards and their optimizer, but neither
    gradients nor activations.

    Args:
        network: What is trained, adapters included.
        config: Its training.
        longest: Tokens of the longest sequence.
        num_processes: They share a batch, and with `fsdp` the model.
    """
    shape = network.config.get_text_config()
    parameters = list(network.parameters())
    whole, trained = _bytes(parameters), _bytes(p for p in parameters if p.requires_grad)
    num_shards = num_processes if config.fsdp else 1
    rows = config.batch_size // num_processes
    size = 2 if config.bf16 else parameters[0].element_size()
    per_layer = 1 if config.gradient_checkpointing else _LAYER_VALUES
    # Of checkpointed layers one at a time is whole.
    values = shape.num_hidden_layers * per_layer + (_LAYER_VALUES if per_layer == 1 else 0)
    tokens = rows * longest
    chunk = min(config.loss_chunk_tokens or tokens, tokens)
    step = Estimate(
        weights=whole // num_shards + (_gathered(network) if num_shards > 1 else 0),
        gradients=trained // num_shards,
        optimizer=2 * trained // num_shards,
        casts=_casts(parameters, config),
        copies=whole * config.keeps_original,
        activations=tokens * shape.hidden_size * values * size,
        masks=rows * longest**2 * 4,
        # A chunk's gradient, softmax, target and its logits; and the head's gradients, which both
        # losses sum over chunks before the backward pass.
        logits=5 * chunk * shape.vocab_size * 4 + 3 * _bytes(_trained_head(network)),
    )
    if num_shards == 1:
        return step
    most = whole + whole // num_shards + step.optimizer
    return step._replace(tests=max(0, most - step.total))


def checkpoint_bytes(network: nn.Module) -> int:
    """Count what a checkpoint takes on disk: what is trained or, of a whole model, all of it.

    And the optimizer's two moments of what is trained. Adapters are saved without their base.
    """
    trained = _bytes(p for p in network.parameters() if p.requires_grad)
    saved = trained if bare(network) is not network else _bytes(network.parameters())
    return saved + 2 * trained


def _bytes(parameters: Iterable[nn.Parameter]) -> int:
    return sum(p.numel() * p.element_size() for p in parameters)


def _trained_head(network: nn.Module) -> list[nn.Parameter]:
    module = bare(network).get_output_embeddings()
    return [] if module is None else [p for p in module.parameters() if p.requires_grad]


def _gathered(network: nn.Module) -> int:
    """Bytes of what shards gather: two layers, since the next one comes early, and both ends."""
    layers = [
        _bytes(layer.parameters())
        for modules in network.modules()
        if isinstance(modules, nn.ModuleList)
        for layer in modules
    ]
    ends = (bare(network).get_input_embeddings(), bare(network).get_output_embeddings())
    return 2 * max(layers, default=0) + sum(_bytes(end.parameters()) for end in ends if end)


def _casts(parameters: Sequence[nn.Parameter], config: TrainConfig) -> int:
    """Bytes of the bfloat16 copies that autocast makes of wider weights.

    Of trained ones it keeps them until the forward's end. Of frozen ones the backward pass does,
    unless layers are checkpointed.
    """
    if not config.bf16:
        return 0
    kept = (p for p in parameters if p.requires_grad or not config.gradient_checkpointing)
    return sum(2 * p.numel() for p in kept if p.ndim > 1 and p.element_size() > 2)


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
    if found.of_model > found.activations + found.masks + found.logits:
        if not config.lora_rank:
            return (
                "Most is the model itself: train adapters (--lora-rank 16), or shard it (--fsdp)."
            )
        return "Most is the model itself: hold it in --dtype bfloat16, or take --quantize nf4."
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
