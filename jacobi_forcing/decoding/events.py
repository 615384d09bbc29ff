"""What the decoding loop tells its readers: collecting, evaluating and drawing live off these."""

from typing import NamedTuple


class Forward(NamedTuple):
    """What one forward pass settled for one request.

    `greedy[0]` follows the committed text and `greedy[i]` follows `guesses[i - 1]`, so `accepted`
    is always a beginning of `greedy`: the guesses that were right, and one token more.
    """

    request: int  # index of the request
    iteration: int  # 0 is the prefill
    offset: int  # answer tokens committed before this forward
    guesses: list[int]  # m ids, for answer positions offset .. offset + m - 1
    greedy: list[int]  # m + 1 ids: the model's choice after the committed text and each guess
    accepted: list[int]  # 1 to m + 1 ids committed by this forward


class Finished(NamedTuple):
    """A request is done; its answer is final."""

    request: int
    answer_ids: list[int]  # the EOS included where there is one
    reason: str  # "eos", or "length" when the token budget is spent
    num_forwards: int  # the prefill included
