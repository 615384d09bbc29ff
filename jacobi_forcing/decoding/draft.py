"""A draft: what one forward is asked about, as a tree of token ids behind the committed text.

The strategy's own guesses are its trunk. Recycled n-grams hang on it as branches; those that begin
alike share their beginning, so that no token is computed twice behind the same text.

        committed   12  7 ──  3 ── 41 ──  9        trunk: nodes 0, 1, 2
                         │     └──  8              branch: node 3
                         └── 41 ──  9              branch: nodes 4, 5

Every node's text is the committed text and the way to it; siblings never see each other. The
reference copies the cache once per candidate instead.
"""

from collections.abc import Iterable, Sequence
from typing import NamedTuple

ROOT = -1  # the newest committed token, as a node's parent


class Draft(NamedTuple):
    """Guessed tokens and what each stands behind; a node's parent comes before it."""

    tokens: list[int]  # N ids
    parents: list[int]  # N nodes: parents[i] < i; ROOT for those behind the committed text
    num_trunk: int  # nodes 0 .. num_trunk - 1 are the strategy's own chain, in order
    sources: list[int]  # N: 0 the verified block, k > 0 the k-th speculative one, -k branch k

    @property
    def trunk(self) -> list[int]:
        """The strategy's own guesses."""
        return self.tokens[: self.num_trunk]

    @property
    def num_branch_tokens(self) -> int:
        """Nodes beside the trunk."""
        return len(self.tokens) - self.num_trunk

    def depths(self) -> list[int]:
        """Count the guesses before each node: 0 for those behind the committed text."""
        depths: list[int] = []
        for parent in self.parents:
            depths.append(0 if parent == ROOT else depths[parent] + 1)
        return depths

    def way(self, node: int) -> list[int]:
        """List the nodes from the committed text to `node`, itself included; none for ROOT."""
        nodes = []
        while node != ROOT:
            nodes.append(node)
            node = self.parents[node]
        return nodes[::-1]


def chain(tokens: Sequence[int], blocks: Sequence[int] = ()) -> Draft:
    """Make a draft without branches; `blocks` gives each token's block, all 0 by default."""
    num = len(tokens)
    return Draft(list(tokens), list(range(ROOT, num - 1)), num, list(blocks) or [0] * num)


def grow(
    trunk: Draft,
    candidates: Iterable[Sequence[int]],
    *,
    max_depth: int,
    max_branches: int,
    max_branch_tokens: int,
) -> Draft:
    """Hang candidates onto a trunk, sharing what they have in common with it and each other.

    Args:
        trunk: A chain of the strategy's guesses; it becomes part of the result.
        candidates: Continuations of the committed text, the best first; those that bring nothing
            new cost nothing.
        max_depth: Tokens behind the committed text that can still be of use.
        max_branches: Candidates taken that add tokens.
        max_branch_tokens: Tokens they may add together.
    """
    draft, branches, num_branches = trunk, {}, 0
    for candidate in candidates:
        if num_branches == max_branches or draft.num_branch_tokens >= max_branch_tokens:
            break
        node, num_before = ROOT, len(draft.tokens)
        for token in candidate[:max_depth]:
            following = _child(draft, branches, node, token)
            if following is None:
                if draft.num_branch_tokens >= max_branch_tokens:
                    break
                following = len(draft.tokens)
                branches[node, token] = following
                draft.tokens.append(token)
                draft.parents.append(node)
                draft.sources.append(-num_branches - 1)
            node = following
        num_branches += len(draft.tokens) > num_before
    return draft


def _branch_nodes(draft: Draft) -> dict[tuple[int, int], int]:
    """Map (parent, token) to the node, beside the trunk."""
    nodes = range(draft.num_trunk, len(draft.tokens))
    return {(draft.parents[node], draft.tokens[node]): node for node in nodes}


def _child(draft: Draft, branches: dict[tuple[int, int], int], node: int, token: int) -> int | None:
    """Find the node that stands for `token` behind `node`; None where there is none."""
    following = node + 1  # on the trunk; ROOT's is its first
    if following < draft.num_trunk and draft.tokens[following] == token:
        return following
    return branches.get((node, token))


class Settled(NamedTuple):
    """What one forward settled of a draft."""

    path: list[int]  # right nodes, 0 to N of them, each the child of the one before
    tokens: list[int]  # theirs, and the model's choice behind the last: at least one
    tail: list[int]  # its choices for the places behind those, right or wrong


def settle(draft: Draft, choices: Sequence[int]) -> Settled:
    """Follow the model's own choices through a draft.

    A guess is right if it is the model's choice behind right ones. The tail is one Jacobi
    iteration's result. Where a branch won, its own rest comes first, which saw what is right;
    further out, the trunk's choices for those places.

    Args:
        draft: N nodes.
        choices: N + 1 ids: the model's choice behind the committed text, then behind each node.
    """
    num_right = 0  # on the trunk, where the way begins
    while num_right < draft.num_trunk and draft.tokens[num_right] == choices[num_right]:
        num_right += 1
    path = list(range(num_right))
    last = num_right - 1
    if draft.num_branch_tokens:
        branches = _branch_nodes(draft)
        while (node := branches.get((last, choices[last + 1]))) is not None:
            path.append(node)
            last = node
    rest = _first_descendants(draft, last) if last >= draft.num_trunk else []
    tail = [choices[node + 1] for node in rest]
    tail += choices[len(path) + 1 + len(rest) : draft.num_trunk + 1]
    return Settled(path, [draft.tokens[n] for n in path] + [choices[last + 1]], tail)


def in_place(settled: Settled) -> Settled:
    """Accept the nodes that lie where the text will have them; the others begin the tail.

    Those are the trunk's, and a branch's that has no trunk before it. The tokens of other branches
    lie in other slots than the text that they are part of, so attention adds them up in another
    order. Where every bit counts, they are guesses for the next forward.
    """
    path, tokens, tail = settled
    num = sum(node == depth for depth, node in enumerate(path))
    return Settled(path[:num], tokens[: num + 1], tokens[num + 1 :] + tail)


def _first_descendants(draft: Draft, node: int) -> list[int]:
    """List a node's first child, that one's first child, and so on."""
    found = []
    for child in range(node + 1, len(draft.tokens)):
        if draft.parents[child] == node:
            found.append(child)
            node = child
    return found
