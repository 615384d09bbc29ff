"""From "who may see whom" to the masks a Hugging Face model takes.

Shapes: B = rows, Q = query tokens, K = key tokens.
"""

from collections.abc import Mapping

import torch
from torch import Tensor
from transformers import PretrainedConfig


def layer_windows(config: PretrainedConfig) -> dict[str, int | None]:
    """Give every layer type's attention window in tokens; None where a layer sees everything."""
    config = config.get_text_config()
    window = getattr(config, "sliding_window", None)
    if getattr(config, "use_sliding_window", True) is False:
        window = None
    types = getattr(config, "layer_types", None)
    if types is None:
        return {"all": window}
    return {t: window if t == "sliding_attention" else None for t in sorted(set(types))}


def attention_masks(
    windows: Mapping[str, int | None],
    visible: Tensor,
    query_position: Tensor,
    key_position: Tensor,
    dtype: torch.dtype,
) -> Tensor | dict[str, Tensor]:
    """Build the `attention_mask` argument of a model's forward.

    Masks are additive: a boolean 4D mask is silently added as 0/1 by transformers' eager attention.
    Layers with a sliding window get their own mask.

    Args:
        windows: Of the model's `layer_windows`.
        visible: [B, Q, K] bool, True where the query may see the key if its layer's window allows.
        query_position: [B, Q] long.
        key_position: [B or 1, K] long.
        dtype: The model's dtype.

    Returns:
        [B, 1, Q, K] of 0 and the dtype's minimum, or one such mask per layer type if they differ.
    """
    masks = {}
    for layer_type, window in windows.items():
        seen = visible
        if window is not None:
            seen = visible & (key_position[:, None, :] > query_position[:, :, None] - window)
        mask = torch.zeros(seen.shape, dtype=dtype, device=seen.device)
        masks[layer_type] = mask.masked_fill_(~seen, torch.finfo(dtype).min)[:, None]
    if len(masks) == 1:
        return next(iter(masks.values()))
    return masks
