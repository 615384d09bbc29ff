"""Structures that boil a list down to one number."""

from random import Random

from jacobi_forcing.problems.code.conditions import condition
from jacobi_forcing.problems.code.craft import (
    CALL,
    RESULT,
    Sketch,
    call_it,
    use_loop,
)
from jacobi_forcing.problems.code.words import COUNTERS, LISTS, SUMS, measure, numbers


def count_matching(rng: Random) -> Sketch:
    """How many items meet a condition."""
    (one, many), test = measure(rng), condition(rng)
    name = rng.choice(
        (f"count_{many}", f"count_{test.tag}_{many}", f"how_many_{many}", f"{test.tag}_{one}_count")
    )
    if rng.random() < 0.6:
        total = rng.choice(COUNTERS)
        asks = [use_loop(rng), call_it(rng, total)]
        body = (
            f"{total} = 0",
            f"for {one} in {many}:",
            f"    if {one} {test.code}:",
            f"        {total} += 1",
            f"return {total}",
        )
    else:
        kept = rng.choice(LISTS)
        asks = [f"Collect them in {kept} with a comprehension, then return its length."]
        body = (
            f"{kept} = [{one} for {one} in {many} if {one} {test.code}]",
            f"return len({kept})",
        )
    return Sketch(
        name=name,
        args={many: "list[int]"},
        returns="int",
        doc=f"Tell how many {many} are {test.doc}; an empty list has none.",
        body=body,
        tellings=(
            f"Write {name}({many}). It goes over a list of numbers and returns the count of those"
            f" that are {test.text}.",
            f"A team logs its {many} in a list and wants to know in how many cases the {one} is"
            f" {test.text}. Write {name}({many}) to count them.",
            f"How often does a list hold a {one} that is {test.text}? Answer with a function"
            f" {name} that takes {many}.",
            f"{CALL} should give {RESULT}, since it counts the {many} that are {test.text}."
            f" Please write {name}({many}).",
            f"Function wanted:\n- name: {name}\n- argument: {many}, a list of integers\n"
            f"- returns: how many of them are {test.text}",
        ),
        asks=asks,
        reference=lambda values: len([v for v in values if test.holds(v)]),
        inputs=[[test.numbers(rng, n)] for n in (4, 6, 8)] + [[[]], [test.failing(rng)]],
        facts=(test.code,),
    )


def sum_of_powers(rng: Random) -> Sketch:
    """Sum of squares or cubes of the items that meet a condition."""
    (one, many), test = measure(rng), condition(rng)
    power, word = rng.choice(((2, "square"), (3, "cube")))
    total = rng.choice(SUMS)
    name = rng.choice((f"sum_{word}s", f"{word}_sum", f"add_{one}_{word}s", f"{test.tag}_{word}s"))
    if rng.random() < 0.6:
        asks = [use_loop(rng), call_it(rng, total)]
        body = (
            f"{total} = 0",
            f"for {one} in {many}:",
            f"    if {one} {test.code}:",
            f"        {total} += {one} ** {power}",
            f"return {total}",
        )
    else:
        asks = [f"First build a list {word}s with a comprehension, then sum it."]
        body = (
            f"{word}s = [{one} ** {power} for {one} in {many} if {one} {test.code}]",
            f"return sum({word}s)",
        )
    return Sketch(
        name=name,
        args={many: "list[int]"},
        returns="int",
        doc=f"Add up the {word}s of all those {many} that are {test.doc}.",
        body=body,
        tellings=(
            f"Given a list {many}, take every number that is {test.text}, {word} it and return the"
            f" sum. The function is {name}({many}).",
            f"Please implement {name}. It receives {many} and sums the {word} of each {one} that is"
            f" {test.text}, leaving out the others.",
            f"What do the {word}s of the {many} come to if only a {one} that is {test.text} counts?"
            f" Let {name}({many}) work it out.",
            f"{name}:\n- takes {many}, some integers\n- skips each {one} unless it is {test.text}\n"
            f"- returns the sum of the {word}s of the rest",
            f"As an example, {CALL} is {RESULT}. Only numbers that are {test.text} get {word}d and"
            f" added. Write {name}({many}).",
        ),
        asks=asks,
        reference=lambda values: sum(
            v * v * (v if power == 3 else 1) for v in values if test.holds(v)
        ),
        inputs=[[test.numbers(rng, n)] for n in (3, 5, 7)] + [[[]], [test.failing(rng)]],
        facts=(test.code, power),
    )


def first_position(rng: Random) -> Sketch:
    """Index of the first item that meets a condition."""
    (one, many), test = measure(rng), condition(rng)
    missing = rng.choice((-1, -1, 99, 100))
    place = rng.choice(("index", "position", "place", "spot"))
    name = rng.choice((f"find_{one}", f"first_{test.tag}_{one}", f"locate_{one}", f"{one}_{place}"))
    if rng.random() < 0.6:
        asks = [f"Use enumerate and call the counter {place}."]
        body = (
            f"for {place}, {one} in enumerate({many}):",
            f"    if {one} {test.code}:",
            f"        return {place}",
            f"return {missing}",
        )
    else:
        asks = [f"Use a while loop with a counter named {place}."]
        body = (
            f"{place} = 0",
            f"while {place} < len({many}):",
            f"    if {many}[{place}] {test.code}:",
            f"        return {place}",
            f"    {place} += 1",
            f"return {missing}",
        )

    def reference(values: list[int]) -> int:
        return (
            [*map(test.holds, values), True].index(True)
            if any(map(test.holds, values))
            else missing
        )

    return Sketch(
        name=name,
        args={many: "list[int]"},
        returns="int",
        doc=f"Search {many} for one that is {test.doc}; {missing} stands for none.",
        body=body,
        tellings=(
            f"Write {name}({many}) that returns the index of the first number that is {test.text}."
            f" If there is none, return {missing}.",
            f"At which index of {many} comes the first {one} that is {test.text}? Let {name} answer"
            f" that, with {missing} when no {one} fits.",
            f"Someone scans the {many} from left to right and stops at a {one} that is {test.text}."
            f" Code this as {name}({many}), giving its index, else {missing}.",
            f"{CALL} is {RESULT}. The function looks for a {one} that is {test.text} and falls back"
            f" to {missing}. Write {name}({many}).",
            f"{name}({many})\n- search the list for a number that is {test.text}\n- return its"
            f" index\n- return {missing} if the search fails",
        ),
        asks=asks,
        reference=reference,
        inputs=[
            [test.failing(rng, 2) + test.numbers(rng, 3)],
            [[test.turn + 1, test.turn, test.turn - 1]],
            [[*test.failing(rng, 4), test.turn - 1, test.turn, test.turn + 1]],
            [[]],
            [test.failing(rng)],
        ],
        facts=(test.code, missing),
    )


def whole_average(rng: Random) -> Sketch:
    """Average of the items that meet a condition, rounded down."""
    (one, many), test = measure(rng), condition(rng)
    fallback = rng.randint(-9, -1)
    kept = rng.choice(LISTS)
    name = rng.choice((f"average_{one}", f"mean_{one}", f"{test.tag}_{one}_mean", f"typical_{one}"))

    def reference(values: list[int]) -> int:
        good = [v for v in values if test.holds(v)]
        return divmod(sum(good), len(good))[0] if good else fallback

    return Sketch(
        name=name,
        args={many: "list[int]"},
        returns="int",
        doc=f"Average the {many} that are {test.doc}, rounded down.",
        body=(
            f"{kept} = [{one} for {one} in {many} if {one} {test.code}]",
            f"if not {kept}:",
            f"    return {fallback}",
            f"return sum({kept}) // len({kept})",
        ),
        tellings=(
            f"Write {name}({many}). Take the numbers that are {test.text} and return their mean by"
            f" whole division, or {fallback} if there are none.",
            f"A report needs the mean {one}, but only over {many} that are {test.text}. Use whole"
            f" division and answer {fallback} when nothing is left. Call it {name}.",
            f"{CALL} returns {RESULT}, the whole mean of each {one} that is {test.text}. Without"
            f" any such {one} it returns {fallback}. Write {name}({many}).",
            f"{name}({many}):\n- leave out a number unless it is {test.text}\n- nothing left:"
            f" return {fallback}\n- else return the mean by whole division",
            f"What is the mean of the {many} that are {test.text}, fraction dropped? Write"
            f" {name}({many}) and let it give {fallback} for no match.",
        ),
        asks=[f"Collect the numbers in {kept} with a comprehension."],
        reference=reference,
        inputs=[[test.numbers(rng, n)] for n in (4, 6, 8)] + [[[]], [test.failing(rng)]],
        facts=(test.code, fallback),
    )


def fenced_off(rng: Random) -> Sketch:
    """Sum of a list up to the first item that equals a stop value."""
    one, many = measure(rng)
    stop, limit = rng.randint(0, 30), rng.randint(3, 9)
    total = rng.choice(SUMS)
    name = rng.choice(
        (f"add_{many}_until", f"sum_to_{stop}", f"{many}_before_stop", f"stop_sum_{one}")
    )

    def reference(values: list[int]) -> int:
        head = values[: values.index(stop)] if stop in values else values
        return sum(head[:limit])

    return Sketch(
        name=name,
        args={many: "list[int]"},
        returns="int",
        doc=f"Sum the leading {many}, stopping early at {stop}.",
        body=(
            f"{total} = 0",
            f"for {one} in {many}[:{limit}]:",
            f"    if {one} == {stop}:",
            "        break",
            f"    {total} += {one}",
            f"return {total}",
        ),
        tellings=(
            f"Write {name}({many}) that adds the first {limit} numbers but quits as soon as it"
            f" meets a {stop}, which is not added.",
            f"On a tape of {many} the number {stop} marks the end, and nobody reads past {limit}"
            f" entries. Write {name}({many}) to sum what is read.",
            f"{CALL} is {RESULT}. It sums at most {limit} items and breaks off before a {one} of"
            f" {stop}. Define {name}({many}).",
            f"- {name} takes {many}\n- look at no more than {limit} of them\n- {stop} means stop"
            f"\n- return the sum so far",
            f"How much do the {many} before the first {stop} come to, if at most {limit} are looked"
            f" at? Write {name}({many}) with a break.",
        ),
        asks=[use_loop(rng), call_it(rng, total)],
        reference=reference,
        inputs=[
            [[*numbers(rng, 2, 31, 60), stop, rng.randint(31, 60)]],
            [numbers(rng, limit + 2, 31, 60)],
            [[*numbers(rng, limit - 1, 31, 60), stop, 5]],
            [[]],
            [[stop, *numbers(rng, 3)]],
        ],
        facts=(stop, limit),
    )


STRUCTURES = (
    count_matching,
    sum_of_powers,
    first_position,
    whole_average,
    fenced_off,
)
