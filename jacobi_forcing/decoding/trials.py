"""Decoders run for real: what the loop costs beside forwards, and which of some is fastest."""

import statistics
import time
from collections.abc import Callable, Sequence
from functools import partial
from itertools import count, cycle, islice, takewhile
from typing import NamedTuple

from jacobi_forcing.config import DecoderConfig
from jacobi_forcing.decoding.batch import decode
from jacobi_forcing.decoding.compare import AUTOREGRESSIVE
from jacobi_forcing.decoding.cost import Curve, LoopCost, Timed, Together, fit_loop_cost, together
from jacobi_forcing.decoding.events import Forward
from jacobi_forcing.decoding.imitation import Step, Text
from jacobi_forcing.decoding.measure import Decoded, decode_all
from jacobi_forcing.decoding.predict import Prediction, promising, workload
from jacobi_forcing.decoding.request import Request
from jacobi_forcing.decoding.strategies import branch_tokens, make_strategy
from jacobi_forcing.models import CausalLM

_LEAST_TURNS, _MOST_TURNS = 3, 9  # of trying finalists
_FEWEST_TURNS, _FEWEST_FINALISTS = 2, 1  # where time is short
_FIELD, _FINALISTS = 16, 4  # decoders beside AR that are tried: in the first heat, in the last
_HEAT_TURNS, _HEAT_TIME = 2, 0.3  # of a heat: turns, and the part of what time is left
_CALIBRATING_TURNS = 6
# What is left beside the forward is found from these, and from AR; two with branches.
_WIDTHS, _BRANCHED = (4, 16, 40), (8, 24)


def calibrating(widest: int) -> list[DecoderConfig]:
    """Give the decoders whose steps are timed, as far as so many tokens are fed at once."""
    branches = {"pool_size": 4, "branch_tokens": 8}
    window = partial(DecoderConfig, strategy="window")
    plain = [window(block_size=n, pool_size=0) for n in _WIDTHS if n <= widest]
    branched = [window(block_size=n, **branches) for n in _BRANCHED if n + 8 <= widest]
    return [
        AUTOREGRESSIVE,
        *(plain or [window(block_size=max(2, widest), pool_size=0)]),
        *(branched or [window(block_size=2, **branches)]),
    ]


class Tried(NamedTuple):
    """A prediction, and what came of it."""

    prediction: Prediction
    tokens_per_second: float  # median over turns
    times_ar: float  # median over turns of the ratio to AR in the same turn ...
    times_ar_low: float  # ... and lower quartile
    tokens_per_forward: float
    num_mismatches: int  # answers that are not AR's
    is_final: bool = True  # tried to the end; the others were left behind in a heat


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

    def loop_cost(self, curve: Curve, seconds_left: Callable[[], float]) -> LoopCost:
        """Find what the loop costs beside forwards, from decodes whose forwards are known.

        Decoders take turns, each turn with other prompts, until the time is used; one turn at
        least. Where not even that fits, AR, one width and one kind of branches do, without a
        warm-up.
        """
        decoders = calibrating(curve.widest(self.num_rows))
        forwards: dict[DecoderConfig, list[Together]] = {decoder: [] for decoder in decoders}
        seconds = dict.fromkeys(decoders, 0.0)
        least = len(decoders) * self._ar_seconds(curve)
        if least > seconds_left():
            decoders = [decoders[0], decoders[len(_WIDTHS) // 2], decoders[-1]]
        else:
            self._steps(decoders[-1], self.prompts[: self.num_rows])  # a warm-up
        for turn in range(_CALIBRATING_TURNS):
            first = turn * self.num_rows % len(self.prompts)
            prompts = [*islice(cycle(self.prompts), first, first + self.num_rows)]
            for decoder in decoders:
                start = time.perf_counter()
                steps = self._steps(decoder, prompts)
                seconds[decoder] += time.perf_counter() - start
                forwards[decoder] += together(steps, self.num_rows)
            if not seconds_left():
                break
        timed = [Timed(forwards[one], branch_tokens(one) > 0, seconds[one]) for one in decoders]
        return fit_loop_cost(curve, timed)

    def _ar_seconds(self, curve: Curve) -> float:
        """Estimate what decoding all rows once takes with AR, which most decoders are near."""
        length = sum(map(len, self.prompts)) / len(self.prompts)
        num = min(self.most_tokens, self._tokens_per_request) - 1
        return curve.prefill(self.num_rows, length) + num * curve(self.num_rows, length, 1)

    def _steps(self, decoder: DecoderConfig, prompts: Sequence[Sequence[int]]) -> list[list[Step]]:
        """Decode, and give the forwards of every prompt."""
        steps: list[list[Step]] = [[] for _ in prompts]
        events = decode(
            self.model,
            [Request(i, ids, self.most_tokens) for i, ids in enumerate(prompts)],
            lambda r: make_strategy(decoder, self.model.vocab_tokens, f"{self.seed}/{r[0]}"),
            batch_size=self.num_rows,
            max_tokens=max(map(len, prompts)) + self.most_tokens,
            branch_tokens=branch_tokens(decoder),
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
        """Decode for real with the most promising and AR, in turns, until the time is used.

        In each of two heats the slower half is left behind; those that are left run on more
        requests. Where the time is too short for a heat, the last four are those that are
        predicted to be the fastest; where it is too short for them, fewer, in fewer turns.

        Args:
            predictions: Of every decoder.
            seconds_left: Tells how much of the time is left.

        Returns:
            AR first, then the finalists, then who was left behind.
        """
        ar, *field = promising(predictions, _FIELD)
        behind: list[Tried] = []
        found: list[Tried] = []  # of the field, in the heat before
        while len(field) > _FINALISTS:
            num = self._num_fit([ar, *field], _HEAT_TIME * seconds_left() / _HEAT_TURNS)
            if num < self.num_rows:
                if not found:
                    field = promising(predictions, _FINALISTS)[1:]
                behind = _left_behind(found, _FINALISTS) + behind
                field = field[:_FINALISTS]
                break
            found = self._in_turns([ar, *field], num, lambda turn: turn < _HEAT_TURNS)[1:]
            found.sort(key=lambda one: -one.times_ar)
            num_kept = max(_FINALISTS, len(field) // 2)
            behind = _left_behind(found, num_kept) + behind
            found = found[:num_kept]
            field = [one.prediction for one in found]
        left = seconds_left()
        fewest = self._seconds_of([ar, *field], self.num_rows)
        least_turns = _LEAST_TURNS if _LEAST_TURNS * fewest <= left else _FEWEST_TURNS
        while len(field) > _FEWEST_FINALISTS and least_turns * fewest > left:
            field = field[:-1]
            fewest = self._seconds_of([ar, *field], self.num_rows)
        final = [ar, *field]
        num = max(self._num_fit(final, left / least_turns), self.num_rows)
        turn_seconds = self._seconds_of(final, num)

        def goes_on(turn: int) -> bool:
            return turn < least_turns or (turn < _MOST_TURNS and seconds_left() > turn_seconds)

        return self._in_turns(final, num, goes_on) + behind

    @property
    def _tokens_per_request(self) -> float:
        return sum(len(text.answer) for text in self.texts) / len(self.texts)

    def _num_fit(self, predictions: Sequence[Prediction], seconds: float) -> int:
        """Give the number of requests that all decoders can answer one after the other."""
        return min(int(seconds / self._seconds_of(predictions, 1)), len(self.prompts))

    def _seconds_of(self, predictions: Sequence[Prediction], num: int) -> float:
        """Give the seconds in which all decoders answer so many requests."""
        return num * _seconds_per_token(predictions) * self._tokens_per_request

    def _in_turns(
        self, predictions: Sequence[Prediction], num: int, goes_on: Callable[[int], bool]
    ) -> list[Tried]:
        """Decode so many requests with each, turn after turn; the first is AR's."""
        prompts = self.prompts[:num]
        if self.model.step is not None:  # shapes that are new are compiled, recorded: not timed
            longest = sorted(prompts, key=len)[-self.num_rows :]
            for prediction in predictions:
                self.run(prediction.decoder, longest)
        speeds: list[list[float]] = [[] for _ in predictions]
        last: list[Decoded] = [None] * len(predictions)
        for turn in takewhile(goes_on, count()):
            for place in range(len(predictions)):
                number = (turn + place) % len(predictions)  # each turn begins with another
                start = time.perf_counter()
                last[number] = self.run(predictions[number].decoder, prompts)
                seconds = time.perf_counter() - start
                speeds[number].append(last[number].num_tokens / seconds)
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


def _left_behind(found: Sequence[Tried], num_kept: int) -> list[Tried]:
    """Mark those of a heat, the fastest first, who are not kept."""
    return [one._replace(is_final=False) for one in found[num_kept:]]


def _seconds_per_token(predictions: Sequence[Prediction]) -> float:
    """Give what one token from each of the decoders takes."""
    return sum(1 / one.tokens_per_second for one in predictions)


def best_of(tried: Sequence[Tried]) -> Tried:
    """Choose the fastest finalist of those faster than AR in most turns; AR, the first, of none.

    The luckiest of several equals would often seem faster in the median.
    """
    faster = [one for one in tried if one.is_final and one.times_ar_low > 1]
    return max(faster, key=lambda one: one.times_ar, default=tried[0])
