"""Structures that pick or change the items of a list."""

from random import Random

from jacobi_forcing.problems.code.conditions import condition, threshold
from jacobi_forcing.problems.code.craft import (
    CALL,
    RESULT,
    Sketch,
    call_it,
    use_comprehension,
    use_loop,
)
from jacobi_forcing.problems.code.words import LISTS, measure, numbers


def clamp_all(rng: Random) -> Sketch:
    """Every item moved into a range."""
    one, many = measure(rng)
    low, high = rng.randint(1, 40), rng.randint(45, 99)
    kept = rng.choice(LISTS)
    name = rng.choice((f"clamp_{many}", f"limit_{many}", f"bound_{many}", f"{many}_in_range"))
    if rng.random() < 0.5:
        asks = [use_loop(rng), call_it(rng, kept)]
        body = (
            f"{kept} = []",
            f"for {one} in {many}:",
            f"    raised = max({one}, {low})",
            f"    {kept}.append(min(raised, {high}))",
            f"return {kept}",
        )
        style = "Raise first and store that in raised, then cap."
        asks.insert(1, style)
    else:
        asks = ["Use one comprehension with min and max, min outside."]
        body = (f"return [min(max({one}, {low}), {high}) for {one} in {many}]",)
    return Sketch(
        name=name,
        args={many: "list[int]"},
        returns="list[int]",
        doc=f"Return a fresh list of {many} in which nothing lies under {low} or above {high}.",
        body=body,
        tellings=(
            f"Write {name}({many}) so that each number smaller than {low} becomes {low} and each"
            f" number larger than {high} becomes {high}.",
            f"No {one} may leave the range {low} to {high}. Define {name}({many}), which returns"
            f" the list with every outlier moved to the nearer end.",
            f"A sensor reports {many}, but only {low} to {high} makes sense. Clamp the list with a"
            f" function {name}({many}).",
            f"{CALL} returns {RESULT}: every {one} is clamped between {low} and {high}."
            f" Write {name}({many}).",
            f"- function: {name}\n- argument: {many}\n- returns: a new list, clamped to at least"
            f" {low} and at most {high}",
        ),
        asks=asks,
        reference=lambda values: [low if v < low else high if v > high else v for v in values],
        inputs=[
            [rng.sample([low - 1, high + 1, rng.randint(low, high)], 3)],
            [[low, high, high + rng.randint(1, 30)]],
            [numbers(rng, 6, 0, 120)],
            [[]],
            [[low - rng.randint(1, low)]],
        ],
        facts=(low, high),
    )


def drop_repeats(rng: Random) -> Sketch:
    """Each item once, in order, leaving out those that meet a condition."""
    (one, many), test = measure(rng), threshold(rng)
    kept = rng.choice(LISTS)
    name = rng.choice((f"unique_{many}", f"distinct_{many}", f"{many}_once", f"dedupe_{many}"))

    def reference(values: list[int]) -> list[int]:
        return [v for v in dict.fromkeys(values) if test.holds(v)]

    def doubled(count: int) -> list[int]:
        values = test.numbers(rng, count)
        return values + values[: count // 2 + 1]

    return Sketch(
        name=name,
        args={many: "list[int]"},
        returns="list[int]",
        doc=f"List the different {many} that are {test.doc}, as they first appear.",
        body=(
            f"{kept} = []",
            f"for {one} in {many}:",
            f"    if {one} {test.code} and {one} not in {kept}:",
            f"        {kept}.append({one})",
            f"return {kept}",
        ),
        tellings=(
            f"Remove duplicates from {many} without changing the order, and keep only numbers that"
            f" are {test.text}. The function is called {name}.",
            f"{CALL} gives {RESULT}. Write {name}({many}): no value twice, order preserved, and"
            f" each one {test.text}.",
            f"The same {one} was written down several times. Write {name}({many}) that keeps the"
            f" first copy of every {one} that is {test.text}.",
            f"Can you write {name}({many}), returning without repetition and in original order"
            f" whatever is {test.text}?",
            f"Spec for {name}({many}):\n- drop repeated numbers\n- drop a number unless it is"
            f" {test.text}\n- leave the order alone",
        ),
        asks=[use_loop(rng), call_it(rng, kept)],
        reference=reference,
        inputs=[[doubled(3)], [doubled(5)], [doubled(7)], [[]], [test.failing(rng)]],
        facts=(test.code,),
    )


def split_in_two(rng: Random) -> Sketch:
    """Two lists: the items that meet a condition and the others."""
    (one, many), test = measure(rng), condition(rng)
    yes, no = rng.choice(
        (("inside", "outside"), ("left", "right"), ("good", "bad"), ("first", "second"))
    )
    name = rng.choice((f"split_{many}", f"sort_out_{many}", f"group_{many}", f"divide_{many}"))
    return Sketch(
        name=name,
        args={many: "list[int]"},
        returns="list[list[int]]",
        doc=f"Separate {many} that are {test.doc} from the remaining ones.",
        body=(
            f"{yes}, {no} = [], []",
            f"for {one} in {many}:",
            f"    if {one} {test.code}:",
            f"        {yes}.append({one})",
            "    else:",
            f"        {no}.append({one})",
            f"return [{yes}, {no}]",
        ),
        tellings=(
            f"Write {name}({many}) that puts numbers that are {test.text} into {yes} and all others"
            f" into {no}, then returns both as a list of two lists.",
            f"Every {one} goes on one of two piles, {yes} if it is {test.text} and {no} otherwise."
            f" Define {name}({many}) to return both piles in a list.",
            f"{CALL} gives {RESULT}. Write {name}({many}) with two lists, {yes} (each {one} that is"
            f" {test.text}) and {no} (the rest).",
            f"How can {many} be divided by whether a {one} is {test.text}? Write {name}({many})"
            f" with lists named {yes} and {no} and return the pair as a list.",
            f"- name: {name}\n- input: {many}\n- list {yes}: values that are {test.text}\n"
            f"- list {no}: everything else\n- output: a list holding these two",
        ),
        asks=[use_loop(rng)],
        reference=lambda values: [
            [v for v in values if test.holds(v)],
            [v for v in values if not test.holds(v)],
        ],
        inputs=[[test.numbers(rng, n)] for n in (4, 5, 8)] + [[[]], [test.failing(rng)]],
        facts=(test.code, yes),
    )


def replace_values(rng: Random) -> Sketch:
    """One value swapped for another wherever it stands."""
    one, many = measure(rng)
    old, new = rng.sample(range(100), 2)
    kept = rng.choice(LISTS)
    name = rng.choice((f"replace_{many}", f"swap_{one}", f"fix_{many}", f"correct_{many}"))
    if rng.random() < 0.5:
        asks = [use_loop(rng), call_it(rng, kept)]
        body = (
            f"{kept} = []",
            f"for {one} in {many}:",
            f"    if {one} == {old}:",
            f"        {one} = {new}",
            f"    {kept}.append({one})",
            f"return {kept}",
        )
    else:
        asks = [use_comprehension(rng), call_it(rng, kept)]
        body = (
            f"{kept} = [{new} if {one} == {old} else {one} for {one} in {many}]",
            f"return {kept}",
        )
    others = [n for n in range(100) if n not in (old, new)]
    return Sketch(
        name=name,
        args={many: "list[int]"},
        returns="list[int]",
        doc=f"Give back a fresh list of {many} with {new} wherever there was {old}.",
        body=body,
        tellings=(
            f"The number {old} was typed by mistake and should have been {new}. Write"
            f" {name}({many}), which returns the corrected list.",
            f"Write a function {name} with the argument {many}. It returns a new list in which"
            f" every {old} has turned into {new}.",
            f"In a list of {many}, a {one} of {old} must be exchanged for {new}, nothing else."
            f" What would {name}({many}) look like?",
            f"{CALL} gives {RESULT}: each {old} is replaced by {new}, other numbers stay. Please"
            f" define {name}({many}).",
            f"Task {name}:\n- walks through {many}\n- puts {new} in place of {old}\n- keeps the"
            f" rest and returns a new list",
        ),
        asks=asks,
        reference=lambda values: [{old: new}.get(v, v) for v in values],
        inputs=[
            [[rng.choice(others), old, new]],
            [[old, *rng.sample(others, 3), old]],
            [[new, rng.choice(others), old, old]],
            [[]],
            [rng.sample(others, 2)],
        ],
        facts=(old, new),
    )


def adjust_some(rng: Random) -> Sketch:
    """A linear change to the items that meet a condition."""
    (one, many), test = measure(rng), condition(rng)
    factor, extra = rng.randint(2, 9), rng.randint(1, 50)
    kept = rng.choice(LISTS)
    name = rng.choice((f"adjust_{many}", f"scale_{many}", f"update_{many}", f"new_{many}"))
    return Sketch(
        name=name,
        args={many: "list[int]"},
        returns="list[int]",
        doc=f"Rescale those {many} that are {test.doc} and copy the others.",
        body=(
            f"{kept} = []",
            f"for {one} in {many}:",
            f"    if {one} {test.code}:",
            f"        {kept}.append({one} * {factor} + {extra})",
            "    else:",
            f"        {kept}.append({one})",
            f"return {kept}",
        ),
        tellings=(
            f"Write {name}({many}). A number that is {test.text} gets multiplied by {factor}, then"
            f" {extra} is added. The others stay as they are.",
            f"Each {one} that is {test.text} changes: times {factor}, plus {extra}. Return all"
            f" {many} in a new list, from a function {name}.",
            f"{CALL} makes {RESULT}. Any {one} that is {test.text} is taken times {factor} and"
            f" raised by {extra}. Write {name}({many}).",
            f"Rules of {name}({many}):\n- if a number is {test.text}, multiply it by {factor} and"
            f" add {extra}\n- otherwise keep it\n- return the new list",
            f"What becomes of the {many} when every {one} that is {test.text} grows by the factor"
            f" {factor} and by {extra} on top? Write {name}({many}).",
        ),
        asks=[use_loop(rng), call_it(rng, kept)],
        reference=lambda values: [v + test.holds(v) * (v * (factor - 1) + extra) for v in values],
        inputs=[[test.numbers(rng, n)] for n in (3, 4, 7)] + [[[]], [test.failing(rng)]],
        facts=(test.code, factor, extra),
    )


STRUCTURES = (
    clamp_all,
    drop_repeats,
    split_in_two,
    replace_values,
    adjust_some,
)
