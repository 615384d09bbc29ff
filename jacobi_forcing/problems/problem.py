"""The one record that every bundled problem is made of."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Problem:
    """One bundled problem: what is asked, one good answer, and how to check any answer."""

    kind: str  # "math" or "code"
    structure: str  # name of the structure it was made from
    # The numbers and nouns that make this problem what it is; train and held-out never share one.
    instance: tuple
    prompt: str  # given to the model; ends in a newline
    answer: str  # a reference answer, no trailing newline
    # For math {"answer": "42"}, for code {"function": name, "tests": [[args, expected], ...]}.
    check: dict
