"""Time decoders against each other on the same prompts, so that a machine's mood hits all alike."""

import math
import statistics
import time
from collections.abc import Callable, Sequence
from typing import NamedTuple

from jacobi_forcing.config import DecoderConfig
from jacobi_forcing.decoding.loop import decode_one
from jacobi_forcing.decoding.strategies import make_strategy
from jacobi_forcing.models import CausalLM

AUTOREGRESSIVE = DecoderConfig(strategy="autoregressive")


class Run(NamedTuple):
    """One decoder's decode of one prompt."""

    answer: list[int]
    num_forwards: int  # the prefill included
    seconds: float  # the prefill included


def compare(
    model: CausalLM,
    prompts: Sequence[Sequence[int]],
    decoders: Sequence[DecoderConfig],
    *,
    max_new_tokens: int,
    seed: int = 0,
    on_prompt: Callable[[], None] = lambda: None,
) -> list[list[Run]]:
    """Decode each prompt with every decoder, one at a time; they take turns in going first.

    Args:
        model: What to decode with.
        prompts: Token ids.
        decoders: What to time; all in the same engine and process.
        max_new_tokens: Longest answer.
        seed: Seed of the noise.
        on_prompt: Called after each prompt, for progress.

    Returns:
        Runs per decoder, per prompt. One warm-up decode per decoder is not counted.
    """

    def run(decoder: DecoderConfig, index: int) -> Run:
        strategy = make_strategy(decoder, model.vocab_tokens, f"{seed}/{index}")
        start = time.perf_counter()
        finished, _ = decode_one(model, prompts[index], strategy, max_new_tokens)
        return Run(finished.answer_ids, finished.num_forwards, time.perf_counter() - start)

    for decoder in decoders:
        run(decoder, 0)
    runs: list[list[Run]] = [[] for _ in decoders]
    for index in range(len(prompts)):
        for turn in range(len(decoders)):
            number = (index + turn) % len(decoders)
            runs[number].append(run(decoders[number], index))
        on_prompt()
    return runs


class Summary(NamedTuple):
    """A decoder's figures beside AR of the same model in the same run."""

    num_tokens: int
    num_forwards: int
    tokens_per_forward: float
    tokens_per_second: float
    ar_tokens_per_second: float
    speedup: float  # seconds of AR / seconds of this decoder, over all prompts
    speedup_median: float  # the same per prompt: median ...
    speedup_low: float  # ... and quartiles
    speedup_high: float
    num_mismatches: int  # prompts whose ids are not AR's


def summarize(runs: Sequence[Run], ar_runs: Sequence[Run]) -> Summary:
    """Sum up a decoder's runs; seconds include the prefill on both sides."""
    num_tokens = sum(len(run.answer) for run in runs)
    num_forwards = sum(run.num_forwards for run in runs)
    seconds, ar_seconds = sum(r.seconds for r in runs), sum(r.seconds for r in ar_runs)
    ratios = [ar.seconds / run.seconds for run, ar in zip(runs, ar_runs, strict=True)]
    quartiles = statistics.quantiles(ratios, n=4) if len(ratios) > 1 else ratios * 3
    return Summary(
        num_tokens=num_tokens,
        num_forwards=num_forwards,
        tokens_per_forward=num_tokens / num_forwards,
        tokens_per_second=num_tokens / seconds,
        ar_tokens_per_second=sum(len(r.answer) for r in ar_runs) / ar_seconds,
        speedup=ar_seconds / seconds,
        speedup_median=quartiles[1],
        speedup_low=quartiles[0],
        speedup_high=quartiles[2],
        num_mismatches=sum(r.answer != ar.answer for r, ar in zip(runs, ar_runs, strict=True)),
    )


def wilson(successes: int, trials: int) -> tuple[float, float]:
    """Give the 95 % Wilson interval of a success rate, as fractions."""
    z = 1.959964
    rate = successes / trials
    centre = rate + z * z / (2 * trials)
    spread = z * math.sqrt(rate * (1 - rate) / trials + z * z / (4 * trials * trials))
    scale = 1 + z * z / trials
    return max(0.0, (centre - spread) / scale), min(1.0, (centre + spread) / scale)
