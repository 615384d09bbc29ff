"""Structures about lists of rows."""

from random import Random

from jacobi_forcing.problems.code.conditions import condition
from jacobi_forcing.problems.code.craft import (
    CALL,
    RESULT,
    Sketch,
    call_it,
    use_loop,
)
from jacobi_forcing.problems.code.words import LISTS, SUMS, measure, numbers


def row_sums(rng: Random) -> Sketch:
    """One sum for each row of a grid, over the items that meet a condition."""
    (one, many), test, extra = measure(rng), condition(rng), rng.randint(1, 50)
    kept, total = rng.choice(LISTS), rng.choice(SUMS[2:])
    grid = rng.choice(("grid", "rows", "matrix", "board", "sheet"))
    name = rng.choice((f"{grid}_sums", f"{one}_sums", f"sum_{grid}", f"{many}_per_row"))
    line = "line" if grid == "rows" else "row"

    def rows(*sizes: int) -> list[list[int]]:
        return [test.numbers(rng, size) for size in sizes]

    return Sketch(
        name=name,
        args={grid: "list[list[int]]"},
        returns="list[int]",
        doc=f"Reduce every {line} to {extra} plus its {many} that are {test.doc}.",
        body=(
            f"{kept} = []",
            f"for {line} in {grid}:",
            f"    {total} = sum({one} for {one} in {line} if {one} {test.code})",
            f"    {kept}.append({total} + {extra})",
            f"return {kept}",
        ),
        tellings=(
            f"Write {name}({grid}), where the argument is a list of lists with {many}. For each"
            f" {line} sum every {one} that is {test.text} and add {extra}.",
            f"In a table of {many}, what does each {line} come to if only a {one} that is"
            f" {test.text} counts and {extra} is added? Write {name}({grid}).",
            f"{CALL} gives {RESULT}. Within a {line} each {one} that is {test.text} is summed, then"
            f" {extra} is added. Write {name}({grid}).",
            f"{name}({grid}):\n- goes through each {line}\n- sums any {one} that is {test.text}\n-"
            f" adds {extra}\n- returns one number per {line}",
            f"A season has a {line} of {many} per team. A {one} scores if it is {test.text}, and"
            f" {extra} is a gift. Write {name}({grid}) for the list of all results.",
        ),
        asks=[use_loop(rng), f"Use the names {total} and {kept}."],
        reference=lambda lines: [sum(filter(test.holds, cells), extra) for cells in lines],
        inputs=[[rows(3)], [rows(3, 4)], [[*rows(5), [], *rows(3)]], [[]], [[test.failing(rng)]]],
        facts=(test.code, extra),
    )


def column_pick(rng: Random) -> Sketch:
    """One column of a grid, limited from one side."""
    one, many = measure(rng)
    column, limit, extra = rng.randint(0, 3), rng.randint(10, 90), rng.randint(1, 30)
    pick, word = rng.choice((("min", "at most"), ("max", "at least")))
    kept = rng.choice(LISTS)
    grid = rng.choice(("grid", "rows", "matrix", "board", "sheet"))
    line = "line" if grid == "rows" else "row"
    name = rng.choice(
        (f"column_of_{grid}", f"{one}_column", f"column_{column}", f"{many}_from_{grid}")
    )
    choose = min if pick == "min" else max

    def rows(count: int) -> list[list[int]]:
        return [numbers(rng, column + rng.randint(0, 2), 0, 99) for _ in range(count)]

    fixed = [[0] * column + [limit - extra + d] for d in (-1, 1)]
    return Sketch(
        name=name,
        args={grid: "list[list[int]]"},
        returns="list[int]",
        doc=f"Read the {many} at place {column} of the {grid}, {word} {limit} each.",
        body=(
            f"{kept} = []",
            f"for {line} in {grid}:",
            f"    if len({line}) > {column}:",
            f"        {one} = {line}[{column}] + {extra}",
            f"        {kept}.append({pick}({one}, {limit}))",
            f"return {kept}",
        ),
        tellings=(
            f"Write {name}({grid}). Take the {one} at index {column} of each {line}, add {extra}"
            f" and use {pick} so that it is {word} {limit}. Skip any {line} that is too short.",
            f"Each {line} holds a {one} at index {column}, unless it is too short. Raise it by"
            f" {extra}, make it {word} {limit} with {pick}, and list all in {name}({grid}).",
            f"{CALL} gives {RESULT}: index {column} of each {line} plus {extra}, by {pick} {word}"
            f" {limit}. Too short ones drop out. Write {name}({grid}), item {one}.",
            f"- {name}({grid}) reads a list of lists\n- {one}: what is at index {column} plus"
            f" {extra}\n- {word} {limit}, using {pick}\n- a {line} without that index is skipped",
        ),
        asks=[use_loop(rng), call_it(rng, kept)],
        reference=lambda lines: [
            choose(cells[column] + extra, limit) for cells in lines if cells[column:]
        ],
        inputs=[[fixed], [rows(3)], [rows(5)], [[]], [[[7] * column, [8] * (column + 1)]]],
        facts=(column, limit, extra, pick),
    )


STRUCTURES = (
    row_sums,
    column_pick,
)
