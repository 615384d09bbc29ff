"""How noisy each block of a training sequence is (paper 3.1, Eq. 7)."""

import random
from collections.abc import Sequence


def scheduled_ratios(
    schedule: str,
    num_blocks: int,
    *,
    window: int,
    low: float = 0.0,
    high: float = 1.0,
    phase: int = 0,
    rng: random.Random,
) -> list[float]:
    """Give every block the noise ratio to aim for.

    Args:
        schedule: `progressive` climbs linearly from `low` to `high` over `window` blocks and starts
            again, which keeps the longest run of noise short; `reverse` descends; `random` draws
            each ratio uniformly.
        num_blocks: Blocks in the sequence.
        window: w, at least 1. Both ends are reached, as in the reference: steps of 1 / (w - 1);
            a window of one block aims for the middle.
        low: Noise ratio at the clean end, 0..1.
        high: Noise ratio at the noisy end, low..1.
        phase: Blocks of the window that are skipped at the start.
        rng: Used by `random` only.
    """
    if schedule == "random":
        return [rng.uniform(low, high) for _ in range(num_blocks)]
    # Not low + (high - low) * climb: that can miss `high` by a rounding error.
    climbs = [0.5] if window == 1 else [i / (window - 1) for i in range(window)]
    steps = [low * (1 - climb) + high * climb for climb in climbs]
    if schedule == "reverse":
        steps = steps[::-1]
    return [steps[(phase + block) % window] for block in range(num_blocks)]


def first_difference(state: Sequence[int], fixed_point: Sequence[int]) -> int:
    """Count the leading tokens of `state` that equal the fixed point's; n where all do."""
    for i, (token, right) in enumerate(zip(state, fixed_point, strict=True)):
        if token != right:
            return i
    return len(fixed_point)


def noise_ratio(state: Sequence[int], fixed_point: Sequence[int]) -> float:
    """Give the fraction of a block's tokens from its first wrong one on, 0..1.

    A token that is already right behind a wrong one still counts as noise, as in the reference.
    """
    return 1 - first_difference(state, fixed_point) / len(fixed_point)


def nearest_state(states: Sequence[Sequence[int]], ratio: float) -> int:
    """Pick the state whose noise ratio is nearest to `ratio`, the earliest on a tie.

    Args:
        states: A block's states in order; the last is its fixed point.
        ratio: The ratio to aim for, 0..1.
    """
    distances = [abs(noise_ratio(state, states[-1]) - ratio) for state in states]
    return distances.index(min(distances))
