"""Arithmetic word problems with worked answers."""

from __future__ import annotations

import random
import re
from collections.abc import Callable
from decimal import Decimal

from ..problem import Problem
from . import changes, home, money, people, school, sharing, shopping, travel

STRUCTURES: dict[str, Callable[[random.Random], Problem]] = {
    **shopping.STRUCTURES,
    **money.STRUCTURES,
    **sharing.STRUCTURES,
    **travel.STRUCTURES,
    **changes.STRUCTURES,
    **home.STRUCTURES,
    **people.STRUCTURES,
    **school.STRUCTURES,
}

_MARKER = "Answer:"
_NUMBER = re.compile(r"\s*\$?\s*(-?\d[\d,]*(?:\.\d+)?)")


def sample(rng: random.Random) -> Problem:
    """Draw a problem, every structure being equally likely."""
    return STRUCTURES[rng.choice(list(STRUCTURES))](rng)


def extract_answer(text: str) -> str | None:
    """Find the final number of an answer.

    Args:
        text: An answer, finished or not.

    Returns:
        The number after the last "Answer:", without currency, unit and thousands commas, or None
        if there is no such number.
    """
    _, marker, result = text.rpartition(_MARKER)
    found = _NUMBER.match(result) if marker else None
    return found[1].replace(",", "") if found else None


def check(problem: Problem, text: str) -> bool:
    """Tell whether an answer ends in the number that the problem asks for."""
    number = extract_answer(text)
    return number is not None and Decimal(number) == Decimal(problem.check["answer"])
