"""The bundled problems: arithmetic word problems and small Python functions, and their checks.

Generated, endless and offline. `stream` deals them out; a problem's `instance` (its numbers and key
nouns, not its wording) decides by hash whether it is for training or held out, so the two splits
never share one. May import: errors only.
"""

import hashlib
import random
from collections.abc import Iterator

from jacobi_forcing.problems import code, math
from jacobi_forcing.problems.problem import Problem

KINDS = {"math": math.sample, "code": code.sample}
_HELD_OUT_PERCENT = 5


def is_held_out(problem: Problem) -> bool:
    """Tell by a hash of its instance which split a problem belongs to: 5 % are held out."""
    key = repr((problem.kind, problem.structure, problem.instance)).encode()
    return int.from_bytes(hashlib.blake2b(key, digest_size=4).digest()) % 100 < _HELD_OUT_PERCENT


def stream(kind: str = "all", *, held_out: bool = False, seed: int = 0) -> Iterator[Problem]:
    """Yield problems of one split without end; the same arguments yield the same problems.

    Args:
        kind: `math`, `code`, or `all` for the two in turn.
        held_out: Deal from the held-out split instead of the training split.
        seed: Any integer.
    """
    rng = random.Random(f"{kind}/{held_out}/{seed}")
    samplers = list(KINDS.values()) if kind == "all" else [KINDS[kind]]
    while True:
        for sample in samplers:
            problem = sample(rng)
            while is_held_out(problem) != held_out:
                problem = sample(rng)
            yield problem


def held_out(kind: str, num_problems: int, seed: int = 0) -> list[Problem]:
    """Deal `num_problems` held-out problems with pairwise different prompts."""
    chosen: dict[str, Problem] = {}
    for problem in stream(kind, held_out=True, seed=seed):
        if len(chosen) == num_problems:
            break
        chosen.setdefault(problem.prompt, problem)
    return list(chosen.values())
