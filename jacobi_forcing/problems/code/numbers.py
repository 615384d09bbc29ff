"""Structures about single whole numbers: digits, powers, divisors, conversions."""

from math import gcd
from random import Random

from jacobi_forcing.problems.code.craft import CALL, RESULT, Sketch, call_it, use_loop, use_while
from jacobi_forcing.problems.code.words import (
    CODES,
    MEASURES,
    PHYSICAL,
    SUMS,
)


def digit_sum(rng: Random) -> Sketch:
    """Sum of the digits on one side of a limit."""
    one, limit, factor = rng.choice(CODES), rng.randint(2, 8), rng.randint(2, 9)
    large = rng.random() < 0.5
    sign, side, where = (">", "greater", "above") if large else ("<", "smaller", "under")
    total = rng.choice(SUMS)
    name = rng.choice(
        (f"{one}_digits", f"digit_sum_of_{one}", f"add_{one}_digits", f"checksum_{one}")
    )
    if rng.random() < 0.5:
        asks = [use_loop(rng), f"Loop over str({one}).", call_it(rng, total)]
        body = (
            f"{total} = 0",
            f"for letter in str({one}):",
            "    digit = int(letter)",
            f"    if digit {sign} {limit}:",
            f"        {total} += digit * {factor}",
            f"return {total}",
        )
    else:
        asks = [use_while(rng), "Split off digits with divmod.", call_it(rng, total)]
        body = (
            f"{total} = 0",
            f"while {one} > 0:",
            f"    {one}, digit = divmod({one}, 10)",
            f"    if digit {sign} {limit}:",
            f"        {total} += digit * {factor}",
            f"return {total}",
        )
    return Sketch(
        name=name,
        args={one: "int"},
        returns="int",
        doc=f"Weigh each digit {where} {limit} by {factor} and add them up.",
        body=body,
        tellings=(
            f"Write {name}({one}) that sums the digits {side} than {limit} of a whole number, each"
            f" multiplied by {factor}.",
            f"A check number is made from a {one}: take its digits {side} than {limit}, times"
            f" {factor}, and sum them. Write {name}({one}).",
            f"{CALL} is {RESULT}, for only digits {side} than {limit} are used, {factor} times"
            f" each. Write {name}({one}).",
            f"- {name}({one}) looks at each digit\n- a digit {side} than {limit} counts {factor}"
            f" times\n- other digits do not count\n- return the sum",
            f"What do all digits {side} than {limit} in a {one} come to, taken {factor} times?"
            f" Write {name}({one}).",
        ),
        asks=asks,
        reference=lambda value: (
            factor
            * sum(
                d * str(value).count(str(d))
                for d in range(10)
                if (d > limit if large else d < limit)
            )
        ),
        inputs=[
            [rng.randint(100, 999)],
            [rng.randint(10000, 99999)],
            [10 * limit + limit + 1],
            [0],
            [100 * limit + limit - 1],
        ],
        facts=(sign, limit, factor),
    )


def power_loop(rng: Random) -> Sketch:
    """A power by repeated multiplication, kept below a modulus."""
    base = rng.choice(("base", "factor", "growth", "number", "root", "seed"))
    times = rng.choice(("exponent", "height", "repeats", "rounds", "steps", "times"))
    start, modulus = rng.randint(1, 9), rng.randint(11, 99)
    total = rng.choice(("product", "answer", "power", "outcome"))
    name = rng.choice(("power_loop", f"{base}_power", f"raise_{base}", f"{base}_by_{times}"))
    return Sketch(
        name=name,
        args={base: "int", times: "int"},
        returns="int",
        doc=f"Multiply {start} by the {base} again and again, modulo {modulus}.",
        body=(
            f"{total} = {start}",
            f"for _ in range({times}):",
            f"    {total} = {total} * {base} % {modulus}",
            f"return {total}",
        ),
        tellings=(
            f"Write {name}({base}, {times}). Beginning with {start}, multiply by"
            f" {base} as many times as {times} says, taking the remainder by {modulus}"
            f" each time.",
            f"A number {start} is multiplied by {base} in every round and reduced modulo"
            f" {modulus}; there are {times} rounds. What is it then? Write"
            f" {name}({base}, {times}).",
            f"{CALL} gives {RESULT}. The product starts at {start}, gets {times} factors"
            f" {base} and stays modulo {modulus}. Define {name}({base}, {times}).",
            f"{name}({base}, {times}):\n- set {total} to {start}\n- {times} times:"
            f" multiply by {base}, keep the remainder by {modulus}\n- return {total}",
        ),
        asks=[use_loop(rng), call_it(rng, total)],
        reference=lambda value, n: start * value**n % modulus if n else start,
        inputs=[
            [rng.randint(2, 9), rng.randint(2, 4)],
            [rng.randint(2, 9), rng.randint(5, 9)],
            [rng.randint(10, 20), 3],
            [rng.randint(2, 9), 0],
            [1, 2],
            [modulus, 1],
        ],
        facts=(start, modulus),
    )


def greatest_divisor(rng: Random) -> Sketch:
    """The greatest common divisor of two numbers, scaled."""
    (first, second), factor = rng.sample(MEASURES, 2), rng.randint(2, 99)
    one, two = first.one, second.one
    name = rng.choice((f"common_{one}", f"gcd_of_{one}", f"shared_{two}", f"{one}_{two}_gcd"))
    rest = rng.choice(("rest", "remainder", "left"))
    return Sketch(
        name=name,
        args={one: "int", two: "int"},
        returns="int",
        doc=f"Run Euclid's algorithm on {one} and {two} and scale by {factor}.",
        body=(
            f"while {two} != 0:",
            f"    {rest} = {one} % {two}",
            f"    {one} = {two}",
            f"    {two} = {rest}",
            f"return {one} * {factor}",
        ),
        tellings=(
            f"Write {name}({one}, {two}) that finds the greatest common divisor of two numbers and"
            f" returns it multiplied by {factor}.",
            f"What is {factor} times the greatest common divisor of a {one} and a {two}? Write"
            f" {name}({one}, {two}) to answer.",
            f"Tiles of equal size must fit both {one} and {two}, as large as can be, and one unit"
            f" costs {factor}. Write {name}({one}, {two}) for the cost of a side.",
            f"{CALL} is {RESULT}: the largest number dividing both, times {factor}. Write"
            f" {name}({one}, {two}).",
            f"- {name}({one}, {two})\n- get the greatest common divisor by remainders\n- return it"
            f" times {factor}",
        ),
        asks=[use_while(rng), f"Hold the remainder in {rest}."],
        reference=lambda a, b: gcd(a, b) * factor,
        inputs=[
            [12 * rng.randint(2, 8), 9 * rng.randint(2, 8)],
            [rng.randint(10, 99), rng.randint(10, 99)],
            [7 * rng.randint(2, 9), 7],
            [rng.randint(2, 50), 0],
            [5, 5 * rng.randint(2, 9)],
        ],
        facts=(factor,),
    )


def convert_units(rng: Random) -> Sketch:
    """A conversion between two scales in whole numbers."""
    one = rng.choice(PHYSICAL)
    offset, up, down = rng.randint(1, 60), rng.randint(2, 19), rng.randint(2, 19)
    limit = rng.randint(70, 99)
    part = rng.choice(("shifted", "scaled", "raw", "reduced"))
    name = rng.choice((f"convert_{one}", f"{one}_to_scale", f"rescale_{one}", f"translate_{one}"))
    return Sketch(
        name=name,
        args={one: "int"},
        returns="int",
        doc=f"Express the {one} on another scale that ends at {limit}.",
        body=(
            f"{part} = ({one} - {offset}) * {up} // {down}",
            f"if {part} > {limit}:",
            f"    return {limit}",
            f"return {part}",
        ),
        tellings=(
            f"Write {name}({one}). Subtract {offset}, multiply by {up}, divide by {down} without"
            f" fraction, and never return more than {limit}.",
            f"An old device shows a {one} that must be converted: minus {offset}, times {up}, whole"
            f" division by {down}, at most {limit}. Write {name}({one}).",
            f"{CALL} gives {RESULT}. The steps are minus {offset}, times {up}, floor division by"
            f" {down}, and {limit} is the upper limit. Write {name}({one}).",
            f"- {name} takes {one}\n- lower it by {offset}\n- multiply by {up}, then floor divide"
            f" by {down}\n- results over {limit} become {limit}",
            f"What is a {one} worth on a scale that has zero at {offset}, grows by the factor {up}"
            f" over {down} rounded down, and stops at {limit}? Write {name}({one}).",
        ),
        asks=[f"Name the first number you compute {part} and test it with if."],
        reference=lambda value: min((value * up - offset * up) // down, limit),
        inputs=[
            [offset + rng.randint(1, 12)],
            [offset],
            [offset + (limit * down) // up + 30],
            [0],
            [offset + rng.randint(13, 30)],
        ],
        facts=(offset, up, down, limit),
    )


STRUCTURES = (
    digit_sum,
    power_loop,
    greatest_divisor,
    convert_units,
)
