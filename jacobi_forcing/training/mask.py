r"""Who sees whom in a training sequence: one predicate, dense and for FlexAttention (paper Fig. 2).

Rows see columns: `#` all of it, `\` causally, `.` nothing. The four blocks below are two windows
of two, so that `windowed` differs from both others.

noise-conditioned (the paper's main variant): noisy blocks see all earlier noisy ones

           prompt  noisy0 clean0 noisy1 clean1 noisy2 clean2 noisy3 clean3
    prompt   \       .      .      .      .      .      .      .      .
    noisy0   #       \      .      .      .      .      .      .      .
    clean0   #       .      \      .      .      .      .      .      .
    noisy1   #       #      .      \      .      .      .      .      .
    clean1   #       .      #      .      \      .      .      .      .
    noisy2   #       #      .      #      .      \      .      .      .
    clean2   #       .      #      .      #      .      \      .      .
    noisy3   #       #      .      #      .      #      .      \      .
    clean3   #       .      #      .      #      .      #      .      \

clean-context (as CLLM trains): noisy blocks see all earlier clean ones

           prompt  noisy0 clean0 noisy1 clean1 noisy2 clean2 noisy3 clean3
    prompt   \       .      .      .      .      .      .      .      .
    noisy0   #       \      .      .      .      .      .      .      .
    clean0   #       .      \      .      .      .      .      .      .
    noisy1   #       .      #      \      .      .      .      .      .
    clean1   #       .      #      .      \      .      .      .      .
    noisy2   #       .      #      .      #      \      .      .      .
    clean2   #       .      #      .      #      .      \      .      .
    noisy3   #       .      #      .      #      .      #      \      .
    clean3   #       .      #      .      #      .      #      .      \

windowed (the paper's NC-IC): noisy ones of their own window, clean ones of the windows before

           prompt  noisy0 clean0 noisy1 clean1 noisy2 clean2 noisy3 clean3
    prompt   \       .      .      .      .      .      .      .      .
    noisy0   #       \      .      .      .      .      .      .      .
    clean0   #       .      \      .      .      .      .      .      .
    noisy1   #       #      .      \      .      .      .      .      .
    clean1   #       .      #      .      \      .      .      .      .
    noisy2   #       .      #      .      #      \      .      .      .
    clean2   #       .      #      .      #      .      \      .      .
    noisy3   #       .      #      .      #      #      .      \      .
    clean3   #       .      #      .      #      .      #      .      \

In all of them clean rows see clean text only, so their logits are the model's own AR logits and may
teach. A sequence may hold several such drawings, one for each of its documents; between them all is
hidden:

           document0 document1 document2
    document0   D         .         .
    document1   .         D         .
    document2   .         .         D

Shapes: B = sequences, S = tokens of the longest.
"""

from collections.abc import Callable, Mapping
from functools import cache

import torch
from torch import Tensor
from torch.nn.attention.flex_attention import BlockMask, create_block_mask

from jacobi_forcing.training.layout import CLEAN, NOISY, PADDING, PROMPT, Layout


def visible(query: Layout, key: Layout, variant: str, window: int) -> Tensor:
    """Tell whether `query` tokens see `key` tokens; fields broadcast against each other.

    Args:
        query: The tokens that look.
        key: The tokens looked at.
        variant: `noise-conditioned`, `clean-context` or `windowed`.
        window: Blocks per window, for `windowed`.

    Returns:
        Bool, of the broadcast shape. Padding sees and is seen by nothing.
    """
    causal = key.position <= query.position
    earlier = key.block < query.block
    same_block = key.block == query.block
    same_stream = key.stream == query.stream
    to_prompt = (key.stream == PROMPT) & causal
    own_block = same_stream & same_block & causal
    from_clean = (query.stream == CLEAN) & (key.stream == CLEAN) & earlier
    if variant == "noise-conditioned":
        from_noisy = (key.stream == NOISY) & earlier
    elif variant == "clean-context":
        # By position and not by block: drafts may start anywhere in the text (training.online).
        from_noisy = (key.stream == CLEAN) & (key.position < query.start)
    else:
        same_window = key.block // window == query.block // window
        from_noisy = torch.where(same_window, key.stream == NOISY, key.stream == CLEAN) & earlier
    from_noisy = from_noisy & (query.stream == NOISY)
    real = (query.stream != PADDING) & (key.stream != PADDING)
    same_document = query.document == key.document
    return real & same_document & (to_prompt | own_block | from_clean | from_noisy)


def dense_mask(layout: Layout, variant: str, window: int) -> Tensor:
    """Build [B, S, S] bool, True where the row sees the column, from a [B, S] layout."""
    query = Layout(*(field[:, :, None] for field in layout))
    key = Layout(*(field[:, None, :] for field in layout))
    return visible(query, key, variant, window)


def flex_predicate(
    layout: Layout, variant: str, window: int, reach: int | None = None
) -> Callable[..., Tensor]:
    """Make the `mask_mod` for `flex_attention.create_block_mask` from a [B, S] layout.

    With `reach`, of a layer that attends in a sliding window, a token sees so many positions only,
    its own included.
    """

    def mask_mod(batch: Tensor, head: Tensor, query: Tensor, key: Tensor) -> Tensor:
        looks = Layout(*(field[batch, query] for field in layout))
        seen = Layout(*(field[batch, key] for field in layout))
        found = visible(looks, seen, variant, window)
        return found if reach is None else found & (seen.position > looks.position - reach)

    return mask_mod


def flex_masks(
    layout: Layout, variant: str, window: int, reaches: Mapping[str, int | None]
) -> BlockMask | dict[str, BlockMask]:
    """Build FlexAttention's mask of a [B, S] layout, or one per layer type where they differ.

    Args:
        layout: Of the batch.
        variant: As for `visible`.
        window: As there.
        reaches: Every layer type's sliding window in tokens, or None.
    """
    size = layout.stream.shape
    device = layout.stream.device
    # Compiled, it never holds [B, S, S] values while it counts what is seen.
    build = _compiled_build() if device.type == "cuda" else create_block_mask
    masks = {}
    for layer_type, reach in reaches.items():
        predicate = flex_predicate(layout, variant, window, reach)
        masks[layer_type] = build(predicate, size[0], None, size[1], size[1], device=device)
    return next(iter(masks.values())) if len(masks) == 1 else masks


@cache
def _compiled_build() -> Callable[..., BlockMask]:
    return torch.compile(create_block_mask)
