"""Structures that decide: grades, prices with steps, fees and labels."""

from random import Random

from jacobi_forcing.problems.code.craft import CALL, RESULT, Sketch, use_loop
from jacobi_forcing.problems.code.words import (
    GOODS,
    LISTS,
    PHYSICAL,
    PRICES,
    SHORT_WORDS,
    TEXTS,
    measure,
    numbers,
)


def grade(rng: Random) -> Sketch:
    """A word for the band that a number falls into."""
    one = measure(rng).one
    low, high = sorted(rng.sample(range(5, 96), 2))
    bottom, middle, top = rng.sample(SHORT_WORDS, 3)
    name = rng.choice((f"grade_{one}", f"{one}_label", f"rate_{one}", f"{one}_band"))
    if rng.random() < 0.5:
        order = "Test for the highest band first."
        body = (
            f"if {one} >= {high}:",
            f'    return "{top}"',
            f'return "{middle}" if {one} >= {low} else "{bottom}"',
        )
    else:
        order = "Test for the lowest band first."
        body = (
            f"if {one} < {low}:",
            f'    return "{bottom}"',
            f'return "{middle}" if {one} < {high} else "{top}"',
        )
    return Sketch(
        name=name,
        args={one: "int"},
        returns="str",
        doc=f"Say in a word where the {one} lies on a scale cut at {low} and {high}.",
        body=body,
        tellings=(
            f'Write {name}({one}) that returns "{top}" from {high} upwards, "{middle}" from {low}'
            f' up to below {high}, and "{bottom}" for anything less.',
            f'A game shows "{bottom}" for a {one} under {low}, "{top}" for one that is at least'
            f' {high}, and "{middle}" in between. Write {name}({one}).',
            f'Bands of {name}({one}):\n- {high} and more: "{top}"\n- {low} and more: "{middle}"\n-'
            f' the rest: "{bottom}"',
            f'Which word fits a {one}? Below {low} it is "{bottom}", below {high} it is "{middle}",'
            f' otherwise "{top}". Answer with {name}({one}).',
            f'{CALL} is {RESULT}. The limits {low} and {high} part "{bottom}", "{middle}" and'
            f' "{top}",'
            f" each limit belonging to the upper band. Write {name}({one}).",
        ),
        asks=[order, "Use one if and a conditional expression."],
        reference=lambda value: (bottom, middle, top)[(value >= low) + (value >= high)],
        inputs=[[low], [high], [low - 1], [high - 1], [0], [high + rng.randint(1, 9)]],
        facts=(low, high, bottom, middle, top),
    )


def discount_steps(rng: Random) -> Sketch:
    """A price that gets cheaper from two amounts on."""
    price, pieces = rng.choice(PRICES), rng.choice(GOODS).many
    few, many = sorted(rng.sample(range(3, 60), 2))
    small, large = sorted(rng.sample(range(2, 60), 2))
    due = rng.choice(("total", "due", "sum_due", "full", "gross"))
    name = rng.choice(
        (f"{price}_for_{pieces}", f"discount_{price}", f"{pieces}_{price}", f"final_{price}")
    )
    return Sketch(
        name=name,
        args={price: "int", pieces: "int"},
        returns="int",
        doc=f"Multiply {price} by {pieces} and grant the rebate for large numbers.",
        body=(
            f"{due} = {price} * {pieces}",
            f"if {pieces} >= {many}:",
            f"    {due} -= {due} * {large} // 100",
            f"elif {pieces} >= {few}:",
            f"    {due} -= {due} * {small} // 100",
            f"return {due}",
        ),
        tellings=(
            f"Write {name}({price}, {pieces}). The product gets a discount of {small} percent for"
            f" at least {few} {pieces} and of {large} percent for at least {many}, discount"
            f" rounded down.",
            f"Each of the {pieces} costs {price}. Who takes {few} {pieces} or more saves {small}"
            f" percent, from {many} on it is {large} percent; what is saved is a whole number."
            f" Write {name}({price}, {pieces}).",
            f"{CALL} comes to {RESULT}. There is {small} percent off from {few} {pieces} and"
            f" {large} percent off from {many}, in whole numbers. Write {name}({price}, {pieces}).",
            f"{name}({price}, {pieces}):\n- {due} is the product\n- {many} or more: minus {large}"
            f" percent\n- {few} or more: minus {small} percent\n- discounts are rounded down",
        ),
        asks=[f"Store the product in {due} and use if and elif."],
        reference=lambda each, n: (
            each * n - each * n * (large if n >= many else small if n >= few else 0) // 100
        ),
        inputs=[
            [rng.randint(11, 60), few],
            [rng.randint(61, 99), many],
            [rng.randint(50, 99), few - 1],
            [rng.randint(50, 99), many - 1],
            [rng.randint(1, 99), many + rng.randint(1, 40)],
            [0, 1],
        ],
        facts=(few, many, small, large),
    )


def parcel_fee(rng: Random) -> Sketch:
    """A base fee and a surcharge for what exceeds a free part, up to a maximum."""
    one = rng.choice(PHYSICAL)
    base, free, each = rng.randint(3, 40), rng.randint(2, 50), rng.randint(2, 9)
    limit = base + rng.randint(40, 55)
    extra = rng.choice(("extra", "excess", "beyond", "overrun", "surplus"))
    name = rng.choice((f"{one}_cost", f"fee_for_{one}", f"{one}_charge", f"shipping_by_{one}"))
    return Sketch(
        name=name,
        args={one: "int"},
        returns="int",
        doc=f"Bill the {one}: flat up to {free}, dearer beyond, never over {limit}.",
        body=(
            f"if {one} <= {free}:",
            f"    return {base}",
            f"{extra} = {one} - {free}",
            f"return min({base} + {extra} * {each}, {limit})",
        ),
        tellings=(
            f"Write {name}({one}). The fee is {base} as long as {one} does not exceed {free}; each"
            f" unit more costs {each}, and {limit} is the maximum.",
            f"A parcel service charges {base} for a {one} up to {free} and {each} for every unit"
            f" above, but {limit} at most. Write {name}({one}).",
            f"{CALL} gives {RESULT}. Up to {free} one pays {base}, beyond that {each} more per"
            f" unit, with a maximum of {limit}. Write {name}({one}).",
            f"Tariff {name}({one}):\n- up to {free}: {base}\n- each unit over {free}: {each}"
            f" more\n- maximum: {limit}",
            f"What has to be paid for a {one}, when {base} covers {free} units, further ones are"
            f" {each} each and nobody pays more than {limit}? Write {name}({one}).",
        ),
        asks=[f"Return early when nothing exceeds the limit, else compute {extra} and use min."],
        reference=lambda value: sorted([base + each * sorted([0, value - free])[1], limit])[0],
        inputs=[
            [free + rng.randint(1, 4)],
            [free],
            [free + 1],
            [0],
            [free + 60],
        ],
        facts=(base, free, each, limit),
    )


def label_all(rng: Random) -> Sketch:
    """A word for each number in a list: too low, in range or too high."""
    one, many = measure(rng)
    low, high = sorted(rng.sample(range(5, 96), 2))
    under, inside, over = rng.sample(SHORT_WORDS, 3)
    kept = rng.choice(LISTS)
    name = rng.choice((f"label_{many}", f"check_{many}", f"{one}_report", f"judge_{many}"))
    near = [low - 1, low, high, high + 1]
    return Sketch(
        name=name,
        args={many: "list[int]"},
        returns="list[str]",
        doc=f"Comment on {many} by comparing them with {low} and {high}.",
        body=(
            f"{kept} = []",
            f"for {one} in {many}:",
            f"    if {one} < {low}:",
            f'        {kept}.append("{under}")',
            f"    elif {one} > {high}:",
            f'        {kept}.append("{over}")',
            "    else:",
            f'        {kept}.append("{inside}")',
            f"return {kept}",
        ),
        tellings=(
            f'Write {name}({many}) that gives one word per number: "{under}" below {low}, "{over}"'
            f' above {high}, otherwise "{inside}".',
            f'A monitor beeps for each {one}. It says "{under}" if it is less than {low}, "{over}"'
            f' if it is more than {high} and "{inside}" if all is well. Write {name}({many}).',
            f"{CALL} gives {RESULT}. Words: {under} for less than {low}, {over} for more than"
            f" {high}, {inside} for the others. Write {name}({many}).",
            f'- {name}({many}) returns a list of words\n- under {low}: "{under}"\n- over {high}:'
            f' "{over}"\n- from {low} to {high}: "{inside}"',
        ),
        asks=[use_loop(rng), "Use if, elif and else.", f"Fill the list {kept}."],
        reference=lambda values: [
            (under, inside, over)[1 - (v < low) + (v > high)] for v in values
        ],
        inputs=[
            [rng.sample(near, 3)],
            [near],
            [numbers(rng, 5, 0, 100)],
            [[]],
            [[rng.randint(low, high)]],
        ],
        facts=(low, high, under, inside, over),
    )


def check_secret(rng: Random) -> Sketch:
    """Whether a text meets a rule about its length and a sign in it."""
    text, sign, least = rng.choice(TEXTS), rng.choice("#$%&*+-=?@_!"), rng.randint(3, 12)
    most = least + rng.randint(3, 20)
    times = rng.randint(1, 4)
    size, seen = rng.choice((("size", "signs"), ("length", "marks"), ("width", "hits")))
    name = rng.choice((f"valid_{text}", f"accept_{text}", f"{text}_ok", f"check_{text}"))
    often = "once" if times == 1 else f"{times} times"

    def mixed(length: int, signs: int) -> str:
        letters = list("x" * (length - signs) + sign * signs)
        return "".join(rng.sample(letters, length))

    return Sketch(
        name=name,
        args={text: "str"},
        returns="bool",
        doc=f'Accept a {text} of suitable length with enough "{sign}" in it.',
        body=(
            f"{size} = len({text})",
            f'{seen} = {text}.count("{sign}")',
            f"if {size} < {least} or {size} > {most}:",
            "    return False",
            f"return {seen} >= {times}",
        ),
        tellings=(
            f"Write {name}({text}). A string is fine when it has {least} to {most} characters and"
            f' "{sign}"'
            f" occurs in it at least {often}. Return True or False.",
            f'A form takes a {text} only with {least} to {most} characters, among them "{sign}" at'
            f" least"
            f" {often}. Let {name}({text}) tell if it passes.",
            f'{CALL} is {RESULT}. Needed are {least} to {most} characters and "{sign}" at least'
            f" {often}."
            f" Please write {name}({text}).",
            f'{name}({text}) is True if\n- the length is from {least} to {most}\n- "{sign}" is'
            f" there at"
            f" least {often}",
            f"Is a {text} acceptable if the rule asks for {least} to {most} characters and"
            f' "{sign}" at'
            f" least {often}? Write {name}({text}).",
        ),
        asks=[
            f"Store the length in {size} and how often it occurs in {seen}, then check the length."
        ],
        reference=lambda value: value.count(sign) >= times and least <= len(value) <= most,
        inputs=[
            [mixed(max(least, times), times)],
            [mixed(most, times - 1)],
            [mixed(most + 1, times)],
            [mixed(least - 1, min(times, least - 1))],
            [mixed(most, times)],
        ],
        facts=(sign, least, most, times),
    )


STRUCTURES = (
    grade,
    discount_steps,
    parcel_fee,
    label_all,
    check_secret,
)
