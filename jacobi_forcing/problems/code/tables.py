"""Structures about dictionaries."""

from collections import Counter
from random import Random

from jacobi_forcing.problems.code.conditions import Condition, condition, threshold
from jacobi_forcing.problems.code.craft import (
    CALL,
    RESULT,
    Sketch,
    call_it,
    use_comprehension,
    use_loop,
)
from jacobi_forcing.problems.code.words import LISTS, SUMS, label, measure, numbers, sample_words

_TABLES = ("table", "counts", "lookup", "totals", "register", "overview", "summary", "record")


def _table(rng: Random, test: Condition, size: int) -> dict[str, int]:
    """A dictionary from words to numbers on both sides of a condition."""
    return dict(zip(sample_words(rng, size), test.numbers(rng, size), strict=True))


def tally(rng: Random) -> Sketch:
    """A dictionary of counts, each in steps and from a minimal length on."""
    (one, many), least, weight = label(rng), rng.randint(2, 6), rng.randint(1, 9)
    table = rng.choice(_TABLES)
    name = rng.choice((f"tally_{many}", f"{one}_counts", f"count_each_{one}", f"{many}_frequency"))
    return Sketch(
        name=name,
        args={many: "list[str]"},
        returns="dict[str, int]",
        doc=f"Map different {many} to how often they come, times {weight}.",
        body=(
            f"{table} = {{}}",
            f"for {one} in {many}:",
            f"    if len({one}) >= {least}:",
            f"        {table}[{one}] = {table}.get({one}, 0) + {weight}",
            f"return {table}",
        ),
        tellings=(
            f"Write {name}({many}). It fills a dictionary with a count for each string that has at"
            f" least {least} characters; every occurrence adds {weight}.",
            f"At an election {many} are called out. Each call of a {one} gives it {weight}, but"
            f" names under {least} letters are void. Write {name}({many}) for the result as a"
            f" dictionary.",
            f"{CALL} gives {RESULT}. An occurrence is worth {weight}, and strings below {least}"
            f" letters are left out. Write {name}({many}).",
            f"- function: {name}\n- input: a list of strings, {many}\n- output: a dictionary of"
            f" counts, {weight} per occurrence\n- ignore what is shorter than {least}",
            f"How often does each {one} of {least} or more letters occur? Write {name}({many}) that"
            f" answers with a dictionary and counts in steps of {weight}.",
        ),
        asks=[use_loop(rng), call_it(rng, table)],
        reference=lambda values: {
            v: n * weight for v, n in Counter(values).items() if len(v) >= least
        },
        inputs=[
            [[*rng.choices(sample_words(rng, 2), k=3), "u" * least]],
            [["v" * (least - 1), *rng.choices(sample_words(rng, 3), k=4)]],
            [rng.choices(["w" * least, "w" * (least + 1)], k=5)],
            [[]],
            [["y" * (least - 1)]],
        ],
        facts=(least, weight),
    )


def swap_keys(rng: Random) -> Sketch:
    """A dictionary turned round, for values that meet a condition."""
    key, (one, many), test = label(rng).one, measure(rng), condition(rng)
    table, kept = f"{one}_of", rng.choice(LISTS)
    name = rng.choice((f"invert_{many}", f"{key}_by_{one}", f"swap_{key}_{one}", f"{one}_to_{key}"))
    if rng.random() < 0.5:
        asks = [use_loop(rng), call_it(rng, kept)]
        body = (
            f"{kept} = {{}}",
            f"for {key}, {one} in {table}.items():",
            f"    if {one} {test.code}:",
            f"        {kept}[str({one})] = {key}",
            f"return {kept}",
        )
    else:
        asks = [use_comprehension(rng), f"Assign items to {kept} first."]
        body = (
            f"{kept} = {table}.items()",
            f"return {{str({one}): {key} for {key}, {one} in {kept} if {one} {test.code}}}",
        )

    def reference(values: dict[str, int]) -> dict[str, str]:
        good = [k for k in values if test.holds(values[k])]
        return dict(zip([str(values[k]) for k in good], good, strict=True))

    return Sketch(
        name=name,
        args={table: "dict[str, int]"},
        returns="dict[str, str]",
        doc=f"Make a {key} findable by any {one} that is {test.doc}.",
        body=body,
        tellings=(
            f"The dictionary {table} maps each {key} to its {one}. Write {name}({table}) that"
            f" inverts it, using str for new keys, only where the {one} is {test.text}.",
            f"Write {name}({table}). Swap keys and values of the dictionary, turning a {one} into a"
            f" string key, and skip it unless it is {test.text}. A later {key} wins.",
            f"{CALL} gives {RESULT}. Keys become values, numbers become string keys if they are"
            f" {test.text}. Write {name}({table}) with names {key} and {one}.",
            f"{name}:\n- gets {table}, a dictionary from {key} to {one}\n- turns it round\n- makes"
            f" string keys\n- drops pairs unless the {one} is {test.text}",
            f"Given a {one} that is {test.text}, which {key} has it? Write {name}({table}),"
            f" returning a dictionary with str({one}) as key for the given {key} to {one} pairs.",
        ),
        asks=asks,
        reference=reference,
        inputs=[[_table(rng, test, n)] for n in (3, 4, 6)]
        + [[{}], [{"east": test.turn, "west": test.turn}]],
        facts=(test.code,),
    )


def keep_entries(rng: Random) -> Sketch:
    """The keys of a dictionary whose values meet a condition, in sorted order."""
    (key, keys), (one, _), test = label(rng), measure(rng), condition(rng)
    table, kept = f"{one}_by_{key}", rng.choice(LISTS)
    name = rng.choice(
        (f"select_{keys}", f"{test.tag}_{keys}", f"{keys}_by_{one}", f"filter_{keys}")
    )
    last = rng.random() < 0.5
    flag, way = (", reverse=True", "from z to a") if last else ("", "from a to z")
    return Sketch(
        name=name,
        args={table: "dict[str, int]"},
        returns="list[str]",
        doc=f"Name in sorted order those {keys} whose {one} is {test.doc}.",
        body=(
            f"{kept} = []",
            f"for {key}, {one} in {table}.items():",
            f"    if {one} {test.code}:",
            f"        {kept}.append({key})",
            f"return sorted({kept}{flag})",
        ),
        tellings=(
            f"In the dictionary {table} every {key} has a {one}. Write {name}({table}) that lists"
            f" the {keys} with a {one} that is {test.text}, sorted {way}.",
            f"Write {name}({table}). It collects each key with a value that is {test.text} and"
            f" returns the keys sorted {way}. Call a pair {key} and {one}.",
            f"{CALL} is {RESULT}: {keys} sorted {way}, given that their {one} is {test.text}. Write"
            f" {name}({table}).",
            f"- name: {name}\n- input: {table}, a dictionary of {key} and {one}\n- pick a {key}"
            f" when its {one} is {test.text}\n- output: a list, {way}",
            f"Which {keys} have a {one} that is {test.text}? Let {name}({table}) give them {way},"
            f" looking through a dictionary.",
        ),
        asks=[use_loop(rng), f"Collect them in {kept}."],
        reference=lambda values: sorted(
            filter(lambda k: test.holds(values[k]), values), reverse=last
        ),
        inputs=[[_table(rng, test, n)] for n in (3, 4, 6)]
        + [[{}], [{"north": test.failing(rng)[0]}]],
        facts=(test.code, way),
    )


def look_up_all(rng: Random) -> Sketch:
    """Numbers for a list of words, with a fallback for the unknown ones."""
    (one, many), value = label(rng), measure(rng).one
    default, factor = rng.randint(0, 99), rng.randint(2, 9)
    total = rng.choice(SUMS)
    table = rng.choice((f"{value}_of", f"{value}_list", f"{value}_table"))
    name = rng.choice((f"total_{value}", f"{value}_sum", f"look_up_{many}", f"{many}_{value}"))
    words = sample_words(rng, 6)
    known = dict(zip(words[:3], numbers(rng, 3, 1, 50), strict=True))
    return Sketch(
        name=name,
        args={many: "list[str]", table: "dict[str, int]"},
        returns="int",
        doc=f"Sum what {many} stand for, where an unknown one is worth {default}.",
        body=(
            f"{total} = 0",
            f"for {one} in {many}:",
            f"    if {one} in {table}:",
            f"        {total} += {table}[{one}] * {factor}",
            "    else:",
            f"        {total} += {default}",
            f"return {total}",
        ),
        tellings=(
            f"Write {name}({many}, {table}). For a {one} in the dictionary add {factor} times its"
            f" number, for any other add {default}. Return the sum.",
            f"A customer brings a list of {many}. The dictionary {table} says what each {one} is"
            f" worth, and {factor} of each are bought; others cost {default}. Write {name}({many},"
            f" {table}).",
            f"{CALL} gives {RESULT}. A {one} that is a key counts {factor} times, an unknown one"
            f" brings {default}. Write {name}({many}, {table}).",
            f"- signature {name}({many}, {table})\n- key found: add its number times {factor}\n-"
            f" key missing: add {default}\n- return the sum",
        ),
        asks=[use_loop(rng), "Use if and else.", call_it(rng, total)],
        reference=lambda keys, known: sum(
            known[k] * factor if k in known else default for k in keys
        ),
        inputs=[
            [[words[0], words[4]], dict(list(known.items())[:2])],
            [words[1:4], known],
            [[words[5], words[2], words[2]], known],
            [[], known],
            [words[3:5], {}],
        ],
        facts=(default, factor),
    )


def best_entry(rng: Random) -> Sketch:
    """The key with the largest or smallest value."""
    key, (one, _) = label(rng).one, measure(rng)
    limit = rng.randint(10, 90)
    # The record starts beyond every number, the bar keeps out what would win too easily.
    start, word, sign, cap, bar, where = rng.choice(
        (
            (0, "largest", ">", "at most", ">", "above"),
            (1000, "smallest", "<", "at least", "<", "under"),
        )
    )
    table, best = f"{one}_of", rng.choice(("winner", "leader", "choice", "found"))
    name = rng.choice((f"{word}_{one}", f"{key}_with_{word}_{one}", f"top_{key}", f"{best}_{key}"))

    def reference(values: dict[str, int]) -> str:
        fits = {k: v for k, v in values.items() if (v <= limit if start == 0 else v >= limit)}
        pick = max if start == 0 else min
        return pick(fits, key=fits.get) if fits else ""

    def table_of(size: int) -> dict[str, int]:
        values = [limit - 1, limit, limit + 1, *numbers(rng, size, 1, 99)]
        return dict(zip(sample_words(rng, size), rng.sample(values, size), strict=True))

    return Sketch(
        name=name,
        args={table: "dict[str, int]"},
        returns="str",
        doc=f"Decide which {key} leads, barring any {one} {where} {limit}.",
        body=(
            f'{best}, record = "", {start}',
            f"for {key}, {one} in {table}.items():",
            f"    if {one} {bar} {limit}:",
            "        continue",
            f"    if {one} {sign} record:",
            f"        {best}, record = {key}, {one}",
            f"return {best}",
        ),
        tellings=(
            f"The dictionary {table} tells the {one} of each {key}. Write {name}({table}) to"
            f" return the {key} with the {word} {one} that is {cap} {limit}, or an empty string.",
            f"Write {name}({table}): which key of the dictionary has the {word} value, if values"
            f" must be {cap} {limit}? Pairs are called {key} and {one}.",
            f"{CALL} returns {RESULT}, the key with the {word} value that is {cap} {limit}. No"
            f" match means an empty string. Write {name}({table}) with pairs {key} and {one}.",
            f"- {name} takes {table}, from {key} to {one}\n- values must be {cap} {limit}\n-"
            f" return the key of the {word} one\n- no such value: empty string",
        ),
        asks=[
            "Use a for loop with continue.",
            f"Keep {best} and record, which starts at {start}.",
        ],
        reference=reference,
        inputs=[
            [table_of(3)],
            [table_of(4)],
            [{"iron": limit, "gold": limit, "lead": limit + 1, "tin": limit - 1}],
            [{}],
            [{"zinc": limit + 1 if start == 0 else limit - 1}],
        ],
        facts=(word, limit),
    )


def group_words(rng: Random) -> Sketch:
    """Words put into a dictionary of lists by one of their letters."""
    (one, many), least = label(rng), threshold(rng, 2, 6)
    table, (place, said) = rng.choice(_TABLES), rng.choice(((0, "first"), (-1, "last")))
    letter = rng.choice(("letter", "start" if place == 0 else "end", "sign", "mark"))
    name = rng.choice((f"group_{many}", f"{many}_by_{said}", f"index_{many}", f"{one}_groups"))

    def reference(values: list[str]) -> dict[str, list[str]]:
        good = [v for v in values if v and least.holds(len(v))]
        return {
            c: [v for v in good if v[place] == c] for c in dict.fromkeys(v[place] for v in good)
        }

    words = sample_words(rng, 9)
    return Sketch(
        name=name,
        args={many: "list[str]"},
        returns="dict[str, list[str]]",
        doc=f"File {many} under the {said} character if their length is {least.doc}.",
        body=(
            f"{table} = {{}}",
            f"for {one} in {many}:",
            f"    if len({one}) {least.code} and {one}:",
            f"        {letter} = {one}[{place}]",
            f"        {table}.setdefault({letter}, []).append({one})",
            f"return {table}",
        ),
        tellings=(
            f"Write {name}({many}) that groups strings by their {said} letter in a dictionary of"
            f" lists. The length has to be {least.text}, and empty ones are skipped.",
            f"A card box sorts {many} by {said} letter. Write {name}({many}) for a dictionary of"
            f" lists holding each {one} that is not empty and whose length is {least.text}.",
            f"{CALL} gives {RESULT}. The key is the {said} letter, the length of a {one} must be"
            f" {least.text} and not zero. Write {name}({many}).",
            f"- {name} takes {many}\n- use each {one} whose length is {least.text} and that is not"
            f" empty\n- key: the {said} letter\n- value: a list of strings",
        ),
        asks=[
            use_loop(rng),
            f"Work with setdefault, {letter} as the key and {table} as the result.",
        ],
        reference=reference,
        inputs=[
            [["m" * (least.turn - 1), "mn" * least.turn]],
            [[*words[:3], "p" * least.turn, "q" * (least.turn + 1)]],
            [[*words[3:], "", "t" * least.turn]],
            [[]],
            [["s" * (least.turn + d) for d in (1, 0, -1)]],
        ],
        facts=(least.code, place),
    )


STRUCTURES = (
    tally,
    swap_keys,
    keep_entries,
    look_up_all,
    best_entry,
    group_words,
)
