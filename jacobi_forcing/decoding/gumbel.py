"""Noise that depends on nothing but (seed, position, token): the same in every decoder.

Sampling draws a token as argmax(log p + Gumbel noise). With noise that is a function of seed and
position, so is the token, given the text before it: sampled text is as definite as greedy text,
decoders can guess at it, and a guess is right if it is equal. Drafts and their verification share
the noise, so they agree more often than where each rolls its own dice.

The generator is Philox4x32-10 (Salmon et al., SC 2011), in integer arithmetic: no state, any
order, any batch, any device.
"""

import torch
from torch import Tensor

_MASK = 0xFFFFFFFF
_MULTIPLIERS = (0xD2511F53, 0xCD9E8D57)
_WEYL = (0x9E3779B9, 0xBB67AE85)
_ROUNDS = 10


def philox(counter: tuple[Tensor, Tensor, Tensor, Tensor], seed: int) -> list[Tensor]:
    """Turn 128-bit counters into 128 random bits each.

    Args:
        counter: Four long tensors that broadcast to one shape, each of 32-bit words, low first.
        seed: 64-bit key.

    Returns:
        Four long tensors of 32-bit words.
    """
    words = list(torch.broadcast_tensors(*counter))
    keys = [seed & _MASK, seed >> 32 & _MASK]
    for _ in range(_ROUNDS):
        high0, low0 = _multiply(words[0], _MULTIPLIERS[0])
        high1, low1 = _multiply(words[2], _MULTIPLIERS[1])
        words = [high1 ^ words[1] ^ keys[0], low1, high0 ^ words[3] ^ keys[1], low0]
        keys = [key + weyl & _MASK for key, weyl in zip(keys, _WEYL, strict=True)]
    return words


def _multiply(words: Tensor, factor: int) -> tuple[Tensor, Tensor]:
    """Multiply 32-bit words; high and low half of the product.

    The product overflows 63 bits, but wraps around, and its bits are right.
    """
    product = words * factor
    return product >> 32 & _MASK, product & _MASK


def gumbel(seed: int, positions: Tensor, num_tokens: int) -> Tensor:
    """Make the noise of sequence positions.

    Args:
        seed: 64-bit integer.
        positions: [N] long, places in the sequence, the prompt counted.
        num_tokens: V.

    Returns:
        [N, V] float32 of independent standard Gumbel numbers, on the device of `positions`.
    """
    quads = torch.arange(-(-num_tokens // 4), device=positions.device)
    place = positions[:, None]
    zero = torch.zeros_like(place)
    words = philox((quads[None], place & _MASK, place >> 32, zero), seed)
    bits = torch.stack(words, dim=-1).flatten(1)[:, :num_tokens]
    # The middle of each of 2^32 equal steps: never 0, never 1, so both logarithms are finite.
    uniform = (bits.double() + 0.5) / 2**32
    return -torch.log(-torch.log(uniform)).float()
