"""From "who may see whom" to the masks a Hugging Face model takes.

Shapes: B = rows, Q = query tokens, K = key tokens.
"""

import torch
from torch import Tensor
from transformers import PretrainedConfig, PreTrainedModel

from jacobi_forcing.models import families


class MaskBuilder:
    """Builds the `attention_mask` argument of one network's forward.

    Masks are additive: a boolean 4D mask is silently added as 0/1 by transformers' eager attention.
    Layers with a sliding window get their own mask. What does not change from forward to forward
    is looked up once, because transformers takes longer to find it than a small operation.
    """

    def __init__(self, network: PreTrainedModel):
        self.shown = torch.zeros((), dtype=network.dtype, device=network.device)
        self.hidden = torch.full_like(self.shown, torch.finfo(network.dtype).min)
        self.windows = layer_windows(network.config)
        self.is_taught = families.teach(network)
        self.reads_key_positions = self.is_taught or any(self.windows.values())
        # Whether all layers share one mask, which is made of `visible` alone.
        self.is_shared = not self.reads_key_positions and len(self.windows) == 1

    def __call__(
        self, visible: Tensor, query_position: Tensor, key_position: Tensor
    ) -> Tensor | dict[str, Tensor]:
        """Build a mask, or one per layer type where they differ.

        Args:
            visible: [B, Q, K] bool, True where the query may see the key if its layer's window
                allows.
            query_position: [B, Q] long.
            key_position: [B or 1, K] long; of no meaning where `reads_key_positions` is False.

        Returns:
            [B, 1, Q, K] of 0 and the dtype's minimum.
        """
        masks = {}
        for layer_type, window in self.windows.items():
            seen = visible
            if window is not None:
                seen = visible & (key_position[:, None, :] > query_position[:, :, None] - window)
            masks[layer_type] = torch.where(seen, self.shown, self.hidden)[:, None]
        if self.is_taught:
            return families.carry(masks, key_position.expand(visible.shape[0], -1))
        if len(masks) == 1:
            return next(iter(masks.values()))
        return masks


class ChainMasks:
    """The masks of single rows, cut out of a large one instead of made anew.

    A mask depends on distances alone: token i behind n verified ones sees key j as token i behind S
    of them sees key j + S - n. On a CPU the few operations that make a mask take as long as a layer
    of a small model.

    Args:
        build: Makes the large mask; it may not depend on positions themselves (`is_taught`).
        num_slots: S, the most verified tokens of a row.
    """

    most_tokens = 64  # that a row brings; the large mask holds so many times S + so many numbers

    def __init__(self, build: MaskBuilder, num_slots: int):
        self.num_slots = num_slots
        keys = torch.arange(num_slots + self.most_tokens, device=build.shown.device)[None]
        tokens = keys[:, num_slots:]
        self._large = build(keys[:, None, :] <= tokens[:, :, None], tokens, keys)

    def __call__(self, num_verified: int, num_tokens: int) -> Tensor | dict[str, Tensor]:
        """Give the mask of `num_tokens` in a chain behind verified ones: a view, not to be changed.

        Returns:
            [1, 1, num_tokens, num_verified + num_tokens], as MaskBuilder would make it.
        """
        first, end = self.num_slots - num_verified, self.num_slots + num_tokens
        if isinstance(self._large, dict):
            return {name: m[:, :, :num_tokens, first:end] for name, m in self._large.items()}
        return self._large[:, :, :num_tokens, first:end]


def layer_windows(config: PretrainedConfig) -> dict[str, int | None]:
    """Give every layer type's attention window in tokens; None where a layer sees everything."""
    config = config.get_text_config()
    if config.model_type == "gpt_neo":
        windows = {"global": None, "local": config.window_size}
        return {name: windows[name] for name in sorted(set(config.attention_layers))}
    window = getattr(config, "sliding_window", None)
    if getattr(config, "use_sliding_window", True) is False:
        window = None
    types = getattr(config, "layer_types", None)
    if types is None:
        return {"all": window}
    return {t: window if t == "sliding_attention" else None for t in sorted(set(types))}
