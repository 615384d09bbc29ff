r"""The final answer out of a worked solution: a \boxed one, a named one, or the last number."""

import re

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
_FRACTION = re.compile(r"\\[dtc]?frac|\d\s*/\s*\d")


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
    """Give the last number of a text, without thousands commas and currency."""
    numbers = _numbers(text)
    return numbers[-1] if numbers else None


def only_number(text: str) -> str | None:
    """Give the number that a short answer is about, such as 18 for "$18.00 for 3 days".

    It is the first, of what follows the last equals sign; None for a fraction, which no part of
    stands for.
    """
    text = text.rpartition("=")[2]
    numbers = [] if _FRACTION.search(text) else _numbers(text)
    return numbers[0] if numbers else None


def _numbers(text: str) -> list[str]:
    text = (
        text.replace("\N{MINUS SIGN}", "-")
        .replace("{,}", ",")
        .replace(r"\!", "")
        .replace(r"\,", "")
    )
    found = []
    for number in _NUMBER.finditer(text):
        sign = number["before"] or number["after"] or ""
        found.append(sign + number["digits"].replace(",", ""))
    return found
