r"""The final answer out of a worked solution: a \boxed one, a named one, or the last number."""

import re
from fractions import Fraction
from math import prod

from jacobi_forcing.problems.published.reply_text import final_text

_BOX = re.compile(r"\\(?:boxed|fbox)(?![a-zA-Z])|\bboxed(?=\s*[{\d-])")
_SHORT = re.compile(r"\s*(-?[^\s$.,;]+(?:[.,]\d+)*)")  # \boxed 5
_NAMED = re.compile(r"answer(?:\*\*)?\s*(?:is|was|:|=)\s*(?:\*\*)?\s*:?\s*", re.IGNORECASE)
_FORMULA = re.compile(
    r"\$\$(.+?)\$\$|(?<!\\)\$((?:\\.|[^$\\])+?)\$|\\\((.+?)\\\)|\\\[(.+?)\\\]", re.DOTALL
)
_SENTENCE_END = re.compile(r"\.(?=\s|\*|$)|\n|\s+I hope it is correct")
_NUMBER = re.compile(
    r"(?<![\w.])(?P<before>(?<![)}])-)?(?:\\?\$\s*)?(?P<after>-)?"
    r"(?P<digits>\d{1,3}(?:,\d{3})+(?:\.\d+)?|\d+(?:\.\d+)?|\.\d+)"
)
_UNIT = r"(?:\s*(?:\^?\{?\\circ\}?|\\(?:text|mbox|mathrm)\{[^{}]*\}(?:\^\{?\d\}?)?))?"
PLAIN = re.compile(rf"(?:\\?\$)?(-?)(?:\\?\$)?(\d+(?:,\d{{3}})*(?:\.\d+)?|\.\d+){_UNIT}")
# What a short answer holds that is more than a number, anywhere or right before or behind it.
_FORMULA_SIGN = re.compile(
    r"\\(?:[dtc]?frac|sqrt|d?binom|times|cdot|div|pm|mp|pi|log|ln|sum|prod|neq?|[lg](?:eq?|t))"
    r"(?![a-zA-Z])|[√π±÷≤≥≠]|\d\s*/\s*[\d(]"
)
_LEADS_ON = re.compile(
    r"(?:[\w)}\]]\s*\+|[/^_<>\u00d7·!|]|(?<!\*)\*|(?:^|[)}\]]|\b[a-zA-Z])\s*-)\s*[({]*$"
)
_CLOSED = r"(?:[\s)}\]]|\\right|\\[ ;:,!)\]]|\\?\$|\*\*(?!\s*\d))*"
_GOES_ON = re.compile(
    rf"{_CLOSED}(?:\^(?!\{{?\\circ)|[_!\d|]|(?<!\s)\(|[-+*/\u00d7·,;:.<>]+\s*[(\\$]*\d|[eE][-+]?\d"
    r"|(?:or|and|to)\b[^\d]{0,3}\d)"
)
_TEXT = re.compile(r"\\(?:text(?:bf|it|rm)?|mbox|math(?:rm|bf)|boldsymbol|bm)\s*\{([^{}]*)\}")
_GROUPS = re.compile(r"(?<![\d.,])\d{1,3}(?:(?:\\[ ,;:!]|[ ~\u00a0\u2009\u202f])+\d{3})+(?!\d)")
_PLAIN_DIGITS = r"-?\d+(?:\.\d+)?"
_FRACTION = re.compile(
    rf"\\[dtc]?frac\{{({_PLAIN_DIGITS})\}}\{{({_PLAIN_DIGITS})\}}|({_PLAIN_DIGITS})/({_PLAIN_DIGITS})"
)
_PRODUCT = re.compile(rf"{_PLAIN_DIGITS}(?:x{_PLAIN_DIGITS})+")
_TIMES = re.compile(r"\\times(?![a-zA-Z])|\\cdot(?![a-zA-Z])|[\u00d7·]|(?<!\*)\*(?!\*)")
_WORDS_BEHIND = re.compile(r"[\s.]*(?:[a-zA-Z][a-zA-Z\s]*)?[\s.]*$")
_LONGEST = 200  # characters of an answer that is a number
# A number behind this is part of a fraction, a power or a root.
_INSIDE = re.compile(r"(?:\d\s*/\s*|\^\s*\{?|\\[dtc]?frac\s*\{[^{}]*\}\s*\{|\\sqrt\s*\{?)\s*$")


def final_answer(text: str) -> str:
    r"""Take the final answer out of what a model wrote, as it is written there.

    The last \boxed{...} counts; where that was never closed the answer is cut off and there is
    none. Without a box it is what "the answer is" names, else the last formula if that ends in a
    plain number: any other may be the problem again or a step on the way, equal to the solution but
    not found by the model.
    """
    text = final_text(text)
    box = last_boxed(text)
    if box is not None:
        return box
    named = last_named(text)
    if named is not None:
        return named
    formulas = [next(filter(None, groups)) for groups in _FORMULA.findall(text)]
    end = formulas[-1].rpartition("=")[2].strip() if formulas else ""
    return end if PLAIN.fullmatch(end) else ""


def last_boxed(text: str) -> str | None:
    r"""Give what the last \boxed or \fbox holds: "" if it is not closed, None if there is none."""
    boxes = list(_BOX.finditer(text))
    if not boxes:
        return None
    start = boxes[-1].end()
    if not text[start:].lstrip().startswith("{"):
        short = _SHORT.match(text, start)
        return short[1] if short else ""
    start = text.index("{", start) + 1
    depth = 1
    for brace in re.finditer(r"\\.|[{}]", text[start:], re.DOTALL):  # \{ and \} are text
        depth += {"{": 1, "}": -1}.get(brace[0], 0)
        if depth == 0:
            return text[start : start + brace.start()].strip()
    return ""


def last_named(text: str) -> str | None:
    """Give what follows the last "answer is", up to the end of a formula or of the sentence."""
    named = list(_NAMED.finditer(text))
    if not named:
        return None
    rest = text[named[-1].end() :]
    formula = _FORMULA.match(rest)
    if formula:
        return next(filter(None, formula.groups())).strip()
    return _SENTENCE_END.split(rest, maxsplit=1)[0].strip()


def last_number(text: str) -> str | None:
    """Give the last number of a text, without thousands commas and currency.

    None where it is part of a fraction, a power or a root: no part stands for the whole.
    """
    text = _unified(text)
    numbers = list(_NUMBER.finditer(text))
    if not numbers:
        return None
    start = numbers[-1].start()
    if _INSIDE.search(text[max(0, start - _LONGEST) : start]):
        return None
    return _digits(numbers[-1])


def only_number(text: str) -> str | None:
    """Give the number that a short answer stands for, such as 18 for "$18.00 for 3 days".

    It is that of what follows the last equals sign. Fractions and products are worked out where
    they are whole; None for all else that is more than a number, which no part of stands for.
    """
    text = re.sub(r"[=-]>|\\(?:Right|right)arrow(?![a-zA-Z])", "=", text).rpartition("=")[2]
    text = _unified(_TEXT.sub(r" \1 ", text[:_LONGEST]))
    text = _GROUPS.sub(lambda group: re.sub(r"\D", "", group[0]), text)
    number = _NUMBER.search(text)
    if number is None:
        return None
    if (
        _FORMULA_SIGN.search(text)
        or _LEADS_ON.search(text[: number.start()])
        or _GOES_ON.match(text, number.end())
    ):
        return _worked_out(text)
    return _digits(number)


def _worked_out(text: str) -> str | None:
    """Give the value of one fraction or product of plain numbers, if it is a whole number."""
    text = _TIMES.sub("x", re.sub(r"\\?\$|\\(?:left|right)(?![a-zA-Z])|\\%|\*\*", "", text))
    text = re.sub(r"(?<=\d),(?=\d{3})", "", re.sub(r"\s*([x/{}])\s*", r"\1", text)).strip()
    for form in (_FRACTION, _PRODUCT):
        found = form.match(text)
        if found and _WORDS_BEHIND.match(text, found.end()):
            break
    else:
        return None
    if form is _PRODUCT:
        value = prod(Fraction(factor) for factor in found[0].split("x"))
    else:
        above, below = (Fraction(part) for part in found.groups() if part)
        if not below:
            return None
        value = above / below
    return str(value) if value.denominator == 1 else None


def _unified(text: str) -> str:
    """Write signs and thousands in one form."""
    text = text.replace("\N{MINUS SIGN}", "-").replace("{,}", ",")
    return text.replace(r"\!", "").replace(r"\,", "")


def _digits(number: re.Match) -> str:
    sign = number["before"] or number["after"] or ""
    return sign + number["digits"].replace(",", "")
