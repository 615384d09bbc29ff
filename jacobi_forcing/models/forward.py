"""One forward pass over rows of different lengths: what the model would say after each new token.

Shapes: B = rows of this forward, Q = tokens of the longest, K = cache slots it can see,
V = vocabulary.
"""

from collections.abc import Sequence
from functools import cached_property
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from jacobi_forcing.models.cache import SlotCache
from jacobi_forcing.models.causal_lm import CausalLM
from jacobi_forcing.models.inference import inferring
from jacobi_forcing.models.masks import ChainMasks, MaskBuilder


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
        with torch.inference_mode():  # as all that `logits` makes: of two modes, two are compiled
            self._slot_numbers = torch.arange(num_slots + 1, device=self.device)

    @inferring
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
        if len(inputs) == 1 and self._can_cut(inputs[0], tree := branches[0] if branches else None):
            return self._single(first_row, inputs[0], num_outputs, tree)
        starts = self.lengths[first_row : first_row + len(inputs)]
        num_visible = max(n + len(ids) for n, ids in zip(starts, inputs, strict=True))
        trees = [(row, tree) for row, tree in enumerate(branches or ()) if tree is not None]
        # Parts of a vector, and not of a table: laid out in memory as if they were made anew, so
        # that what is compiled for the ones takes the others.
        keys = self._slot_numbers[:num_visible][None]  # their positions
        if len(inputs) == 1 and not trees:  # one chain: nothing to lay out
            ids = torch.tensor(inputs, device=self.device)
            places = positions = slots = self._slot_numbers[starts[0] : num_visible][None]
        else:
            ids, places, positions, slots = self._table(starts, inputs, trees)
        visible = keys[:, None, :] <= places[:, :, None]
        if trees and self.mask.reads_key_positions:
            keys = keys.repeat(len(inputs), 1)
            for row, tree in trees:
                first, num = starts[row] + tree.first, len(tree.positions)
                keys[row, first : first + num] = positions[row, -num:]
        for row, tree in trees:
            own = slice(starts[row], starts[row] + len(inputs[row]))
            _branch(tree, visible[row, :, own], False)
        table = (first_row, ids, positions, slots, visible, keys, num_outputs)
        return self.run_table(*table, [len(tokens) for tokens in inputs])

    def run_table(
        self,
        first_row: int,
        ids: Tensor,
        positions: Tensor,
        slots: Tensor,
        visible: Tensor,
        key_positions: Tensor,
        num_outputs: int,
        lengths: Sequence[int],
    ) -> Tensor:
        """Run rows that are laid out as a table, shorter ones padded on the left.

        Args:
            first_row: Cache row of the first one.
            ids: [B, Q] long.
            positions: [B, Q] long.
            slots: [B, Q] long, where tokens go; those of a single row are neighbours.
            visible: [B, Q, K] bool, which slots a token may see.
            key_positions: [B or 1, K] long, of the slots.
            num_outputs: As for `logits`.
            lengths: Each row's tokens without padding.
        """
        start = self.lengths[first_row] if len(lengths) == 1 else None
        self.cache.place(first_row, slots, visible.shape[-1], start)
        return self.run(first_row, ids, positions, visible, key_positions, num_outputs)

    @cached_property
    def _chain_masks(self) -> ChainMasks:
        return ChainMasks(self.mask, self.cache.num_slots)

    def _can_cut(self, tokens: Sequence[int], tree: Branches | None) -> bool:
        """Say whether a single row's mask can be part of a large one.

        Only on a CPU: a GPU's kernels want masks that begin at an aligned address.
        """
        is_known = self.mask.is_shared or not (tree or self.mask.is_taught)
        return is_known and len(tokens) <= ChainMasks.most_tokens and self._slot_numbers.is_cpu

    def _single(
        self,
        first_row: int,
        tokens: Sequence[int],
        num_outputs: int,
        tree: Branches | None,
    ) -> Tensor:
        """Do for one short row what `logits` does, with few operations between two forwards."""
        start = self.lengths[first_row]
        end = start + len(tokens)
        slots = positions = self._slot_numbers[start:end][None]
        mask = self._chain_masks(start, len(tokens))
        if tree is not None:
            places = [*range(tree.first), *tree.positions]
            positions = torch.tensor([[start + place for place in places]])
            mask = mask.clone()
            _branch(tree, mask[0, 0, :, start:], self.mask.hidden)
        self.cache.place(first_row, slots, end, start)
        return self._call(torch.tensor([tokens]), positions, mask, num_outputs)

    def _table(
        self,
        starts: Sequence[int],
        inputs: Sequence[Sequence[int]],
        trees: Sequence[tuple[int, Branches]],
    ) -> tuple[Tensor, ...]:
        """Lay out ids, places, positions and slots of rows at their own lengths, [B, Q] each."""
        width = max(map(len, inputs))
        # Everything about tokens in one array, so that it travels to the device at once.
        table = np.zeros((4, len(inputs), width), dtype=np.int64)
        ids, places, positions, slots = table
        ids[:], slots[:] = self.model.pad_id, self.cache.padding_slot
        for row, (start, tokens) in enumerate(zip(starts, inputs, strict=True)):
            own = slice(width - len(tokens), None)
            ids[row, own] = tokens
            places[row, own] = slots[row, own] = np.arange(start, start + len(tokens))
        positions[:] = places
        for row, tree in trees:
            positions[row, width - len(tree.positions) :] = np.add(tree.positions, starts[row])
        return torch.from_numpy(table).to(self.device).unbind()

    @inferring
    def logits_at(
        self, ids: Tensor, positions: Tensor, slots: Tensor, visible: Tensor, key_positions: Tensor
    ) -> Tensor:
        """Run tokens of cache rows 0 .. B - 1 whose places the device alone knows.

        Args:
            ids: [B, Q] long.
            positions: [B, Q] long.
            slots: [B, Q] long, where they go; `cache.padding_slot` for those that do not count.
            visible: [B, Q, K] bool, which of the first K slots a token may see: one at least.
            key_positions: [B, K] long, of what lies in the slots.

        Returns:
            [B, Q, V] logits.
        """
        self.cache.place(0, slots, visible.shape[-1])
        return self.run(0, ids, positions, visible, key_positions, ids.shape[1])

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
        return self._call(ids, positions, self.mask(visible, positions, key_positions), num_outputs)

    def _call(
        self, ids: Tensor, positions: Tensor, mask: Tensor | dict[str, Tensor], num_outputs: int
    ) -> Tensor:
        return self.model.logits(
            input_ids=ids,
            position_ids=positions,
            attention_mask=mask,
            past_key_values=self.cache,
            use_cache=True,
            num_outputs=num_outputs,
        )

    def keep(self, row: int, num_chain: int, rest: Sequence[int]) -> None:
        """Verify tokens of the row's last input: the first `num_chain`, and then `rest`.

        Args:
            row: Cache row.
            num_chain: Tokens that are right and lie in their places.
            rest: Places in the input, rising, of the right tokens that follow them; they are moved.
        """
        start = self.lengths[row]
        if rest:  # the rare case, where a branch won
            self.cache.move_slots(row, [start + i for i in rest], start + num_chain)
        self.lengths[row] = start + num_chain + len(rest)


def _branch(tree: Branches, shown: Tensor, hidden: Tensor | bool) -> None:
    """Let a row's last tokens see, of its own input, only the way to themselves.

    Args:
        tree: The row's branches, T tokens.
        shown: [Q, N] mask of which of the row's N input tokens are seen, of the last Q; as for a
            chain before, and changed in place.
        hidden: What stands in it where a token does not see.
    """
    apart = [[True] * shown.shape[1] for _ in tree.ways]
    for row, way in zip(apart, tree.ways, strict=True):
        for place in way:
            row[place] = False
    shown[-len(tree.ways) :].masked_fill_(torch.tensor(apart, device=shown.device), hidden)
