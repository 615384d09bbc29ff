"""Hidden states instead of logits: the LM head applied later, to a few tokens at a time.

The logits of a batch are [tokens, vocabulary], by far the largest tensor of a training step where
the vocabulary is large. Training needs them of the tokens that learn and teach only, and never all
at once. So a forward here stops before the head, and whoever needs logits makes them in chunks.

Shapes: B = sequences, S = tokens, D = hidden size, V = vocabulary.
"""

import logging
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import NamedTuple

import torch
from torch import Tensor, nn
from transformers import PreTrainedModel

logger = logging.getLogger(__name__)

_PROBE_TOKENS = 8


class Outputs(NamedTuple):
    """What a forward left for the losses."""

    hidden: Tensor  # [B, S, D]
    head: Callable[[Tensor], Tensor]  # [m, D] -> [m, V] logits
    parameters: list[nn.Parameter]  # the head's own

    @classmethod
    def of_logits(cls, logits: Tensor) -> "Outputs":
        """Take logits as they are: D is V, and there is nothing left to apply."""
        return cls(logits, lambda hidden: hidden, [])


class Head:
    """The last step of a network: the LM head, and what its family does to logits behind it.

    Attributes:
        module: The LM head.
    """

    def __init__(self, network: PreTrainedModel, *, bf16: bool = False):
        config = network.config.get_text_config()
        self.module = network.get_output_embeddings()
        self.bf16 = bf16
        # Gemma-2 and its kin; Granite; Cohere. Whether these are all is for `find_head` to say.
        self.cap = getattr(config, "final_logit_softcapping", None)
        self.divisor = getattr(config, "logits_scaling", None)
        self.factor = getattr(config, "logit_scale", None)

    def __call__(self, hidden: Tensor) -> Tensor:
        """Give [..., V] logits of [..., D] hidden states."""
        with torch.autocast(hidden.device.type, torch.bfloat16, enabled=self.bf16):
            # Not by a call, whose hooks would gather and free sharded weights for every chunk.
            logits = self.module.forward(hidden)
        if self.factor is not None:
            logits = logits * self.factor
        if self.divisor is not None:
            logits = logits / self.divisor
        if self.cap is not None:
            logits = torch.tanh(logits / self.cap) * self.cap
        return logits

    @property
    def parameters(self) -> list[nn.Parameter]:
        """Those that are trained."""
        return [p for p in self.module.parameters() if p.requires_grad]

    @contextmanager
    def held_back(self, *, keep: int | None = 1) -> Iterator[list[Tensor]]:
        """Catch what forwards hand to the head; yields a list of their [B, S, D] hidden states.

        Args:
            keep: The head gets only that many tokens of each sequence, so that the forward's own
                logits cost nothing; None gives it all of them.
        """
        caught: list[Tensor] = []

        def catch(_: nn.Module, arguments: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
            caught.append(arguments[0])
            return (arguments[0][:, :keep], *arguments[1:])

        hook = self.module.register_forward_pre_hook(catch)
        try:
            yield caught
        finally:
            hook.remove()


def find_head(network: PreTrainedModel, *, bf16: bool = False) -> Head | None:
    """Find a network's head, and make sure that it gives the network's own logits.

    Returns:
        None, with a line in the log that says why, where it does not: the family does something
        between hidden states and logits that is not known here.
    """
    module = network.get_output_embeddings()
    if not isinstance(module, nn.Module):
        return _not_found(network, "has no output embeddings")
    head = Head(network, bf16=bf16)
    ids = torch.arange(_PROBE_TOKENS, device=network.device).expand(2, -1)
    was_training = network.training
    with torch.no_grad(), head.held_back(keep=None) as caught:
        own = network.eval()(input_ids=ids, use_cache=False).logits
    network.train(was_training)
    if len(caught) != 1 or caught[0].shape[:2] != ids.shape:
        return _not_found(network, "does not hand its hidden states to its output embeddings")
    with torch.no_grad():
        found = Head(network)(caught[0])
    # The same operations on the same tensors: all but equal, in any type.
    if found.shape != own.shape or not torch.allclose(found, own, rtol=1e-5, atol=1e-6):
        return _not_found(network, "changes its logits behind its output embeddings")
    return head


def _not_found(network: PreTrainedModel, reason: str) -> None:
    logger.info(
        "%s %s, so the loss takes all logits of a batch at once: memory grows with tokens x "
        "vocabulary.",
        network.config.model_type,
        reason,
    )
