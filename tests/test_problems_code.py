"""Properties of the code problems and of the checker that runs answers to them."""

import ast
import json
import random
import time
from textwrap import indent

import pytest

from jacobi_forcing.errors import ConfigError
from jacobi_forcing.problems.checker import check_subset, run_answer, run_answers
from jacobi_forcing.problems.code import STRUCTURES, sample


def draw(count, seed=0):
    rng = random.Random(seed)
    return [sample(rng) for _ in range(count)]


def one_of_each(seed=0):
    return [make(random.Random(f"{seed}/{name}")) for name, make in STRUCTURES.items()]


PROBLEMS = [problem for seed in range(8) for problem in one_of_each(seed)]


def test_reference_answers_pass_their_own_tests():
    started = time.monotonic()
    verdicts = run_answers([(p.check, p.answer) for p in PROBLEMS])
    assert [(p.structure, v) for p, v in zip(PROBLEMS, verdicts, strict=True) if not v.passed] == []
    assert time.monotonic() - started < 20


def test_reference_answers_are_plain_functions():
    for problem in PROBLEMS:
        compile(problem.answer, "<answer>", "exec")
        assert check_subset(problem.answer) is None


def test_answers_that_do_nothing_or_return_their_argument_fail():
    def variants(problem):
        head, doc, *_ = problem.answer.split("\n")
        first = ast.parse(problem.answer).body[0].args.args[0].arg
        yield f"{head}\n{doc}\n    return None"
        yield f"{head}\n{doc}\n    return {first}"

    answers = [(p.check, text) for p in PROBLEMS for text in variants(p)]
    passed = [text for (_, text), v in zip(answers, run_answers(answers), strict=True) if v.passed]
    assert passed == []


def test_no_constant_solves_a_problem():
    for problem in draw(3000):
        results = {json.dumps(expected) for _, expected in problem.check["tests"]}
        assert len(results) > 1, problem


class ShiftNumber(ast.NodeTransformer):
    """Adds one to the number at one place of an answer."""

    def __init__(self, place):
        self.place = place

    def visit_Constant(self, node):
        if type(node.value) is int:
            self.place -= 1
            if self.place == -1:
                return ast.Constant(node.value + 1)
        return node


def test_most_answers_with_one_number_changed_fail():
    # A few changes do not matter (the start of a record, a loop that begins one later), but tests
    # that let many through would not discriminate.
    mutants = []
    for problem in PROBLEMS:
        tree = ast.parse(problem.answer)
        places = sum(type(getattr(n, "value", None)) is int for n in ast.walk(tree))
        for place in range(places):
            mutant = ShiftNumber(place).visit(ast.parse(problem.answer))
            mutants.append((problem.check, ast.unparse(ast.fix_missing_locations(mutant))))
    verdicts = run_answers(mutants, timeout_seconds=0.3)
    assert len(mutants) > len(PROBLEMS)
    assert sum(v.passed for v in verdicts) < 0.05 * len(mutants)


def test_same_seed_same_problems():
    assert draw(200, seed=5) == draw(200, seed=5)
    assert draw(200, seed=5) != draw(200, seed=6)


def test_every_structure_appears_and_is_large():
    assert len(STRUCTURES) >= 24
    assert {p.structure for p in draw(1500)} == set(STRUCTURES)
    for name, make in STRUCTURES.items():
        rng = random.Random(name)
        assert len({make(rng).instance for _ in range(2600)}) > 1500, name


def test_prompts_are_distinct_and_say_what_the_answer_needs():
    problems = draw(3000, seed=2)
    assert len({p.prompt for p in problems}) > 2990
    for problem in problems:
        arguments = ast.parse(problem.answer).body[0].args.args
        assert all(argument.arg in problem.prompt for argument in arguments)
        assert problem.check["function"] in problem.prompt
        assert "<" not in problem.prompt or "<call>" not in problem.prompt


def test_shape_of_problems():
    for problem in draw(3000, seed=3):
        assert problem.kind == "code"
        assert problem.prompt.endswith("\n")
        assert 20 <= len(problem.prompt.split()) <= 60
        assert 150 <= len(problem.answer) <= 700
        assert problem.answer == problem.answer.strip()
        assert 4 <= len(problem.check["tests"]) <= 6
        assert json.loads(json.dumps(problem.check)) == problem.check
        hash(problem.instance)


def test_the_same_prompt_never_has_two_answers():
    answers = {}
    for problem in draw(20000, seed=4):
        assert answers.setdefault(problem.prompt, problem.answer) == problem.answer


@pytest.mark.parametrize(
    "body",
    [
        "import os\n    return os.getcwd()",
        "return ().__class__.__base__.__subclasses__()",
        "return x.__class__",
        "return open('/etc/passwd')",
        "return eval('1')",
        "return exec('1')",
        "return getattr(x, 'real')",
        "return '{0.real}'.format(x)",
        "return '{a}'.format_map(x)",
        "return f'{x:>{x}}'",
        "return f'{x!r}'",
        "return __builtins__",
        "return globals()",
        "return type(x)",
        "return (lambda: x)()",
        "return 9 ** 9 ** 9",
        "return 10000000000",
        "return b'bytes'",
        "global y\n    y = 1",
        "try:\n        return x\n    except Exception:\n        return 1",
        "with x:\n        return 1",
        "class A:\n        pass",
        "def inner():\n        return 1\n    return inner()",
        "return (y := x)",
        "x.real = 1",
        "del x",
        "yield x",
        "raise ValueError",
    ],
)
def test_refused_bodies(body):
    source = f"def f(x):\n    {body}"
    assert check_subset(source) is not None
    verdict = run_answer({"function": "f", "tests": [[[1], 1]]}, source)
    assert not verdict.passed
    assert verdict.reason.startswith("refused")


@pytest.mark.parametrize(
    "source",
    [
        "",
        "f(",
        "x = 1",
        "import os",
        "@print\ndef f(x):\n    return x",
        "async def f(x):\n    return x",
        "def f(x=[]):\n    return x",
        "def f(x):\n    return x\nf(1)",
        "def f(x):\n    return x\ndef g(x):\n    return x",
        "def __f(x):\n    return x",
        "def f(x: __import__):\n    return x",
        "def f(x):\n    return " + "(" * 500 + ")" * 500,
        "def f(x):\n    return x\0",
        "def f(x):\n    return " + "1 + " * 20000 + "1",
    ],
)
def test_refused_sources(source):
    assert check_subset(source) is not None


def test_result_must_have_the_same_type():
    check = {"function": "f", "tests": [[[1], 1]]}
    assert run_answer(check, "def f(x):\n    return x").passed
    assert not run_answer(check, "def f(x):\n    return x == 1").passed
    assert not run_answer(check, "def f(x):\n    return 1.0").passed
    rows = {"function": "f", "tests": [[[1], [1, {"a": [2]}]]]}
    assert run_answer(rows, "def f(x):\n    return [1, {'a': [2]}]").passed
    assert not run_answer(rows, "def f(x):\n    return (1, {'a': [2]})").passed
    assert not run_answer(rows, "def f(x):\n    return [True, {'a': [2]}]").passed
    assert not run_answer(rows, "def f(x):\n    return [1, {'a': (2,)}]").passed


def test_fence_is_stripped_and_wrong_name_fails():
    check = {"function": "f", "tests": [[[1], 2]]}
    assert run_answer(check, "```python\ndef f(x):\n    return x + 1\n```").passed
    code = "def f(x):\n    return x + 1\n"
    assert run_answer(check, f"Here is ```f```:\n~~~python\n{code}~~~\nIt adds 1.").passed
    assert run_answer(
        check, f"```\nf(1)\n```\n1. So:\n   ````\n{indent(code, '   ')}   ````"
    ).passed
    assert run_answer(check, f"```python\n{code}").passed
    assert not run_answer(check, f"Here it is: ```{code}```").passed
    verdict = run_answer(check, "def g(x):\n    return x + 1")
    assert verdict == (False, "does not define f")
    assert run_answer(check, "def f(x):\n    return x.count").reason == "raises AttributeError"


HARMFUL = {
    "endless loop": "while True:\n        pass",
    "giant list": "return [0] * 900000000 * 900",
    "growing list": "y = [x]\n    while True:\n        y = y + y",
    "deep recursion": "return f(x) + 1",
    "giant power": "y = 999999999\n    z = y * y * y\n    return y ** z",
    "slow power": "y = 9 * 999999\n    return 7 ** y ** 1",
    "slow sum": "y = 999999999\n    return sum(range(y * 999))",
    "deep nesting": "for _ in range(3000000):\n        x = [x]\n    return x",
    "itself in itself": "y = []\n    y.append(y)\n    return y",
    "wide padding": "return 'a'.ljust(999999999)",
}


def test_harmful_answers_end_and_leave_their_neighbours_alone():
    harmless = PROBLEMS[:40]
    answers = [(p.check, p.answer) for p in harmless]
    for body in HARMFUL.values():
        answers.insert(
            len(answers) // 2, ({"function": "f", "tests": [[[1], 1]]}, f"def f(x):\n    {body}")
        )
    started = time.monotonic()
    verdicts = run_answers(answers, workers=2, timeout_seconds=0.5)
    assert time.monotonic() - started < 60
    for (check, text), verdict in zip(answers, verdicts, strict=True):
        assert verdict.passed == (check["function"] != "f"), (text, verdict)


def test_answers_are_not_wrong_where_the_checker_itself_fails(monkeypatch):
    """A process that does not start has judged nothing."""
    problem = PROBLEMS[0]
    assert run_answers([(problem.check, problem.answer)])[0].passed
    monkeypatch.setattr("jacobi_forcing.problems.checker._MEMORY_BYTES", "none")
    with pytest.raises(ConfigError, match=r"cannot be checked here.*did not start \(TypeError: "):
        run_answers([(problem.check, problem.answer)])
