"""Structures about places in a list: rotations, slices, merging, pairs."""

from random import Random

from jacobi_forcing.problems.code.conditions import condition
from jacobi_forcing.problems.code.craft import (
    CALL,
    RESULT,
    Sketch,
    call_it,
    use_loop,
    use_while,
)
from jacobi_forcing.problems.code.words import COUNTERS, LISTS, MEASURES, SUMS, measure, numbers


def rotate(rng: Random) -> Sketch:
    """A list turned left or right by some places."""
    one, many = measure(rng)
    shift, side = rng.randint(2, 30), rng.choice(("left", "right"))
    cut = rng.choice(("cut", "split", "k", "offset", "turn"))
    name = rng.choice((f"rotate_{many}", f"turn_{many}", f"{many}_{side}", f"shift_{many}"))
    sign = "" if side == "left" else "-"

    def reference(values: list[int]) -> list[int]:
        move = shift if side == "left" else -shift
        return [values[(i + move) % len(values)] for i in range(len(values))]

    return Sketch(
        name=name,
        args={many: "list[int]"},
        returns="list[int]",
        doc=f"Turn the list of {many} by {shift} to the {side}.",
        body=(
            f"if not {many}:",
            "    return []",
            f"{cut} = {sign}{shift} % len({many})",
            f"front, back = {many}[:{cut}], {many}[{cut}:]",
            "return back + front",
        ),
        tellings=(
            f"Write {name}({many}) that rotates the list {shift} places to the {side}. What drops"
            f" off comes back at the other end, and {shift} may exceed the length.",
            f"A ring of {many} is moved {shift} steps {side}. Write {name}({many}) to return the"
            f" new order; an empty ring stays empty.",
            f"{CALL} is {RESULT}, a rotation to the {side} by {shift}. Please write {name}({many}),"
            f" safe for empty and for short lists.",
            f"{name}({many}):\n- empty list: return a new empty list\n- otherwise rotate {side} by"
            f" {shift}, going round as often as needed",
            f"How do the {many} look after every {one} has wandered {shift} places to the {side},"
            f" wrapping around? Write {name}({many}), also for an empty list.",
        ),
        asks=[f"Compute {cut} with the remainder operator, then slice into front and back."],
        reference=reference,
        inputs=[
            [list(range(1, rng.choice((4, 5))))] if shift % 3 else [[3, 1, 2, 5]],
            [rng.sample(range(60), 5)],
            [rng.sample(range(60), 7)],
            [[]],
            [rng.sample(range(60), 1)],
        ],
        facts=(side, shift),
    )


def merge_sorted(rng: Random) -> Sketch:
    """Two sorted lists made into one."""
    first, second = rng.sample(MEASURES, 2)
    kept = rng.choice(LISTS)
    i, j = rng.choice((("i", "j"), ("p", "q"), ("x", "y"), ("m", "n")))
    name = rng.choice(("merge_lists", "merge_sorted", f"merge_{first.many}", f"join_{second.many}"))
    one, two = first.many, second.many
    return Sketch(
        name=name,
        args={one: "list[int]", two: "list[int]"},
        returns="list[int]",
        doc=f"Combine ordered {one} and {two} without sorting again.",
        body=(
            f"{i}, {j}, {kept} = 0, 0, []",
            f"while {i} < len({one}) and {j} < len({two}):",
            f"    if {one}[{i}] <= {two}[{j}]:",
            f"        {kept}.append({one}[{i}])",
            f"        {i} += 1",
            "    else:",
            f"        {kept}.append({two}[{j}])",
            f"        {j} += 1",
            f"return {kept} + {one}[{i}:] + {two}[{j}:]",
        ),
        tellings=(
            f"Both lists, {one} and {two}, go from small to large. Merge them into one sorted list"
            f" with {name}({one}, {two}) and indices {i} and {j}.",
            f"Write {name}({one}, {two}) that merges two sorted lists. The indices are {i} and {j},"
            f" and {first.one} wins when equal.",
            f"{CALL} gives {RESULT}. Write {name}({one}, {two}), which merges sorted lists by"
            f" walking through them with {i} and {j}.",
            f"- {name}({one}, {two})\n- both inputs are sorted\n- walk with {i} and {j}, always"
            f" taking the smaller front\n- append what remains",
            f"Two clerks each hand over a sorted list, {one} and {two}. How would {name}({one},"
            f" {two}) merge them? Count with {i} and {j}.",
        ),
        asks=[use_while(rng), call_it(rng, kept)],
        reference=lambda left, right: sorted([*left, *right]),
        inputs=[
            [sorted(numbers(rng, n)), sorted(numbers(rng, m))]
            for n, m in ((2, 2), (3, 4), (5, 3), (0, 2), (3, 0))
        ],
    )


def every_nth(rng: Random) -> Sketch:
    """Items at regular places, each with something added."""
    one, many = measure(rng)
    start, step, extra = rng.randint(0, 4), rng.randint(2, 6), rng.randint(1, 40)
    kept = rng.choice(LISTS)
    name = rng.choice((f"every_{one}", f"sample_{many}", f"pick_{many}", f"some_{many}"))
    if rng.random() < 0.5:
        asks = [use_loop(rng), f"Loop over range with the index i and fill {kept}."]
        body = (
            f"{kept} = []",
            f"for i in range({start}, len({many}), {step}):",
            f"    {kept}.append({many}[i] + {extra})",
            f"return {kept}",
        )
    else:
        asks = [f"Slice into {kept} first, then use a comprehension."]
        body = (
            f"{kept} = {many}[{start}::{step}]",
            f"return [{one} + {extra} for {one} in {kept}]",
        )
    return Sketch(
        name=name,
        args={many: "list[int]"},
        returns="list[int]",
        doc=f"Raise by {extra} whatever stands at {start} and then every {step} later in {many}.",
        body=body,
        tellings=(
            f"Write {name}({many}). Beginning at index {start}, take each number that is {step}"
            f" further on, add {extra} to it and return those.",
            f"From a long list of {many} we need index {start} and then always {step} later. Let"
            f" {name}({many}) return these, each increased by {extra}.",
            f"{CALL} gives {RESULT}: start at index {start}, go on in steps of {step}, add {extra}."
            f" Define {name}({many}).",
            f"{name}:\n- takes {many}\n- visits indices from {start} in steps of {step}\n- adds"
            f" {extra} to each visited {one}\n- returns them",
            f"Which numbers come out when {many} are read from index {start} on with stride {step}"
            f" and each {one} goes up by {extra}? Write {name}.",
        ),
        asks=asks,
        reference=lambda values: [
            v + extra for i, v in enumerate(values) if i >= start and (i - start) % step == 0
        ],
        inputs=[[numbers(rng, start + n, 0, 40)] for n in (2, step + 1, 2 * step + 2, 4)] + [[[]]],
        facts=(start, step, extra),
    )


def chunk_sums(rng: Random) -> Sketch:
    """Sums of consecutive groups of a fixed size."""
    one, many = measure(rng)
    size, extra = rng.randint(2, 9), rng.randint(1, 50)
    kept, part = rng.choice(LISTS), rng.choice(("part", "group", "chunk", "block"))
    name = rng.choice((f"{part}_sums", f"{one}_{part}s", f"sum_{part}s", f"{many}_by_{size}"))
    return Sketch(
        name=name,
        args={many: "list[int]"},
        returns="list[int]",
        doc=f"Total {many} in runs of {size}, with {extra} on top of each.",
        body=(
            f"{kept} = []",
            f"for start in range(0, len({many}), {size}):",
            f"    {part} = {many}[start:start + {size}]",
            f"    {kept}.append(sum({part}) + {extra})",
            f"return {kept}",
        ),
        tellings=(
            f"Cut {many} into groups of {size}, the last may be shorter. Write {name}({many}) that"
            f" returns the sum of each {part} plus {extra}.",
            f"Every {size} numbers form a {part}. For each, {name}({many}) returns its sum"
            f" increased by {extra}, also for an incomplete one at the end.",
            f"{CALL} gives {RESULT}: sums of {size} at a time, {extra} added to each. Write"
            f" {name}({many}) with a slice called {part}.",
            f"- {name} gets {many}\n- slice off {size} at a time as {part}\n- sum it and add"
            f" {extra}\n- return all those sums in a list",
            f"A machine packs {size} items per box and each box weighs {extra} itself. What does"
            f" every {part} weigh, given {many}? Write {name}({many}).",
        ),
        asks=[use_loop(rng), call_it(rng, kept)],
        reference=lambda values: [
            sum(v for i, v in enumerate(values) if i // size == k) + extra
            for k in range((len(values) + size - 1) // size)
        ],
        inputs=[[numbers(rng, n, 0, 20)] for n in (size + 1, size, 2 * size + 1, 1)] + [[[]]],
        facts=(size, extra),
    )


def paired_total(rng: Random) -> Sketch:
    """Two lists walked together and summed under a condition."""
    (first, second), test = rng.sample(MEASURES, 2), condition(rng)
    total = rng.choice(SUMS + COUNTERS[:1])
    name = rng.choice(
        (f"weigh_{first.many}", f"{first.one}_times_{second.one}", "pair_total", "match_up")
    )
    one, two = first.many, second.many
    return Sketch(
        name=name,
        args={one: "list[int]", two: "list[int]"},
        returns="int",
        doc=f"Sum the products of pairs whose {first.one} is {test.doc}.",
        body=(
            f"{total} = 0",
            f"for {first.one}, {second.one} in zip({one}, {two}):",
            f"    if {first.one} {test.code}:",
            f"        {total} += {first.one} * {second.one}",
            f"return {total}",
        ),
        tellings=(
            f"Write {name}({one}, {two}). Walk both lists in step, multiply each {first.one} by its"
            f" {second.one} and sum up, but only where the {first.one} is {test.text}.",
            f"Each {first.one} belongs with the {second.one} at the same index. If it is"
            f" {test.text}, their product counts. Let {name}({one}, {two}) sum these.",
            f"{CALL} is {RESULT}. Products of pairs are added as long as the {first.one} is"
            f" {test.text}, other pairs are skipped. Write {name}({one}, {two}).",
            f"- signature: {name}({one}, {two})\n- pair the lists up\n- drop pairs unless the"
            f" {first.one} is {test.text}\n- return the sum of products",
            f"How large is the sum of {first.one} times {second.one} over all pairs in which the"
            f" {first.one} is {test.text}? Define {name}({one}, {two}).",
        ),
        asks=["Use a for loop with zip.", call_it(rng, total)],
        reference=lambda left, right: sum(
            left[i] * right[i] for i in range(len(left)) if test.holds(left[i])
        ),
        inputs=[[test.numbers(rng, n), numbers(rng, n, 1, 9)] for n in (3, 4, 6)]
        + [[[], []], [test.failing(rng), numbers(rng, 3, 1, 9)]],
        facts=(test.code,),
    )


STRUCTURES = (
    rotate,
    merge_sorted,
    every_nth,
    chunk_sums,
    paired_total,
)
