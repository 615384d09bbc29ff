"""What `equivalence` asks math-verify, in a process of a verifier.

The library compares what is not a plain number with 15 decimal places, and decimals with 6, so it
takes 1/2^99 for 1/2^98 and 0.333333 for 1/3. Here decimals are fractions, and numbers are compared
with as many places as their sizes need.
"""

import resource
from functools import cache
from typing import Any

from math_verify import LatexExtractionConfig, parse, verify
from sympy import Basic, Float, MatrixBase, Rational, preorder_traversal
from sympy.core.relational import Relational

_MEMORY_BYTES = 4 << 30  # a power tower must not take the machine's
_SPARE_PLACES = 50  # decimal places beyond the sizes of all numbers


def is_same(gold: str, answer: str, record: Any) -> bool:
    """Tell whether an answer is the right one; time is limited by whoever calls.

    Args:
        gold: What is right, in LaTeX.
        answer: What was answered, in LaTeX.
        record: Not used.
    """
    _limit_memory()

    def parsed(text: str) -> list:
        # The library's own time limits are alarms, which wait while one operation is at work.
        config = [LatexExtractionConfig(boxed_match_priority=0)]
        found = parse(f"\\boxed{{{text}}}", extraction_config=config, parsing_timeout=None)
        return [_without_floats(one) for one in found]

    right, given = parsed(gold), parsed(answer)
    places = _SPARE_PLACES + sum(map(_size_bits, [*right, *given]))
    return verify(
        right,
        given,
        float_rounding=places,
        numeric_precision=places,
        allow_set_relation_comp=True,
        timeout_seconds=None,
    )


def _without_floats(found: Any) -> Any:
    """Write decimals as fractions; all else keeps its form, whether evaluated or not."""
    if isinstance(found, Float):
        return Rational(str(found))
    if isinstance(found, MatrixBase):
        return found.applyfunc(_without_floats)
    if not isinstance(found, Basic) or not found.has(Float):
        return found
    args = getattr(found, "_unsorted_args", found.args)  # of the library's own sets and chains
    lazily = {"evaluate": False} if isinstance(found, Relational) else {}  # or x = {1} is false
    return found.func(*map(_without_floats, args), **lazily)


def _size_bits(found: Any) -> int:
    """Sum the distances from 1, in bits, of all numbers in an expression.

    A difference of two expressions is far smaller than 1 only where their sizes are large.
    """
    if not isinstance(found, Basic | MatrixBase):
        return 0
    bits = 0
    for part in preorder_traversal(found):
        if getattr(part, "is_Rational", False):
            bits += part.p.bit_length() + part.q.bit_length()
        elif getattr(part, "is_number", False):
            for number in part.evalf(5).atoms(Float):
                _, _, exponent, width = number._mpf_
                bits += abs(exponent + width)
    return bits


@cache
def _limit_memory() -> None:
    resource.setrlimit(resource.RLIMIT_AS, (_MEMORY_BYTES, _MEMORY_BYTES))
