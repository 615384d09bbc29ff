"""GSM8K: word problems of grade school whose answer is a number (Cobbe 2021, arXiv:2110.14168)."""

import re
from collections.abc import Iterable, Sequence
from decimal import Decimal, InvalidOperation
from typing import Any

from jacobi_forcing.errors import DataError
from jacobi_forcing.problems.published.math_text import (
    last_boxed,
    last_named,
    last_number,
    only_number,
)
from jacobi_forcing.problems.published.published_set import (
    MathSet,
    Question,
    Source,
    Style,
    user,
)
from jacobi_forcing.problems.published.records import Record, as_records, complete
from jacobi_forcing.problems.published.reply_text import cut, final_text

_MARK = re.compile(r"####[ \t]*(.*)")
_WORD = re.compile(r"[^\w\\]*(?:[A-Za-z]{2}|$)")

# Our own, so none of them can be in the set.
_SHOTS = (
    (
        "A bakery packs 6 rolls into each bag. On Friday it sells 14 bags and 9 single rolls. How "
        "many rolls does it sell on Friday?",
        "The bags hold 14 * 6 = 84 rolls. Together with the single ones that is 84 + 9 = 93 "
        "rolls.\n#### 93",
    ),
    (
        "Omar earns $15 an hour. Last week he worked 8 hours on each of 4 days and 5 hours on "
        "another. He then spent $120 on shoes. How many dollars of that week's pay are left?",
        "He worked 4 * 8 = 32 hours on the four days, and 32 + 5 = 37 hours in all. He earned "
        "37 * 15 = 555 dollars. After the shoes, 555 - 120 = 435 dollars are left.\n#### 435",
    ),
    (
        "A tank holds 2,400 liters and is three quarters full. A pump takes out 150 liters a "
        "minute. After how many minutes is the tank empty?",
        "Three quarters of 2,400 liters are 2400 * 3 / 4 = 1800 liters. The pump needs "
        "1800 / 150 = 12 minutes.\n#### 12",
    ),
    (
        "Lena is twice as old as Milo. In 7 years, their ages will add up to 44. How old is Lena "
        "now?",
        "In 7 years each is 7 years older, so their ages add up to 44 - 14 = 30 now. Lena's part "
        "is two thirds of that, 30 * 2 / 3 = 20 years.\n#### 20",
    ),
)

_REQUEST = """\
{text}

Work it out step by step. Put the final answer, a single number, in \\boxed{{}}."""


class Gsm8k(MathSet):
    """The test split; a plain comparison of numbers decides."""

    title = "GSM8K"
    source = Source(file="gsm8k/test.jsonl", hub="openai/gsm8k", config="main", split="test")

    def read(self, records: Iterable[tuple[str, Any]]) -> list[Question]:
        """Read the 1319 questions; they have no names, so their order numbers them."""
        found = enumerate(as_records(self.title, records))
        return complete(self.title, ((r.where, _question(n, r)) for n, r in found), (1319,))

    def prompt(self, question: Question, style: Style) -> str | list[dict[str, str]]:
        """Ask after four solved questions, or alone."""
        if style == "chat":
            return user(_REQUEST.format(text=question.text))
        solved = "".join(f"Question: {asked}\nAnswer: {told}\n\n" for asked, told in _SHOTS)
        return f"{solved}Question: {question.text}\nAnswer:"

    def stops(self, style: Style) -> tuple[str, ...]:
        """End where a model asks itself the next question."""
        return ("\nQuestion:",) if style == "completion" else ()

    def answer_of(self, question: Question, text: str, style: Style) -> str:
        r"""Take the final number: after the last ####, in the last \boxed, named, or the last.

        The later of #### and \boxed counts. Where it does not stand for a number there is none.
        """
        # The question again is no answer, though it may hold the number.
        text = final_text(cut(text, self.stops(style)).replace(question.text, ""))
        final = _marked_or_boxed(text)
        if final is not None:
            return only_number(final) or ""
        named = last_named(text)
        number = None if named is None else only_number(named)
        return number or last_number(text) or ""

    def solved(self, answers: Sequence[tuple[Question, str]], style: Style) -> list[bool]:
        """Compare the numbers: 18 is 18.00."""
        return [
            _is_number(self.answer_of(q, text, style), q.fields["answer"]) for q, text in answers
        ]


def _question(number: int, record: Record) -> Question:
    answer = record.text("answer")
    marked = _MARK.findall(answer)
    gold = marked[-1].replace(",", "").strip() if marked else ""
    if not _is_number(gold, gold):
        raise DataError(f'{record.where}: "answer" does not end in "#### " and a number.')
    return Question(
        id=f"gsm8k/test/{number}",
        kind="math",
        text=record.text("question"),
        reference=answer,
        fields={"answer": gold},
    )


def _marked_or_boxed(text: str) -> str | None:
    r"""Give what follows the last #### or lies in a \boxed behind it; None if there is neither."""
    marks = list(_MARK.finditer(text))
    if not marks:
        return last_boxed(text)
    mark = marks[-1]
    box = last_boxed(text[mark.start() :])
    if box is not None:
        return box
    # Models write headings with #### too: words, and more below.
    is_heading = _WORD.match(mark[1]) and text[mark.end() :].strip()
    return last_boxed(text) if is_heading else mark[1]


def _is_number(text: str, wanted: str) -> bool:
    try:
        return Decimal(text) == Decimal(wanted)
    except InvalidOperation:
        return False
