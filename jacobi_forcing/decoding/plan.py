"""What of a tuning fits into its time: rows, widths, contexts, tokens of answers.

Estimated from a few forwards; what does not fit is left out, and named.
"""

from collections.abc import Iterator, Sequence
from typing import NamedTuple

from jacobi_forcing.decoding.cost import Clock, Shape, sizes

READ, MEASURE = 0.2, 0.25  # parts of the time: for the wide decode, for timing forwards
_READ_STEPS = 24  # of the wide decode, at least
_LEAST_TOKENS = 8  # of an answer in a trial: below, prefills are all that is compared
_LEAST_DECODES = 8  # with each number of rows: to find what the loop costs, and to race


class Plan(NamedTuple):
    """What is looked at."""

    rows: list[int]
    widest: int  # draft, in tokens
    num_contexts: int  # that forwards are timed at
    is_quick: bool  # a shape is timed twice, not six times and more
    read_rows: int  # decoded together with the wide draft


class Costs:
    """Seconds of forwards of any shape, taken to be straight in the tokens fed.

    Args:
        clock: Times some forwards of one row.
        prompt_tokens: Of a prompt, on the average.
        widest: Draft that is timed, in tokens.
    """

    def __init__(self, clock: Clock, prompt_tokens: int, widest: int):
        self.prompt_tokens = prompt_tokens
        one, wide = (  # the first of each warms up
            min(clock.seconds(Shape(1, prompt_tokens, width)) for _ in range(2))
            for width in (1, widest)
        )
        self.per_token = max(0.0, (wide - one) / max(1, widest - 1))
        self.base = max(1e-9, one - self.per_token)

    def __call__(self, num_rows: int, width: int) -> float:
        """Give the seconds of one forward."""
        return self.base + self.per_token * num_rows * width

    def prefill(self, num_rows: int) -> float:
        """Give the seconds of the first forward over prompts."""
        return self(num_rows, self.prompt_tokens)

    def reading(self, num_rows: int, widest: int) -> float:
        """Give the seconds of the shortest wide decode."""
        return self.prefill(num_rows) + _READ_STEPS * self(num_rows, widest)

    def measuring(self, plan: Plan) -> float:
        """Give the seconds of the fewest timed forwards."""
        runs = 3 if plan.is_quick else 9
        widths = [self(n, width) for n in plan.rows for width in sizes(plan.widest)]
        prompts = [self.prefill(n) for n in plan.rows]
        return runs * plan.num_contexts * (sum(widths) + sum(prompts))

    def racing(self, num_rows: int) -> float:
        """Give the seconds of the shortest race."""
        return _LEAST_DECODES * (self.prefill(num_rows) + _LEAST_TOKENS * self(num_rows, 1))


def planned(costs: Costs, seconds: float, rows: Sequence[int], widest: int) -> Plan:
    """Choose the most that fits into so many seconds; at the least one row with short drafts.

    Args:
        costs: Of this model here.
        seconds: Of the whole tuning.
        rows: Numbers of rows that were asked for, the smallest first.
        widest: Draft that was asked for, in tokens.
    """
    while widest > 4 and costs.reading(1, widest) > READ * seconds:
        widest = max(4, widest // 2)
    reading = [n for n in range(1, rows[-1] + 1) if costs.reading(n, widest) <= READ * seconds]
    race_seconds = (1 - READ - MEASURE) * seconds
    for plan in _plans(list(rows), widest, max(reading, default=1)):
        # One row is raced whatever it takes: with fewer decoders, in fewer turns.
        more_rows = plan.rows[1:] and plan.rows
        racing = [costs.racing(n) <= race_seconds / len(plan.rows) for n in more_rows]
        if all(racing) and costs.measuring(plan) <= MEASURE * seconds:
            return plan
    return plan


def _plans(rows: list[int], widest: int, read_rows: int) -> Iterator[Plan]:
    """Yield plans that look at less and less."""
    for num in range(len(rows), 0, -1):
        for num_contexts, is_quick in ((3, False), (3, True), (1, True)):
            yield Plan(rows[:num], widest, num_contexts, is_quick, read_rows)
    while widest > 4:
        widest = max(4, widest // 2)
        yield Plan(rows[:1], widest, 1, True, read_rows)


def trial_tokens(
    prefill_seconds: float, step_seconds: float, seconds: float, most_tokens: int
) -> int:
    """Give the tokens of an answer with which a race's decodes fit into so many seconds.

    Args:
        prefill_seconds: Of the first forward of all rows.
        step_seconds: Of AR's other forwards.
        seconds: Of the race.
        most_tokens: Longest answer that was asked for.
    """
    fits = int((seconds / _LEAST_DECODES - prefill_seconds) / step_seconds)
    return min(most_tokens, max(_LEAST_TOKENS, fits))


def left_out(plan: Plan, rows: Sequence[int], widest: int) -> list[str]:
    """Name what was asked for and is not looked at."""
    found = []
    dropped = [str(n) for n in rows if n not in plan.rows]
    if dropped:
        found.append(f"{', '.join(dropped)} rows")
    if plan.widest < widest:
        found.append(f"drafts of more than {plan.widest} tokens")
    if plan.num_contexts < 3:
        found.append("forwards behind short and long texts")
    return found
