"""The decoding loop in a thread of its own: any thread hands in requests and is told of answers.

The loop never waits for whoever reads, and nobody's mistake ends another's answer: what a request's
own code raises ends that request, what the model raises ends those in flight, and the next ones
begin on a new cache.
"""

import logging
import threading
import time
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from itertools import count
from typing import NamedTuple

from jacobi_forcing.config import STRATEGIES, DecoderConfig
from jacobi_forcing.decoding import DecodingLoop, Finished, Forward, Request, make_strategy
from jacobi_forcing.decoding.compare import AUTOREGRESSIVE
from jacobi_forcing.decoding.generation import Rules
from jacobi_forcing.decoding.strategies import branch_tokens, most_guesses
from jacobi_forcing.decoding.width import AutoWidth, FullWidth, Width
from jacobi_forcing.errors import JacobiForcingError
from jacobi_forcing.models import CausalLM
from jacobi_forcing.models.inference import inferring
from jacobi_forcing.serving.facts import Facts, facts_of

logger = logging.getLogger(__name__)


_WARM_UPS, _WARM_STEPS = 8, 5  # of compiling: texts that are tried, steps that are enough
_MOST_FAILURES = 5  # steps in a row: the device is lost, or has no room for the cache
TOO_LATE = "it waited longer than this server gives a request; try again later."


class Failed(NamedTuple):
    """A request ended without an answer."""

    request: int
    message: str
    is_ours: bool  # whether the server is to blame, and not what was asked
    is_late: bool = False  # its time was over before it began: later it may be done


Event = Forward | Finished | Failed


class BusyError(Exception):
    """No more requests may wait; `seconds` tells when to try again."""

    def __init__(self, seconds: float):
        super().__init__(f"too many requests are waiting; try again in {seconds:.0f} s")
        self.seconds = seconds


class ClosedError(Exception):
    """The engine takes no more requests."""


class Admission:
    """Says whether more requests may wait, and when to come again if not."""

    def __init__(self, batch_size: int, max_waiting: int):
        self.batch_size = batch_size
        self.max_waiting = max_waiting
        self._seconds = 0.1  # that a request takes, a running mean

    def check(self, num_new: int, num_there: int) -> None:
        """Raise BusyError if `num_new` cannot wait beside those that run or wait already."""
        if num_there + num_new > self.batch_size + self.max_waiting:
            num_waiting = max(0, num_there - self.batch_size)
            raise BusyError(max(1.0, (1 + num_waiting / self.batch_size) * self._seconds))

    def observe(self, arrived: float) -> None:
        """Learn from a request that is done now; `arrived` as `time.monotonic`."""
        self._seconds += (time.monotonic() - arrived - self._seconds) / 16


@dataclass(eq=False)
class Job:
    """A request on its way through the engine.

    Fields:
        request: Its index is given by the engine.
        decoder: How to decode it.
        deliver: Called in the engine's thread with each of its events; must return at once.
        deadline: As `time.monotonic`, when it is broken off.
    """

    request: Request
    decoder: DecoderConfig
    deliver: Callable[[Event], None]
    deadline: float
    arrived: float = field(default_factory=time.monotonic)
    ended_by: str = ""  # "cancelled" or "time", where it was not done by itself


@dataclass
class Load:
    """What the engine does, counted since it began."""

    running: int = 0  # answers in flight now
    waiting: int = 0  # requests that have not begun
    tokens: int = 0
    forwards: int = 0  # of rows: a step over 4 rows counts as 4
    steps: int = 0
    prompt_tokens: int = 0
    reused_tokens: int = 0  # of those: copied from earlier texts
    failures: int = 0  # steps that the model broke off


class Engine:
    """Runs one model's decoding loop.

    Args:
        model: What to decode with.
        decoder: The widest decoder that a request may ask for: it sizes the cache.
        batch_size: Most answers in flight.
        max_waiting: Most requests that have not begun.
        max_tokens: Longest prompt plus answer.
        prefill_tokens: See DecodingLoop.
        prefix_tokens: See DecodingLoop.
        adapts_width: Let the number of guesses follow the load (`AutoWidth`).

    Raises:
        ModelError: The model's generation_config.json asks for what the loop does not do.
    """

    def __init__(
        self,
        model: CausalLM,
        decoder: DecoderConfig,
        *,
        batch_size: int,
        max_waiting: int,
        max_tokens: int,
        prefill_tokens: int,
        prefix_tokens: int,
        adapts_width: bool = True,
    ):
        self.model = model
        self.rules = Rules(model)
        self.decoder = decoder
        self.batch_size = batch_size
        self.max_waiting = max_waiting
        self.max_tokens = max_tokens
        self.load = Load()
        self._cache = {
            "batch_size": batch_size,
            "max_tokens": max_tokens,
            "branch_tokens": _branch_room(decoder),
            "prefill_tokens": prefill_tokens,
            "prefix_tokens": prefix_tokens,
            "width": _width(decoder, adapts_width),
        }
        self.loop = DecodingLoop(model, **self._cache)
        self._indices = count()
        self._jobs: dict[int, Job] = {}  # in the loop, by their request's index
        self._waiting: deque[Job] = deque()
        self._changed = threading.Condition()  # guards what other threads touch: _waiting, ...
        self._cancelled: set[Job] = set()
        self._is_closed = False
        self._admission = Admission(batch_size, max_waiting)
        self._num_failed = 0  # steps, since the last that did not fail
        self._is_running = False
        self._ended = threading.Event()

    def reserve(self) -> None:
        """Allocate the cache, so that what does not fit is known before there are requests."""
        self.loop.forward.logits(0, [[self.model.pad_id]], 1)

    @inferring
    def warm_up(self) -> None:
        """Let a compiled model compile, which takes a minute that no client should wait for.

        One row is compiled apart from several, and one token, to which automatic width may fall.
        """
        width, self.loop.width = self.loop.width, FullWidth()
        for decoder in (self.decoder, AUTOREGRESSIVE):
            for num_rows in (1, min(2, self.batch_size)):
                for first in range(_WARM_UPS):  # an answer may end before it has begun
                    if self._try_out(decoder, num_rows, first) >= _WARM_STEPS:
                        break
        self.loop.width = width

    def _try_out(self, decoder: DecoderConfig, num_rows: int, first: int) -> int:
        """Decode beginnings that mean nothing; give the number of steps with all rows in flight."""
        ids = [first % self.model.vocab_tokens]
        room = min(3 * _WARM_STEPS * self.decoder.block_size, self.max_tokens - len(ids))
        for index in range(num_rows):
            strategy = make_strategy(decoder, self.model.vocab_tokens, index)
            self.loop.add(Request(index, ids, room), strategy)
        count = 0
        while not self.loop.is_idle and count < _WARM_STEPS:
            count += not any(isinstance(event, Finished) for event in self.loop.step())
        for index in range(num_rows):
            self.loop.cancel(index)
        while not self.loop.is_idle:
            self.loop.step()
        return count

    def start(self) -> None:
        """Begin to work, in a thread."""
        self._is_running = True
        threading.Thread(target=self.run, name="engine", daemon=True).start()

    @inferring
    def run(self, after_step: Callable[[], None] = lambda: None) -> None:
        """Work until `close`, or until there is no going on.

        In the thread that compiled the model, best: before PyTorch 2.13, CUDA graphs are recorded
        in the one that imported PyTorch only.

        Args:
            after_step: Called behind the deliveries of every step.
        """
        self._is_running = True
        try:
            while self._take():
                events = self._step()
                for event in events:
                    self._tell(event)
                self.load.running = len(self._jobs)
                after_step()
        finally:
            self._is_running = False
            self._ended.set()

    @property
    def facts(self) -> Facts:
        """What requests for its model are read by."""
        return facts_of(self.model)

    @property
    def is_alive(self) -> bool:
        """Whether it works; it ends by `close` only."""
        return self._is_running

    def submit(self, jobs: Sequence[Job]) -> None:
        """Hand in requests; all of them, or none.

        Raises:
            BusyError: Too many are waiting.
            ClosedError: After `close`.
        """
        with self._changed:
            if self._is_closed:
                raise ClosedError
            self._admission.check(len(jobs), len(self._jobs) + len(self._waiting))
            self._waiting.extend(jobs)
            self.load.waiting = len(self._waiting)
            self._changed.notify()

    def cancel(self, jobs: Sequence[Job]) -> None:
        """Break off requests, wherever they are; those that are done already do not matter."""
        with self._changed:
            self._cancelled.update(jobs)
            self._changed.notify()

    def close(self, seconds: float = 0.0) -> None:
        """Take no more requests, finish those there are for so long, then break them off."""
        with self._changed:
            self._is_closed = True
            self._changed.notify()
        if not self._is_running:
            return
        self._ended.wait(seconds)
        with self._changed:
            self._cancelled.update(self._jobs.values(), self._waiting)
            self._changed.notify()
        self._ended.wait(10)

    def _take(self) -> bool:
        """Take in what others asked for; wait where there is nothing to do. False at the end."""
        with self._changed:
            while not (self._waiting or self._jobs):
                if self._is_closed:
                    return False
                self._cancelled.clear()
                self._changed.wait()
            self._break_off()
            while self._waiting and self.loop.num_free:
                self._join(self._waiting.popleft())
            self.load.waiting = len(self._waiting)
            self.load.running = len(self._jobs)  # before anyone is told of a first token
        return True

    def _break_off(self) -> None:
        """Let go of requests that were cancelled or took too long."""
        now = time.monotonic()
        for job in [*self._jobs.values(), *self._waiting]:
            if job in self._cancelled:
                job.ended_by = "cancelled"
            elif now > job.deadline:
                job.ended_by = "time"
        self._cancelled.clear()
        for index, job in self._jobs.items():
            if job.ended_by:
                self.loop.cancel(index)
        for job in [job for job in self._waiting if job.ended_by]:
            self._waiting.remove(job)
            if job.ended_by == "time":
                deliver(job, Failed(-1, TOO_LATE, is_ours=True, is_late=True))
            else:
                deliver(job, Finished(-1, [], job.ended_by, 0))

    def _join(self, job: Job) -> None:
        """Let a request join the loop, or tell why it cannot."""
        index = next(self._indices)
        try:
            job.request = self._ruled(job.request)._replace(index=index)
            strategy = make_strategy(job.decoder, self.model.vocab_tokens, index)
            self.loop.add(job.request, strategy)
        except Exception as error:
            deliver(job, _failure(index, error))
            return
        self._jobs[index] = job
        self.load.prompt_tokens += len(job.request.prompt_ids)

    def _ruled(self, request: Request) -> Request:
        """Add what generation_config.json says of texts; it is read in this process alone."""
        ends = self.model.eos_ids | request.end_ids
        asked = (request.prompt_ids, request.max_new_tokens, ends)
        return request._replace(sampling=self.rules.apply(request.sampling, *asked))

    def _step(self) -> list[Event]:
        """Run one step; turn what it raises into the end of those it concerns."""
        try:
            events = self.loop.step()
        except Exception as error:
            blamed = self.loop.blamed
            if blamed is not None:
                self.loop.cancel(blamed)
                job = self._jobs.pop(blamed)
                deliver(job, _failure(blamed, error))
                return []
            logger.exception("a step failed: all answers in flight end, the next begin anew")
            self.load.failures += 1
            self._num_failed += 1
            self._begin_anew(error)
            return [_failure(index, error, is_ours=True) for index in self._jobs]
        self._num_failed = 0
        self.load.steps += 1
        self.load.reused_tokens = self.loop.prefixes.num_copied
        return events

    def _begin_anew(self, error: Exception) -> None:
        """Make a new loop; where that does not help, take no more requests."""
        if self._num_failed < _MOST_FAILURES:
            try:
                self.loop = DecodingLoop(self.model, **self._cache)
                return
            except Exception:
                logger.exception("there is no new cache")
        logger.error("there is no going on: the engine stops")
        with self._changed:
            self._is_closed = True
            waiting = list(self._waiting)
            self._waiting.clear()
        for job in waiting:
            deliver(job, _failure(-1, error, is_ours=True))

    def _tell(self, event: Event) -> None:
        job = self._jobs.get(event.request)
        if job is None:  # it was told already that it failed
            return
        if isinstance(event, Forward):
            self.load.tokens += len(event.accepted)
            self.load.forwards += 1
        else:
            del self._jobs[event.request]
            self._admission.observe(job.arrived)
        if isinstance(event, Finished) and event.reason == "cancelled":
            event = event._replace(reason=job.ended_by)
        deliver(job, event)


def deliver(job: Job, event: Event) -> None:
    """Tell a request's owner; what goes wrong there must not stop the engine."""
    try:
        job.deliver(event)
    except Exception:
        logger.exception("nobody could be told of request %d", event.request)


def _branch_room(decoder: DecoderConfig) -> int:
    """Give the branch tokens that any request may draft, whatever strategy it asks for."""
    return max(branch_tokens(replace(decoder, strategy=name)) for name in STRATEGIES)


def _width(decoder: DecoderConfig, adapts: bool) -> Width:
    return AutoWidth(most_guesses(decoder)) if adapts else FullWidth()


def _failure(index: int, error: Exception, is_ours: bool = False) -> Failed:
    """Say what went wrong; of our own mistakes clients learn no more than that there was one."""
    if isinstance(error, JacobiForcingError) and not is_ours:
        return Failed(index, " ".join(str(error).split()), is_ours=False)
    logger.error("request %d failed", index, exc_info=error)
    return Failed(index, "the model failed on this request.", is_ours=True)
