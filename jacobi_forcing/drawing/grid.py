"""What a model held at every answer position after every forward: the grid that a page draws."""

from collections.abc import Sequence
from typing import NamedTuple

from jacobi_forcing.decoding import Finished, Forward

COMMITTED = "committed"  # fixed by an earlier forward
ACCEPTED = "accepted"  # fixed by this forward
STATIONARY = "stationary"  # already the final token, but one before it was still wrong
WRONG = "wrong"  # will still change
EMPTY = "empty"  # nothing held there yet


class Cell(NamedTuple):
    """One answer position after one forward."""

    token: int | None  # None where empty
    state: str


def grid(forwards: Sequence[Forward], finished: Finished) -> list[list[Cell]]:
    """Lay out a decode as one row of cells per forward.

    Args:
        forwards: All forwards of one request, in their order.
        finished: The same request's end.

    Returns:
        [num_forwards, num_answer_tokens] cells. A forward holds the tokens committed so far and,
        behind them, the model's choice after each guess; what lies past the answer is left out.
    """
    answer = finished.answer_ids
    assert [token for forward in forwards for token in forward.accepted] == answer, (
        "these forwards do not belong to this answer"
    )
    return [[_cell(forward, answer, place) for place in range(len(answer))] for forward in forwards]


def _cell(forward: Forward, answer: Sequence[int], place: int) -> Cell:
    ahead = place - forward.offset
    if ahead < 0:
        return Cell(answer[place], COMMITTED)
    if ahead < len(forward.accepted):
        return Cell(forward.accepted[ahead], ACCEPTED)
    ahead -= len(forward.accepted)
    if ahead >= len(forward.tail):
        return Cell(None, EMPTY)
    token = forward.tail[ahead]
    return Cell(token, STATIONARY if token == answer[place] else WRONG)
