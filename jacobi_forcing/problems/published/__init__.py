"""The published benchmarks, asked and scored as the field does it: their files are read, not kept.

One file per set; `sources` finds the files, `records` checks them, `reply_text`, `code_text` and
`math_text` take answers out of texts, `equivalence` compares mathematics. Programs are written here
and run by `sandbox`. May import: errors and the rest of `problems`.
"""

from pathlib import Path

from jacobi_forcing.problems.published.gsm8k import Gsm8k
from jacobi_forcing.problems.published.humaneval import HumanEval
from jacobi_forcing.problems.published.math500 import Math500
from jacobi_forcing.problems.published.mbpp import Mbpp
from jacobi_forcing.problems.published.published_set import (
    CodeSet,
    MathSet,
    PublishedSet,
    Question,
    Style,
)
from jacobi_forcing.problems.published.sources import find_records

__all__ = ["SETS", "CodeSet", "MathSet", "PublishedSet", "Question", "Style", "load"]

SETS: dict[str, PublishedSet] = {
    "humaneval": HumanEval(),
    "mbpp": Mbpp(),
    "gsm8k": Gsm8k(),
    "math500": Math500(),
}


def load(name: str, file: str | Path | None = None) -> list[Question]:
    """Find and read a published set.

    Args:
        name: One of SETS.
        file: Read this one; by default, the folder that JACOBI_DATA names, or the hub.

    Raises:
        DataError: The set cannot be found, or the file is not the set.
        ConfigError: The library that scores it is missing.
    """
    chosen = SETS[name]
    return chosen.read(find_records(chosen.source, file))
