"""Drafts as tensors: `Window`, `Recycling` and `settle` for all rows at once, on the device.

What the host does in Python between two forwards, done where the tokens already are, so that the
next forward need not wait for the host (`decoding.overlap`). The same drafts, token for token: the
host makes them too, a forward later, and holds them against these.

A forward's nodes have fixed places: 0 the newest committed token (the root), 1 .. n - 1 the trunk,
behind it the branch tokens. Those that a draft does not use are marked, not left out.

Shapes: B = rows, n = block size, m = most branch tokens, Q = n + m nodes, S = old states, L = Q
tokens of a state at most, C = candidates looked at, T = tokens of the longest text.
"""

import random
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from jacobi_forcing.decoding.noise import Noise
from jacobi_forcing.decoding.pool import MOST_CANDIDATES, StatePool
from jacobi_forcing.decoding.request import Row
from jacobi_forcing.decoding.strategies import Autoregressive, Recycling, Strategy, Window

NONE = -1  # where there is no token


class Kind(NamedTuple):
    """What rows must have in common to be drafted together."""

    block_size: int = 1  # n; 1 is autoregressive
    noise: str = "text"
    noise_tokens: int = 0  # of the vocabulary
    num_states: int = 0
    max_branches: int = 0
    max_branch_tokens: int = 0

    @property
    def num_nodes(self) -> int:
        """Q."""
        return self.block_size + self.max_branch_tokens


def kind_of(strategy: Strategy) -> Kind | None:
    """Describe a strategy that can be drafted on the device; None for others."""
    if type(strategy) is Recycling:
        inner, pools = kind_of(strategy.strategy), strategy.pools
        if inner is None or len(pools) != 1 or not isinstance(pools[0], StatePool):
            return None
        return inner._replace(
            num_states=pools[0].num_states,
            max_branches=strategy.max_branches,
            max_branch_tokens=strategy.max_branch_tokens,
        )
    if type(strategy) is Window:
        return Kind(strategy.block_size, strategy.noise.source, strategy.noise.vocab_tokens)
    return Kind() if type(strategy) is Autoregressive else None


class Rows(NamedTuple):
    """What the device knows of the rows' texts and drafts.

    Fields:
        text: [B, T] long, prompt and committed ids.
        num_text: [B] long, how many.
        most_text: [B] long, how many there may be.
        guesses: [B, n - 1] long, for the tokens behind the committed text.
        num_guesses: [B] long.
        states: [B, S, L] long, the newest first; NONE behind a state's end.
        uniforms: [B, U] double, what the row's noise will be drawn with, in order.
        num_used: [B] long, how many of them were.
    """

    text: Tensor
    num_text: Tensor
    most_text: Tensor
    guesses: Tensor
    num_guesses: Tensor
    states: Tensor
    uniforms: Tensor
    num_used: Tensor


def rows_of(rows: Sequence[Row], kind: Kind, device: torch.device) -> Rows:
    """Bring rows of one kind to the device."""
    most = [len(row.request.prompt_ids) + row.request.max_new_tokens for row in rows]
    guesses = [getattr(_inner(row), "guesses", []) for row in rows]
    states = [
        [_filled(state, kind.num_nodes) for state in reversed(row.strategy.pools[0].states)]
        for row in rows
        if kind.num_states
    ]
    noise = [noise_of(row) for row in rows]
    # Most committed tokens bring one token of noise each; `Overlap.has_noise` watches the rest.
    num_uniforms = max(row.budget for row in rows) + 8 * kind.block_size
    uniforms = np.zeros((len(rows), num_uniforms if kind.block_size > 1 else 1))
    for row, source in zip(uniforms, noise, strict=True):
        if source is not None:
            row[:] = _foretold(source.random, num_uniforms)
    table = np.full((len(rows), kind.num_states, kind.num_nodes), NONE)
    for row, own in zip(table, states, strict=False):
        if own:
            row[: len(own)] = own

    def on_device(values) -> Tensor:
        return torch.from_numpy(np.asarray(values)).to(device)

    return Rows(
        text=on_device([_filled(row.ids, max(most) + 1) for row in rows]),
        num_text=on_device([len(row.ids) for row in rows]),
        most_text=on_device(most),
        guesses=on_device([_filled(some, kind.block_size - 1) for some in guesses]).long(),
        num_guesses=on_device([len(some) for some in guesses]),
        states=on_device(table),
        uniforms=on_device(uniforms),
        num_used=torch.zeros(len(rows), dtype=torch.long, device=device),
    )


def noise_of(row: Row) -> Noise | None:
    """Give what a row's drafts are filled with; None for autoregressive ones."""
    return getattr(_inner(row), "noise", None)


def _inner(row: Row) -> Strategy:
    return getattr(row.strategy, "strategy", row.strategy)


def _filled(ids: Sequence[int], length: int) -> np.ndarray:
    """Give [length] long, NONE behind the end of `ids`."""
    found = np.full(length, NONE)
    found[: len(ids)] = ids
    return found


def _foretold(generator: random.Random, count: int) -> np.ndarray:
    """Foretell a generator's next numbers, and leave it as it is: numpy's is the same one."""
    _, state, _ = generator.getstate()
    twin = np.random.RandomState()
    twin.set_state(("MT19937", np.array(state[:-1], np.uint32), state[-1]))
    return twin.random_sample(count)


class Nodes(NamedTuple):
    """What one forward is asked about.

    Fields:
        ids: [B, Q] long.
        is_used: [B, Q] bool.
        depth: [B, Q] long, guesses on the way to a node, itself included; 0 for the root.
        parent: [B, Q] long, places of nodes; the root's is itself.
        way: [B, Q, Q] bool, way[b, q] marks q and the nodes before it; of no meaning where unused.
        num_trunk: [B] long.
        num_chain: n, the places of the root and the trunk.
    """

    ids: Tensor
    is_used: Tensor
    depth: Tensor
    parent: Tensor
    way: Tensor
    num_trunk: Tensor
    num_chain: int


def propose(rows: Rows, kind: Kind, limit: int) -> tuple[Rows, Nodes]:
    """Draft as `Window` and `Recycling` do.

    Args:
        rows: B rows.
        kind: Theirs.
        limit: Most guesses of a row.

    Returns:
        The rows, which have drawn noise, and their drafts.
    """
    device, num = rows.text.device, len(rows.text)
    places = torch.arange(kind.block_size - 1, device=device)[None]
    # With m guesses a forward settles up to m + 1 tokens: no use in more than the budget.
    limits = (rows.most_text - rows.num_text - 1).clamp(min=0, max=limit)  # [B]
    wanted = limits.clamp(max=kind.block_size - 1)
    num_missing = (wanted - rows.num_guesses).clamp(min=0)
    if kind.block_size > 1:
        behind = places - rows.num_guesses[:, None]
        drawn = (rows.num_used[:, None] + behind).clamp(0, rows.uniforms.shape[1] - 1)
        drawn = rows.uniforms.gather(1, drawn)
        if kind.noise == "text":  # as random.choices does it
            noise = rows.text.gather(1, (drawn * rows.num_text[:, None]).long())
        else:
            noise = (drawn * kind.noise_tokens).long()
        rows = rows._replace(guesses=torch.where(behind < 0, rows.guesses, noise))
    rows = rows._replace(
        num_guesses=rows.num_guesses + num_missing, num_used=rows.num_used + num_missing
    )
    num_trunk = torch.minimum(rows.num_guesses, limits)
    newest = rows.text.gather(1, rows.num_text[:, None] - 1)
    ids = torch.cat([newest, rows.guesses], dim=1)
    order = torch.arange(kind.block_size, device=device)
    chain = Nodes(
        ids,
        is_used=order[None] <= num_trunk[:, None],
        depth=order.expand(num, -1),
        parent=(order - 1).clamp(min=0).expand(num, -1),
        way=(order[None] <= order[:, None]).expand(num, -1, -1),
        num_trunk=num_trunk,
        num_chain=kind.block_size,
    )
    if not kind.max_branch_tokens:
        return rows, chain
    return rows, _with_branches(chain, rows, kind, limits)


def _with_branches(chain: Nodes, rows: Rows, kind: Kind, limits: Tensor) -> Nodes:
    """Hang the pool's candidates on the trunk, sharing beginnings: `draft.grow` for all rows."""
    device = chain.ids.device
    found = _candidates(rows)  # [B, C, L - 1]
    depths = torch.arange(1, found.shape[2] + 1, device=device)
    found = torch.where(depths <= limits[:, None, None], found, NONE)
    # How far each goes along with the trunk, and with each other.
    on_trunk = torch.full_like(found[:, 0], NONE - 1)
    width = min(kind.block_size - 1, found.shape[2])
    on_trunk[:, :width] = torch.where(chain.is_used[:, 1:], chain.ids[:, 1:], NONE - 1)[:, :width]
    with_trunk = _common(found, on_trunk[:, None])  # [B, C]
    shared = _common(found[:, :, None], found[:, None])  # [B, C, C]; with itself: its length
    lengths = shared.diagonal(dim1=1, dim2=2)
    with_earlier = shared.tril(-1).amax(2)
    known = torch.maximum(with_trunk, with_earlier)
    new = lengths - known  # tokens that it would add
    adds = new > 0
    num_before = adds.cumsum(1) - adds.long()
    new = torch.where(num_before < kind.max_branches, new, 0)
    until = new.cumsum(1)  # [B, C]
    room = limits.clamp(max=kind.max_branch_tokens)
    # Branch token j is one of candidate `owner`, at `depth`.
    count = kind.max_branch_tokens
    number = torch.arange(count, device=device)
    owner = (until[:, None] <= number[:, None]).sum(2).clamp(max=found.shape[1] - 1)  # [B, m]
    is_used = number < torch.minimum(until[:, -1], room)[:, None]
    depth = known.gather(1, owner) + number - (until - new).gather(1, owner) + 1
    depth = torch.where(is_used, depth, 1).clamp(1, found.shape[2])
    batch = torch.arange(len(found), device=device)[:, None]
    ids = found[batch, owner, depth - 1].clamp(min=0)
    trunk_depth = with_trunk.gather(1, owner)
    # Token i is on the way to j where j's candidate has i's text as its beginning.
    together = shared[batch[:, :, None], owner[:, :, None], owner[:, None]]  # [B, m (j), m (i)]
    on_way = (together >= depth[:, None]) & (depth[:, None] <= depth[:, :, None])
    on_way = on_way & is_used[:, None] & is_used[:, :, None]
    on_way = on_way | torch.eye(count, dtype=torch.bool, device=device)
    before = on_way & (depth[:, None] == depth[:, :, None] - 1)
    of_branch = before.long().argmax(2) + kind.block_size
    parent = torch.where(trunk_depth >= depth - 1, depth - 1, of_branch)
    places = torch.arange(kind.block_size, device=device)
    way_on_trunk = places <= trunk_depth[:, :, None]  # [B, m, n], the root included
    nothing = chain.way.new_zeros(len(found), kind.block_size, count)
    way = torch.cat(
        [torch.cat([chain.way, nothing], 2), torch.cat([way_on_trunk, on_way], 2)], dim=1
    )
    return Nodes(
        torch.cat([chain.ids, ids], 1),
        torch.cat([chain.is_used, is_used], 1),
        torch.cat([chain.depth, depth], 1),
        torch.cat([chain.parent, parent], 1),
        way,
        chain.num_trunk,
        chain.num_chain,
    )


def _candidates(rows: Rows) -> Tensor:
    """Find what stood behind the newest token in old states: `StatePool.candidates` of all rows.

    Returns:
        [B, C, L - 1] long, the best first; NONE behind a candidate's end.
    """
    states, (num, num_states, width) = rows.states, rows.states.shape
    device = states.device
    places = torch.arange(width - 1, device=device)
    agreement = torch.zeros_like(states[:, :, :-1])
    agrees = states[:, :, 1:] != NONE  # something stands behind it
    for back in range(3):
        last = rows.text.gather(1, (rows.num_text[:, None] - 1 - back).clamp(min=0))
        exists = (rows.num_text > back)[:, None, None] & (places >= back)
        agrees = agrees & exists & (states.roll(back, 2)[:, :, :-1] == last[:, :, None])
        agreement = agreement + agrees
    ages = torch.arange(num_states, device=device)[:, None]
    rank = (3 - agreement) * num_states * width + ages * width + places
    count = min(MOST_CANDIDATES, num_states * (width - 1))
    best = rank.flatten(1).topk(count, largest=False).indices  # [B, C]
    is_one = agreement.flatten(1).gather(1, best) > 0
    age, place = best // (width - 1), best % (width - 1)
    behind = place[:, :, None] + 1 + torch.arange(width - 1, device=device)  # [B, C, L - 1]
    batch = torch.arange(num, device=device)[:, None, None]
    tokens = states[batch, age[:, :, None], behind.clamp(max=width - 1)]
    return torch.where((behind < width) & is_one[:, :, None], tokens, NONE)


def _common(one: Tensor, other: Tensor) -> Tensor:
    """Count the tokens that [..., L] sequences have in common at their beginning."""
    same = (one == other) & (one != NONE)
    return same.long().cumprod(-1).sum(-1)


def settle(rows: Rows, kind: Kind, nodes: Nodes, choices: Tensor) -> tuple[Rows, Tensor]:
    """Commit what a forward settled and remember the rest: `draft.settle` and `observe`.

    Args:
        rows: B rows.
        kind: Theirs.
        nodes: What the forward was asked about.
        choices: [B, Q] long, the model's choice behind each node.

    Returns:
        The rows, and [B, Q] bool, the nodes that turned out right, the root included.
    """
    device, num_nodes = choices.device, kind.num_nodes
    good = nodes.is_used & (nodes.ids == choices.gather(1, nodes.parent))
    good[:, 0] = True
    right = nodes.is_used & (good[:, None] | ~nodes.way).all(2)
    depth = torch.where(right, nodes.depth, -1)
    last = depth.argmax(1, keepdim=True)  # [B, 1]; siblings differ, so one node is deepest
    num_path = depth.gather(1, last)
    path = nodes.way.gather(1, last[:, :, None].expand(-1, -1, num_nodes))[:, 0]  # [B, Q]
    path = path & right
    # The state: tokens on the path, the choice behind, what was chosen further out.
    places = torch.arange(num_nodes + 1, device=device)[None]
    state = torch.full_like(choices, NONE)
    state = torch.nn.functional.pad(state, (0, 1), value=NONE)  # a place for what is left out
    on_path = torch.where(path & (nodes.depth > 0), nodes.depth - 1, num_nodes)
    state = state.scatter(1, on_path, nodes.ids)
    rest = _first_descendants(nodes, last)  # [B, Q]
    num_rest = rest.sum(1, keepdim=True)
    state = state.scatter(1, torch.where(rest, nodes.depth, num_nodes), choices)
    state = state.scatter(1, num_path, choices.gather(1, last))
    chosen = torch.nn.functional.pad(choices, (0, 1))
    is_further = (places > num_path + num_rest) & (places <= nodes.num_trunk[:, None])
    is_known = places <= num_path + num_rest
    state = torch.where(is_further, chosen, torch.where(is_known, state, NONE))[:, :num_nodes]
    total = torch.maximum(num_path + num_rest, nodes.num_trunk[:, None]) + 1
    # The text grows; behind the most that it may have there is one place for the rest.
    own = torch.arange(num_nodes, device=device)[None]
    target = torch.where(own <= num_path, rows.num_text[:, None] + own, rows.text.shape[1] - 1)
    target = target.clamp(max=rows.text.shape[1] - 1)
    ahead = num_path + 1 + torch.arange(kind.block_size - 1, device=device)
    return rows._replace(
        text=rows.text.scatter(1, target, state),
        num_text=rows.num_text + num_path[:, 0] + 1,
        guesses=state.gather(1, ahead.clamp(max=num_nodes - 1)),
        num_guesses=(total - num_path - 1)[:, 0].clamp(max=kind.block_size - 1),
        states=torch.cat([state[:, None], rows.states], dim=1)[:, : kind.num_states],
    ), path


def _first_descendants(nodes: Nodes, last: Tensor) -> Tensor:
    """Mark a branch's own rest: the node's first child, that one's first child, and so on.

    Returns:
        [B, Q] bool; nothing where `last` is on the trunk.
    """
    num_nodes = nodes.ids.shape[1]
    earlier = torch.ones(num_nodes, num_nodes, dtype=torch.bool, device=last.device).tril(-1)
    is_branch = nodes.is_used.clone()
    is_branch[:, : nodes.num_chain] = False
    siblings = nodes.parent[:, None] == nodes.parent[:, :, None]  # [B, Q, Q]
    is_first = ~(siblings & earlier & is_branch[:, None]).any(2)
    below = nodes.way.gather(2, last[:, None].expand(-1, num_nodes, -1))[:, :, 0]  # [B, Q]
    depth = nodes.depth.gather(1, last)
    deeper = (nodes.depth > depth)[:, None] & nodes.way  # [B, Q, Q]: on the way, behind `last`
    firsts = (is_first[:, None] | ~deeper).all(2)
    return is_branch & below & (nodes.depth > depth) & firsts & (last >= nodes.num_chain)
