"""How sure a count is: intervals and tests."""

import math
from collections.abc import Sequence


def wilson(successes: int, trials: int) -> tuple[float, float]:
    """Give the 95 % Wilson interval of a success rate, as fractions."""
    z = 1.959964
    rate = successes / trials
    centre = rate + z * z / (2 * trials)
    spread = z * math.sqrt(rate * (1 - rate) / trials + z * z / (4 * trials * trials))
    scale = 1 + z * z / trials
    return max(0.0, (centre - spread) / scale), min(1.0, (centre + spread) / scale)


def mcnemar(only_first: int, only_second: int) -> float:
    """Test whether two models differ on the same problems: the exact two-sided McNemar p-value.

    Args:
        only_first: Problems that only the first one solves.
        only_second: Problems that only the second one solves.
    """
    discordant = only_first + only_second
    fewer = min(only_first, only_second)
    tail = sum(math.comb(discordant, k) for k in range(fewer + 1))
    return min(1.0, 2 * tail / 2**discordant)


def percentile(values: Sequence[float], percent: float) -> float:
    """Give the smallest value that so many per cent of all values do not exceed."""
    ordered = sorted(values)
    return ordered[max(0, math.ceil(len(ordered) * percent / 100) - 1)]


def ratio_error(numerators: Sequence[float], denominators: Sequence[float]) -> float:
    """Give the standard error of sum / sum over independent pairs, linearised."""
    total = sum(denominators)
    ratio = sum(numerators) / total
    off = (a - ratio * b for a, b in zip(numerators, denominators, strict=True))
    return math.sqrt(sum(one * one for one in off)) / total
