"""Where prompt, noisy and clean blocks lie in a training sequence (paper Fig. 6).

    ids        [prompt][noisy 0][clean 0][noisy 1][clean 1] ...
    positions   0..P-1   P..      P..      P+n..    P+n..

The two blocks of a pair share their positions: both stand for the same stretch of the answer, once
as Jacobi decoding saw it on the way and once as it came out. So one forward gives the student's and
the teacher's predictions for every answer token.

A prompt with its blocks is a document. A sequence holds several, one behind the other; positions
begin again with each, none sees another (training.mask), and nothing in one predicts what stands in
the next: `join` only puts side by side what was made of each document alone.

Shapes: S = tokens = P + 2 * T * n of a document, P = prompt tokens, T = blocks, n = block size.
"""

from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor

PROMPT, NOISY, CLEAN, PADDING = range(4)
IGNORED = -100  # the target of a token that no loss looks at


class Layout(NamedTuple):
    """What every token of one sequence is; all [S] long."""

    document: Tensor  # 0 .. D - 1; -1 in padding
    stream: Tensor  # PROMPT, NOISY, CLEAN or PADDING
    block: Tensor  # 0 .. T - 1; -1 in the prompt
    position: Tensor  # position id
    start: Tensor  # position id of its block's first token; 0 in the prompt


def deinterleave(
    ids: Sequence[int], prompt_length: int, block_size: int
) -> tuple[list[int], list[list[int]], list[list[int]]]:
    """Take a document's ids apart: prompt, noisy blocks, clean blocks."""
    ids = list(map(int, ids))
    pairs = range(prompt_length, len(ids), 2 * block_size)
    noisy = [ids[i : i + block_size] for i in pairs]
    clean = [ids[i + block_size : i + 2 * block_size] for i in pairs]
    return ids[:prompt_length], noisy, clean


def make_layout(prompt_length: int, num_blocks: int, block_size: int) -> Layout:
    """Say what every token of a document is, as if it were the only one."""
    pair = torch.arange(2 * block_size * num_blocks)
    block = pair // (2 * block_size)
    is_clean = pair % (2 * block_size) >= block_size
    offset = pair % block_size
    before = torch.arange(prompt_length)
    return Layout(
        document=torch.zeros(len(before) + len(pair), dtype=torch.long),
        stream=torch.cat([torch.full_like(before, PROMPT), torch.where(is_clean, CLEAN, NOISY)]),
        block=torch.cat([torch.full_like(before, -1), block]),
        position=torch.cat([before, prompt_length + block * block_size + offset]),
        start=torch.cat([torch.zeros_like(before), prompt_length + block * block_size]),
    )


def ar_targets(ids: Tensor, layout: Layout, answer_length: int, *, on_prompt: bool) -> Tensor:
    """Give each token of the clean text the token that follows it there.

    The clean text is the prompt and the clean blocks. Nothing behind the answer's last token (its
    EOS) is a target.

    Args:
        ids: [S] long.
        layout: The document's layout.
        answer_length: Answer tokens, the EOS included.
        on_prompt: Let prompt tokens be targets too, as the reference does.

    Returns:
        [S] long, IGNORED where a token has no target.
    """
    text = (layout.stream != NOISY).nonzero()[:, 0]  # indices of the clean text, in text order
    prompt_length = int((layout.stream == PROMPT).sum())
    text = text[: prompt_length + answer_length]
    targets = torch.full_like(ids, IGNORED)
    first = 0 if on_prompt else prompt_length - 1
    targets[text[first:-1]] = ids[text[first + 1 :]]
    return targets


def teacher_index(
    ids: Tensor,
    layout: Layout,
    block_size: int,
    answer_length: int,
    *,
    from_start: bool,
    reach: int = 0,
) -> Tensor:
    """Give each noisy token the clean token whose prediction it learns.

    That is the token at the same position of its pair, from the pair's first difference on (before
    it, a pair holds the same tokens), and only where what is predicted is part of the answer.

    Args:
        ids: [S] long.
        layout: The document's layout.
        block_size: n.
        answer_length: Answer tokens, the EOS included.
        from_start: Let the tokens before the first difference learn too.
        reach: Only this many tokens from the first difference on learn; 0 for all of them.

    Returns:
        [S] long, an index into the document, or -1 for tokens that learn nothing.
    """
    noisy = (layout.stream == NOISY).nonzero()[:, 0].view(-1, block_size)  # [T, n]
    clean = noisy + block_size
    # 0 before the first difference, then 1, 2, 3, ...
    behind = ((ids[noisy] != ids[clean]).cumsum(-1) > 0).cumsum(-1)
    learns = (behind[:, -1:] > 0).expand_as(behind) if from_start else behind > 0
    if reach:
        learns = learns & (behind <= reach)
    predicted = torch.arange(noisy.numel()).view_as(noisy) + 1  # answer position each one predicts
    learns = learns & (predicted < answer_length)
    index = torch.full_like(ids, -1)
    index[noisy[learns]] = clean[learns]
    return index


def join(documents: Sequence[dict[str, Tensor]]) -> dict[str, Tensor]:
    """Make a sequence's columns out of its documents'.

    Args:
        documents: [S] columns by name. `document` is numbered anew, and `teacher_index`, where a
            token learns, is counted from the sequence's first token on.
    """
    columns: dict[str, list[Tensor]] = {}
    first = 0  # index of the document's first token
    for number, document in enumerate(documents):
        index = document["teacher_index"]
        placed = {
            "document": torch.full_like(index, number),
            "teacher_index": torch.where(index < 0, index, index + first),
        }
        for name, values in (document | placed).items():
            columns.setdefault(name, []).append(values)
        first += len(index)
    return {name: torch.cat(tensors) for name, tensors in columns.items()}
