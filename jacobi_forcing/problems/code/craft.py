"""How a structure becomes a problem: sketch the task, then put prompt, answer and tests together.

A structure only describes its task as a `Sketch`. The prompt is one of the sketch's tellings plus
the sketch's asks ("Use a for loop."), because whatever shapes the answer has to be said in the
prompt: a model that decodes greedily can then find the one answer that is meant.
"""

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from random import Random

from jacobi_forcing.problems.problem import Problem

#: Markers that a telling may hold; they become the first test's call and its result.
CALL = "<call>"
RESULT = "<result>"

#: "a" before a word that is spoken with a vowel first; "a user" stays.
_WRONG_ARTICLE = re.compile(r"\b([Aa])(?= (?:[aeio]|hour|8\d?\b|1[18]\b))")

_HINT_ASKS = (
    "Add type hints.",
    "Use type hints.",
    "Include type hints.",
    "Annotate the types.",
    "With type hints, please.",
)


@dataclass(frozen=True)
class Sketch:
    """Everything a structure knows about one task.

    Attributes:
        name: Name of the function.
        args: Argument names with their type hints, in order.
        returns: Type hint of the result.
        doc: The answer's docstring, one line.
        body: Lines of the answer below the docstring, indented relative to the body.
        tellings: Whole different ways to tell the task; one is used.
        reference: Works the result out, independently of the body.
        inputs: Argument lists for the tests; the first may be shown in the prompt.
        facts: Constants and conditions that, with the names, identify the instance.
        asks: Sentences that settle the style of the answer.
    """

    name: str
    args: dict[str, str]
    returns: str
    doc: str
    body: Sequence[str]
    tellings: Sequence[str]
    reference: Callable[..., object]
    inputs: Sequence[list]
    facts: tuple = ()
    asks: Sequence[str] = ()


def finish(structure: Callable[[Random], Sketch], rng: Random) -> Problem:
    """Draw a sketch from a structure and turn it into a problem."""
    sketch = structure(rng)
    tests = [[args, sketch.reference(*args)] for args in sketch.inputs]
    hinted = rng.random() < 0.4
    asks = [*sketch.asks, rng.choice(_HINT_ASKS)] if hinted else sketch.asks
    return Problem(
        kind="code",
        structure=structure.__name__,
        instance=(structure.__name__, sketch.name, *sketch.args, *sketch.facts),
        prompt=_prompt(rng.choice(sketch.tellings), asks, sketch.name, tests[0]),
        answer=_answer(sketch, hinted),
        check={"function": sketch.name, "tests": tests},
    )


def _prompt(telling: str, asks: Sequence[str], name: str, shown: list) -> str:
    args, expected = shown
    call = f"{name}({', '.join(map(repr, args))})"
    telling = _WRONG_ARTICLE.sub(r"\1n", telling)
    telling = telling.replace(CALL, call).replace(RESULT, repr(expected))
    # A telling that is a list of bullets gets its asks as further bullets.
    glue = "\n- " if "\n- " in telling else " "
    return glue.join([telling, *asks]) + "\n"


def _answer(sketch: Sketch, hinted: bool) -> str:
    if hinted:
        args = ", ".join(f"{arg}: {hint}" for arg, hint in sketch.args.items())
        head = f"def {sketch.name}({args}) -> {sketch.returns}:"
    else:
        head = f"def {sketch.name}({', '.join(sketch.args)}):"
    return "\n    ".join([head, f'"""{sketch.doc}"""', *sketch.body])


def use_loop(rng: Random) -> str:
    """Ask for a for loop."""
    return rng.choice(("Use a for loop.", "Do it with a for loop.", "Work with a for loop."))


def use_while(rng: Random) -> str:
    """Ask for a while loop."""
    return rng.choice(("Use a while loop.", "Do it with a while loop.", "Work with a while loop."))


def use_comprehension(rng: Random) -> str:
    """Ask for a comprehension."""
    return rng.choice(("Use a comprehension.", "Build it with a comprehension."))


def call_it(rng: Random, name: str) -> str:
    """Ask for the name of the variable that becomes the result."""
    return rng.choice(
        (
            f"Name the result {name}.",
            f"Call the result {name}.",
            f"Keep the result in {name}.",
            f"Use {name} for the result.",
        )
    )
