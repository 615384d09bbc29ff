"""What `equivalence` asks math-verify, in a process of a verifier."""

import resource
from functools import cache
from typing import Any

from math_verify import LatexExtractionConfig, parse, verify

_MEMORY_BYTES = 4 << 30  # a power tower must not take the machine's


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
        return parse(f"\\boxed{{{text}}}", extraction_config=config, parsing_timeout=None)

    return verify(parsed(gold), parsed(answer), allow_set_relation_comp=True, timeout_seconds=None)


@cache
def _limit_memory() -> None:
    resource.setrlimit(resource.RLIMIT_AS, (_MEMORY_BYTES, _MEMORY_BYTES))
