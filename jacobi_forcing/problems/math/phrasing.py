"""How a story is written down, and how it is told with numbers and words in its slots.

A structure owns several tellings. They are written as plain text, separated by blank lines:

    {p} has {a fruit} and {q} has [only |]{b fruit}. How many do they have together?
    > The fruit of both people has to be added.
    - Put side by side, the {fruit} make {a} + {b} = {total}.
    = {total fruit}

First comes the prompt, then the plan of the answer, one line per step of it, and the result.
Indented lines go on with the line before. Four things stand for text that is filled in:

* `{a}` is a number, `{a fruit}` counts a drawn noun, `{a hour}` a plain one, `{a $}` is money.
  `{a #}` is always in digits, `{k times}` may be "twice", `{f share}` may be "a third".
* `{fruit}` is a drawn noun in the plural, `{fruit.one}` and `{fruit.a}` are its singular.
  `{fruit2}` is another noun of that theme.
* `{p}`, `{q}` and `{r}` are people, with `{p.he}` and so on.
* `[this|that]` is a choice. Only prompts have them: an answer has to follow from its prompt.

Sentences get their capital letter afterwards, so `{p.he}` may open one.
"""

from __future__ import annotations

import random
import re
from dataclasses import dataclass
from functools import cached_property

from ..problem import Problem
from .words import PEOPLE, SHARES, THEMES, Noun, Person, count, noun, say

_SLOT = re.compile(r"\{(\w+)(?:\.(\w+))?(?: ([\w$#]+))?\}")
_CHOICE = re.compile(r"\[([^\[\]]*)\]")
_SENTENCE_START = re.compile(r"(?:^|(?<=[.?!] ))[a-z]")
_CAST = ("p", "q", "r")

Slot = int | str | Noun | Person


@dataclass(frozen=True)
class Telling:
    """One way to tell the story of a structure and to explain its answer."""

    prompt: str
    plan: str
    steps: tuple[str, ...]
    result: str

    @cached_property
    def asked(self) -> frozenset[str]:
        """Names of the slots that the prompt shows."""
        return _names(self.prompt)

    @cached_property
    def people(self) -> tuple[str, ...]:
        """Names of the slots that hold a person."""
        return tuple(slot for slot in _CAST if slot in self.asked)

    @cached_property
    def themes(self) -> dict[str, tuple[str, ...]]:
        """For every theme of nouns in the prompt, the slots that draw from it."""
        found: dict[str, tuple[str, ...]] = {}
        for slot in sorted(self.asked):
            theme = slot.rstrip("0123456789")
            if theme in THEMES:
                found[theme] = (*found.get(theme, ()), slot)
        return found


@dataclass(frozen=True)
class Layout:
    """How the steps of an answer are set out, and how a prompt asks for that."""

    requests: tuple[str, ...]
    bullet: str = ""
    separator: str = "\n"

    def set_out(self, plan: str, steps: list[str]) -> str:
        """Join the plan and the steps of an answer."""
        lines = (self.bullet.format(i) + step for i, step in enumerate(steps, start=1))
        return self.separator.join((plan, *lines))


PROSE = Layout(
    (
        "",
        "",
        "",
        "Explain in full sentences.",
        "Explain your thinking.",
        "Explain how you find out.",
    ),
    separator=" ",
)
LISTS = (
    Layout(
        (
            "Put each step on a line of its own.",
            "Use one line per step.",
            "Write every step on a new line.",
        )
    ),
    Layout(
        (
            "Show your steps as a list.",
            "Answer with a short bullet list.",
            "Use bullet points.",
        ),
        bullet="- ",
    ),
    Layout(
        (
            "Number your steps.",
            "Show the work as a numbered list.",
            "Give numbered steps.",
        ),
        bullet="{}. ",
    ),
    Layout(
        (
            "Go step by step.",
            "Solve it step by step.",
            "Work it out step by step.",
        ),
        bullet="Step {}: ",
    ),
)


def tellings(text: str) -> tuple[Telling, ...]:
    """Read tellings from their written form (see the top of this file)."""
    return tuple(_telling(block) for block in text.strip().split("\n\n"))


def tell(
    rng: random.Random, structure: str, choices: tuple[Telling, ...], answer: int, **numbers: int
) -> Problem:
    """Tell a problem in one of several ways.

    Args:
        rng: Source of everything random.
        structure: Name of the structure that drew the numbers.
        choices: The tellings of that structure.
        answer: The number that is asked for.
        **numbers: The numbers that go into the slots, those of the steps included.

    Returns:
        The problem. Its instance holds the numbers and nouns that the prompt shows.
    """
    telling = rng.choice(choices)
    slots: dict[str, Slot] = dict(numbers)
    slots.update(zip(telling.people, rng.sample(PEOPLE, len(telling.people)), strict=True))
    for theme, names in telling.themes.items():
        slots.update(zip(names, rng.sample(THEMES[theme], len(names)), strict=True))
    shown = (slots[name] for name in slots if name in telling.asked)
    # Names of people, towns and days are only wording: they make no new problem.
    key = (str(slot) if isinstance(slot, Noun) else slot for slot in shown if _matters(slot))
    layout = PROSE if rng.random() < 0.4 else rng.choice(LISTS)
    story = _CHOICE.sub(lambda match: rng.choice(match[1].split("|")), telling.prompt)
    story = _fill(story, slots, spelled=rng.random() < 0.3)
    plan = _fill(telling.plan, slots)
    steps = [_fill(step, slots) for step in telling.steps]
    result = _fill(telling.result, slots)
    return Problem(
        kind="math",
        structure=structure,
        instance=(structure, *key),
        prompt=_ask(rng, story, layout) + "\n",
        answer=f"{layout.set_out(plan, steps)}\nAnswer: {result}",
        check={"answer": str(answer)},
    )


def _matters(slot: Slot) -> bool:
    return isinstance(slot, int | Noun)


def _ask(rng: random.Random, story: str, layout: Layout) -> str:
    request = rng.choice(layout.requests)
    if not request:
        return story
    return f"{request} {story}" if rng.random() < 0.2 else f"{story} {request}"


def _fill(text: str, slots: dict[str, Slot], *, spelled: bool = False) -> str:
    def put(match: re.Match[str]) -> str:
        name, form, counted = match.groups()
        value = slots[name]
        if isinstance(value, int):
            return _number(value, counted, slots, spelled=spelled)
        return getattr(value, form) if form else str(value)

    return _SENTENCE_START.sub(lambda match: match[0].upper(), _SLOT.sub(put, text))


def _number(value: int, form: str | None, slots: dict[str, Slot], *, spelled: bool) -> str:
    if form is None:
        return say(value, spelled=spelled)
    if form == "#":
        return str(value)
    if form == "share":
        return SHARES[value]
    if form == "times":
        return "twice" if value == 2 else f"{say(value, spelled=spelled)} times"
    if form == "$":
        in_words = spelled and value <= 12
        return count(value, noun("dollar"), spelled=True) if in_words else f"${value}"
    thing = slots.get(form)
    return count(value, thing if isinstance(thing, Noun) else noun(form), spelled=spelled)


def _names(text: str) -> frozenset[str]:
    slots = _SLOT.findall(text)
    return frozenset(name for head, _, counted in slots for name in (head, counted) if name)


def _telling(block: str) -> Telling:
    lines: list[str] = []
    for line in block.splitlines():
        if line.startswith(" "):
            lines[-1] += " " + line.strip()
        else:
            lines.append(line)
    prompt, *answer = lines
    plan, *steps, result = (line[2:] for line in answer)  # without "> ", "- " and "= "
    return Telling(prompt, plan, tuple(steps), result)
