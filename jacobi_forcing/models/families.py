"""Families that look elsewhere than at their mask for what a query sees, and from how far.

BLOOM and Falcon add a bias by the key's place (ALiBi), which they read off a mask without rows or
branches; GPT-Neo cuts its local windows itself, by place in the cache. Each is taught, once per
process, to take these facts from the mask where it carries them. With any other mask they do what
they always did.
"""

import sys
from collections.abc import Callable

import torch
from torch import Tensor, nn
from transformers import PreTrainedModel


def teach(network: PreTrainedModel) -> bool:
    """Let a network's family read what `carry` adds to masks; False where none needs it."""
    config, module = network.config, sys.modules[type(network).__module__]
    if config.model_type == "bloom" or (config.model_type == "falcon" and config.alibi):
        if not hasattr(module.build_alibi_tensor, "original"):
            module.build_alibi_tensor = _alibi_by_position(module.build_alibi_tensor)
        return True
    if config.model_type == "gpt_neo":
        if not hasattr(module.GPTNeoSelfAttention._attn, "original"):
            taught = _attention_by_layer_type(module.GPTNeoSelfAttention._attn)
            module.GPTNeoSelfAttention._attn = taught
        return True
    return False


def carry(masks: dict[str, Tensor], key_position: Tensor) -> Tensor:
    """Make one [B, 1, Q, K] mask that carries those of all layer types, and [B, K] positions."""
    mask = next(iter(masks.values())).detach()  # another object: one that holds itself lives on
    mask.jacobi_masks = masks
    mask.jacobi_positions = key_position
    return mask


def _alibi_by_position(original: Callable[..., Tensor]) -> Callable[..., Tensor]:
    def build_alibi_tensor(attention_mask: Tensor, num_heads: int, dtype: torch.dtype) -> Tensor:
        """Give [B * heads, 1, K]."""
        positions = getattr(attention_mask, "jacobi_positions", None)
        if positions is None:
            return original(attention_mask, num_heads, dtype)
        longest = int(positions.max()) + 1
        line = original(positions.new_ones(1, longest), num_heads, dtype)[:, 0]  # [heads, longest]
        return line[:, positions].transpose(0, 1).flatten(0, 1)[:, None]

    build_alibi_tensor.original = original
    return build_alibi_tensor


def _attention_by_layer_type(original: Callable[..., tuple]) -> Callable[..., tuple]:
    def _attn(
        self: nn.Module, query: Tensor, key: Tensor, value: Tensor, attention_mask=None
    ) -> tuple[Tensor, Tensor]:
        """Attend in float32 under the mask of the layer's own type, as the original does."""
        masks = getattr(attention_mask, "jacobi_masks", None)
        if masks is None:
            return original(self, query, key, value, attention_mask)
        scores = torch.matmul(query.float(), key.float().transpose(-1, -2))
        weights = (scores + masks[self.attention_type]).softmax(-1).to(value.dtype)
        weights = self.attn_dropout(weights)
        return torch.matmul(weights, value), weights

    _attn.original = original
    return _attn
