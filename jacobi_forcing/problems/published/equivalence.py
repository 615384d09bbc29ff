"""Says which mathematical answers are the same, with the library math-verify.

What texts and plain numbers decide is decided here. For the rest the library parses and simplifies,
which may take any time on what a model wrote, so it works in processes that can be ended.
"""

import atexit
import os
import re
from collections.abc import Sequence
from decimal import Decimal
from functools import cache
from importlib.util import find_spec

from jacobi_forcing.errors import ConfigError
from jacobi_forcing.problems.published.math_text import PLAIN
from jacobi_forcing.problems.verifier import Verifier

_SECONDS = 5.0  # per pair; nearly all take less than a tenth
_FUNCTION = "jacobi_forcing.problems.published.equivalence_child:is_same"
_LONGEST = 1000  # characters of an answer; the longest published one has 49

_WRAPPED = re.compile(r"\$(.*)\$|\\\((.*)\\\)|\\\[(.*)\\\]|\*\*(.*)\*\*", re.DOTALL)
_SIGNS = str.maketrans(
    {"°": r"^\circ ", "π": r"\pi ", "∞": r"\infty ", "≤": r"\le ", "≥": r"\ge ", "·": r"\cdot "}
    | {"\N{MINUS SIGN}": "-", "\N{UNION}": r"\cup ", "\N{MULTIPLICATION SIGN}": r"\times "}
)
_THIN_SPACE = re.compile(r"\\[!,;: ]|~|\\q?quad\b")
_SPACE = re.compile(r"(?<!\d)\s+|\s+(?!\d)")  # between digits it may mean something
_PERCENT = re.compile(r"\\?%$")
_BASE = re.compile(r"[\dA-F]+_\{?(\d+)\}?")


def are_equal(pairs: Sequence[tuple[str, str]], workers: int | None = None) -> list[bool]:
    """Compare answers as mathematics; may be called from any thread.

    Args:
        pairs: (what is right, an answer) each; not symmetric: `5` answers `x=5`.
        workers: How many processes; by default one per processor.

    Returns:
        One verdict per pair; False as well for what cannot be parsed, or not in time.

    Raises:
        ConfigError: The library is missing.
    """
    # Nothing so long is an answer, and patterns take their time with it.
    pairs = [(_tidy(gold), _tidy(answer[:_LONGEST])) for gold, answer in pairs]
    verdicts = [_at_once(*pair) for pair in pairs]
    undecided = [i for i, verdict in enumerate(verdicts) if verdict is None]
    if undecided:
        need_library()
        workers = workers or min(8, len(os.sched_getaffinity(0)))
        rejections = _verifier(workers).judge([(*pairs[i], None) for i in undecided])
        for i, rejection in zip(undecided, rejections, strict=True):
            verdicts[i] = rejection is None
    return [bool(verdict) for verdict in verdicts]


@cache
def _verifier(workers: int) -> Verifier:
    """Start processes that stay for the next answers: importing the library takes a second."""
    verifier = Verifier(_FUNCTION, seconds=_SECONDS, workers=workers)
    atexit.register(verifier.close)
    return verifier


def need_library() -> None:
    """Make sure that answers can be compared.

    Raises:
        ConfigError: The library is missing.
    """
    if find_spec("math_verify") is None:
        raise ConfigError(
            "comparing mathematical answers needs math-verify: "
            "pip install 'jacobi-forcing[evaluate]'"
        )


# Dots, line breaks and spaces of LaTeX behind an answer. No text can be taken apart in two ways:
# thousands of spaces before something else would take for ever.
_BEHIND = re.compile(r"(?:[.,;:]|\\\\|(?<!\\)\\(?:[!,; ]|(?![!,; ])))+$")


def _tidy(answer: str) -> str:
    """Write signs in LaTeX; remove spaces, dollar signs and bold around, the dot behind."""
    answer = answer.translate(_SIGNS)
    while True:
        tidied = answer.strip()
        tidied = _BEHIND.sub("", tidied)
        wrapped = _WRAPPED.fullmatch(tidied)
        if wrapped and "$" not in (inner := next(filter(None, wrapped.groups()), "")):
            tidied = inner
        if tidied == answer:
            return answer
        answer = tidied


def _at_once(gold: str, answer: str) -> bool | None:
    """Decide what needs no algebra; None for all else."""
    if not answer:
        return False
    gold, answer = _compact(gold), _compact(answer)
    if gold == answer:
        return True
    verdict = _as_numbers(gold, answer)
    if verdict is not None:
        return verdict
    base, other = _BASE.fullmatch(gold), _BASE.fullmatch(answer)
    if base and other and base[1] != other[1]:  # the library does not look at bases
        return False
    return None


def _as_numbers(gold: str, answer: str) -> bool | None:
    """Compare plain numbers and percentages; 10 % may be written as 10, or as 0.1."""
    whole, given = _PERCENT.sub("", gold), _PERCENT.sub("", answer)
    plain, found = PLAIN.fullmatch(whole), PLAIN.fullmatch(given)
    if not plain or not found:
        return None
    if _number(plain) == _number(found):
        return True
    return None if (whole == gold) != (given == answer) else False


def _number(plain: re.Match) -> Decimal:
    return Decimal(plain[1] + plain[2].replace(",", ""))


def _compact(answer: str) -> str:
    r"""Write an answer without spaces and in one of several forms, such as \frac for \dfrac."""
    compact = _SPACE.sub("", _THIN_SPACE.sub("", answer))
    compact = re.sub(r"\\(?:left|right|displaystyle)(?![a-zA-Z])", "", compact)
    return re.sub(r"\\[dtc]frac(?![a-zA-Z])", r"\\frac", compact).replace("{,}", ",")
