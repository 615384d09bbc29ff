"""MATH-500: competition mathematics, the test part of PRM800K (Lightman 2023, arXiv:2305.20050).

The problems are from MATH (Hendrycks et al. 2021, arXiv:2103.03874).
"""

from collections.abc import Iterable, Sequence
from typing import Any

from jacobi_forcing.problems.published.equivalence import are_equal, need_library
from jacobi_forcing.problems.published.math_text import final_answer
from jacobi_forcing.problems.published.published_set import (
    MathSet,
    Question,
    Source,
    Style,
    user,
)
from jacobi_forcing.problems.published.records import Record, as_records, complete
from jacobi_forcing.problems.published.reply_text import cut

# Our own, so none of them can be in the set.
_SHOTS = (
    (
        "If $3x - 7 = 11$, what is the value of $x^2$?",
        "Adding $7$ to both sides gives $3x = 18$, so $x = 6$ and $x^2 = 36$.\n"
        r"The final answer is $\boxed{36}$.",
    ),
    (
        "A bag holds $4$ red and $6$ blue marbles. Two of them are drawn without putting the first "
        "back. What is the probability that both are red?",
        r"The first is red with probability $\frac{4}{10}$, the second then with $\frac{3}{9}$. "
        r"Both are red with probability $\frac{4}{10} \cdot \frac{3}{9} = \frac{2}{15}$." + "\n"
        r"The final answer is $\boxed{\frac{2}{15}}$.",
    ),
    (
        r"For which real $x$ is $x^2 - 5x + 4 \le 0$? Give the answer as an interval.",
        r"Since $x^2 - 5x + 4 = (x - 1)(x - 4)$, the product is at most $0$ where its factors have "
        r"different signs or one is $0$, which is for $1 \le x \le 4$." + "\n"
        r"The final answer is $\boxed{[1,4]}$.",
    ),
    (
        r"Find the inverse of $\begin{pmatrix} 2 & 1 \\ 5 & 3 \end{pmatrix}$.",
        r"The determinant is $2 \cdot 3 - 1 \cdot 5 = 1$. So we exchange the entries of the "
        "diagonal and change the signs of the other two.\n"
        r"The final answer is $\boxed{\begin{pmatrix} 3 & -1 \\ -5 & 2 \end{pmatrix}}$.",
    ),
)

_REQUEST = """\
{text}

Reason step by step. Put the final answer in \\boxed{{}}."""


class Math500(MathSet):
    """Answers are expressions; `equivalence` says which are the same."""

    title = "MATH-500"
    source = Source(
        file="math500/test_ori.jsonl", hub="HuggingFaceH4/MATH-500", config="default", split="test"
    )

    def read(self, records: Iterable[tuple[str, Any]]) -> list[Question]:
        """Read it; see PublishedSet.

        Raises:
            ConfigError: The library that compares answers is missing.
        """
        need_library()
        found = as_records(self.title, records)
        return complete(self.title, ((r.where, _question(r)) for r in found), (500,))

    def prompt(self, question: Question, style: Style) -> str | list[dict[str, str]]:
        """Ask after four solved problems, or alone."""
        if style == "chat":
            return user(_REQUEST.format(text=question.text))
        solved = "".join(f"Problem:\n{asked}\n\nSolution:\n{told}\n\n" for asked, told in _SHOTS)
        return f"{solved}Problem:\n{question.text}\n\nSolution:\n"

    def stops(self, style: Style) -> tuple[str, ...]:
        """End where a model asks itself the next problem."""
        return ("\nProblem:",) if style == "completion" else ()

    def answer_of(self, question: Question, text: str, style: Style) -> str:
        r"""Take the expression: in the last \boxed, or named; else the last plain number."""
        return final_answer(cut(text, self.stops(style)).replace(question.text, ""))

    def solved(self, answers: Sequence[tuple[Question, str]], style: Style) -> list[bool]:
        """Compare the expressions."""
        return are_equal([(q.fields["answer"], self.answer_of(q, t, style)) for q, t in answers])


def _question(record: Record) -> Question:
    return Question(
        id=record.text("unique_id"),
        kind="math",
        text=record.text("problem"),
        reference=record.text("solution"),
        fields={
            "answer": record.text("answer"),
            "subject": record.text("subject"),
            "level": record.number("level"),
        },
    )
