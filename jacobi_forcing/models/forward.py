"""One forward pass over rows of different lengths: what the model would say after each new token.

Shapes: B = rows of this forward, Q = tokens of the longest, K = cache slots it can see,
V = vocabulary.
"""

from collections.abc import Sequence

import torch
from torch import Tensor

from jacobi_forcing.models.cache import SlotCache
from jacobi_forcing.models.loading import CausalLM
from jacobi_forcing.models.masks import attention_masks


class RaggedForward:
    """A model, its cache, and the number of verified tokens of each cache row.

    Rows 0 .. num_rows - 1 have room for `num_slots` tokens each. The caller appends tokens with
    `__call__`, which writes them behind the row's verified ones, and then moves `lengths[row]`
    forward over those that turned out right.
    """

    def __init__(self, model: CausalLM, num_rows: int, num_slots: int):
        self.model = model
        self.cache = SlotCache(num_rows, num_slots)
        self.lengths = [0] * num_rows

    @torch.inference_mode()
    def logits(self, first_row: int, inputs: Sequence[Sequence[int]], num_outputs: int) -> Tensor:
        """Run `inputs[i]` behind row first_row + i.

        Shorter rows are padded on the left, so that the outputs wanted are every row's last ones.

        Args:
            first_row: Cache row of the first input.
            inputs: Token ids per row, at least one each.
            num_outputs: How many positions, counted from the end, get logits.

        Returns:
            [B, num_outputs, V] logits; those of padding are meaningless.
        """
        device = self.model.device
        width = max(map(len, inputs))
        lengths = self.lengths[first_row : first_row + len(inputs)]
        starts = torch.tensor(lengths, device=device)
        num_tokens = torch.tensor([len(ids) for ids in inputs], device=device)
        num_visible = max(n + len(ids) for n, ids in zip(lengths, inputs, strict=True))
        pad = self.model.pad_id
        ids = torch.tensor([[pad] * (width - len(i)) + list(i) for i in inputs], device=device)

        offsets = torch.arange(width, device=device)[None] - (width - num_tokens)[:, None]  # [B, Q]
        is_pad = offsets < 0
        positions = (starts[:, None] + offsets).masked_fill(is_pad, 0)
        slots = positions.masked_fill(is_pad, self.cache.padding_slot)
        distance = positions[:, :, None] - torch.arange(num_visible, device=device)  # [B, Q, K]

        self.cache.place(first_row, slots, num_visible)
        return self.model.logits(
            input_ids=ids,
            position_ids=positions,
            attention_mask=attention_masks(
                self.model.config, distance >= 0, distance, self.model.dtype
            ),
            past_key_values=self.cache,
            use_cache=True,
            num_outputs=num_outputs,
        )

    def greedy(
        self, first_row: int, inputs: Sequence[Sequence[int]], num_outputs: Sequence[int]
    ) -> list[list[int]]:
        """Like `logits`, but the argmax ids of the last num_outputs[i] positions of each row i."""
        logits = self.logits(first_row, inputs, max(num_outputs))
        choices = logits.argmax(dim=-1).tolist()  # the step's only device-to-host sync
        return [row[len(row) - n :] for row, n in zip(choices, num_outputs, strict=True)]
