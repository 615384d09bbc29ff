"""Decoders run for real: what the loop costs beside forwards, and which of some is fastest."""

import statistics
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict
from itertools import count
from typing import NamedTuple

from jacobi_forcing.config import DecoderConfig
from jacobi_forcing.decoding.batch import decode
from jacobi_forcing.decoding.compare import AUTOREGRESSIVE
from jacobi_forcing.decoding.cost import Curve, LoopCost, fit_loop_cost, together
from jacobi_forcing.decoding.events import Forward
from jacobi_forcing.decoding.imitation import Step, Text
from jacobi_forcing.decoding.measure import Decoded, decode_all
from jacobi_forcing.decoding.predict import Prediction, workload
from jacobi_forcing.decoding.request import Request
from jacobi_forcing.decoding.strategies import make_strategy
from jacobi_forcing.models import CausalLM

_LEAST_TURNS, _MOST_TURNS = 3, 9  # of trying finalists
# What is left beside the forward is found from these, and from AR.
_PLAIN = DecoderConfig(strategy="window", block_size=16, pool_size=0)
RECYCLING = DecoderConfig(strategy="window", block_size=16, pool_size=4, branch_tokens=8)


class Tried(NamedTuple):
    """A prediction, and what came of it."""

    prediction: Prediction
    tokens_per_second: float
    times_ar: float  # median over turns of the ratio to AR in the same turn ...
    times_ar_low: float  # ... and lower quartile
    tokens_per_forward: float
    num_mismatches: int  # answers that are not AR's


class Runner:
    """Runs decoders for real, with so many rows in flight.

    Args:
        model: Decodes.
        texts: Prompts with the model's answers.
        num_rows: Decoded together.
        most_tokens: Longest answer that is asked for.
        seed: Of the noise.
    """

    def __init__(
        self,
        model: CausalLM,
        texts: Sequence[Text],
        num_rows: int,
        *,
        most_tokens: int,
        seed: int = 0,
    ):
        self.model, self.texts, self.num_rows = model, texts, num_rows
        self.most_tokens, self.seed = most_tokens, seed
        self.prompts = workload([text.prompt for text in texts], num_rows)

    def run(self, decoder: DecoderConfig, prompts: Sequence[Sequence[int]]) -> Decoded:
        """Decode."""
        return decode_all(
            self.model,
            prompts,
            decoder,
            max_new_tokens=self.most_tokens,
            batch_size=self.num_rows,
            seed=self.seed,
        )

    def loop_cost(self, curve: Curve) -> LoopCost:
        """Find what the loop costs beside forwards, from decodes whose forwards are known."""
        prompts = self.prompts[: 2 * self.num_rows]
        width = min(_PLAIN.block_size, curve.widest(self.num_rows))
        timed = []
        for decoder in (AUTOREGRESSIVE, _PLAIN, RECYCLING):
            if width < _PLAIN.block_size and decoder is not AUTOREGRESSIVE:
                decoder = DecoderConfig(**asdict(decoder) | {"block_size": max(2, width)})
            steps = self._steps(decoder, prompts)  # a warm-up too
            seconds = []
            for _ in range(2):
                start = time.perf_counter()
                self.run(decoder, prompts)
                seconds.append(time.perf_counter() - start)
            forwards = list(together(steps, self.num_rows))
            timed.append((forwards, decoder.pool_size > 0, min(seconds)))
        return fit_loop_cost(curve, timed)

    def _steps(self, decoder: DecoderConfig, prompts: Sequence[Sequence[int]]) -> list[list[Step]]:
        """Decode, and give the forwards of every prompt."""
        steps: list[list[Step]] = [[] for _ in prompts]
        events = decode(
            self.model,
            [Request(i, ids, self.most_tokens) for i, ids in enumerate(prompts)],
            lambda r: make_strategy(decoder, self.model.vocab_tokens, f"{self.seed}/{r[0]}"),
            batch_size=self.num_rows,
            max_tokens=max(map(len, prompts)) + self.most_tokens,
        )
        for event in events:
            if isinstance(event, Forward):
                num_prompt = len(prompts[event.request])
                pending = 1 if event.offset else num_prompt
                context = event.offset + num_prompt - pending
                step = Step(pending + event.num_proposed, context, len(event.accepted))
                steps[event.request].append(step)
        return steps

    def tried(
        self, predictions: Sequence[Prediction], seconds_left: Callable[[], float]
    ) -> list[Tried]:
        """Decode with each in turns until the time is used, three times at least.

        Requests are as many as the predictions give time for, and twice the rows at least.

        Args:
            predictions: Of the decoders; AR's is the first.
            seconds_left: Tells how much of the time is left.
        """
        num_tokens = sum(len(text.answer) for text in self.texts) / len(self.texts)
        turn_seconds = sum(num_tokens / one.tokens_per_second for one in predictions)  # a request's
        num_fit = int(seconds_left() / (_LEAST_TURNS * turn_seconds))
        prompts = self.prompts[: max(num_fit, 2 * self.num_rows)]
        speeds: list[list[float]] = [[] for _ in predictions]
        last: list[Decoded] = [None] * len(predictions)
        for turn in count():
            for place in range(len(predictions)):
                number = (turn + place) % len(predictions)  # each turn begins with another
                start = time.perf_counter()
                last[number] = self.run(predictions[number].decoder, prompts)
                seconds = time.perf_counter() - start
                speeds[number].append(last[number].num_tokens / seconds)
            has_time = seconds_left() > turn_seconds * len(prompts)
            if turn + 1 == _MOST_TURNS or (turn + 1 >= _LEAST_TURNS and not has_time):
                break
        right = last[0].answers  # AR's
        found = []
        for prediction, speed, decoded in zip(predictions, speeds, last, strict=True):
            ratios = [mine / ar for mine, ar in zip(speed, speeds[0], strict=True)]
            low, median, _ = statistics.quantiles(ratios, n=4, method="inclusive")
            wrong = sum(a != b for a, b in zip(decoded.answers, right, strict=True))
            settled = decoded.tokens_per_forward
            speed = statistics.median(speed)
            found.append(Tried(prediction, speed, median, low, settled, wrong))
        return found


def best_of(tried: Sequence[Tried]) -> Tried:
    """Choose the fastest of those that are faster than AR in most turns; AR, the first, of none.

    The luckiest of several equals would often seem faster in the median.
    """
    faster = [one for one in tried if one.times_ar_low > 1]
    return max(faster, key=lambda one: one.times_ar, default=tried[0])
