"""Beginnings of texts that were read before: their keys and values are copied, not computed again.

A chat's next turn begins with all turns before it, and most prompts of an application with the
same instructions. What a token's keys and values are depends on the text up to it only, so those of
any earlier text that begins alike will do.

Shapes: L = tokens of a text that is kept, H = key/value heads, D = head dimension.
"""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from torch import Tensor

from jacobi_forcing.models.cache import SlotCache
from jacobi_forcing.models.inference import inferring

_FEWEST = 16  # tokens that are worth looking up and copying


class _Kept(NamedTuple):
    ids: np.ndarray  # [L]
    keys: dict[int, Tensor]  # layer -> [H, L, D]
    values: dict[int, Tensor]


class Prefix(NamedTuple):
    """The beginning of a text that is known."""

    kept: _Kept
    num_tokens: int


class PrefixStore:
    """Keeps the cache rows of finished texts, the latest used, as many as fit.

    Args:
        cache: Whose rows are kept and filled.
        num_tokens: Tokens that all kept texts may have together: each takes as much memory as one
            slot of the cache.
    """

    def __init__(self, cache: SlotCache, num_tokens: int):
        self.cache = cache
        self.num_tokens = num_tokens
        self.num_copied = 0  # tokens that were copied and not computed, in all
        self._kept: list[_Kept] = []  # the latest used last

    @property
    def num_kept(self) -> int:
        """Tokens of all texts that are kept."""
        return sum(len(kept.ids) for kept in self._kept)

    def find(self, ids: Sequence[int]) -> Prefix | None:
        """Find the longest known beginning of a text, its last token never included."""
        if not self._kept:
            return None
        text = np.asarray(ids[:-1])
        found = max((Prefix(k, _common(k.ids, text)) for k in self._kept), key=lambda p: p[1])
        if found.num_tokens < _FEWEST:
            return None
        self._kept = [kept for kept in self._kept if kept is not found.kept] + [found.kept]
        return found

    @inferring
    def load(self, prefix: Prefix, row: int) -> None:
        """Write a beginning into the first slots of a cache row."""
        end = prefix.num_tokens
        self.num_copied += end
        for stored, kept in self._pairs(prefix.kept):
            stored[row, :, :end] = kept[:, :end]

    @inferring
    def save(self, row: int, ids: Sequence[int]) -> None:
        """Keep a cache row whose first slots hold `ids`, in place of those it begins with."""
        if not _FEWEST <= len(ids) <= self.num_tokens:
            return
        new = np.asarray(ids)
        if any(_common(kept.ids, new) == len(new) for kept in self._kept):
            return
        self._kept = [kept for kept in self._kept if _common(kept.ids, new) < len(kept.ids)]
        self._kept.append(
            _Kept(
                new,
                {i: k[row, :, : len(new)].clone() for i, k in self.cache.keys.items()},
                {i: v[row, :, : len(new)].clone() for i, v in self.cache.values.items()},
            )
        )
        while self.num_kept > self.num_tokens:
            self._kept.pop(0)

    def _pairs(self, kept: _Kept) -> list[tuple[Tensor, Tensor]]:
        """List what the cache stores, and what was kept of it."""
        pairs = [(self.cache.keys[i], k) for i, k in kept.keys.items()]
        return pairs + [(self.cache.values[i], v) for i, v in kept.values.items()]


def _common(one: np.ndarray, other: np.ndarray) -> int:
    """Count the tokens that two texts have in common at their beginning."""
    num = min(len(one), len(other))
    differs = np.flatnonzero(one[:num] != other[:num])
    return int(differs[0]) if len(differs) else num
