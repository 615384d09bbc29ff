"""How noisy each block of a training sequence is (paper 3.1, Eq. 7)."""

import random

import numpy as np


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


def noise_ratios(states: np.ndarray, fixed_points: np.ndarray) -> np.ndarray:
    """Give every state the fraction of its tokens from its first wrong one on, 0..1.

    A token that is already right behind a wrong one still counts as noise, as in the reference.

    Args:
        states: [N, n] ids.
        fixed_points: [N, n] ids, of each state's block.

    Returns:
        [N] float64.
    """
    block_size = states.shape[1]
    differs = states != fixed_points
    first = np.where(differs.any(1), differs.argmax(1), block_size)
    return 1 - first / block_size


def nearest_states(noise: np.ndarray, block: np.ndarray, ratios: np.ndarray) -> np.ndarray:
    """Pick of every block the state whose noise ratio is nearest, the earliest on a tie.

    Args:
        noise: [N], the states' noise ratios, block by block and each block's in order.
        block: [N], the block of each state: 0 .. T - 1, every one at least once.
        ratios: [T], what each block aims for, 0..1.

    Returns:
        [T] indices of states.
    """
    distances = np.abs(noise - ratios[block])
    # Stable, so among equals the earliest comes first.
    order = np.lexsort((distances, block))
    return order[np.searchsorted(block, np.arange(len(ratios)))]
