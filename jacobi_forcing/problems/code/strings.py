"""Structures about the words of a text and lists of strings."""

from random import Random

from jacobi_forcing.problems.code.craft import (
    CALL,
    RESULT,
    Sketch,
    use_comprehension,
    use_loop,
)
from jacobi_forcing.problems.code.words import (
    LISTS,
    SAMPLE_WORDS,
    SHORT_WORDS,
    TEXTS,
    label,
    sample_words,
)


def _text(rng: Random, count: int) -> str:
    """Some everyday words in a row, one of them capitalised."""
    words = sample_words(rng, count)
    words[0] = words[0].capitalize()
    return " ".join(words)


def flip_words(rng: Random) -> Sketch:
    """The words of a text in reverse order, joined by a sign."""
    text, sign, shortest = rng.choice(TEXTS), rng.choice("-_/+|:"), rng.randint(1, 5)
    words = rng.choice(("words", "parts", "pieces", "tokens"))
    one = words[:-1]
    name = rng.choice(
        (f"reverse_{text}", f"flip_{text}", f"{text}_backwards", f"turn_{text}_around")
    )
    length = "letter" if shortest == 1 else "letters"
    return Sketch(
        name=name,
        args={text: "str"},
        returns="str",
        doc=f"Read the {text} word by word from its end, short ones left out.",
        body=(
            f"{words} = {text}.split()",
            f"long_{words} = [{one} for {one} in {words} if len({one}) > {shortest}]",
            f'return "{sign}".join(reversed(long_{words}))',
        ),
        tellings=(
            f"Split {text} at spaces into {words}, keep those with more than {shortest} {length} as"
            f' long_{words}, and join them in reverse with "{sign}". Name: {name}.',
            f"Write {name}({text}) that names its split string {words}, filters it to long_{words}"
            f' (over {shortest} {length}) and returns these backwards with "{sign}" between.',
            f"{CALL} returns {RESULT}. A {one} needs more than {shortest} {length}, the order turns"
            f' round, "{sign}" is the glue. Write {name}({text}) with {words} and long_{words}.',
            f"{name}({text}):\n- {words}: the string split at spaces\n- long_{words}: those above"
            f' {shortest} {length}\n- returns them last to first, glued with "{sign}"',
            f"What is the {text} read from back to front, every {one} of more than {shortest}"
            f' {length}, glued by "{sign}"? Write {name}({text}) using {words} and long_{words}.',
        ),
        asks=[use_comprehension(rng)],
        reference=lambda value: sign.join(w for w in value.split()[::-1] if w[shortest:]),
        inputs=[
            [_text(rng, 2)],
            [_text(rng, 4)],
            ["x" * shortest + " " + _text(rng, 1) + " " + "y" * (shortest + 1)],
            [""],
            [_text(rng, 3) + " a"],
        ],
        facts=(sign, shortest),
    )


def join_long(rng: Random) -> Sketch:
    """Words of a minimal length, tidied up and joined."""
    one, many = label(rng)
    size, sign = rng.randint(2, 9), rng.choice((", ", " - ", "; ", " / ", " and ", " + "))
    word = rng.choice(("upper", "title"))
    kept = rng.choice(LISTS)
    short = rng.random() < 0.5
    symbol, span, where = ("<", "fewer", "under") if short else (">", "more", "over")
    name = rng.choice((f"join_{many}", f"list_{many}", f"{many}_line", f"show_{many}"))
    return Sketch(
        name=name,
        args={many: "list[str]"},
        returns="str",
        doc=f"Put the {many} {where} {size} letters on one line, in {word} case.",
        body=(
            f"{kept} = []",
            f"for {one} in {many}:",
            f"    if len({one}) {symbol} {size}:",
            f"        {kept}.append({one}.{word}())",
            f'return "{sign}".join({kept})',
        ),
        tellings=(
            f"Write {name}({many}). It changes each string with {span} than {size} characters to"
            f' {word} case, skips the others and joins all with "{sign}".',
            f"A sign shows {many}, but only a {one} with {span} than {size} letters may appear, in"
            f' {word} case, separated by "{sign}". Write {name}({many}).',
            f"{CALL} gives {RESULT}. Strings need {span} than {size} characters; they get {word}"
            f" case"
            f' and "{sign}" between them. Write {name}({many}).',
            f"- {name} receives {many}\n- take a {one} if it has {span} than {size} characters\n-"
            f" use"
            f' {word} case\n- join with "{sign}"',
            f"Which {many} have {span} than {size} letters? Let {name}({many}) return them in"
            f" {word}"
            f' case as one string with "{sign}" as separator.',
        ),
        asks=[use_loop(rng), f"Collect them in {kept}."],
        reference=lambda values: sign.join(
            getattr(v, word)() for v in values if v and (len(v) < size if short else v[size:])
        ),
        inputs=[
            [rng.sample([*sample_words(rng, 2), "m" * size, "n" * (size + 1)], 4)],
            [[*sample_words(rng, 3), "p" * (size - 1), "q" * (size + 1)]],
            [sample_words(rng, 5)],
            [[]],
            [["s" * size]],
        ],
        facts=(size, sign, word, short),
    )


def extreme_word(rng: Random) -> Sketch:
    """The longest or shortest word, with a fallback."""
    one, many = label(rng)
    fallback, limit = rng.choice(SHORT_WORDS), rng.randint(3, 6)
    word, sign, pick = rng.choice((("longest", ">", max), ("shortest", "<", min)))
    best = rng.choice(("best", "winner", "choice", "pick"))
    name = rng.choice((f"{word}_{one}", f"find_{word}", f"pick_{word}_{one}", f"{one}_by_length"))
    return Sketch(
        name=name,
        args={many: "list[str]"},
        returns="str",
        doc=f"Pick from the {many} the {word} with {limit} letters or more.",
        body=(
            f'{best} = ""',
            f"for {one} in {many}:",
            f"    if len({one}) < {limit}:",
            "        continue",
            f'    if {best} == "" or len({one}) {sign} len({best}):',
            f"        {best} = {one}",
            f'return {best} or "{fallback}"',
        ),
        tellings=(
            f"Write {name}({many}) that returns the {word} string of at least {limit} characters,"
            f" the"
            f' first such if tied. Without any, return "{fallback}".',
            f"Among {many} we want the {word} {one}, skipping those under {limit} letters. Early"
            f" ones"
            f' win ties, and "{fallback}" is for no match. Write {name}({many}).',
            f"{CALL} is {RESULT}. A {one} under {limit} letters is skipped, the {word} one wins,"
            f" the"
            f' first on a tie, else "{fallback}". Write {name}({many}).',
            f"{name}({many}):\n- skip strings shorter than {limit}\n- return the {word} other one,"
            f' earliest if equal\n- return "{fallback}" when none is left',
            f"Which {one} is the {word} that has {limit} letters or more? On a tie the first; if"
            f" there"
            f' is none, "{fallback}". Write {name}({many}).',
        ),
        asks=["Use a for loop with continue.", f"Keep the candidate in {best}, empty at first."],
        reference=lambda values: pick(
            (v for v in values if v[limit - 1 :]), key=len, default=fallback
        ),
        inputs=[
            [rng.sample(["tea", "garden", rng.choice(SAMPLE_WORDS)], 3)],
            [[*sample_words(rng, 4), "j" * limit]],
            [["k" * (limit + 1), "l" * (limit + 1), "m" * (limit - 1), "n" * (limit + 2)]],
            [[]],
            [["o" * (limit - 1)]],
            [["p" * (limit - 1), "q" * limit]],
        ],
        facts=(word, fallback, limit),
    )


def number_lines(rng: Random) -> Sketch:
    """Each string with its number in front."""
    one, many = label(rng)
    start, sign = rng.randint(1, 99), rng.choice((". ", ") ", ": ", " - ", " = "))
    kept = rng.choice(LISTS)
    index = rng.choice(("number", "rank", "index", "counter"))
    name = rng.choice((f"number_{many}", f"{one}_list", f"label_{many}", f"print_{many}"))
    if rng.random() < 0.5:
        asks = [f"Use a for loop with enumerate, {index} as the counter, and collect in {kept}."]
        body = (
            f"{kept} = []",
            f"for {index}, {one} in enumerate({many}, {start}):",
            f'    line = str({index}) + "{sign}" + {one}',
            f"    {kept}.append(line)",
            f"return {kept}",
        )
    else:
        asks = [f"Use a comprehension with enumerate and an f-string; the counter is {index}."]
        body = (
            f"pairs = enumerate({many}, {start})",
            f'return [f"{{{index}}}{sign}{{{one}}}" for {index}, {one} in pairs]',
        )
    return Sketch(
        name=name,
        args={many: "list[str]"},
        returns="list[str]",
        doc=f"Prefix the {many} with counting numbers that begin at {start}.",
        body=body,
        tellings=(
            f"Write {name}({many}). It returns the strings numbered from {start} upwards, with"
            f' "{sign}"'
            f" between number and string.",
            f"A page shows {many} with numbers in front, the first being {start}. Between the"
            f" number"
            f' and the {one} goes "{sign}". Write {name}({many}).',
            f"{CALL} returns {RESULT}. Counting starts with {start} and the separator is"
            f' "{sign}". Please write {name}({many}).',
            f'- {name} is given {many}\n- number them, the first gets {start}\n- put "{sign}" after'
            f" the number\n- return the list of lines",
            f'How can every {one} get its number and "{sign}" in front, when the numbers go up from'
            f" {start}? Define {name}({many}).",
        ),
        asks=asks,
        reference=lambda values: [f"{start + i}{sign}{v}" for i, v in enumerate(values)],
        inputs=[[sample_words(rng, n)] for n in (2, 3, 5)] + [[[]], [[""]]],
        facts=(start, sign),
    )


def initials(rng: Random) -> Sketch:
    """The first letters of the words of a text."""
    text, size, sign = rng.choice(TEXTS), rng.randint(1, 3), rng.choice(".-/+_:")
    least = rng.randint(2, 6)
    kept, end = rng.choice(LISTS), rng.choice(SHORT_WORDS)
    name = rng.choice(
        (f"{text}_initials", f"initials_of_{text}", f"abbreviate_{text}", f"{text}_code")
    )
    start = "first letter" if size == 1 else f"first {size} letters"
    return Sketch(
        name=name,
        args={text: "str"},
        returns="str",
        doc=f'Make a short code for the {text}, closed by "{end}".',
        body=(
            f"{kept} = []",
            f"for word in {text}.split():",
            f"    if len(word) >= {least}:",
            f"        {kept}.append(word[:{size}].upper())",
            f'{kept}.append("{end}")',
            f'return "{sign}".join({kept})',
        ),
        tellings=(
            f"Write {name}({text}). From each word with at least {least} letters it takes the"
            f" {start}"
            f' in upper case, appends "{end}" and joins all with "{sign}".',
            f"A {text} is filed under a code: the {start} of each word of {least} or more letters,"
            f' in capitals, then "{end}", with "{sign}" between. Write {name}({text}).',
            f"{CALL} gives {RESULT}. Words under {least} letters are passed over, of others the"
            f' {start} in capitals is used; "{end}" comes last. Join by "{sign}" in'
            f" {name}({text}).",
            f"- {name}({text})\n- split into words, pass over any below {least} letters\n- take the"
            f' {start} in capitals\n- add "{end}" and join with "{sign}"',
        ),
        asks=[use_loop(rng), f"The list is named {kept}."],
        reference=lambda value: sign.join(
            [*(w.upper()[:size] for w in value.split() if w[least - 1 :]), end]
        ),
        inputs=[
            [_text(rng, 2)],
            [_text(rng, 4)],
            ["g" * (least - 1) + " " + "h" * least],
            [""],
            [_text(rng, 3)],
        ],
        facts=(size, sign, least, end),
    )


STRUCTURES = (
    flip_words,
    join_long,
    extreme_word,
    number_lines,
    initials,
)
