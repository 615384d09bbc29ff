"""Structures about the letters of a text."""

from random import Random

from jacobi_forcing.problems.code.craft import (
    CALL,
    RESULT,
    Sketch,
    call_it,
    use_comprehension,
    use_loop,
)
from jacobi_forcing.problems.code.words import (
    COUNTERS,
    SAMPLE_WORDS,
    TEXTS,
    sample_words,
)

_VOWELS = "aeiou"
_ALPHABET = "abcdefghijklmnopqrstuvwxyz"


def _text(rng: Random, count: int) -> str:
    """Some everyday words in a row, one of them capitalised."""
    words = sample_words(rng, count)
    words[0] = words[0].capitalize()
    return " ".join(words)


def _letters(rng: Random) -> tuple[str, str]:
    """A few letters to look for, and how a prompt calls them."""
    if rng.random() < 0.25:
        return _VOWELS, f"vowels ({_VOWELS})"
    letters = "".join(sorted(rng.sample(_ALPHABET[:20], rng.randint(2, 4))))
    return letters, f"letters from {letters}"


def count_letters(rng: Random) -> Sketch:
    """How often some letters occur in a text, whatever their case."""
    text, (letters, called) = rng.choice(TEXTS), _letters(rng)
    total = rng.choice(COUNTERS)
    weight = rng.randint(1, 9)
    name = rng.choice((f"count_in_{text}", f"{text}_letters", f"letters_in_{text}", f"scan_{text}"))
    each = "one point" if weight == 1 else f"{weight} points"
    return Sketch(
        name=name,
        args={text: "str"},
        returns="int",
        doc=f"Give {each} for every character of the {text} found in {letters}.",
        body=(
            f"{total} = 0",
            f"for letter in {text}.lower():",
            f'    if letter in "{letters}":',
            f"        {total} += {weight}",
            f"return {total}",
        ),
        tellings=(
            f"Write {name}({text}). It goes through the lower case form of a string and adds"
            f" {weight} to its result for each of the {called}.",
            f"In a game a {text} is worth {each} for each letter among {letters}, large or small."
            f" Write {name}({text}) to work out the worth.",
            f"{CALL} is {RESULT}: the {called} count {each} each, without regard to case. Please"
            f" define {name}({text}).",
            f"- define {name}({text})\n- turn the string to lower case\n- add {weight} for any"
            f" letter that is in {letters}\n- return what you have",
            f"How many points does a {text} earn if all {called} bring {each} and case does not"
            f" matter? Answer with {name}({text}).",
        ),
        asks=[use_loop(rng), call_it(rng, total)],
        reference=lambda value: weight * sum(map(value.lower().count, letters)),
        inputs=[
            [rng.choice(letters) + _text(rng, 1)],
            [_text(rng, 2) + letters],
            [letters.upper()],
            [""],
            [_text(rng, 3)],
        ],
        facts=(letters, weight),
    )


def mask_letters(rng: Random) -> Sketch:
    """Some letters of a text covered by a sign."""
    text, (letters, called) = rng.choice(TEXTS), _letters(rng)
    sign = rng.choice("*#_+=%")
    covered = rng.choice(("masked", "hidden", "covered", "output"))
    name = rng.choice((f"mask_{text}", f"hide_in_{text}", f"cover_{text}", f"censor_{text}"))
    if rng.random() < 0.5:
        asks = [use_loop(rng), f"Grow a string called {covered} letter by letter."]
        body = (
            f'{covered} = ""',
            f"for letter in {text}:",
            f'    if letter in "{letters}":',
            f'        {covered} += "{sign}"',
            "    else:",
            f"        {covered} += letter",
            f"return {covered}",
        )
    else:
        asks = [use_comprehension(rng), f"Call the list {covered}, then join it."]
        body = (
            f'{covered} = ["{sign}" if letter in "{letters}" else letter for letter in {text}]',
            f'return "".join({covered})',
        )
    return Sketch(
        name=name,
        args={text: "str"},
        returns="str",
        doc=f"Return the {text} with {sign} standing in for any of {letters}.",
        body=body,
        tellings=(
            f'Write {name}({text}) that hides the {called} of a string behind the sign "{sign}" and'
            f" leaves other characters untouched.",
            f'Some characters of a {text} are secret, namely the {called}. Put "{sign}" in their'
            f" place with {name}({text}).",
            f'{CALL} gives {RESULT}, so the lower case {called} become "{sign}". Write'
            f" {name}({text}).",
            f'{name}:\n- takes a string {text}\n- changes the {called} into "{sign}"\n- keeps'
            f" everything else as it is\n- returns a string",
            f'How would you cover the {called} in a {text} with "{sign}"? Write {name}({text}),'
            f" where"
            f" only small letters count.",
        ),
        asks=asks,
        reference=lambda value: value.translate({ord(c): sign for c in letters}),
        inputs=[
            [rng.choice(SAMPLE_WORDS) + rng.choice(letters)],
            [_text(rng, 2)],
            [letters + letters.upper()],
            [""],
            [_text(rng, 3)],
        ],
        facts=(letters, sign),
    )


def is_palindrome(rng: Random) -> Sketch:
    """Whether a text reads the same from both ends, ignoring case and one sign."""
    text, skip = rng.choice(TEXTS), rng.choice(" -_.,'!?:/")
    said = "spaces" if skip == " " else f'each "{skip}"'
    least = rng.randint(2, 6)
    clean = rng.choice(("clean", "plain", "core", "letters"))
    name = rng.choice(
        (f"is_mirror_{text}", "is_palindrome", f"reads_both_ways_{text}", f"check_{text}")
    )

    def reference(value: str) -> bool:
        core = [c for c in value.lower() if c != skip]
        return len(core) >= least and core == core[::-1]

    half = rng.choice(SAMPLE_WORDS)
    return Sketch(
        name=name,
        args={text: "str"},
        returns="bool",
        doc=f"Check if a {text} of {least} or more characters equals its own reverse.",
        body=(
            f'{clean} = {text}.lower().replace("{skip}", "")',
            f"if len({clean}) < {least}:",
            "    return False",
            f"return {clean} == {clean}[::-1]",
        ),
        tellings=(
            f"Write {name}({text}) that tells whether a string is a palindrome. Ignore case and"
            f" {said}; what remains must have at least {least} characters.",
            f"Does the {text} read alike forwards and backwards once it is in lower case and {said}"
            f" removed? Write {name}({text}); under {least} characters the answer is False.",
            f"{CALL} is {RESULT}. Lower the case, remove {said}, refuse anything shorter than"
            f" {least}, then compare with the reverse. Write {name}({text}).",
            f"- {name}({text}) returns True or False\n- case is ignored, and {said} too\n- shorter"
            f" than {least}: False\n- otherwise True for a palindrome",
            f"A puzzle page collects palindromes of {least} letters and up. Write {name}({text}) to"
            f" test one, after dropping {said} and upper case.",
        ),
        asks=[f"Store the tidied string in {clean}."],
        reference=reference,
        inputs=[
            [half.capitalize() + skip + half[::-1]],
            ["ab" * least + "a"],
            ["x" * (least - 1)],
            [_text(rng, 1) + skip + "q"],
            ["Z" + skip + "z" * (least - 1)],
        ],
        facts=(skip, least),
    )


def caesar_shift(rng: Random) -> Sketch:
    """Small letters moved along the alphabet."""
    text, shift = rng.choice(TEXTS), rng.randint(1, 25)
    coded = rng.choice(("coded", "secret", "moved", "output"))
    name = rng.choice((f"shift_{text}", f"encode_{text}", f"caesar_{text}", f"scramble_{text}"))
    table = {c: _ALPHABET[(i + shift) % 26] for i, c in enumerate(_ALPHABET)}
    steps = "step" if shift == 1 else "steps"
    return Sketch(
        name=name,
        args={text: "str"},
        returns="str",
        doc=f"Encrypt the {text} with a Caesar cipher of {shift}.",
        body=(
            f'{coded} = ""',
            f"for letter in {text}:",
            '    if "a" <= letter <= "z":',
            f'        place = (ord(letter) - ord("a") + {shift}) % 26',
            '        letter = chr(ord("a") + place)',
            f"    {coded} += letter",
            f"return {coded}",
        ),
        tellings=(
            f"Write {name}({text}) that moves every small letter {shift} {steps} along the"
            f" alphabet, z being followed by a. Other characters stay.",
            f"Two friends hide a {text}: each letter from a to z is replaced by the one {shift}"
            f" {steps} later, starting over after z. Write {name}({text}).",
            f"{CALL} gives {RESULT}. Letters a to z go forward by {shift}, wrapping round; capitals"
            f" and spaces are kept. Write {name}({text}).",
            f"- function {name}, argument {text}\n- shift a to z forward by {shift}\n- wrap round"
            f" at the end\n- leave capitals, spaces and the rest",
            f"What does a {text} look like after a shift by {shift} in the alphabet, for small"
            f" letters only and with wrapping? Write {name}({text}).",
        ),
        asks=[f"Build the string {coded} in a for loop, with the new index in place."],
        reference=lambda value: "".join(table.get(c, c) for c in value),
        inputs=[
            [rng.choice(SAMPLE_WORDS)],
            [_text(rng, 2)],
            ["xyz abc"],
            [""],
            [_text(rng, 1).upper() + "!"],
        ],
        facts=(shift,),
    )


def squeeze_runs(rng: Random) -> Sketch:
    """Runs of equal letters written with their length."""
    text, limit = rng.choice(TEXTS), rng.randint(2, 5)
    run, sign = rng.choice(("run", "streak", "block", "group")), rng.choice("*x:#^~")
    name = rng.choice((f"squeeze_{text}", f"pack_{text}", f"shorten_{text}", f"{text}_runs"))

    def reference(value: str) -> list[str]:
        runs: list[str] = []
        for char in value:
            if runs and runs[-1][0] == char:
                runs[-1] += char
            else:
                runs.append(char)
        return [r if len(r) < limit else f"{r[0]}{sign}{len(r)}" for r in runs]

    letters = rng.sample(_ALPHABET, 4)
    return Sketch(
        name=name,
        args={text: "str"},
        returns="list[str]",
        doc=f"Split the {text} where its letters change and abbreviate long parts.",
        body=(
            f'runs, {run} = [], ""',
            f'for letter in {text} + " ":',
            f"    if {run} and letter != {run}[0]:",
            f"        long = len({run}) >= {limit}",
            f'        runs.append({run}[0] + "{sign}" + str(len({run})) if long else {run})',
            f'        {run} = ""',
            f"    {run} += letter",
            "return runs",
        ),
        tellings=(
            f"Write {name}({text}) for a string without spaces. List its runs of equal letters in"
            f' runs; a run of {limit} or more is written as letter, "{sign}", length.',
            f"{CALL} gives {RESULT}: runs of one letter, and from length {limit} on they are"
            f" shortened"
            f' with "{sign}". There are no spaces. Write {name}({text}).',
            f"A {text} without spaces is to be cut where the letter changes. Parts with {limit} or"
            f" more"
            f' letters become letter, "{sign}" and count. Write {name}({text}).',
            f"{name}({text}):\n- no spaces in the string\n- collect runs of the same letter in"
            f" runs\n"
            f'- from {limit} letters on write the letter, "{sign}" and the length',
        ),
        asks=[f"Loop with one space appended and grow the present part in {run}."],
        reference=reference,
        inputs=[
            [letters[0] * (limit - 1) + letters[1] * limit],
            ["".join(c * rng.randint(1, limit + 2) for c in letters)],
            [letters[2] * (limit + 4)],
            [""],
            ["".join(letters) + letters[3] * limit],
        ],
        facts=(limit, sign),
    )


STRUCTURES = (
    count_letters,
    mask_letters,
    is_palindrome,
    caesar_shift,
    squeeze_runs,
)
