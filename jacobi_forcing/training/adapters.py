"""LoRA adapters through PEFT: trained beside a network whose own weights stay as they are."""

from typing import Any

import torch
from torch import nn
from transformers import PreTrainedModel
from transformers.modeling_outputs import ModelOutput

from jacobi_forcing.config import TrainConfig, check
from jacobi_forcing.errors import ConfigError
from jacobi_forcing.models.adapters import without_renaming_notice


def add_adapters(network: PreTrainedModel, config: TrainConfig) -> nn.Module:
    """Put adapters beside a network's linear layers, in place; only they will be trained.

    Returns:
        The `PeftModel` around the network.

    Raises:
        ConfigError: PEFT is not installed, or the network has no layers of the names asked for.
    """
    try:
        import peft
    except ImportError as error:
        raise ConfigError(
            f"--lora-rank is {config.lora_rank}, but PEFT is not installed. Run: pip install "
            "'jacobi-forcing[lora]'"
        ) from error
    targets: Any = config.lora_targets
    if targets != "all-linear":
        targets = [name.strip() for name in targets.split(",")]
    if config.quantize:
        network = peft.prepare_model_for_kbit_training(
            network, use_gradient_checkpointing=config.gradient_checkpointing
        )
    lora = peft.LoraConfig(
        r=config.lora_rank,
        lora_alpha=config.lora_alpha or 2 * config.lora_rank,
        lora_dropout=config.lora_dropout,
        target_modules=targets,
        task_type="CAUSAL_LM",
    )
    try:
        with without_renaming_notice():
            adapted = peft.get_peft_model(network, lora)
    except ValueError as error:
        reason = " ".join(str(error).split())[:200].rstrip(".")
        linear = (name for name, m in network.named_modules() if isinstance(m, nn.Linear))
        known = ", ".join(sorted({name.rpartition(".")[2] for name in linear}))
        raise ConfigError(
            f"--lora-targets is {config.lora_targets!r}: {reason}. Linear layers here: {known}."
        ) from error
    head = bare(adapted).get_output_embeddings()
    check(
        not any(p.requires_grad for p in head.parameters()),
        f"--lora-targets is {config.lora_targets!r}, which names the LM head too. Leave it out.",
    )
    return adapted


def bare(network: nn.Module) -> PreTrainedModel:
    """Give the network itself, its adapters inside: an ordinary forward, without PEFT's around."""
    return network.get_base_model() if hasattr(network, "get_base_model") else network


class WithoutAdapters(nn.Module):
    """An adapted network as it was before: a frozen teacher that takes no memory of its own.

    Args:
        adapted: A `PeftModel`, or the network in it.

    Attributes other than its own are those of the network.
    """

    def __init__(self, adapted: nn.Module):
        super().__init__()
        self.adapted = adapted

    def __getattr__(self, name: str) -> Any:
        try:
            return super().__getattr__(name)
        except AttributeError:
            return getattr(bare(super().__getattr__("adapted")), name)

    @torch.no_grad()
    def forward(self, **inputs: Any) -> ModelOutput:
        """Run the network with its adapters switched off, and without dropout."""
        from peft.tuners.tuners_utils import BaseTunerLayer

        was_training = self.adapted.training
        self.adapted.eval()
        layers = [m for m in self.adapted.modules() if isinstance(m, BaseTunerLayer)]
        # Not by `enable_adapters`, which also says what is trained: shards would keep to that. And
        # not by the network inside: shards are gathered by the outermost module's hooks.
        for layer in layers:
            layer._disable_adapters = True
        try:
            return self.adapted(**inputs)
        finally:
            for layer in layers:
                layer._disable_adapters = False
            self.adapted.train(was_training)
