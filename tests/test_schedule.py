"""How noisy each block is to be, and which recorded state comes nearest to that."""

import random
from fractions import Fraction
from itertools import pairwise

import numpy as np
import pytest
from packs import first_difference

from jacobi_forcing.training.schedule import nearest_states, noise_ratios, scheduled_ratios


def ratios(schedule, num_blocks, window, low=0.0, high=1.0, phase=0, seed=0):
    rng = random.Random(seed)
    return scheduled_ratios(
        schedule, num_blocks, window=window, low=low, high=high, phase=phase, rng=rng
    )


@pytest.mark.parametrize("window", [2, 3, 5, 8, 16])
def test_ratios_rise_evenly_inside_a_window_and_then_start_again(window):
    found = ratios("progressive", 3 * window + 1, window)
    first = found[:window]
    assert all(later > earlier for earlier, later in pairwise(first))
    assert first == pytest.approx([i / (window - 1) for i in range(window)])
    assert found == first * 3 + first[:1]


def test_both_ends_of_a_window_are_reached_exactly():
    rng = random.Random(0)
    for _ in range(500):
        low, high = sorted([rng.random(), rng.choice([rng.random(), 1.0])])
        window = rng.randint(2, 20)
        found = ratios("progressive", window, window, low, high)
        assert (found[0], found[-1]) == (low, high)
        assert all(low <= ratio <= high for ratio in found)


@pytest.mark.parametrize("window", [2, 3, 8])
def test_reverse_is_the_mirror_image_of_progressive(window):
    up = ratios("progressive", 2 * window, window, 0.25, 0.75)
    down = ratios("reverse", 2 * window, window, 0.25, 0.75)
    assert down == up[::-1]
    assert down[0] == 0.75
    assert down[window - 1] == 0.25
    assert down != up


def test_random_ratios_stay_within_bounds_fill_them_and_follow_the_seed():
    found = ratios("random", 2000, 4, 0.2, 0.7, seed=1)
    assert all(0.2 <= ratio <= 0.7 for ratio in found)
    assert min(found) < 0.21
    assert max(found) > 0.69
    assert found == ratios("random", 2000, 4, 0.2, 0.7, seed=1)
    assert found != ratios("random", 2000, 4, 0.2, 0.7, seed=2)


@pytest.mark.parametrize("schedule", ["progressive", "reverse"])
def test_a_window_of_one_block_aims_for_the_middle_every_time(schedule):
    assert ratios(schedule, 5, 1, 0.2, 0.8) == [0.5] * 5


@pytest.mark.parametrize("schedule", ["progressive", "reverse"])
def test_a_phase_skips_that_many_blocks_of_the_schedule(schedule):
    whole = ratios(schedule, 20, 5)
    for phase in range(5):
        assert ratios(schedule, 12, 5, phase=phase) == whole[phase : phase + 12]
    assert ratios(schedule, 12, 5, phase=2) != whole[:12]


def random_pair(rng):
    """A state and a fixed point over few tokens, so that they often agree."""
    size = rng.choice([1, 2, 4, 8, 16])
    fixed = [rng.randrange(3) for _ in range(size)]
    right = rng.randint(0, size)
    return fixed[:right] + [rng.randrange(3) for _ in range(size - right)], fixed


def test_noise_ratios_agree_with_brute_force():
    rng = random.Random(3)
    seen = set()
    for _ in range(2000):
        state, fixed = random_pair(rng)
        right = Fraction(first_difference(state, fixed), len(fixed))
        assert noise_ratios(np.array([state]), np.array([fixed])) == [float(1 - right)]
        seen.add(right)
    assert {0, 1} < seen


def test_a_right_token_behind_a_wrong_one_still_counts_as_noise():
    states = np.array([[9, 2, 3, 4], [1, 2, 9, 4], [1, 2, 3, 4]])
    fixed = np.array([[1, 2, 3, 4]] * 3)
    assert noise_ratios(states, fixed).tolist() == [1.0, 0.5, 0.0]


def random_block(rng, size):
    """States of one block in any order, its fixed point last."""
    fixed = [rng.randrange(3) for _ in range(size)]
    right = [rng.randint(0, size) for _ in range(rng.randint(0, 6))]
    return [fixed[:k] + [rng.randrange(3) for _ in fixed[k:]] for k in right] + [fixed]


def test_the_picked_states_are_the_nearest_to_the_schedule_and_the_first_of_equals():
    rng = random.Random(4)
    num_ties = num_blocks = 0
    for _ in range(200):
        size = rng.choice([1, 2, 4, 8, 16])
        blocks = [random_block(rng, size) for _ in range(rng.randint(1, 20))]
        targets = [Fraction(rng.randint(0, 32), 32) for _ in blocks]
        expected, first = [], 0
        for states, target in zip(blocks, targets, strict=True):
            distances = [
                abs(1 - Fraction(first_difference(state, states[-1]), size) - target)
                for state in states
            ]
            expected.append(first + min(range(len(states)), key=lambda i: (distances[i], i)))
            num_ties += distances.count(min(distances)) > 1
            first += len(states)
        counts = [len(states) for states in blocks]
        fixed = np.repeat([states[-1] for states in blocks], counts, axis=0)
        noise = noise_ratios(np.concatenate(blocks), fixed)
        block = np.repeat(np.arange(len(blocks)), counts)
        found = nearest_states(noise, block, np.array(targets, float))
        assert found.tolist() == expected
        num_blocks += len(blocks)
    assert num_ties > 200
    assert num_blocks > 1000
