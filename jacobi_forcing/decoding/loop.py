"""The decoding loop: propose, forward, accept, commit, for a batch of rows at their own lengths.

The only place that calls a model to decode. Whatever the strategy, the tokens are the model's own
choices: a guess is kept only where it equals the choice behind a text already kept.
"""

import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import islice
from typing import NamedTuple

import torch
from torch import Tensor

from jacobi_forcing.config import DecoderConfig, check
from jacobi_forcing.decoding.draft import ROOT, Draft, Settled, chain, settle
from jacobi_forcing.decoding.events import Finished, Forward
from jacobi_forcing.decoding.gumbel import likeliest
from jacobi_forcing.decoding.sampling import GREEDY, NOTHING, Asked, Sampler, Sampling, choose
from jacobi_forcing.decoding.stops import Stop, StopStrings
from jacobi_forcing.decoding.strategies import Strategy
from jacobi_forcing.decoding.width import FullWidth, Width
from jacobi_forcing.errors import ConfigError, DataError
from jacobi_forcing.models import Branches, CausalLM, make_forward

Event = Forward | Finished


class Request(NamedTuple):
    """One prompt to continue."""

    index: int  # names the request in the events
    prompt_ids: Sequence[int]
    max_new_tokens: int  # at least 1
    sampling: Sampling = GREEDY
    stop: Sequence[str] | Stop = ()  # texts that end the answer and stay in it, or any rule
    wants_logprobs: bool = False


@dataclass
class _Row:
    """A request in flight: its text, and which of it the cache does not hold yet."""

    request: Request
    strategy: Strategy
    sampler: Sampler | None  # None where the likeliest token is taken
    stop: Stop | None
    ids: list[int]  # prompt and committed tokens
    pending: list[int]  # the end of `ids` that no forward has seen: the prompt, later one token
    draft: Draft
    num_forwards: int = 0
    end: str = ""  # why it is done, once it is

    @property
    def offset(self) -> int:
        return len(self.ids) - len(self.request.prompt_ids)

    @property
    def budget(self) -> int:
        return self.request.max_new_tokens - self.offset

    @property
    def answer(self) -> list[int]:
        return self.ids[len(self.request.prompt_ids) :]

    @property
    def branches(self) -> Branches | None:
        """How the draft's branches lie in the forward's input."""
        draft, num_pending = self.draft, len(self.pending)
        if not draft.num_branch_tokens:
            return None
        before = list(range(num_pending))
        ways: list[list[int]] = []
        for node, parent in enumerate(draft.parents, num_pending):
            ways.append([*(before if parent == ROOT else ways[parent]), node])
        ways = ways[draft.num_trunk :]
        first = num_pending + draft.num_trunk
        return Branches(first, positions=[len(way) - 1 for way in ways], ways=ways)


class DecodingLoop:
    """Rows in flight. Requests join and leave between steps; no row's ids depend on the others.

    Rows in use stay next to each other in the cache, so a forward reads it without a copy.

    Args:
        model: What to decode with.
        batch_size: Most requests in flight.
        max_tokens: Longest prompt plus answer, to size the cache; the model's context by default
            (give it where the context is large).
        branch_tokens: Tokens that a draft may hold beside its trunk, which need slots too.
        width: Limits how many guesses a forward carries; by default nothing does.
        prefill_tokens: Longer prompts are read in pieces of so many tokens: a mask is as large as
            a piece times the text before it. All pieces count as one forward, as for AR.
    """

    def __init__(
        self,
        model: CausalLM,
        *,
        batch_size: int = 1,
        max_tokens: int | None = None,
        branch_tokens: int = DecoderConfig.branch_tokens,
        width: Width | None = None,
        prefill_tokens: int = 1024,
    ):
        self.model = model
        self.prefill_tokens = prefill_tokens
        self.max_tokens = min(max_tokens or model.context_tokens, model.context_tokens)
        self.branch_tokens = branch_tokens
        self.batch_size = batch_size
        self.width = width or FullWidth()
        self.forward = make_forward(model, batch_size, self.max_tokens + branch_tokens)
        self._active: list[_Row] = []  # rows 0, 1, ... of the cache
        self._arrived: list[_Row] = []  # not yet prefilled; the rows behind those
        self._events: list[Event] = []  # of a step that was broken off, for the next one to give

    @property
    def num_free(self) -> int:
        """How many requests can join."""
        return self.batch_size - len(self._active) - len(self._arrived)

    @property
    def is_idle(self) -> bool:
        """Whether nothing is in flight."""
        return self.num_free == self.batch_size

    def add(self, request: Request, strategy: Strategy) -> None:
        """Let a request join; a refused one leaves the others as they are.

        Raises:
            DataError: The prompt is empty, holds an id that is no token, or does not fit into the
                context with one new token.
            ConfigError: The budget, the strategy's branches, the stop strings or ids in `sampling`
                are out of range.
        """
        assert self.num_free > 0, "no free row"
        check(
            request.max_new_tokens >= 1,
            f"max_new_tokens of prompt {request.index} is {request.max_new_tokens}, must be at "
            "least 1.",
        )
        self._check_ids(request)
        num_prompt = len(request.prompt_ids)
        if num_prompt == 0:
            raise DataError(f"prompt {request.index} is empty: there is nothing to continue.")
        if num_prompt >= self.max_tokens:
            raise DataError(
                f"prompt {request.index} has {num_prompt} tokens, but the context holds "
                f"{self.max_tokens} with the answer. Shorten it."
            )
        if strategy.max_branch_tokens > self.branch_tokens:
            raise ConfigError(
                f"the decoder of prompt {request.index} drafts up to {strategy.max_branch_tokens} "
                f"branch tokens, but the cache has room for {self.branch_tokens}."
            )
        # A row may not outgrow its slots: the budget ends where the context does.
        room = self.max_tokens - num_prompt
        request = request._replace(max_new_tokens=min(request.max_new_tokens, room))
        is_plain = request.sampling.is_plain
        stop = request.stop if callable(request.stop) else None
        if request.stop and stop is None:
            stop = StopStrings(self.model.tokenizer, request.stop)
        eos_ids = self.model.eos_ids
        ids = list(request.prompt_ids)
        self._arrived.append(
            _Row(
                request,
                strategy,
                None if is_plain else Sampler(request.sampling, num_prompt, eos_ids),
                stop,
                ids,
                pending=list(ids),
                draft=chain([]),
            )
        )

    def _check_ids(self, request: Request) -> None:
        """Refuse ids that the model has no embedding or logit for."""
        used, size = request.sampling, self.model.config.vocab_size
        for name, ids in (
            ("prompt", request.prompt_ids),
            ("logit_bias", used.logit_bias),
            ("bad_words", [token for word in used.bad_words for token in word]),
        ):
            wrong = next((token for token in ids if not 0 <= token < size), None)
            if wrong is not None:
                raise DataError(
                    f"{name} of prompt {request.index} holds {wrong}, which is no token: ids are "
                    f"0 to {size - 1}."
                )
        eos_id = getattr(used.constraint, "eos_id", None)
        check(
            eos_id is None or eos_id in self.model.eos_ids,
            f"the grammar of prompt {request.index} ends with id {eos_id}, but this model's end of "
            f"sequence is {sorted(self.model.eos_ids)}: it would go on behind the grammar's end.",
        )

    def cancel(self, index: int) -> None:
        """Let a request leave; the next step says that it did, with the answer so far."""
        for row in self._active + self._arrived:
            if row.request.index == index:
                row.end = row.end or "cancelled"

    def step(self) -> list[Event]:
        """Run one forward for every row; give what it settled.

        Whatever a constraint, a processor or a stop rule raises comes out of here and finds every
        row as it was, or settled whole: cancel the row that caused it, or try again.
        """
        events = self._events
        try:
            self._step(events)
        finally:
            self._compact()
        self._events = []
        return events

    def _step(self, events: list[Event]) -> None:
        events += [_finished(row) for row in self._active + self._arrived if row.end]
        self._arrived = [row for row in self._arrived if not row.end]
        self._compact()
        # Arrivals are prefilled apart: beside them, running rows would be padded to their width.
        num_running = len(self._active)
        if self._arrived:
            limit = self.width.limit(num_running + len(self._arrived))
            self._read_long_prompts(num_running)
            events += self._forward(num_running, self._arrived, limit)
            self._active += self._arrived
            self._arrived = []
        if num_running:
            limit = self.width.limit(num_running)
            start = time.perf_counter()
            settled = list(self._forward(0, self._active[:num_running], limit))
            num_tokens = sum(len(event.accepted) for event in settled if isinstance(event, Forward))
            self.width.observe(num_running, limit, num_tokens, time.perf_counter() - start)
            events += settled

    def _read_long_prompts(self, first_row: int) -> None:
        """Bring all but the last piece of every arrival's prompt into the cache."""
        for place, row in enumerate(self._arrived, first_row):
            self.forward.lengths[place] = 0
            row.pending = list(row.ids)  # whole again, where an earlier try was broken off
            while len(row.pending) > self.prefill_tokens:
                self.forward.logits(place, [row.pending[: self.prefill_tokens]], 1)
                self.forward.keep(place, self.prefill_tokens, [])
                row.pending = row.pending[self.prefill_tokens :]

    def _forward(self, first_row: int, rows: list[_Row], limit: int) -> Iterator[Event]:
        """Run one forward over neighbouring cache rows and commit what it settles."""
        for row in rows:
            # With m guesses a forward settles up to m + 1 tokens: no use in more than the budget.
            row.draft = row.strategy.propose(row.ids, row.offset, min(limit, row.budget - 1))
        logits = self.forward.logits(
            first_row,
            [row.pending + row.draft.tokens for row in rows],
            max(len(row.draft.tokens) for row in rows) + 1,
            [row.branches for row in rows],
        )
        chosen = _choose(rows, logits)
        every = [settle(row.draft, choices) for row, choices in zip(rows, chosen, strict=True)]
        # Stop rules are others' code: what they raise finds all rows as they were.
        ends = [self._end(row, settled.tokens) for row, settled in zip(rows, every, strict=True)]
        for number, (row, settled, end) in enumerate(zip(rows, every, ends, strict=True)):
            # Of the right guesses, the trunk's lie where they belong, those of branches do not.
            # Everything else of the draft stays behind the row's length, to be written over.
            num_in_place = sum(node == depth for depth, node in enumerate(settled.path))
            num_pending = len(row.pending)
            rest = [num_pending + node for node in settled.path[num_in_place:]]
            self.forward.keep(first_row + number, num_pending + num_in_place, rest)
            scores = logits[number] if row.request.wants_logprobs else None
            yield from self._commit(row, settled, end, scores)

    def _end(self, row: _Row, accepted: list[int]) -> tuple[int, str]:
        """Say how many of the accepted tokens are part of the answer, and why it ends, if it does.

        Raises:
            ConfigError: The row's constraint, bans or processors leave no token to choose.
        """
        for count, token in enumerate(accepted, 1):
            if token == NOTHING:
                raise ConfigError(
                    f"prompt {row.request.index}: behind {row.offset + count - 1} tokens of its "
                    "answer every token is forbidden by its constraint, bad words or processors."
                )
            if token in self.model.eos_ids:
                return count, "eos"
            if row.stop is not None and row.stop(row.answer + accepted[:count]):
                return count, "stop"
        return len(accepted), ""

    def _commit(
        self, row: _Row, settled: Settled, end: tuple[int, str], scores: Tensor | None
    ) -> Iterator[Event]:
        path, accepted, tail = settled
        count, reason = end
        # A guess must be a token: some choices behind wrong ones may be NOTHING.
        accepted, tail = ([max(token, 0) for token in ids] for ids in (accepted, tail))
        row.strategy.observe(accepted, tail)
        row.end = row.end or reason
        # What follows an end is no part of the answer; as choices, it still is a tail.
        accepted, tail = accepted[:count], accepted[count:] + tail
        offset = row.offset
        row.ids += accepted
        row.pending = row.ids[-1:]
        logprobs = None if scores is None else _logprobs(scores, row.draft, path, accepted)
        index, number = row.request.index, row.num_forwards
        yield Forward(index, number, offset, row.draft, path, accepted, tail, logprobs)
        row.num_forwards += 1
        if row.budget <= 0:
            row.end = row.end or "length"
        if row.end:
            yield _finished(row)

    def _compact(self) -> None:
        """Drop finished rows, filling their places from the end."""
        active, lengths = self._active, self.forward.lengths
        place = 0
        while place < len(active):
            if not active[place].end:
                place += 1
                continue
            last = active.pop()
            if place < len(active):
                active[place] = last
                self.forward.cache.move_row(len(active), place)
                lengths[place] = lengths[len(active)]
        lengths[len(active) :] = [0] * (len(lengths) - len(active))


def _finished(row: _Row) -> Finished:
    return Finished(row.request.index, row.answer, row.end, row.num_forwards)


@torch.inference_mode()
def _choose(rows: list[_Row], logits: Tensor) -> list[list[int]]:
    """Choose behind every row's committed text and behind each node of its draft.

    Args:
        rows: B rows.
        logits: [B, Q, V]; a row's own are its last ones.

    Returns:
        Per row, 1 + nodes ids.
    """
    choices = likeliest(logits)
    asked = {
        number: Asked(row.sampler, logits[number, -len(row.draft.tokens) - 1 :], row.ids, row.draft)
        for number, row in enumerate(rows)
        if row.sampler is not None
    }
    if asked:
        for number, found in zip(asked, choose(list(asked.values())), strict=True):
            choices[number, -len(found) :] = found
    every = choices.tolist()  # the step's only wait for the device
    return [one[-len(row.draft.tokens) - 1 :] for row, one in zip(rows, every, strict=True)]


@torch.inference_mode()
def _logprobs(
    scores: Tensor, draft: Draft, path: Sequence[int], accepted: Sequence[int]
) -> list[float]:
    """Give log p(token), in nats, of accepted tokens under the model's own [Q, V] logits."""
    scores = scores[-len(draft.tokens) - 1 :]
    behind = [0, *(node + 1 for node in path)][: len(accepted)]
    found = scores[behind].float().log_softmax(-1)
    return found[range(len(accepted)), list(accepted)].tolist()


def decode(
    model: CausalLM,
    requests: Iterable[Request],
    make: Callable[[Request], Strategy],
    *,
    batch_size: int = 1,
    max_tokens: int | None = None,
    branch_tokens: int = DecoderConfig.branch_tokens,
    width: Width | None = None,
) -> Iterator[Event]:
    """Decode requests, `batch_size` at a time, and yield what every forward settled.

    Args:
        model: What to decode with.
        requests: Taken from lazily, when there is room.
        make: Makes the strategy of a request.
        batch_size: See DecodingLoop.
        max_tokens: See DecodingLoop.
        branch_tokens: See DecodingLoop.
        width: See DecodingLoop.

    Raises:
        DataError: See DecodingLoop.add.
    """
    loop = DecodingLoop(
        model,
        batch_size=batch_size,
        max_tokens=max_tokens,
        branch_tokens=branch_tokens,
        width=width,
    )
    waiting = iter(requests)
    while True:
        for request in islice(waiting, loop.num_free):
            loop.add(request, make(request))
        if loop.is_idle:
            return
        yield from loop.step()


def decode_one(
    model: CausalLM,
    prompt_ids: Sequence[int],
    strategy: Strategy,
    max_new_tokens: int,
    on_forward: Callable[[Forward], None] = lambda _: None,
    **more,
) -> tuple[Finished, list[Forward]]:
    """Decode a single prompt; return its answer and what each forward settled.

    `on_forward` is told of each as it happens; `more` are fields of Request.
    """
    request = Request(0, prompt_ids, max_new_tokens, **more)
    events = decode(
        model,
        [request],
        lambda _: strategy,
        max_tokens=len(prompt_ids) + max_new_tokens,
        branch_tokens=strategy.max_branch_tokens,
    )
    forwards: list[Forward] = []
    for event in events:
        if isinstance(event, Finished):
            break
        forwards.append(event)
        on_forward(event)
    return event, forwards
