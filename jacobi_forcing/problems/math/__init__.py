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
_NUMBER = re.compile(
    r"\s*(?:(?P<before>-)\s*\$?|\$\s*(?P<after>-)?)?\s*"
    r"(?P<digits>\d{1,3}(?:,\d{3})+(?:\.\d+)?|\d+(?:\.\d+)?|\.\d+)"
    # A part of a power, a fraction, a product or another number stands for nothing.
    r"(?![.,]?\d|[eE][-+]?\d|\(|[ \t]*(?:\d|[!^/]|\\(?:times|cdot)"
    r"|[-+*:\u00d7\u00b7]+[ \t]*[\d({\\]))"
)


def sample(rng: random.Random) -> Problem:
    """Draw a problem, every structure being equally likely."""
    return STRUCTURES[rng.choice(list(STRUCTURES))](rng)


def extract_answer(text: str) -> str | None:
    """Find the final number of an answer.

    Args:
        text: An answer, finished or not.

    Returns:
        The number after the last "Answer:", without currency, unit and thousands commas, or None
        if there is no such number, or more than a number.
    """
    _, marker, result = text.replace("\N{MINUS SIGN}", "-").rpartition(_MARKER)
    found = _NUMBER.match(result) if marker else None
    if not found:
        return None
    sign = found["before"] or found["after"] or ""
    return sign + found["digits"].replace(",", "")


def check(problem: Problem, text: str) -> bool:
    """Tell whether an answer ends in the number that the problem asks for."""
    number = extract_answer(text)
    return number is not None and Decimal(number) == Decimal(problem.check["answer"])
