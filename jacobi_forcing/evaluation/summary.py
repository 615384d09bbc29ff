"""What the answers of an evaluation come to: accuracy, tokens per forward, seconds.

Everything is counted from the records that `answers` keeps, so that a report can be made again.
"""

from collections import Counter
from collections.abc import Sequence
from dataclasses import fields
from hashlib import sha256
from typing import Any

from jacobi_forcing.decoding import compare
from jacobi_forcing.decoding.compare import Run
from jacobi_forcing.evaluation.statistics import mcnemar, percentile, ratio_error, wilson

_GRAM = 8  # tokens: a text that repeats so many in a row is easy to guess
_RUN = tuple(f.name for f in fields(Run))
Record = dict[str, Any]


def summarize(records: Sequence[Record], name: str, ar_name: str) -> dict[str, Any]:
    """Sum up one decoder's answers beside AR of the same model in the same run."""
    runs, ar_runs = _runs(records, name), _runs(records, ar_name)
    solved = [record["answers"][name]["solved"] for record in records]
    answered = [len(run.answer) for run in runs]
    first, seconds = [run.first_seconds for run in runs], [run.seconds for run in runs]
    cut_off = [len(run.answer) for run in runs if run.reason == "length"]
    return {
        **_accuracy(solved),
        "num_cut_off": len(cut_off),
        "cut_off_share": len(cut_off) / len(runs),
        "longest_cut_off_tokens": max(cut_off, default=0),
        **compare.summarize(runs, ar_runs)._asdict(),
        "ids_digest": sha256(str([run.answer for run in runs]).encode()).hexdigest()[:16],
        "tokens_per_forward_error": ratio_error(answered, [run.num_forwards for run in runs]),
        "tokens_per_forward_solved": _tokens_per_forward(
            [run for run, is_solved in zip(runs, solved, strict=True) if is_solved]
        ),
        **_by_repetition([record["prompt_ids"] for record in records], runs),
        "acceptance": _acceptance(runs),
        "tokens_per_second_after_prefill": _quotient(
            sum(len(run.answer) - run.settled[0] for run in runs), _after_prefill(runs)
        ),
        "speedup_after_prefill": _quotient(_after_prefill(ar_runs), _after_prefill(runs)),
        "first_token_p50": percentile(first, 50),
        "first_token_p95": percentile(first, 95),
        "seconds_p50": percentile(seconds, 50),
        "seconds_p95": percentile(seconds, 95),
    }


def against(records: Sequence[Record], name: str, original_name: str) -> dict[str, Any]:
    """Compare a decoder's verdicts with those of the original's AR, problem by problem."""
    pairs = Counter(
        (record["answers"][name]["solved"], record["answers"][original_name]["solved"])
        for record in records
    )
    only_mine, only_original = pairs[True, False], pairs[False, True]
    return {
        "original_accuracy": (pairs[True, True] + only_original) / len(records),
        "only_solved_here": only_mine,
        "only_solved_by_original": only_original,
        "accuracy_change": (only_mine - only_original) / len(records),
        "p_value": mcnemar(only_mine, only_original),
    }


def _runs(records: Sequence[Record], name: str) -> list[Run]:
    return [Run(**{key: record["answers"][name][key] for key in _RUN}) for record in records]


def _accuracy(solved: Sequence[bool | None]) -> dict[str, float]:
    """Give the solved share with its interval; nothing where answers have no verdict."""
    if None in solved:
        return {}
    low, high = wilson(sum(solved), len(solved))
    return {"accuracy": sum(solved) / len(solved), "accuracy_low": low, "accuracy_high": high}


def _tokens_per_forward(runs: Sequence[Run]) -> float | None:
    tokens = sum(len(run.answer) for run in runs)
    return _quotient(tokens, sum(run.num_forwards for run in runs))


def _acceptance(runs: Sequence[Run]) -> list[float]:
    """Give the share of drafts of at least k guesses whose first k were right, for k = 1, 2, ..."""
    drafts = [pair for run in runs for pair in zip(run.proposed, run.right, strict=True)]
    shares: list[float] = []
    for place in range(1, max((proposed for proposed, _ in drafts), default=0) + 1):
        right = [right >= place for proposed, right in drafts if proposed >= place]
        shares.append(sum(right) / len(right))
        if not any(right):
            break
    return shares


def _by_repetition(
    prompts: Sequence[Sequence[int]], runs: Sequence[Run]
) -> dict[str, float | None]:
    """Split tokens per forward by whether a token ends an 8-gram that the text had before.

    A forward's share is dealt evenly to the tokens that it settled.
    """
    tokens, forwards = Counter[bool](), Counter[bool]()
    for prompt, run in zip(prompts, runs, strict=True):
        repeats = iter(_repeats(prompt, run.answer))
        for settled in run.settled:
            for _ in range(settled):
                is_repeat = next(repeats)
                tokens[is_repeat] += 1
                forwards[is_repeat] += 1 / settled
    return {
        "repeating_share": tokens[True] / max(tokens.total(), 1),
        "tokens_per_forward_repeating": _quotient(tokens[True], forwards[True]),
        "tokens_per_forward_new": _quotient(tokens[False], forwards[False]),
    }


def _repeats(prompt: Sequence[int], answer: Sequence[int]) -> list[bool]:
    """Say of every answer token whether the 8 tokens that end with it stood before."""
    ids, seen, found = [*prompt, *answer], set(), []
    for end in range(1, len(ids) + 1):
        gram = tuple(ids[max(0, end - _GRAM) : end])
        found.append(len(gram) == _GRAM and gram in seen)
        seen.add(gram)
    return found[len(prompt) :]


def _after_prefill(runs: Sequence[Run]) -> float:
    return sum(run.share_after_prefill for run in runs)


def _quotient(above: float, below: float) -> float | None:
    return above / below if below > 0 else None
