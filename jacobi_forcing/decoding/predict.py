"""Tokens per second of every decoder worth a thought, predicted; and which to try for real."""

from collections.abc import Callable, Iterator, Sequence
from itertools import cycle, islice
from typing import NamedTuple

from jacobi_forcing.config import DecoderConfig
from jacobi_forcing.decoding.cost import (
    Curve,
    LoopCost,
    decode_seconds,
    sizes,
    together,
)
from jacobi_forcing.decoding.imitation import (
    Imitation,
    Step,
    Text,
    predict_steps,
    tokens_per_forward,
)
from jacobi_forcing.decoding.strategies import branch_tokens

_BRANCHES = ((0, 0), (1, 8), (4, 4), (4, 8), (4, 16), (8, 16))  # pool_size, branch_tokens
_FEW_BRANCHES = ((0, 0), (4, 8))  # where a window does as well
_NEAR = 0.75  # of the best prediction: errors are about as large as the difference
_MOST_TOKENS = 1000  # of answers, for one prediction


class Prediction(NamedTuple):
    """What a decoder would do with some rows in flight."""

    decoder: DecoderConfig
    tokens_per_forward: float
    tokens_per_second: float

    @property
    def has_branches(self) -> bool:
        """Whether it tries n-grams beside its own guesses."""
        return branch_tokens(self.decoder) > 0


def candidates(widest: int) -> Iterator[DecoderConfig]:
    """Yield every decoder that is predicted, AR first; none feeds more than `widest` tokens."""
    yield DecoderConfig(strategy="autoregressive", pool_size=0)
    for size in (4, 6, 11, 16):
        if size <= widest:
            yield DecoderConfig(strategy="prompt-lookup", block_size=size)
    for size in sizes(widest)[1:]:
        for strategy, kept in (("window", _BRANCHES), ("jacobi", _FEW_BRANCHES)):
            yield from _with_branches(kept, widest, size, strategy=strategy, block_size=size)
        for num in (2, 3):
            for ratio in (0.0, 0.5):
                yield from _with_branches(
                    _FEW_BRANCHES,
                    widest,
                    size * num,
                    strategy="multiblock",
                    block_size=size,
                    max_blocks=num,
                    spawn_ratio=ratio,
                )


def _with_branches(
    kept: Sequence[tuple[int, int]], widest: int, trunk_tokens: int, **settings
) -> Iterator[DecoderConfig]:
    """Yield a decoder with each kind of branches that it has room for."""
    for pool_size, tokens in kept:
        if trunk_tokens + tokens <= widest:
            more = {"pool_size": pool_size} | ({"branch_tokens": tokens} if tokens else {})
            yield DecoderConfig(**settings, **more)


def some_texts(texts: Sequence[Text]) -> list[Text]:
    """Take as many texts as a prediction needs."""
    kept, total = [], 0
    for text in texts:
        if kept and total + len(text.answer) > _MOST_TOKENS:
            break
        kept.append(text)
        total += len(text.answer)
    return kept


def workload(some: Sequence, num_rows: int) -> list:
    """Give requests that keep so many rows busy: all there are, again and again where too few."""
    return list(islice(cycle(some), max(len(some), 2 * num_rows)))


class Predictor:
    """Predicts decoders; what a decoder settles is worked out once, for all numbers of rows.

    Args:
        imitation: Of the model.
        texts: Prompts with the model's answers.
        curve: Of the machine.
        vocab_tokens: Ids that noise may use.
        most_tokens: Longest answer that is asked for.
        seed: Of the noise.
    """

    def __init__(
        self,
        imitation: Imitation,
        texts: Sequence[Text],
        curve: Curve,
        *,
        vocab_tokens: int,
        most_tokens: int,
        seed: int = 0,
    ):
        self.curve = curve
        self.texts = some_texts(texts)
        self._predict = lambda decoder: predict_steps(
            imitation,
            self.texts,
            decoder,
            vocab_tokens=vocab_tokens,
            most_tokens=most_tokens,
            seed=seed,
        )
        self._steps: dict[DecoderConfig, list[list[Step]]] = {}

    def steps(self, decoder: DecoderConfig) -> list[list[Step]]:
        """Give the forwards of every text."""
        if decoder not in self._steps:
            self._steps[decoder] = self._predict(decoder)
        return self._steps[decoder]

    def __call__(self, decoder: DecoderConfig, num_rows: int, cost: LoopCost) -> Prediction:
        """Predict one decoder."""
        requests = workload(self.steps(decoder), num_rows)
        num_tokens = sum(step.num_settled for request in requests for step in request)
        forwards = list(together(requests, num_rows))
        seconds = decode_seconds(self.curve, cost, forwards, branch_tokens(decoder) > 0)
        return Prediction(decoder, tokens_per_forward(requests), num_tokens / seconds)

    def all(
        self,
        num_rows: int,
        widest: int,
        cost: LoopCost,
        on_decoder: Callable[[], None] = lambda: None,
    ) -> list[Prediction]:
        """Predict every candidate that fits, the fastest first."""
        found = []
        for decoder in candidates(min(widest, self.curve.widest(num_rows))):
            found.append(self(decoder, num_rows, cost))
            on_decoder()
        return sorted(found, key=lambda one: -one.tokens_per_second)


def promising(predictions: Sequence[Prediction], num: int) -> list[Prediction]:
    """Choose what is tried for real: AR, the fastest, and the fastest of every other kind.

    Neighbours in size are alike in what is wrong with their predictions; another strategy is not.
    """
    ar = next(one for one in predictions if one.decoder.strategy == "autoregressive")
    rest = [one for one in predictions if one is not ar]
    near = [one for one in rest if one.tokens_per_second >= _NEAR * rest[0].tokens_per_second]
    kinds: dict[tuple, Prediction] = {}
    for one in near:
        kinds.setdefault((one.decoder.strategy, one.has_branches), one)
    chosen = [*rest[: num // 2], *kinds.values(), *near]
    return [ar, *dict.fromkeys(chosen)][: num + 1]
