"""A preallocated key/value cache in which rejected drafts are overwritten, never cropped.

Shapes: R = rows, H = key/value heads, S = slots per row, D = head dimension, B = rows of this
forward, Q = tokens of this forward.
"""

from collections.abc import Sequence

import torch
from torch import Tensor
from transformers import Cache

from jacobi_forcing.models.inference import inferring


class SlotCache(Cache):
    """Keys and values of R token sequences, one slot per token, each row at its own length.

    A forward writes its Q tokens per row into slots chosen by the caller (`place`), and attends to
    the first `num_visible` slots through a mask that the caller builds. So a rejected draft needs
    no clean-up: the mask hides its slots until later tokens overwrite them. transformers' own
    caches crop instead, and what their `crop` means has changed between releases.

    Layers are allocated when first written, in the model's own dtype and on its device: per layer
    2 * R * H * (S + 1) * D elements. The extra slot takes the writes of padding tokens.
    """

    def __init__(self, num_rows: int, num_slots: int):
        super().__init__(layers=[])
        self.num_rows = num_rows
        self.num_slots = num_slots
        self.keys: dict[int, Tensor] = {}  # layer -> [R, H, S + 1, D]
        self.values: dict[int, Tensor] = {}
        self.place(0, torch.empty(0, 0), 0)

    @property
    def padding_slot(self) -> int:
        """The slot that padding tokens write to; no mask ever shows it."""
        return self.num_slots

    @property
    def nbytes(self) -> int:
        """Bytes allocated so far."""
        return sum(t.nbytes for layers in (self.keys, self.values) for t in layers.values())

    def place(
        self, first_row: int, slots: Tensor, num_visible: int, start: int | None = None
    ) -> None:
        """Say where the next forward writes and how far it reads.

        Args:
            first_row: The forward's B rows are first_row .. first_row + B - 1.
            slots: [B, Q] long; those of padding are `padding_slot`.
            num_visible: Slots 0 .. num_visible - 1 are handed to attention.
            start: The first slot, where a single row's tokens lie in neighbouring ones.
        """
        self._rows = slice(first_row, first_row + len(slots))
        self._start = start
        self.slots = slots
        self._num_visible = num_visible
        self._row_index: Tensor | None = None  # [B, 1] long

    def update(
        self, key_states: Tensor, value_states: Tensor, layer_idx: int, *_, **__
    ) -> tuple[Tensor, Tensor]:
        """Write [B, H, Q, D] keys and values; return views [B, H, num_visible, D]."""
        if layer_idx not in self.keys:
            self.keys[layer_idx] = self._allocate(key_states)
            self.values[layer_idx] = self._allocate(value_states)
        return (
            self._write(self.keys[layer_idx], key_states),
            self._write(self.values[layer_idx], value_states),
        )

    def _write(self, stored: Tensor, new: Tensor) -> Tensor:
        rows = stored[self._rows]
        if self._start is not None:  # a plain copy, several times faster
            rows[:, :, self._start : self._start + new.shape[2]] = new
        else:
            if self._row_index is None:
                self._row_index = torch.arange(len(new), device=new.device)[:, None]
            rows[self._row_index, :, self.slots] = new.transpose(1, 2)
        return rows[:, :, : self._num_visible]

    def _allocate(self, states: Tensor) -> Tensor:
        _, heads, _, dim = states.shape
        return states.new_zeros(self.num_rows, heads, self.num_slots + 1, dim)

    @inferring
    def clear(self) -> None:
        """Make it as if nothing had been written, at the same addresses.

        Zeros, because what a mask hides must still be a number.
        """
        for layers in (self.keys, self.values):
            for stored in layers.values():
                stored.zero_()

    @inferring
    def move_slots(self, row: int, sources: Sequence[int], target: int) -> None:
        """Copy one row's `sources`, in order, to the slots from `target` on.

        Keys carry their position, not their slot, so a token may lie anywhere until it is kept.
        """
        end, places = target + len(sources), None
        for layers in (self.keys, self.values):
            for stored in layers.values():
                if places is None:
                    places = torch.tensor(sources, dtype=torch.long, device=stored.device)
                stored[row, :, target:end] = stored[row].index_select(1, places)

    @inferring
    def move_row(self, source: int, target: int) -> None:
        """Copy one row over another, so that the rows in use stay next to each other."""
        if source == target:
            return
        for layers in (self.keys, self.values):
            for stored in layers.values():
                stored[target] = stored[source]

    def get_seq_length(self, layer_idx: int = 0) -> int:
        """Tell transformers nothing is cached: positions and masks are always given explicitly."""
        return 0

    def get_max_cache_shape(self, layer_idx: int = 0) -> int:
        """Slots per row."""
        return self.num_slots

    def get_max_length(self) -> int:
        """Slots per row (the name used since transformers 5.19)."""
        return self.num_slots

    def get_mask_sizes(self, query_length: int, layer_idx: int = 0) -> tuple[int, int]:
        """Length and offset of the keys that the next forward attends to."""
        return self._num_visible, 0

    @property
    def is_compileable(self) -> bool:
        """Keep transformers from compiling on its own."""
        return False
