"""Structures that carry a value along a list: running totals, streaks, balances."""

from itertools import accumulate, groupby
from random import Random

from jacobi_forcing.problems.code.conditions import condition
from jacobi_forcing.problems.code.craft import (
    CALL,
    RESULT,
    Sketch,
    call_it,
    use_comprehension,
    use_loop,
)
from jacobi_forcing.problems.code.words import LISTS, SUMS, measure, numbers


def running_extreme(rng: Random) -> Sketch:
    """The largest or smallest item so far, from a starting value on."""
    one, many = measure(rng)
    start = rng.randint(1, 99)
    word, sign, pick = rng.choice((("largest", ">", max), ("smallest", "<", min)))
    best, kept = rng.choice(("best", "record", "current", "so_far")), rng.choice(LISTS)
    name = rng.choice(
        (f"running_{word}", f"{word}_{one}_so_far", f"track_{word}", f"{one}_records")
    )
    return Sketch(
        name=name,
        args={many: "list[int]"},
        returns="list[int]",
        doc=f"List the {word} number up to each of the {many}, {start} included.",
        body=(
            f"{best} = {start}",
            f"{kept} = []",
            f"for {one} in {many}:",
            f"    if {one} {sign} {best}:",
            f"        {best} = {one}",
            f"    {kept}.append({best})",
            f"return {kept}",
        ),
        tellings=(
            f"Write {name}({many}) that returns, for each position, the {word} value seen so far."
            f" Keep it in {best}, which starts at {start}.",
            f"Go through {many} and remember the {word} {one} in {best}, beginning with {start}."
            f" Note it after every step. Name the function {name}.",
            f"{CALL} gives {RESULT}: the running {word} of the list, starting from {best} ="
            f" {start}. Define {name}({many}).",
            f"- write {name}({many})\n- set {best} to {start}\n- update it whenever a {one} beats"
            f" it as the {word}\n- return all states of it",
            f"After each {one}, what is the {word} one up to now? Write {name}({many}) with a"
            f" variable {best} that is {start} at first.",
        ),
        asks=[use_loop(rng), call_it(rng, kept)],
        reference=lambda values: [pick([start, *values[: i + 1]]) for i in range(len(values))],
        inputs=[
            [rng.sample([start - 1, start + 1, start + 4, max(start - 5, 0)], 4)],
            [numbers(rng, 5, 0, 99)],
            [sorted(numbers(rng, 6, 0, 120))],
            [[]],
            [[start, start + 2, start - 1]],
        ],
        facts=(word, start),
    )


def running_total(rng: Random) -> Sketch:
    """Prefix sums from a starting value on."""
    one, many = measure(rng)
    start, step = rng.randint(1, 99), rng.randint(1, 9)
    total, kept = rng.choice(SUMS[:2]), rng.choice(LISTS[3:])
    name = rng.choice((f"running_{many}", f"{one}_totals", f"prefix_{many}", f"add_up_{many}"))
    return Sketch(
        name=name,
        args={many: "list[int]"},
        returns="list[int]",
        doc=f"Show how {start} grows as {many} come in, {step} extra for each.",
        body=(
            f"{total} = {start}",
            f"{kept} = []",
            f"for {one} in {many}:",
            f"    {total} += {one} + {step}",
            f"    {kept}.append({total})",
            f"return {kept}",
        ),
        tellings=(
            f"Start {total} at {start}. For every {one}, add it and another {step}, then store the"
            f" state. Write {name}({many}), which returns the stored states.",
            f"Write {name}({many}) for running sums: the sum {total} begins at {start} and each"
            f" number adds itself and {step} more.",
            f"A book is opened with {start} points. Each entry of {many} brings its own number and"
            f" {step} on top. List {total} after each, in {name}({many}).",
            f"{CALL} yields {RESULT}. The variable {total} runs from {start} and goes up by the"
            f" {one} and {step} each time. Write {name}({many}).",
            f"{name}:\n- input {many}\n- {total} starts as {start}\n- add the {one} and {step}"
            f"\n- record {total} after every item\n- return the records",
        ),
        asks=[use_loop(rng), f"The list is called {kept}."],
        reference=lambda values: list(accumulate([start, *[v + step for v in values]]))[1:],
        inputs=[[numbers(rng, n, 0, 30)] for n in (3, 5, 6)] + [[[]], [[0]]],
        facts=(start, step),
    )


def neighbour_changes(rng: Random) -> Sketch:
    """Differences between items some places apart."""
    one, many = measure(rng)
    apart, limit = rng.randint(1, 4), rng.randint(5, 60)
    kept = rng.choice(LISTS)
    name = rng.choice((f"{one}_changes", f"{one}_steps", f"compare_{many}", f"{one}_differences"))
    if rng.random() < 0.5:
        asks = [use_loop(rng), f"The index is i and the difference change. Fill {kept}."]
        body = (
            f"{kept} = []",
            f"for i in range({apart}, len({many})):",
            f"    change = {many}[i] - {many}[i - {apart}]",
            f"    {kept}.append(min(change, {limit}))",
            f"return {kept}",
        )
    else:
        asks = [use_comprehension(rng), "Name the zipped items old and new."]
        body = (
            f"shifted = {many}[{apart}:]",
            f"return [min(new - old, {limit}) for old, new in zip({many}, shifted)]",
        )
    places = "place" if apart == 1 else "places"
    return Sketch(
        name=name,
        args={many: "list[int]"},
        returns="list[int]",
        doc=f"Compare {many} at distance {apart}, never reporting beyond {limit}.",
        body=body,
        tellings=(
            f"Write {name}({many}). From each number subtract the one {apart} {places} before it"
            f" and return the differences, none larger than {limit}.",
            f"By how much does a {one} differ from the {one} {apart} {places} earlier? Return these"
            f" differences from {name}({many}), cut down to {limit} if they are larger.",
            f"{CALL} gives {RESULT}. Each entry is a {one} minus that {apart} {places} before, but"
            f" at most {limit}. Write {name}({many}).",
            f"- function {name}({many})\n- subtract the value {apart} {places} to the left from"
            f" every value that has one\n- cap differences at {limit}\n- return them as a list",
            f"For a chart of {many} we need every rise or fall over {apart} {places}, with {limit}"
            f" as the most that is shown. Define {name}({many}).",
        ),
        asks=asks,
        reference=lambda values: [
            limit if values[i + apart] - v > limit else values[i + apart] - v
            for i, v in enumerate(values[: max(len(values) - apart, 0)])
        ],
        inputs=[[numbers(rng, apart + n, 0, 99)] for n in (2, 3, 4)]
        + [[[0] * apart + [limit, limit + 1]], [[]]],
        facts=(apart, limit),
    )


def longest_streak(rng: Random) -> Sketch:
    """Length of the longest run of items in a row that meet a condition."""
    (one, many), test = measure(rng), condition(rng)
    best, run = rng.choice((("best", "run"), ("longest", "streak"), ("record", "current")))
    name = rng.choice(
        (f"longest_{run}", f"{one}_streak", f"{test.tag}_{one}_run", f"{many}_in_a_row")
    )
    return Sketch(
        name=name,
        args={many: "list[int]"},
        returns="int",
        doc=f"Measure the longest stretch of {many} that are {test.doc}.",
        body=(
            f"{best} = {run} = 0",
            f"for {one} in {many}:",
            f"    {run} = {run} + 1 if {one} {test.code} else 0",
            f"    {best} = max({best}, {run})",
            f"return {best}",
        ),
        tellings=(
            f"Write {name}({many}) that returns how many numbers in a row are {test.text} at the"
            f" longest. Use the variables {best} and {run}.",
            f"A streak lasts while each {one} is {test.text}. Let {name}({many}) return the length"
            f" of the longest one, with {run} for the present count and {best} for the top.",
            f"{CALL} gives {RESULT}. Count how long the list stays {test.text} without a break, in"
            f" {run}, and keep the maximum in {best}. Write {name}({many}).",
            f"- name {name}, argument {many}\n- {run} counts items in sequence that are {test.text}"
            f"\n- {best} holds its maximum\n- return that",
            f"For how many days on end was the {one} {test.text}? Return the most, with"
            f" {name}({many}), using {best} and {run}.",
        ),
        asks=[use_loop(rng)],
        reference=lambda values: max(
            [len(list(group)) for good, group in groupby(map(test.holds, values)) if good],
            default=0,
        ),
        inputs=[
            [test.numbers(rng, 5)],
            [test.numbers(rng, 9)],
            [[test.turn - 1, test.turn, test.turn + 1]],
            [[]],
            [test.failing(rng)],
        ],
        facts=(test.code,),
    )


def guarded_balance(rng: Random) -> Sketch:
    """A balance that takes changes in turn but never leaves its bounds."""
    one, many = measure(rng)
    start, bound = rng.randint(20, 60), rng.randint(0, 15)
    top = rng.random() < 0.5
    bound = bound + 70 if top else bound
    pick, word = (min, "above") if top else (max, "below")
    balance = rng.choice(("balance", "store", "purse", "account", "fund"))
    name = rng.choice((f"apply_{many}", f"final_{balance}", f"{balance}_after", f"book_{many}"))

    def reference(values: list[int]) -> int:
        state = start
        for value in values:
            state = sorted([state + value, bound])[0 if top else 1]
        return state

    return Sketch(
        name=name,
        args={many: "list[int]"},
        returns="int",
        doc=f"Work out what {start} becomes through {many}, held at {bound}.",
        body=(
            f"{balance} = {start}",
            f"for {one} in {many}:",
            f"    {balance} += {one}",
            f"    if {balance} {'>' if top else '<'} {bound}:",
            f"        {balance} = {bound}",
            f"return {balance}",
        ),
        tellings=(
            f"Write {name}({many}). A variable {balance} starts at {start}, each number is added in"
            f" turn, and whenever it is {word} {bound} it is set to {bound}.",
            f"The {balance} holds {start}. Some {many} are positive, some negative; apply them one"
            f" by one but never let it stay {word} {bound}. Write {name}({many}).",
            f"{CALL} comes to {RESULT}. Starting with {start} in {balance}, add each {one}; if that"
            f" leads {word} {bound}, it is reset to {bound}. Define {name}({many}).",
            f"{name}({many}):\n- {balance} is {start} at first\n- add every {one}\n- {word} {bound}"
            f" it snaps to {bound}\n- return it at the end",
            f"What is left of {start} after all {many} were added, if the {balance} can not be"
            f" {word} {bound} at any moment? Write {name}({many}).",
        ),
        asks=[use_loop(rng), "Check with an if inside the loop."],
        reference=reference,
        inputs=[
            [[rng.randint(-9, 9), bound - start, 12 if pick is max else -12]],
            [[bound - start + (9 if top else -9), rng.randint(-6, -1) if top else 7]],
            [numbers(rng, 5, -30, 30)],
            [[]],
            [[bound - start + 1]],
        ],
        facts=(start, bound),
    )


STRUCTURES = (
    running_extreme,
    running_total,
    neighbour_changes,
    longest_streak,
    guarded_balance,
)
