"""The decoding loop: propose, forward, accept, commit, for a batch of rows at their own lengths.

The only place that calls a model to decode. Whatever the strategy, the tokens are the model's own
choices: a guess is kept only where it equals the choice behind a text already kept.
"""

import logging
import time
from collections.abc import Iterator
from typing import Any

from torch import Tensor

from jacobi_forcing.config import DecoderConfig, check
from jacobi_forcing.decoding.draft import Settled, chain, in_place, settle
from jacobi_forcing.decoding.events import Finished, Forward
from jacobi_forcing.decoding.gumbel import likeliest
from jacobi_forcing.decoding.overlap import Overlap, Ticket, common_kind
from jacobi_forcing.decoding.request import Request, Row
from jacobi_forcing.decoding.sampling import NOTHING, Asked, Sampler, choose
from jacobi_forcing.decoding.stops import StopStrings
from jacobi_forcing.decoding.strategies import Strategy
from jacobi_forcing.decoding.width import FullWidth, Width
from jacobi_forcing.errors import ConfigError, DataError
from jacobi_forcing.models import CausalLM, make_forward
from jacobi_forcing.models.inference import inferring
from jacobi_forcing.models.prefixes import PrefixStore

Event = Forward | Finished

logger = logging.getLogger(__name__)


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
        prefill_tokens: Longer prompts are read in pieces of so many tokens, one in every step, so
            that running rows wait no longer than for a piece, and a mask is no larger than one
            times the text before it. All pieces count as one forward, as for AR.
        prefix_tokens: Keep so many tokens of finished texts, for prompts that begin like one
            (`models.prefixes`).
        overlaps: Launch the next forward before the host has read the last one's choices, as long
            as nobody joins or leaves (`decoding.overlap`); by default on a GPU.
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
        prefix_tokens: int = 0,
        overlaps: bool | None = None,
    ):
        self.model = model
        self.prefill_tokens = prefill_tokens
        self.max_tokens = min(max_tokens or model.context_tokens, model.context_tokens)
        self.branch_tokens = branch_tokens
        self.batch_size = batch_size
        self.width = width or FullWidth()
        self.forward = make_forward(model, batch_size, self.max_tokens + branch_tokens)
        self.prefixes = PrefixStore(self.forward.cache, prefix_tokens)
        overlaps = model.device.type == "cuda" if overlaps is None else overlaps
        self.overlaps = overlaps and model.exact is None  # overlapped forwards have other shapes
        self._overlap: Overlap | None = None
        self._stayed: list[Row] = []  # those who were there after the last step
        self._read_at = self._left_at = 0.0  # when a forward was read, and `step` left
        self.blamed: int | None = None  # the request whose own code made the last step raise
        self._active: list[Row] = []  # rows 0, 1, ... of the cache
        self._arrived: list[Row] = []  # not yet prefilled
        self._reading: Row | None = None  # of those: of its prompt, pieces are in the cache ...
        self._read_in = 0  # ... in this row
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
        size = self.model.config.vocab_size
        check(
            request.num_alternatives <= size,
            f"prompt {request.index} asks for {request.num_alternatives} alternatives to every "
            f"token, but the vocabulary has {size} tokens.",
        )
        is_plain = request.sampling.is_plain
        stop = request.stop if callable(request.stop) else None
        if request.stop and stop is None:
            stop = StopStrings(self.model.tokenizer, request.stop)
        eos_ids = self.model.eos_ids | request.end_ids
        ids = list(request.prompt_ids)
        prefix = self.prefixes.find(ids)
        self._arrived.append(
            Row(
                request,
                strategy,
                None if is_plain else Sampler(request.sampling, num_prompt, eos_ids),
                stop,
                ids,
                pending=ids[prefix.num_tokens if prefix else 0 :],
                draft=chain([]),
                prefix=prefix,
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
        eos_ids = self.model.eos_ids | request.end_ids
        check(
            eos_id is None or eos_id in eos_ids,
            f"the grammar of prompt {request.index} ends with id {eos_id}, but this model's end of "
            f"sequence is {sorted(eos_ids)}: it would go on behind the grammar's end.",
        )

    def cancel(self, index: int) -> None:
        """Let a request leave; the next step says that it did, with the answer so far."""
        for row in self._active + self._arrived:
            if row.request.index == index:
                row.end = row.end or "cancelled"

    @inferring
    def step(self) -> list[Event]:
        """Run one forward for every row; give what it settled.

        Where the next forward is under way already (`overlaps`), it is the one before that is told
        of. Whatever a constraint, a processor or a stop rule raises comes out of here and finds
        every row as it was, or settled whole: cancel the request that caused it, which is `blamed`,
        or try again.
        """
        events, self.blamed = self._events, None
        try:
            self._step(events)
        finally:
            self._compact()
            self._left_at = time.perf_counter()
        self._events = []
        return events

    def _step(self, events: list[Event]) -> None:
        is_anyone_done = any(row.end for row in self._active + self._arrived)
        if is_anyone_done:
            events += [_finished(row) for row in self._active + self._arrived if row.end]
            self._arrived = [row for row in self._arrived if not row.end]
        if self._overlap is not None:
            events += self._overlapped_step(self._overlap)
            return
        if is_anyone_done:
            self._compact()
        num_running = len(self._active)
        if self._arrived:
            self._let_join(events)
        for place, row in enumerate(self._active[:num_running]):
            while len(row.pending) > self.prefill_tokens:  # its text had to be given up
                self._read(row, place)
        if num_running:
            limit = self.width.limit(num_running)
            start = time.perf_counter()
            settled = list(self._forward(0, self._active[:num_running], limit))
            num_tokens = sum(len(event.accepted) for event in settled if isinstance(event, Forward))
            self.width.observe(num_running, limit, num_tokens, time.perf_counter() - start)
            events += settled
        # ALiBi's masks are read in Python, which waits for the device.
        if self.overlaps and not self.forward.mask.is_taught:
            self._begin_overlap()

    def _let_join(self, events: list[Event]) -> None:
        """Prefill the arrivals; apart, because beside them running rows would be padded."""
        num_running = len(self._active)
        self._read_piece()
        if arrived := self._place_arrivals(num_running):
            limit = self.width.limit(num_running + len(arrived))
            try:
                events += self._forward(num_running, arrived, limit)
            except BaseException:
                for row in arrived:  # who is placed where next time is open
                    row.pending = list(row.ids)
                told = [row for row in arrived if row.end]
                self._arrived = [row for row in self._arrived if row not in told]
                raise
            self._active += arrived
            self._arrived = [row for row in self._arrived if row not in arrived]

    def _begin_overlap(self) -> None:
        """Launch a forward for the next step to read, where the same rows go on."""
        rows = self._active
        same = rows == self._stayed and not any(row.end for row in rows)
        self._stayed = list(rows)
        kind = common_kind(rows) if same and not self._arrived else None
        if kind is not None:
            overlap = Overlap(self.forward, rows, kind)
            overlap.launch(self.width.limit(len(rows)))
            self._overlap, self._read_at = overlap, time.perf_counter()

    def _overlapped_step(self, overlap: Overlap) -> Iterator[Event]:
        """Commit the forward under way, while the next one runs.

        Once somebody joins or leaves, the forwards under way are the last of this kind.
        """
        self._overlap, self._stayed = None, []  # until it is certain that it goes on
        self._read_at += time.perf_counter() - self._left_at  # the caller's time is not ours
        num_rows, is_last = len(self._active), False
        try:
            while not is_last and not all(row.end for row in self._active):
                ticket, ended = overlap.ticket, any(row.end for row in self._active)
                is_last = ended or bool(self._arrived) or not overlap.has_noise
                if not is_last:
                    overlap.launch(self.width.limit(num_rows))
                settled = self._commit_read(ticket)
                if settled is None:
                    logger.warning("the device drafted something else than the host: read again")
                    self._forget()
                    return
                began, self._read_at = self._read_at, time.perf_counter()
                if not ended:
                    num_tokens = sum(len(e.accepted) for e in settled if isinstance(e, Forward))
                    seconds = self._read_at - began
                    self.width.observe(num_rows, ticket.limit, num_tokens, seconds)
                yield from settled
                if not is_last and not any(row.end for row in self._active):
                    self._overlap = overlap  # the next step reads what runs now
                    return
            overlap.leave()
        except BaseException:
            if self.blamed is None:
                self._forget()
            else:  # a request's own code, and not the cache, is to blame
                overlap.leave()
            raise

    def _commit_read(self, ticket: Ticket) -> list[Event] | None:
        """Commit what a forward settled for the rows that were not at their end before it.

        None where it was asked something else than the rows' own drafts: nothing is committed.
        """
        rows, chosen = [], []
        for row, read in zip(self._active, ticket.read(), strict=True):
            if row.end:
                continue
            limit = min(ticket.limit, row.budget - 1)
            row.draft = row.strategy.propose(row.ids, row.offset, limit)
            if not read.is_about(row):
                return None
            rows.append(row)
            chosen.append(read.choices)
        every = self._settle(rows, chosen)
        return [
            event
            for row, (settled, end) in zip(rows, every, strict=True)
            for event in self._commit(row, settled, end, {})
        ]

    def _forget(self) -> None:
        """Give up what the cache holds: all texts are read again."""
        for place, row in enumerate(self._active):
            row.pending = list(row.ids)
            self.forward.lengths[place] = 0

    def _read_piece(self) -> None:
        """Bring a piece of a long prompt into the cache: into its last row, free until all joined.

        One prompt at a time; short ones that came later overtake it.
        """
        if self._reading not in self._arrived:
            long = (row for row in self._arrived if len(row.pending) > self.prefill_tokens)
            self._reading, self._read_in = next(long, None), self.batch_size - 1
            if self._reading is not None and self._reading.prefix is not None:
                self.prefixes.load(self._reading.prefix, self._read_in)
        row = self._reading
        if row is not None and len(row.pending) > self.prefill_tokens:
            self.forward.lengths[self._read_in] = row.num_cached
            self._read(row, self._read_in)

    def _read(self, row: Row, place: int) -> None:
        """Bring the next piece of a row's pending tokens into a cache row."""
        self.forward.logits(place, [row.pending[: self.prefill_tokens]], 1)
        row.pending = row.pending[self.prefill_tokens :]
        self.forward.lengths[place] = row.num_cached

    def _place_arrivals(self, first_row: int) -> list[Row]:
        """Give the arrivals whose rest fits into one forward, from cache row `first_row` on."""
        ready = [row for row in self._arrived if len(row.pending) <= self.prefill_tokens]
        # What was read goes first: another may be about to take the row it lies in.
        ready.sort(key=lambda row: row is not self._reading)
        for place, row in enumerate(ready, first_row):
            if row is self._reading:
                self.forward.cache.move_row(self._read_in, place)
                self._read_in = place
            elif row.prefix is not None:
                self.prefixes.load(row.prefix, place)
            self.forward.lengths[place] = row.num_cached
            row.prefix = None  # copied: what is kept of other texts need not outlive its place
        return ready

    def _forward(self, first_row: int, rows: list[Row], limit: int) -> Iterator[Event]:
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
        every = self._settle(rows, self._choose(rows, logits))
        scores = [
            _logprobs(logits[number], row, settled, end) if row.request.wants_logprobs else {}
            for number, (row, (settled, end)) in enumerate(zip(rows, every, strict=True))
        ]
        for number, (row, (settled, end)) in enumerate(zip(rows, every, strict=True)):
            num_pending = len(row.pending)
            events = list(self._commit(row, settled, end, scores[number]))
            # Of the right guesses, the trunk's lie where they belong, those of branches do not.
            # Everything else of the draft stays behind the row's length, to be written over.
            num_in_place = sum(node == depth for depth, node in enumerate(settled.path))
            rest = [num_pending + node for node in settled.path[num_in_place:]]
            self.forward.keep(first_row + number, num_pending + num_in_place, rest)
            yield from events

    def _choose(self, rows: list[Row], logits: Tensor) -> list[list[int]]:
        """Choose behind every row's committed text and behind each node of its draft.

        Args:
            rows: B rows.
            logits: [B, Q, V]; a row's own are its last ones.

        Returns:
            Per row, 1 + nodes ids.
        """
        # The step's only wait for the device.
        if any(row.sampler is not None for row in rows):
            every = self._draw(rows, logits).tolist()
        else:
            every = likeliest(logits).tolist()
        return [one[-len(row.draft.tokens) - 1 :] for row, one in zip(rows, every, strict=True)]

    def _draw(self, rows: list[Row], logits: Tensor) -> Tensor:
        """Give [B, Q] choices: drawn where a row has a sampler, the likeliest where it has none."""
        choices = likeliest(logits)
        asked = {
            number: Asked(
                row.sampler, logits[number, -len(row.draft.tokens) - 1 :], row.ids, row.draft
            )
            for number, row in enumerate(rows)
            if row.sampler is not None
        }
        try:
            drawn = choose(list(asked.values()))
        except Exception:
            for number, one in asked.items():  # whose constraint or processor was it?
                self.blamed = rows[number].request.index
                choose([one])
            self.blamed = None
            raise
        for number, found in zip(asked, drawn, strict=True):
            choices[number, -len(found) :] = found
        return choices

    def _settle(
        self, rows: list[Row], chosen: list[list[int]]
    ) -> list[tuple[Settled, tuple[int, str]]]:
        """Follow the choices through the rows' drafts, and look for ends; changes nothing.

        Stop rules are others' code: what they raise finds all rows as they were.
        """
        every = [settle(row.draft, choices) for row, choices in zip(rows, chosen, strict=True)]
        if self.model.exact is not None:
            every = [in_place(settled) for settled in every]
        ends = [self._end(row, settled.tokens) for row, settled in zip(rows, every, strict=True)]
        self.blamed = None
        return list(zip(every, ends, strict=True))

    def _end(self, row: Row, accepted: list[int]) -> tuple[int, str]:
        """Say how many of the accepted tokens are part of the answer, and why it ends, if it does.

        Raises:
            ConfigError: The row's constraint, bans or processors leave no token to choose.
        """
        self.blamed = row.request.index
        for count, token in enumerate(accepted, 1):
            if token == NOTHING:
                raise ConfigError(
                    f"prompt {row.request.index}: behind {row.offset + count - 1} tokens of its "
                    "answer every token is forbidden by its constraint, bad words or processors."
                )
            if token in self.model.eos_ids or token in row.request.end_ids:
                return count, "eos"
            if row.stop is not None and row.stop(row.answer + accepted[:count]):
                return count, "stop"
        return len(accepted), ""

    def _commit(
        self, row: Row, settled: Settled, end: tuple[int, str], scores: dict[str, Any]
    ) -> Iterator[Event]:
        """Make what a forward settled part of the row; `scores` are fields of its event."""
        path, accepted, tail = settled
        count, reason = end
        if row.sampler is not None:  # a guess must be a token: behind wrong ones may be NOTHING
            accepted, tail = ([max(token, 0) for token in ids] for ids in (accepted, tail))
        row.strategy.observe(accepted, tail)  # others' code perhaps: first, and then nothing raises
        row.end = row.end or reason
        # What follows an end is no part of the answer; as choices, it still is a tail.
        accepted, tail = accepted[:count], accepted[count:] + tail
        offset = row.offset
        row.ids += accepted
        row.pending = row.ids[-1:]
        yield Forward(
            *(row.request.index, row.num_forwards, offset, row.draft, path, accepted, tail),
            **scores,
        )
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
            self.prefixes.save(place, active[place].ids[: lengths[place]])
            last = active.pop()
            if place < len(active):
                active[place] = last
                self.forward.cache.move_row(len(active), place)
                lengths[place] = lengths[len(active)]
        lengths[len(active) :] = [0] * (len(lengths) - len(active))


def _finished(row: Row) -> Finished:
    return Finished(row.request.index, row.answer, row.end, row.num_forwards)


def _logprobs(logits: Tensor, row: Row, settled: Settled, end: tuple[int, str]) -> dict[str, Any]:
    """Give log p(token), in nats, of the accepted tokens under the model's own [Q, V] logits.

    And behind the same texts the likeliest tokens, as many as were asked for, with theirs.
    """
    accepted = [max(token, 0) for token in settled.tokens[: end[0]]]
    behind = [0, *(node + 1 for node in settled.path)][: len(accepted)]
    found = logits[-len(row.draft.tokens) - 1 :][behind].float().log_softmax(-1)
    best = found.topk(row.request.num_alternatives)
    others = [
        list(zip(*pair, strict=True))
        for pair in zip(best.indices.tolist(), best.values.tolist(), strict=True)
    ]
    return {"logprobs": found[range(len(accepted)), accepted].tolist(), "alternatives": others}
