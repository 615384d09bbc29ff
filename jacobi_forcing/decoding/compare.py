"""Time decoders against each other on the same prompts, so that a machine's mood hits all alike."""

import statistics
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import NamedTuple

from jacobi_forcing.config import DecoderConfig
from jacobi_forcing.decoding.events import Finished
from jacobi_forcing.decoding.loop import DecodingLoop
from jacobi_forcing.decoding.request import Request
from jacobi_forcing.decoding.strategies import branch_tokens, make_strategy
from jacobi_forcing.models import CausalLM
from jacobi_forcing.models.inference import inferring
from jacobi_forcing.progress import AnswerProgress

_TELL_SECONDS = 0.2

AUTOREGRESSIVE = DecoderConfig(strategy="autoregressive")


@dataclass
class Run:
    """One decoder's decode of one prompt.

    Fields:
        answer: Ids, the EOS included where there is one.
        reason: Why it ended; see Finished.
        settled: Tokens that each forward committed, the prefill's first.
        proposed: Guesses that each forward verified, branches included.
        right: Of those, the ones that were right. Both are empty where the engine does not say.
        first_seconds: Until the prefill's tokens were there.
        seconds: Until the end.
        all_seconds: Until the end of all prompts that were decoded together.
        num_together: How many those were.
    """

    answer: list[int] = field(default_factory=list)
    reason: str = ""
    settled: list[int] = field(default_factory=list)
    proposed: list[int] = field(default_factory=list)
    right: list[int] = field(default_factory=list)
    first_seconds: float = 0.0
    seconds: float = 0.0
    all_seconds: float = 0.0
    num_together: int = 1

    @property
    def share(self) -> float:
        """Give this prompt's part of the seconds that all took together."""
        return self.all_seconds / self.num_together

    @property
    def share_after_prefill(self) -> float:
        """Give the same of the seconds behind the prefill."""
        return (self.all_seconds - self.first_seconds) / self.num_together

    @property
    def num_forwards(self) -> int:
        """Count the forwards, the prefill included."""
        return len(self.settled)


Way = Callable[[range], list[Run]]  # decodes the prompts of these indices together


def compare(
    model: CausalLM,
    prompts: Sequence[Sequence[int]],
    decoders: Sequence[DecoderConfig],
    *,
    max_new_tokens: int,
    seed: int = 0,
    on_prompt: Callable[[], None] = lambda: None,
) -> list[list[Run]]:
    """Decode each prompt with every decoder, one at a time; see `take_turns`.

    Returns:
        Runs per decoder, per prompt.
    """
    runs: list[list[Run]] = [[] for _ in decoders]
    turns = take_turns(model, prompts, decoders, max_new_tokens=max_new_tokens, seed=seed)
    for _, found in turns:
        for own, new in zip(runs, found, strict=True):
            own += new
        on_prompt()
    return runs


def take_turns(
    model: CausalLM,
    prompts: Sequence[Sequence[int]],
    decoders: Sequence[DecoderConfig],
    *,
    max_new_tokens: int,
    seed: int = 0,
    batch_size: int = 1,
    stop: Sequence[str] = (),
    first: int = 0,
    progress: AnswerProgress | None = None,
) -> Iterator[tuple[range, list[list[Run]]]]:
    """Decode prompts with every decoder of ours, in the same loop; see `in_turns`.

    Args:
        model: What to decode with.
        prompts: Token ids.
        decoders: What to time; all in the same engine and process.
        max_new_tokens: Longest answer.
        seed: Seed of the noise.
        batch_size: Prompts that are decoded together.
        stop: Texts that end an answer and stay in it.
        first: Begin with this prompt; the others have been decoded before.
        progress: Is told of tokens and of finished answers, those of the warm-up included.
    """
    # One loop and cache for all, as a server has: made once, and outside of the seconds.
    loop = DecodingLoop(
        model,
        batch_size=batch_size,
        max_tokens=max(map(len, prompts), default=0) + max_new_tokens,
        branch_tokens=max(map(branch_tokens, decoders)),
    )

    @inferring
    def run(decoder: DecoderConfig, group: range) -> list[Run]:
        found, teller = {i: Run() for i in group}, _Teller(progress)
        start = time.perf_counter()
        for i in group:
            strategy = make_strategy(decoder, model.vocab_tokens, f"{seed}/{i}")
            loop.add(Request(i, prompts[i], max_new_tokens, stop=stop), strategy)
        while not loop.is_idle:
            for event in loop.step():
                one, one_seconds = found[event.request], time.perf_counter() - start
                if isinstance(event, Finished):
                    one.answer, one.reason = event.answer_ids, event.reason
                    one.seconds = one_seconds
                    continue
                teller.forward(event.request, len(event.accepted), one_seconds)
                one.first_seconds = one.first_seconds or one_seconds
                one.settled.append(len(event.accepted))
                one.proposed.append(event.num_proposed)
                one.right.append(len(event.path))
        seconds = time.perf_counter() - start
        for one in found.values():
            one.all_seconds, one.num_together = seconds, len(group)
        teller.finished(found)
        return list(found.values())

    ways = [partial(run, decoder) for decoder in decoders]
    yield from in_turns(ways, len(prompts), batch_size=batch_size, first=first)


class _Teller:
    """Tells progress of forwards now and then: telling of each would slow down what is timed."""

    def __init__(self, progress: AnswerProgress | None):
        self.progress = progress
        self._untold: dict[int, int] = {}  # tokens of each answer that has begun
        self._told_seconds = 0.0

    def forward(self, answer: int, num_accepted: int, seconds: float) -> None:
        is_first = answer not in self._untold
        self._untold[answer] = num = self._untold.get(answer, 0) + num_accepted
        if self.progress is None:
            return
        if is_first or seconds - self._told_seconds >= _TELL_SECONDS:
            self.progress.forward(answer, num, is_first=is_first)
            self._untold[answer], self._told_seconds = 0, seconds

    def finished(self, runs: dict[int, Run]) -> None:
        for answer, one in runs.items() if self.progress is not None else ():
            self.progress.forward(answer, self._untold[answer], is_first=False)
            self.progress.finished(answer, at_end=one.reason != "length")


def in_turns(
    ways: Sequence[Way], num_prompts: int, *, batch_size: int = 1, first: int = 0
) -> Iterator[tuple[range, list[list[Run]]]]:
    """Decode prompts in every way, a few at a time; ways take turns in going first.

    Args:
        ways: What to time.
        num_prompts: How many there are.
        batch_size: Prompts that are decoded together.
        first: Begin with this prompt; the others have been decoded before.

    Yields:
        Indices of prompts, and per way their runs. One warm-up decode per way is not counted.
    """
    groups = [
        range(i, min(i + batch_size, num_prompts)) for i in range(first, num_prompts, batch_size)
    ]
    for way in ways if groups else ():
        way(groups[0])
    for turn, group in enumerate(groups, first):
        order = [(turn + i) % len(ways) for i in range(len(ways))]
        found = {number: ways[number](group) for number in order}
        yield group, [found[number] for number in range(len(ways))]


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
    seconds, ar_seconds = sum(r.share for r in runs), sum(r.share for r in ar_runs)
    ratios = [ar.share / run.share for run, ar in zip(runs, ar_runs, strict=True)]
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
