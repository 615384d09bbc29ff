"""Attention that leaves out what nobody sees, for training masks on a CPU.

Of a training sequence's scores the mask hides most: a draft sees the text before it and itself, and
none of the other drafts. PyTorch's kernel computes them all the same and hides them afterwards.
Here the queries go tile by tile, each tile with those keys only that one of its tokens sees: the
result is the same up to rounding, at a third of the work. On a GPU FlexAttention does this, from a
block mask that says the same.

Shapes: B = rows, H = heads, Q = query tokens, K = key tokens, D = head dimension.
"""

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import Tensor, nn
from torch.utils.weak import WeakTensorKeyDictionary
from transformers import AttentionInterface, PreTrainedModel

TILE = 64  # queries; 32 and 128 take a tenth longer
TILED = "jacobi_tiled"
FLEX = "flex_attention"

_plans = WeakTensorKeyDictionary()  # of masks in use: the layers of a forward share theirs


def tiled_attention(
    module: nn.Module,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attention_mask: Tensor | None,
    **options,
) -> tuple[Tensor, None]:
    """Attend tile by tile; arguments and result as for transformers' `sdpa`.

    Args:
        module: The attention layer.
        query: [B, H, Q, D].
        key: [B, key heads, K, D].
        value: [B, key heads, K, D].
        attention_mask: [B or 1, H or 1, Q, K], additive; the dtype's minimum hides. Every query
            sees one key at least.
        **options: Handed on.

    Returns:
        [B, Q, H, D], and None for the weights that nobody computed.
    """
    plain = AttentionInterface()["sdpa"]
    if attention_mask is None or options.get("position_bias") is not None:
        return plain(module, query, key, value, attention_mask, **options)
    outputs = []
    for rows, keys in _plan(attention_mask):
        at = (slice(None), slice(None), keys)
        mask = attention_mask[:, :, rows][..., keys]
        output, _ = plain(module, query[:, :, rows], key[at], value[at], mask, **options)
        outputs.append(output)
    return torch.cat(outputs, dim=1), None


AttentionInterface.register(TILED, tiled_attention)


def _plan(mask: Tensor) -> list[tuple[slice, slice | Tensor]]:
    """Give each tile of queries the keys that it needs: a slice, or their indices."""
    if mask not in _plans:
        _plans[mask] = list(_tiles(mask))
    return _plans[mask]


def _tiles(mask: Tensor) -> Iterator[tuple[slice, slice | Tensor]]:
    hidden = torch.finfo(mask.dtype).min / 2  # what a model adds for position does not come near
    num_queries = mask.shape[2]
    for begin in range(0, num_queries, TILE):
        rows = slice(begin, min(begin + TILE, num_queries))
        keys = (mask[:, :, rows].amax(dim=(0, 1, 2)) > hidden).nonzero()[:, 0]
        first, last = int(keys[0]), int(keys[-1])
        together = last - first + 1 == len(keys)
        yield rows, slice(first, last + 1) if together else keys


@contextmanager
def attention(network: PreTrainedModel, name: str) -> Iterator[None]:
    """Let a network attend as `name` says for a while.

    Networks that do not take part in transformers' AttentionInterface, or whose attention was
    chosen to be another than `sdpa`, are left alone.
    """
    usual = network.config._attn_implementation
    if usual not in ("sdpa", TILED, FLEX) or not network._can_set_attn_implementation():
        yield
        return
    network.set_attn_implementation(name)
    try:
        yield
    finally:
        network.set_attn_implementation(usual)


def can_flex(network: PreTrainedModel) -> bool:
    """Whether a network can attend with FlexAttention, by what transformers says of it."""
    return (
        network.config._attn_implementation in ("sdpa", FLEX)
        and network._can_set_attn_implementation()
        and bool(getattr(network, "_supports_flex_attn", False))
    )


def is_flex(network: PreTrainedModel) -> bool:
    """Whether it does so now, and wants block masks."""
    return network.config._attn_implementation == FLEX
