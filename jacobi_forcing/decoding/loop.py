"""The decoding loop: propose, forward, accept, commit, for a batch of rows at their own lengths.

The only place that calls a model to decode. Whatever the strategy, the tokens are the model's own
greedy ones: a guess is kept only where it equals the model's choice after a text already kept.
"""

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import torch

from jacobi_forcing.decoding.draft import Draft, Settled, chain, settle
from jacobi_forcing.decoding.events import Finished, Forward
from jacobi_forcing.decoding.strategies import Strategy
from jacobi_forcing.errors import DataError
from jacobi_forcing.models import Branches, CausalLM, RaggedForward


class Request(NamedTuple):
    """One prompt to continue."""

    index: int  # names the request in the events
    prompt_ids: Sequence[int]
    max_new_tokens: int  # at least 1


@dataclass
class _Row:
    """A request in flight: its text, and which of it the cache does not hold yet."""

    request: Request
    strategy: Strategy
    ids: list[int]  # prompt and committed tokens
    pending: list[int]  # the end of `ids` that no forward has seen: the prompt, later one token
    draft: Draft
    num_forwards: int = 0
    is_done: bool = False

    @property
    def offset(self) -> int:
        return len(self.ids) - len(self.request.prompt_ids)

    @property
    def budget(self) -> int:
        return self.request.max_new_tokens - self.offset

    @property
    def branches(self) -> Branches | None:
        """How the draft's branches lie in the forward's input."""
        draft, num_pending = self.draft, len(self.pending)
        if not draft.num_branch_tokens:
            return None
        depths = draft.depths()
        before = list(range(num_pending))
        nodes = range(draft.num_trunk, len(draft.tokens))
        return Branches(
            first=num_pending + draft.num_trunk,
            positions=[num_pending + depths[node] for node in nodes],
            ways=[before + [num_pending + n for n in draft.way(node)] for node in nodes],
        )


def decode(
    model: CausalLM,
    requests: Iterable[Request],
    make: Callable[[Request], Strategy],
    *,
    batch_size: int = 1,
    max_tokens: int | None = None,
    branch_tokens: int = 0,
) -> Iterator[Forward | Finished]:
    """Decode requests greedily, `batch_size` at a time, and yield what every forward settled.

    Rows leave as they finish and the next requests take their place. Rows in use stay next to each
    other in the cache, so a forward reads it without a copy.

    Args:
        model: What to decode with.
        requests: Taken from lazily, when there is room.
        make: Makes the strategy of a request.
        batch_size: Most requests in flight.
        max_tokens: Longest prompt plus answer, to size the cache; the model's context by default
            (give it where the context is large).
        branch_tokens: Tokens that a draft may hold beside its trunk, which need slots too.

    Raises:
        DataError: A prompt is empty or does not fit into the context with one new token.
    """
    max_tokens = min(max_tokens or model.context_tokens, model.context_tokens)
    forward = RaggedForward(model, batch_size, max_tokens + branch_tokens)
    waiting = iter(requests)
    active: list[_Row] = []
    while True:
        arrived = list(_admit(waiting, batch_size - len(active), make, max_tokens))
        if not active and not arrived:
            return
        # Arrivals are prefilled apart: beside them, running rows would be padded to their width.
        for first_row, rows in ((len(active), arrived), (0, list(active))):
            if rows:
                yield from _step(forward, first_row, rows, model.eos_ids)
        active += arrived
        _compact(forward, active)


def _admit(
    waiting: Iterator[Request], num_free: int, make: Callable[[Request], Strategy], max_tokens: int
) -> Iterator[_Row]:
    for _ in range(num_free):
        request = next(waiting, None)
        if request is None:
            return
        num_prompt = len(request.prompt_ids)
        if num_prompt == 0:
            raise DataError(f"prompt {request.index} is empty: there is nothing to continue.")
        if num_prompt >= max_tokens:
            raise DataError(
                f"prompt {request.index} has {num_prompt} tokens, but the context holds "
                f"{max_tokens} with the answer. Shorten it."
            )
        # A row may not outgrow its slots: the budget ends where the context does.
        request = request._replace(
            max_new_tokens=min(request.max_new_tokens, max_tokens - num_prompt)
        )
        ids = list(request.prompt_ids)
        yield _Row(request, make(request), ids, pending=list(ids), draft=chain([]))


def _step(
    forward: RaggedForward, first_row: int, rows: list[_Row], eos_ids: frozenset[int]
) -> Iterator[Forward | Finished]:
    """Run one forward over neighbouring cache rows and commit what it settles."""
    for row in rows:
        # With m guesses a forward settles up to m + 1 tokens: more than the budget is of no use.
        row.draft = row.strategy.propose(row.ids, row.offset, row.budget - 1)
    choices = forward.greedy(
        first_row,
        [row.pending + row.draft.tokens for row in rows],
        [len(row.draft.tokens) + 1 for row in rows],
        [row.branches for row in rows],
    )
    for cache_row, (row, chosen) in enumerate(zip(rows, choices, strict=True), first_row):
        settled = settle(row.draft, chosen)
        # Of the right guesses, those of the trunk lie where they belong, those of branches do not.
        # Everything else of the draft is left behind the row's length, to be written over.
        num_in_place = sum(node == depth for depth, node in enumerate(settled.path))
        num_pending = len(row.pending)
        rest = [num_pending + node for node in settled.path[num_in_place:]]
        forward.keep(cache_row, num_pending + num_in_place, rest)
        yield from _commit(row, settled, eos_ids)


def _commit(row: _Row, settled: Settled, eos_ids: frozenset[int]) -> Iterator[Forward | Finished]:
    path, accepted, tail = settled
    row.strategy.observe(accepted, tail)
    ended = next((i for i, token in enumerate(accepted) if token in eos_ids), None)
    if ended is not None:
        # What follows an EOS is no part of the answer; the model's choices there still are a tail.
        accepted, tail = accepted[: ended + 1], accepted[ended + 1 :] + tail
    index, offset = row.request.index, row.offset
    row.ids += accepted
    row.pending = row.ids[-1:]
    yield Forward(index, row.num_forwards, offset, row.draft, path, accepted, tail)
    row.num_forwards += 1
    if ended is not None or row.budget <= 0:
        reason = "eos" if ended is not None else "length"
        answer = row.ids[len(row.request.prompt_ids) :]
        row.is_done = True
        yield Finished(index, answer, reason, row.num_forwards)


@torch.inference_mode()
def _compact(forward: RaggedForward, active: list[_Row]) -> None:
    """Drop finished rows, filling their places from the end."""
    place = 0
    while place < len(active):
        if not active[place].is_done:
            place += 1
            continue
        last = active.pop()
        if place < len(active):
            active[place] = last
            forward.cache.move_row(len(active), place)
            forward.lengths[place] = forward.lengths[len(active)]
    for row in range(len(active), len(forward.lengths)):
        forward.lengths[row] = 0


def decode_one(
    model: CausalLM, prompt_ids: Sequence[int], strategy: Strategy, max_new_tokens: int
) -> tuple[Finished, list[Forward]]:
    """Decode a single prompt; return its answer and what each forward settled."""
    request = Request(0, prompt_ids, max_new_tokens)
    *forwards, finished = decode(
        model,
        [request],
        lambda _: strategy,
        max_tokens=len(prompt_ids) + max_new_tokens,
        branch_tokens=strategy.max_branch_tokens,
    )
    return finished, forwards
