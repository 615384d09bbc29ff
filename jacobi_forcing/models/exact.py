"""Forwards of one shape, so that a token's logits depend on its text alone, to the last bit.

A matrix product over 16 tokens adds up in another order than one over 17: libraries choose a kernel
by shape. In float32 the difference is far below the gaps between logits. In bfloat16 it is not, and
a draft's answer may part from AR's wherever two tokens are nearly equally likely.

Here every forward has the same number of tokens and a number of keys from a coarse grid: AR runs 16
tokens of which 15 are padding, a window of 16 runs as many, a prompt is read in pieces of 16. The
same kernel then sees every token, and all that may differ is the token's place among the 16, what
the others are and how many keys are masked at the end. None of these changes a bit if a kernel
computes its rows independently, which `find_shapes` tests on the model itself. It also finds larger
shapes, of several rows or more tokens, whose results are the same bits.

Branches of a draft lie in other slots than the text that they become part of, and attention adds up
in the order of slots. So with fixed shapes the loop accepts what lies in place, and a branch that
was right elsewhere is guessed again by the next forward (`decoding.draft.in_place`).

Batch-invariant kernels (Thinking Machines Lab, 2025, "Defeating Nondeterminism in LLM Inference")
reach the same by fixing the order of every sum; fixed shapes need no kernels of their own.

Shapes: B = rows, Q = tokens of the longest, K = key slots, V = vocabulary.
"""

from collections.abc import Iterator, Sequence
from dataclasses import replace
from typing import NamedTuple

import torch
from torch import Tensor

from jacobi_forcing.errors import ModelError
from jacobi_forcing.models.causal_lm import CausalLM
from jacobi_forcing.models.forward import RaggedForward

TILE = 16  # tokens of a forward
_KEYS_STEP = 64  # numbers of keys are its multiples
_MORE_ROWS = (2, 4, 8, 16)
_MORE_TOKENS = (32, 64)


class Shapes(NamedTuple):
    """Shapes of forwards that give the same bits; 1 row of TILE tokens is one of them."""

    rows: tuple[int, ...] = (1,)  # rising; of TILE tokens each
    tokens: tuple[int, ...] = (TILE,)  # rising; of one row


class ExactForward(RaggedForward):
    """A RaggedForward that runs the model in the shapes of `model.exact` only."""

    def __init__(self, model: CausalLM, num_rows: int, num_slots: int):
        super().__init__(model, num_rows, _up_to(num_slots, _KEYS_STEP))

    def _can_cut(self, *_) -> bool:
        return False  # a mask's width is not the number of the row's own tokens

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
        """Run tile by tile; arguments and result as for RaggedForward."""
        num_rows, num_tokens = ids.shape
        num_keys = _up_to(visible.shape[-1], _KEYS_STEP)
        left, more = -num_tokens % TILE, num_keys - visible.shape[-1]
        grow = torch.nn.functional.pad
        ids = grow(ids, (left, 0), value=self.model.pad_id)
        positions = grow(positions, (left, 0))
        slots = grow(slots, (left, 0), value=self.cache.padding_slot)
        visible = grow(visible, (0, more, left, 0))
        visible[:, :left, 0] = True  # a row that sees nothing would be NaN in some kernels
        key_positions = grow(key_positions.expand(num_rows, -1), (0, more))
        first_output = left + num_tokens - num_outputs
        found = None
        for row, rows, column, tokens in self._tiles(lengths, left + num_tokens):
            at = (slice(row, row + rows), slice(column, column + tokens))
            is_wanted = column + tokens > first_output
            self.cache.place(first_row + row, slots[at], num_keys)
            logits = self.run(
                *(first_row + row, ids[at], positions[at], visible[at], key_positions[at[0]]),
                tokens if is_wanted else 1,
            )
            if is_wanted:
                if found is None:
                    found = logits.new_zeros(num_rows, num_outputs, logits.shape[-1])
                begin = max(column, first_output)
                place = slice(begin - first_output, column + tokens - first_output)
                found[at[0], place] = logits[:, begin - column :]
        return found

    def _tiles(self, lengths: Sequence[int], width: int) -> Iterator[tuple[int, int, int, int]]:
        """Cut a table whose rows end at column `width` into forwards.

        Yields first row, number of rows, first column and number of tokens of each. Tiles without
        a token are left out. Those of a row come in order.
        """
        shapes = self.model.exact
        begins = [width - _up_to(length, TILE) for length in lengths]
        if width > TILE and len(shapes.tokens) > 1:
            for row, column in enumerate(begins):
                while column < width:
                    tokens = max(size for size in shapes.tokens if size <= width - column)
                    yield row, 1, column, tokens
                    column += tokens
            return
        for column in range(0, width, TILE):
            row = 0
            while row < len(lengths):
                if begins[row] > column:
                    row += 1
                    continue
                end = row + 1
                while end < len(lengths) and begins[end] <= column:
                    end += 1
                rows = max(size for size in shapes.rows if size <= end - row)
                yield row, rows, column, TILE
                row += rows


@torch.inference_mode()
def find_shapes(model: CausalLM) -> Shapes:
    """Test on this machine that fixed shapes give fixed bits, and find more shapes that do.

    A text of random ids is run in whole tiles, then in pieces that put its tokens at other places
    of a tile, next to other tokens and before other numbers of masked keys. Logits must be equal
    bit for bit.

    Raises:
        ModelError: They are not, so nothing exact can be promised in this dtype.
    """
    generator = torch.Generator().manual_seed(0)
    length = min(_KEYS_STEP + TILE, model.context_tokens - 1)
    ids = torch.randint(model.vocab_tokens, (length,), generator=generator).tolist()
    others = torch.randint(model.vocab_tokens, (TILE,), generator=generator).tolist()

    def forward(shapes: Shapes, num_rows: int = 1) -> ExactForward:
        return ExactForward(replace(model, exact=shapes), num_rows, length + TILE)

    def whole(shapes: Shapes) -> Tensor:
        return forward(shapes).logits(0, [ids], length)[0]

    expected = whole(Shapes())
    if not torch.equal(expected, _in_pieces(forward(Shapes()), ids, others)):
        raise ModelError(
            f"{model.name}: --exact does not hold for it as {model.dtype} on this machine: a "
            "token's logits depend on its place in a forward of 16, or on what else is in it (as "
            "where tokens are sent to experts). Leave --exact out; in float32 rounding is far "
            "below the gaps between logits."
        )
    first = min(TILE, length)

    def holds_in_rows(num_rows: int) -> bool:
        rows = [others[:first]] * (num_rows - 1) + [ids[:first]]
        logits = forward(Shapes(rows=(1, num_rows)), num_rows).logits(0, rows, first)
        return torch.equal(logits[-1], expected[:first])

    rows = [size for size in _MORE_ROWS if holds_in_rows(size)]
    tokens = [
        size
        for size in _MORE_TOKENS
        if size <= length and torch.equal(whole(Shapes(tokens=(TILE, size))), expected)
    ]
    return Shapes((1, *rows), (TILE, *tokens))


def _in_pieces(forward: ExactForward, ids: Sequence[int], others: Sequence[int]) -> Tensor:
    """Returns a text's logits, run in uneven pieces; wrong drafts are written and overwritten."""
    found, sizes = [], [3, 13, 1, 8, TILE, 5]
    while forward.lengths[0] < len(ids):
        start = forward.lengths[0]
        piece = ids[start : start + sizes[len(found) % len(sizes)]]
        forward.logits(0, [[*piece[:1], *others[: TILE - 1]]], 1)
        found.append(forward.logits(0, [piece], len(piece))[0])
        forward.keep(0, len(piece), [])
    return torch.cat(found)


def _up_to(number: int, step: int) -> int:
    return -(-number // step) * step
