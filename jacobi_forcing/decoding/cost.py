"""What a forward costs on this machine, and what a decode of known forwards would.

Shapes of forwards: rows x width (tokens per row) x context (tokens per row in the cache before).
"""

import logging
import math
import statistics
import time
from bisect import bisect_left
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

import numpy as np
import torch

from jacobi_forcing.decoding.gumbel import likeliest
from jacobi_forcing.decoding.imitation import Step
from jacobi_forcing.models import CausalLM, make_forward

logger = logging.getLogger(__name__)

_FREE = 1.1  # a width is called free while its forward takes at most this many times one's
_MOST_TURNS = 8
_NOISE, _DRIFT = 0.03, 0.3  # expected errors: of a timed decode, and of the curve as a whole
_IN_A_ROW = 3  # times that a shape is timed in a turn, behind one run that is not


class Shape(NamedTuple):
    """One forward."""

    num_rows: int
    context_tokens: int
    width: int


@dataclass
class Curve:
    """Seconds per forward, measured at some shapes; between them it is taken to be straight.

    Fields:
        seconds: Of decoding steps, the choice of tokens included.
        prefill_seconds: Of prompts' first forwards; their context is 0.
        is_stepped: A forward is padded up to the next shape, so it costs what that one does.
    """

    seconds: dict[Shape, float]
    prefill_seconds: dict[Shape, float]
    is_stepped: bool = False
    _axes: dict[int, tuple[list, ...]] = field(default_factory=dict, repr=False)

    def __call__(self, num_rows: float, context_tokens: float, width: float) -> float:
        """Give the seconds of a decoding step."""
        return self._of(self.seconds, num_rows, context_tokens, width)

    def prefill(self, num_rows: float, width: float) -> float:
        """Give the seconds of a first forward."""
        return self._of(self.prefill_seconds, num_rows, 0, width)

    def widest(self, num_rows: int) -> int:
        """Give the widest forward that was measured with so many rows; 0 for none."""
        fits = [s.width for s in self.seconds if s.num_rows == num_rows]
        return max(fits, default=0)

    def free_width(self, num_rows: int) -> int:
        """Give the widest forward that costs about what one token per row does."""
        one = self._mean(num_rows, 1)
        widths = sorted({s.width for s in self.seconds if s.num_rows == num_rows})
        free = [width for width in widths if self._mean(num_rows, width) <= _FREE * one]
        return max(free, default=1)

    def _mean(self, num_rows: int, width: int) -> float:
        found = [v for s, v in self.seconds.items() if (s.num_rows, s.width) == (num_rows, width)]
        return statistics.mean(found) if found else math.inf

    def _of(self, table: dict[Shape, float], *shape: float) -> float:
        """Interpolate along rows, then contexts, then widths; each axis as far as it is known."""

        def along(axis: int, known: list[Shape]) -> float:
            if axis == len(shape):
                return table[known[0]]
            groups: dict[int, list[Shape]] = {}
            for one in known:
                groups.setdefault(one[axis], []).append(one)
            low, high, part = _between(sorted(groups), shape[axis])
            if self.is_stepped and axis != 1 and 0 < part < 1:
                part = 1.0
            value = along(axis + 1, groups[low])
            if part:
                value += part * (along(axis + 1, groups[high]) - value)
            return value

        return max(along(0, list(table)), 1e-9)


def _between(points: Sequence[int], value: float) -> tuple[int, int, float]:
    """Give the points around a value, and its part of the way: above 1 behind the last one."""
    if value <= points[0] or len(points) == 1:
        return points[0], points[0], 0.0
    place = min(bisect_left(points, value), len(points) - 1)
    low, high = points[place - 1], points[place]
    return low, high, (value - low) / (high - low)


def sizes(most: int) -> list[int]:
    """Give 1, 2, 3, 4, 6, 8, 12, 16, ... up to `most`, itself included."""
    grown = {2**i * step // 2 for i in range(1, most.bit_length() + 1) for step in (2, 3)}
    return sorted({most, *(n for n in grown if n <= most)} | {1})


class Clock:
    """Times forwards of one model, through the forward that decodes with it."""

    def __init__(self, model: CausalLM, *, num_rows: int, max_tokens: int):
        self.model = model
        self.forward = make_forward(model, num_rows, max_tokens)
        self.forward.logits(0, [[model.pad_id]] * num_rows, 1)  # allocates the cache

    def seconds(self, shape: Shape, num_outputs: int | None = None) -> float:
        """Run one forward and wait for its choices, as a step does."""
        forward, generator = self.forward, torch.Generator().manual_seed(0)
        size = (shape.num_rows, shape.width)
        inputs = torch.randint(self.model.vocab_tokens, size, generator=generator).tolist()
        forward.lengths[: shape.num_rows] = [shape.context_tokens] * shape.num_rows
        start = time.perf_counter()
        likeliest(forward.logits(0, inputs, num_outputs or shape.width)).tolist()
        return time.perf_counter() - start


def measure_curve(
    clock: Clock,
    shapes: Sequence[Shape],
    prefills: Sequence[Shape],
    *,
    seconds: float,
    on_turn: Callable[[float], None] = lambda _: None,
    is_quick: bool = False,
) -> Curve:
    """Time shapes in turns, two at least, for about so many seconds; take medians.

    A decode runs forwards of one shape one after the other, so that is what is timed: the first
    behind another shape finds caches that are full of that one's, and takes up to twice as long.

    A shape that does not fit into memory is left out, and all wider ones with as many rows; one
    log line says so.

    Args:
        clock: Times them.
        shapes: Of decoding steps.
        prefills: Of first forwards.
        seconds: Ends the turns.
        on_turn: Told after each shape which part of the time is used, 0..1.
        is_quick: One turn will do, in which a shape is timed once.
    """
    kinds = {(shape, False) for shape in shapes} | {(shape, True) for shape in prefills}
    order = sorted(kinds, key=lambda kind: (kind[1], kind[0].num_rows, kind[0].width))
    found: dict[tuple[Shape, bool], list[float]] = {kind: [] for kind in order}
    start = time.perf_counter()
    for turn in range(_MOST_TURNS + 1):
        runs = 1 + (1 if is_quick else _IN_A_ROW) * (turn > 0)
        for kind in [kind for kind in order if kind in found]:
            if kind not in found:  # left out in this very turn
                continue
            shape, is_prefill = kind
            try:
                took = [clock.seconds(shape, 1 if is_prefill else None) for _ in range(runs)]
            except (RuntimeError, MemoryError) as error:
                _leave_out(found, kind, error)
                continue
            if turn:  # the first turn is the warm-up
                found[kind] += took[1:]
            used = (time.perf_counter() - start) / seconds
            on_turn(min(used, 1.0))
        if turn >= 2 - is_quick and time.perf_counter() - start > seconds:
            break
    medians = {kind: statistics.median(times) for kind, times in found.items()}
    step = clock.model.step
    return Curve(
        {shape: value for (shape, is_prefill), value in medians.items() if not is_prefill},
        {shape: value for (shape, is_prefill), value in medians.items() if is_prefill},
        is_stepped=step is not None and step.is_static and not step.failure,
    )


def _leave_out(found: dict, kind: tuple[Shape, bool], error: Exception) -> None:
    """Forget all shapes that need at least the memory of one that had too little."""
    text = str(error) or "out of memory"
    if "out of memory" not in text and "can't allocate memory" not in text:
        raise error
    shape, is_prefill = kind
    logger.warning(
        "out of memory at %d rows of %d tokens%s: nothing wider is looked at with so many rows.",
        shape.num_rows,
        shape.width,
        " (prefill)" if is_prefill else "",
    )
    for other in list(found):
        larger = other[0].num_rows >= shape.num_rows and other[0].width >= shape.width
        if larger and other[1] == is_prefill:
            del found[other]


class Together(NamedTuple):
    """One forward of the loop: the steps of its rows."""

    steps: list[Step]
    is_prefill: bool


def together(requests: Sequence[Sequence[Step]], num_rows: int) -> Iterator[Together]:
    """Group requests' steps into the forwards that a loop of so many rows would run.

    As in `DecodingLoop`: who arrives is prefilled beside those in flight, and a free row is taken
    at the next forward.
    """
    waiting = [list(request) for request in reversed(requests)]
    running: list[list[Step]] = []
    while waiting or running:
        arrived = [waiting.pop() for _ in range(min(num_rows - len(running), len(waiting)))]
        if arrived:
            yield Together([request.pop(0) for request in arrived], True)
        if running:
            yield Together([request.pop(0) for request in running], False)
        running = [request for request in running + arrived if request]


def forward_seconds(curve: Curve, forwards: Sequence[Together]) -> float:
    """Add up what forwards cost, without what the loop does around them."""
    total = 0.0
    for steps, is_prefill in forwards:
        width = max(step.num_tokens for step in steps)
        context = max(step.context_tokens for step in steps)
        num = len(steps)
        total += curve.prefill(num, width) if is_prefill else curve(num, context, width)
    return total


class LoopCost(NamedTuple):
    """What the loop does around a forward, for each of its rows."""

    seconds: float
    seconds_per_guess: float  # more for every one, of decoders without branches
    seconds_per_guess_with_branches: float
    drift: float = 1.0  # forwards take so many times what the curve says

    def of(self, step: Step, has_branches: bool) -> float:
        """Give the seconds for one row of a step."""
        per = self.seconds_per_guess_with_branches if has_branches else self.seconds_per_guess
        return self.seconds + per * (step.num_tokens - 1)


def decode_seconds(
    curve: Curve, cost: LoopCost, forwards: Sequence[Together], has_branches: bool
) -> float:
    """Add up what forwards cost, and what the loop does around them."""
    around = sum(
        cost.seconds if is_prefill else cost.of(step, has_branches)  # a prompt costs it nothing
        for steps, is_prefill in forwards
        for step in steps
    )
    return cost.drift * forward_seconds(curve, forwards) + around


class Timed(NamedTuple):
    """A decode that was timed."""

    forwards: Sequence[Together]
    has_branches: bool
    seconds: float


def fit_loop_cost(curve: Curve, timed: Sequence[Timed]) -> LoopCost:
    """Find what the loop costs from timed decodes, and what became of the machine meanwhile.

    A shared machine is faster in one minute and slower in another, so the curve may be off by a
    factor. Found are the factor and the costs, none below 0, whose relative errors are smallest in
    squares; a factor of 1 is the likeliest beforehand.

    Args:
        curve: Of the machine.
        timed: Decoders without branches, of several widths, AR among them; and some with branches.
    """
    terms, is_branched = [], []
    for forwards, has_branches, seconds in timed:
        steps = [step for one in forwards for step in one.steps]
        guesses = sum(s.num_tokens - 1 for one in forwards if not one.is_prefill for s in one.steps)
        parts = [forward_seconds(curve, forwards), len(steps), guesses]
        terms.append([part / (_NOISE * seconds) for part in parts])
        is_branched.append(has_branches)
    terms, is_branched = np.array(terms), np.array(is_branched)
    plain = np.vstack([terms[~is_branched], [1 / _DRIFT, 0, 0]])
    right = np.append(np.full(len(plain) - 1, 1 / _NOISE), 1 / _DRIFT)
    drift, base, per_guess = _least_squares(plain, right)
    # What is left of the others is due to their guesses.
    branched = terms[is_branched]
    rest = 1 / _NOISE - branched[:, :2] @ [drift, base]
    per_branched = _least_squares(branched[:, 2:], rest)[0] if len(branched) else per_guess
    return LoopCost(float(base), float(per_guess), float(per_branched), float(drift))


def _least_squares(terms: np.ndarray, right: np.ndarray) -> np.ndarray:
    """Solve for factors of which none is negative: who would be is left out, the worst first."""
    used = list(range(terms.shape[1]))
    found = np.zeros(len(used))
    while used:
        scale = np.abs(terms[:, used]).max(0) + 1e-300  # seconds and counts differ by much
        solution = np.linalg.lstsq(terms[:, used] / scale, right, rcond=None)[0] / scale
        if (solution >= 0).all():
            found[used] = solution
            break
        used.pop(int((solution * scale).argmin()))
    return found
