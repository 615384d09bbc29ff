"""One forward pass over rows of different lengths: what the model would say after each new token.

Shapes: B = rows of this forward, Q = tokens of the longest, K = cache slots it can see,
V = vocabulary.
"""

from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from jacobi_forcing.models.cache import SlotCache
from jacobi_forcing.models.causal_lm import CausalLM
from jacobi_forcing.models.masks import MaskBuilder


class Branches(NamedTuple):
    """The last tokens of a row's input, where they do not stand behind each other."""

    first: int  # the first of them, as a place in the input
    positions: list[int]  # each token's place behind the row's verified ones
    ways: list[list[int]]  # the row's input tokens that each sees beside what is verified


class RaggedForward:
    """A model, its cache, and the number of verified tokens of each cache row.

    Rows 0 .. num_rows - 1 have room for `num_slots` tokens each. `logits` writes tokens behind a
    row's verified ones; `keep` then verifies those that turned out right.
    """

    def __init__(self, model: CausalLM, num_rows: int, num_slots: int):
        self.model = model
        self.cache = SlotCache(num_rows, num_slots)
        self.lengths = [0] * num_rows
        self.device = model.device
        self.mask = MaskBuilder(model.network)

    @torch.inference_mode()
    def logits(
        self,
        first_row: int,
        inputs: Sequence[Sequence[int]],
        num_outputs: int,
        branches: Sequence[Branches | None] | None = None,
    ) -> Tensor:
        """Run `inputs[i]` behind row first_row + i.

        Shorter rows are padded on the left, so that the outputs wanted are every row's last ones.

        Args:
            first_row: Cache row of the first input.
            inputs: Token ids per row, at least one each.
            num_outputs: How many positions, counted from the end, get logits.
            branches: Per row, which of its last tokens are no chain, if any.

        Returns:
            [B, num_outputs, V] logits; those of padding are meaningless.
        """
        lengths = self.lengths[first_row : first_row + len(inputs)]
        places = [range(n, n + len(ids)) for n, ids in zip(lengths, inputs, strict=True)]
        positions = self._padded(places, 0)
        num_visible = max(place.stop for place in places)
        keys = torch.arange(num_visible, device=self.device)[None]  # their positions
        visible = keys[:, None, :] <= positions[:, :, None]
        if branches is not None and any(branches):
            keys = keys.repeat(len(inputs), 1)
            for row, tree in enumerate(branches):
                if tree is not None:
                    _branch(tree, lengths[row], positions[row], keys[row], visible[row])
        self.cache.place(first_row, places, num_visible)
        ids = self._padded(inputs, self.model.pad_id)
        return self.run(first_row, ids, positions, visible, keys, num_outputs)

    def run(
        self,
        first_row: int,
        ids: Tensor,
        positions: Tensor,
        visible: Tensor,
        key_positions: Tensor,
        num_outputs: int,
    ) -> Tensor:
        """Run the model on tokens whose places in the cache are chosen.

        Args:
            first_row: Cache row of the first one.
            ids: [B, Q] long.
            positions: [B, Q] long.
            visible: [B, Q, K] bool, which slots a token may see.
            key_positions: [B or 1, K] long, of the slots.
            num_outputs: As for `logits`.
        """
        return self.model.logits(
            input_ids=ids,
            position_ids=positions,
            attention_mask=self.mask(visible, positions, key_positions),
            past_key_values=self.cache,
            use_cache=True,
            num_outputs=num_outputs,
        )

    def _padded(self, rows: Sequence[Sequence[int]], padding: int) -> Tensor:
        """Make a [B, Q] long tensor, shorter rows filled up on their left."""
        width = max(map(len, rows))
        filled = [[padding] * (width - len(row)) + list(row) for row in rows]
        return torch.tensor(filled, device=self.device)

    @torch.inference_mode()
    def keep(self, row: int, num_chain: int, rest: Sequence[int]) -> None:
        """Verify tokens of the row's last input: the first `num_chain`, and then `rest`.

        Args:
            row: Cache row.
            num_chain: Tokens that are right and lie in their places.
            rest: Places in the input, rising, of the right tokens that follow them; they are moved.
        """
        start = self.lengths[row]
        if rest:
            self.cache.move_slots(row, [start + i for i in rest], start + num_chain)
        self.lengths[row] = start + num_chain + len(rest)


def _branch(tree: Branches, length: int, positions: Tensor, keys: Tensor, visible: Tensor) -> None:
    """Let a row's last tokens stand at repeated positions and see only the way to themselves.

    Args:
        tree: The row's branches, T tokens.
        length: The row's verified tokens.
        positions: [Q] long, of its queries; changed in place, as are the following.
        keys: [K] long, positions of its slots.
        visible: [Q, K] bool.
    """
    num = len(tree.positions)
    device = positions.device
    # Their slots come last in the row's own input; slots behind them belong to longer rows.
    first = length + tree.first
    positions[-num:] = length + torch.tensor(tree.positions, device=device)
    keys[first : first + num] = positions[-num:]
    visible[:, first : first + num] = False
    seen = torch.zeros(num, visible.shape[1], dtype=torch.bool)
    seen[:, :length] = True
    seers = [i for i, way in enumerate(tree.ways) for _ in way]
    seen[seers, [length + j for way in tree.ways for j in way]] = True
    visible[-num:] = seen.to(device)
