"""Small Python function problems, made from structures whose every part varies.

A structure (say "count the items that meet a condition") draws its constants, conditions, names
and wording from a `random.Random`, so the same seed always gives the same problems.
"""

from collections.abc import Callable
from functools import partial
from random import Random

from jacobi_forcing.problems.code import (
    changes,
    decisions,
    grids,
    letters,
    numbers,
    order,
    running,
    steps,
    strings,
    tables,
    totals,
)
from jacobi_forcing.problems.code.craft import finish
from jacobi_forcing.problems.problem import Problem

__all__ = ["STRUCTURES", "sample"]

_THEMES = (
    totals,
    changes,
    running,
    order,
    letters,
    strings,
    numbers,
    steps,
    tables,
    grids,
    decisions,
)

#: Every structure by name; calling one with a random source makes a problem.
STRUCTURES: dict[str, Callable[[Random], Problem]] = {
    structure.__name__: partial(finish, structure)
    for theme in _THEMES
    for structure in theme.STRUCTURES
}

_ALL = tuple(STRUCTURES.values())


def sample(rng: Random) -> Problem:
    """Make a problem from a structure picked at random, each equally likely."""
    return rng.choice(_ALL)(rng)
