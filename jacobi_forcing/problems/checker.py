"""Decides whether an answer solves a code problem, by running it under restrictions.

What protects: two gates, one after the other.

1. `check_subset` reads the answer without running it and lets through one plain function in a small
   part of Python: listed kinds of syntax, listed builtins, listed methods of strings, lists,
   dictionaries and sets. Imports, classes, lambdas, `try`, dunder names and any other attribute are
   refused, so the known ways from a harmless object to the interpreter's insides are closed.
2. What is let through runs in a child process of its own session: isolated interpreter, no
   site-packages, empty environment, empty temporary working folder, only the listed builtins, and
   limits on time, memory, files and processes. A child that overruns is killed with its group.

What does not: this is no container. The child runs as the same user, with the same kernel, network
and readable files; there is no filter on system calls. Gate 1 keeps answers from reaching any of
that, and gate 2 keeps honest mistakes (endless loops, giant lists) from doing harm. It is meant for
answers of a model that was trained on small functions, not for code of an adversary. POSIX only.
"""

import ast
import json
import os
import signal
import subprocess
import sys
import tempfile
import warnings
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import NamedTuple

from jacobi_forcing.errors import ConfigError
from jacobi_forcing.problems.fences import block_with, fenced_blocks


def _names(*lines: str) -> frozenset[str]:
    return frozenset(" ".join(lines).split())


_BUILTINS = _names(
    "abs all any bool chr dict divmod enumerate filter float frozenset int isinstance len list map",
    "max min ord pow range reversed round set sorted str sum tuple zip",
)

_METHODS = _names(
    "add append capitalize center clear copy count difference discard endswith extend find get",
    "index insert intersection isalnum isalpha isdigit islower isspace isupper items join keys",
    "ljust lower lstrip pop remove replace reverse rfind rjust rsplit rstrip setdefault sort split",
    "startswith strip swapcase title union update upper values zfill",
)

_NODES = (
    *(ast.Module, ast.FunctionDef, ast.arguments, ast.arg, ast.Return, ast.Expr, ast.Pass),
    *(ast.Assign, ast.AugAssign, ast.AnnAssign, ast.For, ast.While, ast.If, ast.Break),
    *(ast.Continue, ast.BoolOp, ast.boolop, ast.BinOp, ast.operator, ast.UnaryOp, ast.unaryop),
    *(ast.Compare, ast.cmpop, ast.IfExp, ast.Call, ast.keyword, ast.Attribute, ast.Name),
    *(ast.Load, ast.Store, ast.Constant, ast.List, ast.Tuple, ast.Dict, ast.Set, ast.Starred),
    *(ast.Subscript, ast.Slice, ast.ListComp, ast.SetComp, ast.DictComp, ast.GeneratorExp),
    *(ast.comprehension, ast.JoinedStr, ast.FormattedValue),
)

_LONGEST_SOURCE = 20_000
_LARGEST_INT = 10**9
_LARGEST_EXPONENT = 64
_MEMORY_BYTES = 512 * 2**20
_BATCH = 32

# The child. It reads {"items": [{source, function, tests}], "seconds", "memory", "builtins"} and
# writes "ready", then one reason per item, as a JSON string on a line of its own, "" for a pass.
_RUNNER = r'''
import builtins, json, math, resource, signal, sys

class OutOfTime(BaseException):
    pass

def ring(signum, frame):
    raise OutOfTime

def same(got, wanted):
    """Equal in value and in type, all the way down."""
    if type(got) is not type(wanted):
        return False
    if type(wanted) is list:
        return len(got) == len(wanted) and all(map(same, got, wanted))
    if type(wanted) is dict:
        if len(got) != len(wanted):
            return False
        return all(type(k) is str and k in wanted and same(got[k], wanted[k]) for k in got)
    return got == wanted

def judge(item):
    scope = {"__builtins__": dict(safe), "__name__": "answer"}
    exec(compile(item["source"], "<answer>", "exec"), scope)
    function = scope.get(item["function"])
    if function is None:
        return "does not define " + item["function"]
    for number, (args, wanted) in enumerate(item["tests"], 1):
        if not same(function(*args), wanted):
            return f"test {number} gives another result"
    return ""

def judge_in_time(item):
    try:
        try:
            signal.setitimer(signal.ITIMER_REAL, seconds)
            return judge(item)
        finally:
            signal.setitimer(signal.ITIMER_REAL, 0)
    except OutOfTime:
        return "ran out of time"
    except MemoryError:
        return "ran out of memory"
    except Exception as error:
        return "raises " + type(error).__name__

job = json.load(sys.stdin)
seconds = job["seconds"]
safe = {name: getattr(builtins, name) for name in job["builtins"]}
signal.signal(signal.SIGALRM, ring)
for kind, most in (
    (resource.RLIMIT_AS, job["memory"]),
    (resource.RLIMIT_FSIZE, 0),
    (resource.RLIMIT_CORE, 0),
    (resource.RLIMIT_NOFILE, 3),
    (resource.RLIMIT_NPROC, 0),
):
    resource.setrlimit(kind, (most, most))
print('"ready"', flush=True)
for item in job["items"]:
    # An alarm waits while a single operation is at work, such as a giant power. The limit on
    # processor time does not wait: it ends this child, and the parent goes on with a new one.
    used = resource.getrusage(resource.RUSAGE_SELF)
    hard = math.ceil(used.ru_utime + used.ru_stime + seconds) + 1
    resource.setrlimit(resource.RLIMIT_CPU, (hard, resource.RLIM_INFINITY))
    reason = judge_in_time(item)
    sys.stdout.write(json.dumps(reason) + "\n")
    sys.stdout.flush()
'''


class Verdict(NamedTuple):
    """Whether an answer passed all tests, and if not, why."""

    passed: bool
    reason: str


def check_subset(source: str) -> str | None:
    """Look for anything outside the allowed part of Python.

    Args:
        source: The text of an answer.

    Returns:
        What is refused, in words, or None if nothing is.
    """
    if len(source) > _LONGEST_SOURCE:
        return "too long"
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            tree = ast.parse(source)
    except (SyntaxError, ValueError, RecursionError, MemoryError):
        return "not Python"
    if len(tree.body) != 1 or not isinstance(tree.body[0], ast.FunctionDef):
        return "not exactly one function"
    function = tree.body[0]
    known = _BUILTINS | _bound_names(function)
    for node in ast.walk(tree):
        if not isinstance(node, _NODES) or (type(node) is ast.FunctionDef and node is not function):
            return f"{type(node).__name__} is not allowed"
        reason = _refuse_node(node, known)
        if reason:
            return reason
    return None


def run_answer(problem_check: dict, text: str, *, timeout_seconds: float = 2.0) -> Verdict:
    """Check one answer.

    Args:
        problem_check: The `check` of a code problem.
        text: The answer: code only, or a reply with code in a Markdown fence.
        timeout_seconds: Time for all tests of the problem together.
    """
    return run_answers([(problem_check, text)], workers=1, timeout_seconds=timeout_seconds)[0]


def run_answers(
    answers: Sequence[tuple[dict, str]],
    workers: int | None = None,
    *,
    timeout_seconds: float = 1.0,
) -> list[Verdict]:
    """Check many answers, in batches that share a child process.

    If a batch loses its child, each answer that had no verdict yet gets a child of its own, so that
    one bad answer can not fail its neighbours.

    Args:
        answers: Pairs of a problem's `check` and an answer.
        workers: Children at work at the same time; by default one per processor, at most 8.
        timeout_seconds: Time for all tests of one problem together.

    Returns:
        One verdict per answer, in order.

    Raises:
        ConfigError: A child process did not start, so that nothing is known of its answers.
    """
    verdicts: dict[int, Verdict] = {}
    items: dict[int, dict] = {}
    for number, (check, text) in enumerate(answers):
        blocks = fenced_blocks(text)
        source = block_with(blocks, check["function"]) or (blocks[0] if blocks else text)
        reason = check_subset(source)
        if reason:
            verdicts[number] = Verdict(False, f"refused: {reason}")
        else:
            items[number] = {**check, "source": source}

    def judge(numbers: Sequence[int]) -> dict[int, Verdict]:
        reasons = _run_child([items[n] for n in numbers], timeout_seconds)
        judged = dict(zip(numbers, map(_verdict, reasons), strict=False))
        if len(numbers) == 1 and not judged:
            return {numbers[0]: Verdict(False, "ran out of time or memory")}
        for number in numbers[len(judged) :]:
            judged |= judge([number])
        return judged

    waiting = list(items)
    batches = [waiting[i : i + _BATCH] for i in range(0, len(waiting), _BATCH)]
    with ThreadPoolExecutor(workers or min(8, os.cpu_count() or 1)) as pool:
        for judged in pool.map(judge, batches):
            verdicts |= judged
    return [verdicts[number] for number in range(len(answers))]


def _verdict(reason: str) -> Verdict:
    return Verdict(not reason, reason or "passed")


def _bound_names(function: ast.FunctionDef) -> set[str]:
    """Names that the function itself gives a meaning: its own, its arguments and variables."""
    bound = {function.name}
    for node in ast.walk(function):
        if isinstance(node, ast.arg):
            bound.add(node.arg)
        elif isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store):
            bound.add(node.id)
    return bound


def _refuse_node(node: ast.AST, known: frozenset[str]) -> str | None:
    """Say what is wrong with one node of an allowed kind, if anything."""
    names = [getattr(node, field, None) for field in ("id", "attr", "arg", "name")]
    if any(isinstance(name, str) and "__" in name for name in names):
        return "names with two underscores are not allowed"
    match node:
        case ast.FunctionDef() if node.decorator_list:
            return "decorators are not allowed"
        case ast.arguments():
            defaults = [*node.defaults, *filter(None, node.kw_defaults)]
            if not all(isinstance(default, ast.Constant) for default in defaults):
                return "defaults must be constants"
        case ast.Name(id=name) if name not in known:
            return f"the name {name} is not allowed"
        case ast.Attribute(attr=attr) if attr not in _METHODS or type(node.ctx) is not ast.Load:
            return f"the attribute {attr} is not allowed"
        case ast.FormattedValue() if node.format_spec is not None or node.conversion != -1:
            return "format specifications are not allowed"
        case ast.Constant(value=value):
            return _refuse_constant(value)
        case ast.BinOp(op=ast.Pow(), right=exponent) | ast.AugAssign(op=ast.Pow(), value=exponent):
            return _refuse_exponent(exponent)
    return None


def _refuse_constant(value: object) -> str | None:
    if type(value) is int and value >= _LARGEST_INT:
        return "the number is too large"
    if value is not None and type(value) not in (int, bool, float, str):
        return f"a constant of type {type(value).__name__} is not allowed"
    return None


def _refuse_exponent(exponent: ast.expr) -> str | None:
    """Refuse exponents that are large or themselves powers; variables are left to the limits."""
    for node in ast.walk(exponent):
        large = type(node) is ast.Constant and type(node.value) is int
        if type(node) is ast.Pow or (large and node.value > _LARGEST_EXPONENT):
            return "the exponent is too large"
    return None


def _run_child(items: list[dict], seconds: float) -> list[str]:
    """Run items in a new child; fewer reasons than items come back if it did not survive.

    Raises:
        ConfigError: It did not get as far as the first item.
    """
    job = {
        "items": items,
        "seconds": seconds,
        "memory": _MEMORY_BYTES,
        "builtins": sorted(_BUILTINS),
    }
    with tempfile.TemporaryDirectory() as folder:
        child = subprocess.Popen(
            [sys.executable, "-I", "-S", "-W", "ignore", "-c", _RUNNER],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            cwd=folder,
            env={},
            start_new_session=True,
            text=True,
        )
        try:
            # The child keeps time itself; this is the net below, start-up time included.
            limit = (seconds + 1) * len(items) + 10
            output, message = child.communicate(json.dumps(job), timeout=limit)
        except subprocess.TimeoutExpired:
            os.killpg(child.pid, signal.SIGKILL)
            output, message = child.communicate()
    # A child that was killed while writing leaves a last line without its end.
    lines = [line for line in output.splitlines(keepends=True) if line.endswith("\n")]
    if not lines:
        why = message.strip().splitlines() or ["it ended without a word"]
        raise ConfigError(
            f"answers that are code cannot be checked here: the process of {sys.executable} that "
            f"runs them did not start ({why[-1]})."
        )
    return [json.loads(line) for line in lines[1:]]
