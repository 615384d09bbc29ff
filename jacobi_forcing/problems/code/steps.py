"""Structures that count their way up or down to a number."""

from random import Random

from jacobi_forcing.problems.code.conditions import condition
from jacobi_forcing.problems.code.craft import CALL, RESULT, Sketch, call_it, use_loop, use_while
from jacobi_forcing.problems.code.words import (
    COUNTERS,
    ENDS,
    LISTS,
    MONEY,
    SHORT_WORDS,
    measure,
)


def count_steps(rng: Random) -> Sketch:
    """Steps until a number has come down, by division or by subtraction."""
    one = measure(rng).one
    divisor, minus, goal = rng.randint(2, 5), rng.randint(1, 9), rng.randint(1, 50)
    steps = rng.choice(("steps", "rounds", "moves", "turns"))
    name = rng.choice((f"{one}_{steps}", f"count_{steps}", f"reduce_{one}", f"{steps}_to_{goal}"))

    def reference(value: int) -> int:
        if value <= goal:
            return 0
        return 1 + reference(value - minus if value % divisor else value // divisor)

    return Sketch(
        name=name,
        args={one: "int"},
        returns="int",
        doc=f"Find how long it takes to bring the {one} down to {goal}.",
        body=(
            f"{steps} = 0",
            f"while {one} > {goal}:",
            f"    if {one} % {divisor} == 0:",
            f"        {one} //= {divisor}",
            "    else:",
            f"        {one} -= {minus}",
            f"    {steps} += 1",
            f"return {steps}",
        ),
        tellings=(
            f"As long as {one} exceeds {goal}, divide it by {divisor} if that leaves no remainder,"
            f" otherwise subtract {minus}. Write {name}({one}), returning the number of {steps}.",
            f"Write {name}({one}) that counts {steps}. In each, a multiple of {divisor} is divided"
            f" by {divisor} and anything else loses {minus}, until the number is {goal} or less.",
            f"{CALL} gives {RESULT}, the {steps} needed until at most {goal} is left. Multiples of"
            f" {divisor} are divided by {divisor}, others go down {minus}. Write {name}({one}).",
            f"{name}({one}):\n- repeat while above {goal}\n- divisible by {divisor}: divide by it\n"
            f"- else: take away {minus}\n- return how many {steps} that took",
            f"How many {steps} pass before a {one} is no more than {goal}, if it is divided by"
            f" {divisor} when possible and lowered by {minus} when not? Write {name}({one}).",
        ),
        asks=[use_while(rng), f"Count in {steps}."],
        reference=reference,
        inputs=[
            [goal + rng.randint(2, 20)],
            [goal + 1],
            [goal],
            [divisor * (goal + rng.randint(5, 40))],
            [goal + rng.randint(60, 99)],
        ],
        facts=(divisor, minus, goal),
    )


def fizz_words(rng: Random) -> Sketch:
    """The fizz-buzz game with other words and numbers."""
    one = rng.choice(ENDS)
    low, high = sorted(rng.sample(range(2, 12), 2))
    first, second = rng.sample(SHORT_WORDS, 2)
    kept, word = rng.choice(LISTS), rng.choice(("word", "text", "entry", "said"))
    name = rng.choice((f"{first}_{second}", f"play_{first}", f"{one}_game", f"say_{second}"))

    def reference(last: int) -> list[str]:
        def said(n: int) -> str:
            return first * (n % low == 0) + second * (n % high == 0) or str(n)

        return list(map(said, range(1, last + 1)))

    return Sketch(
        name=name,
        args={one: "int"},
        returns="list[str]",
        doc=f"Play a counting game with {first} and {second} up to the {one}.",
        body=(
            f"{kept} = []",
            f"for number in range(1, {one} + 1):",
            f'    {word} = ""',
            f"    if number % {low} == 0:",
            f'        {word} += "{first}"',
            f"    if number % {high} == 0:",
            f'        {word} += "{second}"',
            f"    {kept}.append({word} or str(number))",
            f"return {kept}",
        ),
        tellings=(
            f"Write {name}({one}) listing the numbers from 1 to {one} as strings. Multiples of"
            f" {low}"
            f' turn into "{first}", those of {high} into "{second}", common ones into both in a'
            f" row.",
            f'Children count from 1 to {one}. At a multiple of {low} they shout "{first}", at one'
            f' of {high} "{second}", at both they join the words. Write {name}({one}) for all'
            f" strings.",
            f'{name}({one}) plays fizz-buzz with strings: "{first}" for {low} and "{second}" for'
            f" {high}, joined if both fit, else the number as a string.",
            f"- {name}({one}) returns a list of strings for 1 to {one}\n- divisible by {low}:"
            f' "{first}"\n- divisible by {high}: "{second}"\n- both: joined\n- neither: the number',
        ),
        asks=[use_loop(rng), f"Build {word} for each number and fill {kept}."],
        reference=reference,
        inputs=[[high], [low - 1], [0], [low * high], [high + rng.randint(2, 9)]],
        facts=(low, high, first, second),
    )


def count_numbers(rng: Random) -> Sketch:
    """How many multiples up to a limit meet a condition."""
    one, test, step = measure(rng).one, condition(rng), rng.choice((13, 17, 19, 23))
    total = rng.choice(COUNTERS)
    name = rng.choice(
        (f"count_up_to_{one}", f"multiples_to_{one}", f"{test.tag}_below_{one}", f"{one}_multiples")
    )
    return Sketch(
        name=name,
        args={one: "int"},
        returns="int",
        doc=f"Count the multiples of {step} from 0 to the {one} that are {test.doc}.",
        body=(
            f"{total}, number = 0, 0",
            f"while number <= {one}:",
            f"    if number {test.code}:",
            f"        {total} += 1",
            f"    number += {step}",
            f"return {total}",
        ),
        tellings=(
            f"Write {name}({one}). The variable number runs from 0 in steps of {step} while it is"
            f" not beyond {one}; count how often it is {test.text}.",
            f"How many of 0, {step}, {2 * step} and so on, up to and including {one}, are"
            f" {test.text}? Write {name}({one}) with a variable number.",
            f"{CALL} is {RESULT}. We visit each number from 0 to {one} in steps of {step} and count"
            f" those that are {test.text}. Write {name}({one}).",
            f"- {name} takes {one}\n- number goes 0, {step}, {2 * step} ... up to {one}\n- count it"
            f" when it is {test.text}\n- return the count",
            f"A frog hops from 0 by {step} each time, never past the {one}. On how many places"
            f" that are {test.text} does it sit? Write {name}({one}), place stored as number.",
        ),
        asks=[use_while(rng), call_it(rng, total)],
        reference=lambda last: sum(map(test.holds, range(0, last + 1, step))),
        inputs=[
            [step * rng.randint(3, 9)],
            [test.turn + step],
            [2 * test.turn + 7 * step],
            [-1],
            [test.turn * step],
        ],
        facts=(test.code, step),
    )


def savings_growth(rng: Random) -> Sketch:
    """Rounds until an amount that grows reaches a goal."""
    goal, percent, extra = rng.choice(MONEY), rng.randint(5, 50), rng.randint(3, 60)
    start = rng.randint(10, 90)
    years = rng.choice(("years", "months", "weeks", "rounds", "days"))
    savings = rng.choice(("savings", "coins", "funds", "reserves", "chips", "points"))
    name = rng.choice((f"{years}_to_{goal}", f"{years}_needed", f"grow_{savings}", f"reach_{goal}"))

    states = [start]
    while states[-1] < 10_000:
        states.append(states[-1] + (states[-1] * percent) // 100 + extra)

    return Sketch(
        name=name,
        args={goal: "int"},
        returns="int",
        doc=f"Tell after how many {years} the {savings} reach the {goal}.",
        body=(
            f"{savings}, {years} = {start}, 0",
            f"while {savings} < {goal}:",
            f"    interest = {savings} * {percent} // 100",
            f"    {savings} += interest + {extra}",
            f"    {years} += 1",
            f"return {years}",
        ),
        tellings=(
            f"Write {name}({goal}). The {savings} begin at {start} and each of the {years} brings"
            f" {percent} percent interest, rounded down, plus {extra}. Return how many {years} it"
            f" takes to reach the {goal}.",
            f"With {start} as first {savings}, {percent} percent whole interest and {extra} added"
            f" per step, how many {years} pass until {goal} is reached? Write {name}({goal}).",
            f"{CALL} gives {RESULT}, the {years} until {goal} is reached. The {savings} start at"
            f" {start}, gain {percent} percent (whole numbers) and then {extra}. Write"
            f" {name}({goal}).",
            f"{name}({goal}):\n- {savings} start with {start}\n- per step add interest of {percent}"
            f" percent, rounded down, and {extra}\n- stop at {goal} or more\n- return the {years}",
        ),
        asks=[use_while(rng), "Store what the percentage brings in interest."],
        reference=lambda target: sum(state < target for state in states),
        inputs=[[states[2] - 1], [start], [states[6] + 1], [states[5]], [states[1] + 1]],
        facts=(start, percent, extra),
    )


STRUCTURES = (
    count_steps,
    fizz_words,
    count_numbers,
    savings_growth,
)
