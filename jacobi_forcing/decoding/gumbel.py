"""Noise that depends on nothing but (seed, position, token): the same in every decoder.

Sampling draws a token as argmax(log p + Gumbel noise). With noise that is a function of seed and
position, so is the token, given the text before it: sampled text is as definite as greedy text,
decoders can guess at it, and a guess is right if it is equal. Drafts and their verification share
the noise, so they agree more often than where each rolls its own dice.

The generator is Philox4x32-10 (Salmon et al., SC 2011), in integer arithmetic: no state, any
order, any batch, any device.
"""

import numpy as np
import torch
from torch import Tensor

_MASK = 0xFFFFFFFF
_MULTIPLIERS = (0xD2511F53, 0xCD9E8D57)
_WEYL = (0x9E3779B9, 0xBB67AE85)
_ROUNDS = 10
_AT_ONCE = 1 << 22  # logits that are copied together: 16 MiB
_FEW = 1 << 14  # logits that PyTorch finds the highest of sooner than numpy, between forwards
_HIGHEST = 22.9  # no noise is above: -log(-log(1 - 2^-33)) = 22.87


def philox(counter: tuple[Tensor, Tensor, Tensor, Tensor], seed: int | Tensor) -> list[Tensor]:
    """Turn 128-bit counters into 128 random bits each.

    Args:
        counter: Four long tensors that broadcast to one shape, each of 32-bit words, low first.
        seed: 64-bit key, or a long tensor of them that broadcasts to the same shape.

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


def as_long(seed: int) -> int:
    """Give the number whose 64 bits, in a long tensor, are those of `seed`."""
    return seed - (seed >> 63 << 64)


def gumbel(seed: int | Tensor, positions: Tensor, num_tokens: int) -> Tensor:
    """Make the noise of whole vocabularies.

    Args:
        seed: 64-bit integer, or [N] long, one (`as_long`) for every position.
        positions: [N] long, places in the sequence, the prompt counted.
        num_tokens: V.

    Returns:
        [N, V] float32 of independent standard Gumbel numbers, on the device of `positions`.
    """
    quads = torch.arange(-(-num_tokens // 4), device=positions.device)
    seeds = _seeds(seed, positions)
    words = _words(seeds[:, None], positions[:, None], quads[None])
    return _gumbel(words.flatten(1)[:, :num_tokens])


def gumbel_at(seed: int | Tensor, positions: Tensor, tokens: Tensor) -> Tensor:
    """Make the noise of single tokens: `gumbel(seed, positions, V)[i, tokens[i]]` for [P] i."""
    words = _words(_seeds(seed, positions), positions, tokens // 4)
    return _gumbel(words.gather(-1, tokens[:, None] % 4)[:, 0])


def draw(scores: Tensor, seed: int | Tensor, positions: Tensor) -> Tensor:
    """Draw from softmax(scores): the argmax of scores and noise.

    On a CPU, noise is made only for tokens that it can lift above the likeliest one. Of a real
    vocabulary that is a small part, where a temperature below 1 or a truncation is set.

    Args:
        scores: [N, V].
        seed: As for `gumbel`.
        positions: [N] long, of the tokens to draw; where the scores are, or on the CPU.

    Returns:
        [N] long.
    """
    num_tokens = scores.shape[1]
    if scores.is_cuda:  # choosing tokens would wait for the device, which makes them all in no time
        return (scores + gumbel(seed, positions.to(scores.device), num_tokens)).argmax(-1)
    device, scores, seeds = scores.device, scores.cpu(), _seeds(seed, positions)
    best = likeliest(scores)
    reached = scores.gather(-1, best[:, None])[:, 0] + gumbel_at(seeds, positions, best)
    can_win = scores >= (reached - _HIGHEST)[:, None]
    if 4 * int(can_win.sum()) > scores.numel():  # alone, a token costs as much as four neighbours
        noisy = scores + gumbel(seeds, positions, num_tokens)
    else:
        rows, tokens = can_win.nonzero(as_tuple=True)
        noisy = torch.full_like(scores, -torch.inf)
        noise = gumbel_at(seeds[rows], positions[rows], tokens)
        noisy[rows, tokens] = scores[rows, tokens] + noise
    return likeliest(noisy).to(device)


def likeliest(scores: Tensor) -> Tensor:
    """Give the argmax, the first where several are equal: what is drawn without noise.

    On a CPU numpy finds it several times faster than PyTorch where the vocabulary is large
    (benchmarks/likeliest.py): for drafts that is milliseconds in every step.

    Args:
        scores: [..., V] floating point.

    Returns:
        [...] long.
    """
    if scores.device.type != "cpu" or scores.numel() <= _FEW:
        return scores.argmax(-1)
    if scores.dtype != torch.float32 and scores.dim() > 1 and scores.numel() > _AT_ONCE:
        return torch.stack([likeliest(some) for some in scores])  # numpy knows no bfloat16: copied
    return torch.from_numpy(np.asarray(scores.detach().float().numpy().argmax(-1)))


def _seeds(seed: int | Tensor, positions: Tensor) -> Tensor:
    """Give [N] long seeds, one for every position, where the positions are."""
    if isinstance(seed, Tensor):
        return seed.to(positions.device)
    return torch.full_like(positions, as_long(seed))


def _words(seeds: Tensor, positions: Tensor, quads: Tensor) -> Tensor:
    """Give the random words of four neighbouring tokens in a last dimension of 4."""
    zero = torch.zeros_like(positions)
    return torch.stack(philox((quads, positions & _MASK, positions >> 32, zero), seeds), dim=-1)


def _gumbel(words: Tensor) -> Tensor:
    # The middle of each of 2^32 equal steps: never 0, never 1, so both logarithms are finite.
    uniform = (words.double() + 0.5) / 2**32
    return -torch.log(-torch.log(uniform)).float()
