"""Check many answers to bundled problems at once."""

from collections.abc import Sequence

from jacobi_forcing.problems import math
from jacobi_forcing.problems.checker import run_answers
from jacobi_forcing.problems.problem import Problem


def check_answers(answers: Sequence[tuple[Problem, str]]) -> list[bool]:
    """Say of every (problem, answer text) whether the answer solves the problem.

    A number is compared; a function is run on its tests, inside the limits of `checker`.
    """
    verdicts = [False] * len(answers)
    code = [i for i, (problem, _) in enumerate(answers) if problem.kind == "code"]
    ran = run_answers([(answers[i][0].check, answers[i][1]) for i in code])
    for i, verdict in zip(code, ran, strict=True):
        verdicts[i] = verdict.passed
    for i, (problem, text) in enumerate(answers):
        if problem.kind == "math":
            verdicts[i] = math.check(problem, text)
    return verdicts
