"""Conditions on whole numbers, in the three forms a problem needs: words, code and truth."""

from collections.abc import Callable
from dataclasses import dataclass
from random import Random


@dataclass(frozen=True)
class Condition:
    """A condition on a whole number.

    Attributes:
        text: As a prompt says it, after "is" or "are".
        doc: As a docstring says it, worded differently from every `text`.
        code: What follows the variable in code, such as `> 12`.
        holds: The condition itself.
        tag: One word for function names.
        turn: A number on or next to the border of the condition.
    """

    text: str
    doc: str
    code: str
    holds: Callable[[int], bool]
    tag: str
    turn: int

    def numbers(self, rng: Random, count: int = 5) -> list[int]:
        """Numbers on both sides of the border (`count` at least 3), in random order."""
        near = [max(self.turn - 1, 0), self.turn, self.turn + 1]
        far = [rng.randint(0, 2 * self.turn + 5) for _ in range(count - 3)]
        return rng.sample(near + far, count)

    def failing(self, rng: Random, count: int = 3) -> list[int]:
        """Numbers for which the condition does not hold."""
        pool = [n for n in range(2 * self.turn + 6) if not self.holds(n)]
        return rng.choices(pool, k=count)


def threshold(rng: Random, low: int = 3, high: int = 97) -> Condition:
    """A comparison with a constant between two bounds."""
    n = rng.randint(low, high)
    side = rng.choice((">", ">=", "<", "<="))
    if side == ">":
        text = rng.choice(("greater than", "over", "more than", "larger than"))
        return Condition(f"{text} {n}", f"above {n}", f"> {n}", lambda x: x > n, "high", n)
    if side == ">=":
        text = rng.choice(("at least", "not less than", "greater than or equal to"))
        return Condition(f"{text} {n}", f"{n} or more", f">= {n}", lambda x: x >= n, "top", n)
    if side == "<":
        text = rng.choice(("less than", "below", "smaller than"))
        return Condition(f"{text} {n}", f"under {n}", f"< {n}", lambda x: x < n, "low", n)
    text = rng.choice(("at most", "not more than", "less than or equal to"))
    return Condition(f"{text} {n}", f"{n} or less", f"<= {n}", lambda x: x <= n, "small", n)


def divisibility(rng: Random) -> Condition:
    """Even, odd, or a statement about multiples of a small number."""
    kind = rng.choice(("even", "odd", "multiple", "other"))
    if kind == "even":
        return Condition("even", "even", "% 2 == 0", lambda x: x % 2 == 0, "even", 2)
    if kind == "odd":
        return Condition("odd", "odd", "% 2 == 1", lambda x: x % 2 == 1, "odd", 3)
    n = rng.randint(3, 12)
    if kind == "multiple":
        text = f"{rng.choice(('divisible by', 'a multiple of'))} {n}"
        return Condition(
            text, f"in the {n} times row", f"% {n} == 0", lambda x: x % n == 0, "multiple", n
        )
    text = f"not {rng.choice(('divisible by', 'a multiple of'))} {n}"
    return Condition(
        text, f"outside the {n} times row", f"% {n} != 0", lambda x: x % n != 0, "uneven", n
    )


def condition(rng: Random) -> Condition:
    """Any condition; comparisons come up most often since they vary most."""
    return threshold(rng) if rng.random() < 0.7 else divisibility(rng)
