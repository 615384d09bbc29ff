"""The next forward is launched before the host has read what the last one chose.

Between two forwards the host follows the choices through the drafts, looks for ends, tells whoever
listens, and lays out the next input: about a millisecond, in which a GPU would wait. Here the
device makes the next drafts itself (`decoding.device_draft`), so that the next forward is under way
while the host does all this for the last one. The host remains the only judge: it makes the same
drafts from what it reads, and takes a forward's choices only where that forward was asked the same.

A token stays in the slot where its forward put it, also where a branch won: what is verified, and
which position it has, is known per slot, and new tokens take the lowest free ones. `leave` puts
them in order again.

Shapes: as in `device_draft`; K = cache slots that a forward can see.
"""

import logging
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cache
from typing import NamedTuple

import torch
from torch import Tensor

from jacobi_forcing.decoding.device_draft import (
    Kind,
    Nodes,
    kind_of,
    noise_of,
    propose,
    rows_of,
    settle,
)
from jacobi_forcing.decoding.draft import ROOT, Draft
from jacobi_forcing.decoding.gumbel import as_long, likeliest
from jacobi_forcing.decoding.request import Row
from jacobi_forcing.decoding.sampling import LOGITS_AT_ONCE, Law, draw_alike
from jacobi_forcing.models import RaggedForward
from jacobi_forcing.models.inference import inferring

logger = logging.getLogger(__name__)


def common_kind(rows: Sequence[Row]) -> Kind | None:
    """Give the kind that rows share; None where the device cannot draft or choose for them."""
    kinds = {kind_of(row.strategy) for row in rows}
    can_choose = all(row.sampler is None or not row.sampler.reads_text for row in rows)
    if len(kinds) != 1 or not can_choose or any(row.request.wants_logprobs for row in rows):
        return None
    return kinds.pop()


@dataclass(eq=False)
class Ticket:
    """A forward under way."""

    nodes: Nodes
    slots: Tensor  # [B, Q] long
    choices: Tensor  # [B, Q] long
    limit: int  # guesses per row it was allowed
    found: Tensor  # [5, B, Q] long on the host, once `is_there`
    is_there: torch.cuda.Event | None  # None where nothing has to be waited for

    def read(self) -> list["Read"]:
        """Wait for the forward; give what it was asked and what it chose, per row."""
        if self.is_there is not None:
            self.is_there.synchronize()
        answers = []
        for ids, used, parents, choices, num_text in zip(*self.found.tolist(), strict=True):
            places = [place for place, is_used in enumerate(used) if is_used]
            number = {place: node for node, place in enumerate(places, ROOT)}
            behind = [number[parents[place]] for place in places[1:]]
            num_trunk = sum(place < self.nodes.num_chain for place in places) - 1
            asked = Draft([ids[place] for place in places[1:]], behind, num_trunk, [])
            chosen = [choices[place] for place in places]
            answers.append(Read(num_text[0], ids[0], asked, chosen))
        return answers


class Read(NamedTuple):
    """What a forward was asked about a row, and what it chose."""

    num_text: int  # committed tokens
    newest: int  # the last of them
    draft: Draft  # without its sources
    choices: list[int]  # 1 + nodes, as for `draft.settle`

    def is_about(self, row: Row) -> bool:
        """Whether the row's own draft asks the same."""
        return (self.num_text, self.newest, *self.draft[:3]) == (
            len(row.ids),
            row.ids[-1],
            *row.draft[:3],
        )


class Overlap:
    """Rows whose forwards follow each other without waiting for the host.

    Args:
        forward: Its cache holds all of the rows' text but the newest token.
        rows: Cache rows 0, 1, ..., of one kind; the same ones until `leave`.
        kind: Theirs.
    """

    @inferring  # as `launch`: tensors of another mode are compiled for again
    def __init__(self, forward: RaggedForward, rows: Sequence[Row], kind: Kind):
        self.forward = forward
        self.rows = list(rows)
        self.kind = kind
        self.ticket: Ticket | None = None  # of the latest forward, not yet settled on the device
        self._noise = [(noise, noise.num_drawn) for noise in map(noise_of, rows) if noise]
        device = forward.device
        self.state = rows_of(rows, kind, device)  # theirs on the device, a forward ahead
        num_slots = forward.cache.num_slots
        numbers = torch.arange(num_slots + 1, device=device).expand(len(rows), -1)
        self.is_held = numbers < self.state.num_text[:, None] - 1  # [B, slots + 1], verified
        self.positions = numbers.clone()  # [B, slots + 1] long, of what lies in a slot
        self.laws = _laws(rows, device)
        self._within: dict[int, Tensor] = {}
        step = forward.model.step
        compiles = step is not None and not step.failure
        self._propose, self._settle_rows = _fused() if compiles else (propose, settle)

    @property
    def has_noise(self) -> bool:
        """Whether the noise foretold is certain to last for another forward."""
        ahead = 2 * self.kind.block_size  # what forwards that the host has not read may take
        most = self.state.uniforms.shape[1] - ahead
        return all(noise.num_drawn - before <= most for noise, before in self._noise)

    @inferring
    def launch(self, limit: int) -> Ticket:
        """Begin the forward behind the latest one, with at most `limit` guesses per row."""
        # Of a forward that nobody has read yet, the host knows the most that it can settle.
        num_unread = 0 if self.ticket is None else self.kind.num_nodes
        num_known = max(len(row.ids) for row in self.rows)
        num_visible = num_known + num_unread + self.kind.num_nodes
        num_visible = min(num_visible, self.forward.cache.num_slots)
        self._settle()
        self.state, nodes = self._propose(self.state, self.kind, limit)
        slots = self._free_slots(nodes.is_used, num_visible)
        depth = torch.where(nodes.is_used, nodes.depth, 0)
        positions = self.state.num_text[:, None] - 1 + depth
        self.positions.scatter_(1, slots, positions)
        # What is verified, and the way to oneself.
        held = torch.nn.functional.pad(self.is_held[:, :num_visible], (0, 1))  # one for padding
        visible = held[:, None].repeat(1, slots.shape[1], 1)
        places = slots.clamp(max=num_visible)[:, None]
        visible.scatter_(2, places.expand_as(nodes.way), nodes.way)
        some = self._nodes_within(limit)  # a narrow forward has no places for the others
        logits = self.forward.logits_at(
            nodes.ids[:, some],
            positions[:, some],
            slots[:, some],
            visible[:, some, :num_visible],
            self.positions[:, :num_visible],
        )
        choices = torch.zeros_like(nodes.ids)
        choices[:, some] = self._choose(logits, positions[:, some])
        num_text = self.state.num_text[:, None].expand_as(choices)
        found = torch.stack([nodes.ids, nodes.is_used.long(), nodes.parent, choices, num_text])
        self.ticket = Ticket(nodes, slots, choices, limit, *_to_host(found))
        return self.ticket

    def _settle(self) -> None:
        """Commit on the device what the latest forward settled."""
        if self.ticket is not None:
            nodes, choices = self.ticket.nodes, self.ticket.choices
            self.state, path = self._settle_rows(self.state, self.kind, nodes, choices)
            padding = self.forward.cache.padding_slot
            self.is_held.scatter_(1, torch.where(path, self.ticket.slots, padding), True)
            self.is_held[:, padding] = False
            self.ticket = None

    def _nodes_within(self, limit: int) -> Tensor:
        """List the places, long, that drafts of at most `limit` guesses may use."""
        if limit not in self._within:
            size, device = self.kind.block_size, self.forward.device
            trunk = torch.arange(min(1 + limit, size), device=device)
            last = size + min(limit, self.kind.max_branch_tokens)
            self._within[limit] = torch.cat([trunk, torch.arange(size, last, device=device)])
        return self._within[limit]

    def _free_slots(self, is_used: Tensor, num_visible: int) -> Tensor:
        """Give every used node a slot, [B, Q]: the lowest that hold nothing verified."""
        num_free = (~self.is_held[:, :num_visible]).cumsum(1)
        slots = torch.searchsorted(num_free, is_used.cumsum(1))
        return torch.where(is_used, slots, self.forward.cache.padding_slot)

    def _choose(self, logits: Tensor, positions: Tensor) -> Tensor:
        """Choose behind every node: [B, Q] long of [B, Q, V] logits."""
        choices = likeliest(logits)
        at_once = max(1, LOGITS_AT_ONCE // logits[0].numel())  # rows
        for law, every, seeds in self.laws:
            for numbers, own in zip(every.split(at_once), seeds.split(at_once), strict=True):
                drawn = draw_alike(
                    logits[numbers].flatten(0, 1).float(),
                    law,
                    own.repeat_interleave(logits.shape[1]),
                    (positions[numbers] + 1).flatten(),
                )
                choices[numbers] = drawn.view(len(numbers), -1)
        return choices

    @inferring
    def leave(self) -> None:
        """Bring the cache into the order that the host expects; every forward has been read."""
        self._settle()
        num_slots = self.forward.cache.num_slots
        held, positions = self.is_held[:, :num_slots], self.positions[:, :num_slots]
        is_moved = held & (positions != torch.arange(num_slots, device=held.device))
        moved = is_moved.any(1).tolist()
        for number, row in enumerate(self.rows):
            self.forward.lengths[number] = row.num_cached
            if moved[number]:
                order = torch.where(held[number], positions[number], num_slots).argsort()
                sources = order[: row.num_cached].tolist()
                first = next((i for i, slot in enumerate(sources) if i != slot), len(sources))
                self.forward.cache.move_slots(number, sources[first:], first)


class _Fused:
    """A function of many small operations on few numbers, compiled; as it is where that fails."""

    def __init__(self, function: Callable):
        self.plain = function
        self.function = torch.compile(function, dynamic=True)

    def __call__(self, *inputs):
        try:
            return self.function(*inputs)
        except torch.OutOfMemoryError:
            raise
        except Exception as error:  # a compiler's errors are of any kind
            if self.function is self.plain:
                raise
            what = " ".join(str(error).split())[:200] or type(error).__name__
            logger.warning("%s is not compiled: %s", self.plain.__name__, what)
            self.function = self.plain
            return self.plain(*inputs)


@cache
def _fused() -> tuple[_Fused, _Fused]:
    """Compile once for all models: graphs are kept by kind, for any number of rows and tokens."""
    return _Fused(propose), _Fused(settle)


def _laws(rows: Sequence[Row], device: torch.device) -> list[tuple[Law, Tensor, Tensor]]:
    """Group the rows that draw by temperature and truncation: their [N] numbers and seeds."""
    found: dict[Law, list[int]] = {}
    for number, row in enumerate(rows):
        if row.sampler is not None:
            found.setdefault(row.sampler.settings.law, []).append(number)
    laws = []
    for law, numbers in found.items():
        seeds = [as_long(rows[number].sampler.settings.seed) for number in numbers]
        laws.append((law, torch.tensor(numbers, device=device), torch.tensor(seeds, device=device)))
    return laws


def _to_host(found: Tensor) -> tuple[Tensor, torch.cuda.Event | None]:
    """Send a tensor to the host, without waiting for it."""
    if not found.is_cuda:
        return found.cpu(), None
    there = torch.empty(found.shape, dtype=found.dtype, pin_memory=True)
    there.copy_(found, non_blocking=True)
    event = torch.cuda.Event()
    event.record(torch.cuda.current_stream(found.device))  # which need not be the current device
    return there, event
