"""The two losses of a training sequence, as sums over tokens (paper 3.1, Eq. 8 and 9).

Logits exist for `chunk_tokens` tokens at a time only. Their gradient is taken right where they are:
nothing of size [tokens, V] is ever kept for the backward pass, and nothing is computed twice.

Shapes: B = sequences, S = tokens, D = hidden size, V = vocabulary, m = tokens that learn.
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from jacobi_forcing.training.head import Outputs
from jacobi_forcing.training.layout import IGNORED

Term = Callable[[Tensor, slice], tuple[Tensor, Tensor]]


class Losses(NamedTuple):
    """Sums over tokens, so that dividing by the counts of a whole batch gives exact token means."""

    ar: Tensor  # [] cross-entropy of the clean stream against the text
    consistency: Tensor  # [] weighted soft cross-entropy of the noisy stream against the clean one
    agreement: Tensor  # [] long, noisy tokens whose argmax is the teacher's


def losses(
    student: Outputs,
    ar_targets: Tensor,
    teacher_index: Tensor,
    teacher: Outputs | None,
    ar_teacher: Outputs | None = None,
    *,
    weights: Tensor | None = None,
    chunk_tokens: int = 0,
) -> Losses:
    """Compute both losses.

    The consistency loss is cross-entropy against the teacher's distribution: the KL divergence of
    the paper up to the teacher's entropy, which has no gradient here.

    Args:
        student: Of the sequences, [B, S, D].
        ar_targets: [B, S] long, IGNORED where there is none (see `layout.ar_targets`).
        teacher_index: [B, S] long, -1 where there is none (see `layout.teacher_index`).
        teacher: Of the same sequences; no gradient flows into it. None takes the tokens of the
            fixed point themselves as targets.
        ar_teacher: The same for the clean stream, which keeps the model near the one that it was
            (not in the paper); None takes `ar_targets`.
        weights: [B, S], of the consistency loss (see `consistency_weights`); None is 1 everywhere.
        chunk_tokens: Tokens whose logits exist at once; 0 for all.
    """
    at = (ar_targets != IGNORED).nonzero(as_tuple=True)
    targets = _Targets(ar_targets[at], ar_teacher, at)
    ones = torch.ones(len(at[0]), device=ar_targets.device)
    ar, _ = _cross_entropy(student, at, targets, ones, chunk_tokens)
    rows, student_at = at = (teacher_index >= 0).nonzero(as_tuple=True)
    taught_by = (rows, teacher_index[rows, student_at])
    targets = _Targets(ar_targets[taught_by], teacher, taught_by)
    of_token = torch.ones(len(rows), device=rows.device) if weights is None else weights[at]
    consistency, agreement = _cross_entropy(student, at, targets, of_token, chunk_tokens)
    return Losses(ar, consistency, agreement)


class _Targets(NamedTuple):
    """What tokens are to predict: ids, or a teacher's distributions."""

    ids: Tensor  # [m] long
    teacher: Outputs | None
    at: tuple[Tensor, Tensor]  # [m] long each, rows and columns of the teacher's tokens

    @torch.no_grad()
    def __call__(self, part: slice) -> tuple[Tensor, Tensor]:
        """Give some tokens' targets, [c] long or [c, V], and their most likely ids, [c] long."""
        if self.teacher is None:
            return self.ids[part], self.ids[part]
        rows, columns = (index[part] for index in self.at)
        logits = self.teacher.head(self.teacher.hidden[rows, columns])
        probs = logits.float().softmax(-1)
        return probs, probs.argmax(-1)


def _cross_entropy(
    student: Outputs, at: tuple[Tensor, Tensor], targets: _Targets, weights: Tensor, chunk: int
) -> tuple[Tensor, Tensor]:
    """Sum the weighted cross-entropy of the student's tokens `at`, and count the agreeing ones."""

    def term(hidden: Tensor, part: slice) -> tuple[Tensor, Tensor]:
        logits = student.head(hidden).float()  # [c, V]
        target, choice = targets(part)
        loss = (F.cross_entropy(logits, target, reduction="none") * weights[part]).sum()
        return loss, (logits.detach().argmax(-1) == choice).sum()

    return _ChunkedSum.apply(term, chunk, student.hidden[at], *student.parameters)


class _ChunkedSum(torch.autograd.Function):
    """Sums a term over chunks of tokens, and its gradients with it.

    Each chunk's gradient is taken before the next one begins. So one chunk's logits exist at a
    time, and the backward pass has only to scale what the forward has found.
    """

    @staticmethod
    def forward(
        ctx: Any, term: Term, chunk_tokens: int, hidden: Tensor, *parameters: Tensor
    ) -> tuple[Tensor, Tensor]:
        """Sum `term` over chunks of [m, D] hidden states; returns the sum, and that of counts."""
        total = torch.zeros((), device=hidden.device)
        count = torch.zeros((), dtype=torch.long, device=hidden.device)
        gradients = [torch.zeros_like(tensor) for tensor in (hidden, *parameters)]
        for first in range(0, len(hidden), chunk_tokens or max(1, len(hidden))):
            part = slice(first, first + (chunk_tokens or len(hidden)))
            piece = hidden[part].detach().requires_grad_()
            with torch.enable_grad():
                value, counted = term(piece, part)
            gradients[0][part], *rest = torch.autograd.grad(value, [piece, *parameters])
            for gradient, more in zip(gradients[1:], rest, strict=True):
                gradient += more
            total += value.detach()
            count += counted
        ctx.save_for_backward(*gradients)
        ctx.mark_non_differentiable(count)
        return total, count

    @staticmethod
    def backward(ctx: Any, scale: Tensor, _: Tensor) -> tuple[Tensor | None, ...]:
        """Scale the gradients; in place, since the head's is as large as its weights."""
        return None, None, *(gradient.mul_(scale) for gradient in ctx.saved_tensors)


def consistency_weights(
    batch: dict[str, Tensor], *, per: str = "token", decay: float = 1.0
) -> Tensor:
    """Weigh the tokens of the consistency loss, which is a mean by these weights.

    Args:
        batch: With `teacher_index` and `block`, [B, S] long.
        per: `token`, all tokens alike; or `pair`, all blocks that learn anything alike, however
            many tokens of them learn.
        decay: Each token weighs this times the one before it in its block, since a draft is
            accepted from its beginning; 1 for all alike.

    Returns:
        [B, S] float, 0 where nothing is learned.
    """
    learns = batch["teacher_index"] >= 0
    if per == "token" and decay == 1:
        return learns.float()
    before = F.pad(learns, (1, 0))[:, :-1]
    for of in ("document", "block"):
        before &= batch[of].diff(prepend=batch[of][:, :1]) == 0
    # A run is a block's learning tokens, which stand together. They are counted over all rows.
    run = (learns & ~before).flatten().cumsum(0)[learns.flatten()] - 1  # [m], 0, 0, 0, 1, 1, ...
    length = run.bincount()  # [runs]
    offset = torch.arange(len(run), device=run.device) - (length.cumsum(0) - length)[run]
    weight = decay ** offset.float()
    if per == "pair":
        total = torch.zeros_like(length, dtype=weight.dtype).index_add_(0, run, weight)
        weight = weight / total[run]
    return torch.zeros(learns.shape, device=learns.device).masked_scatter_(learns, weight)


def token_counts(ar_targets: Tensor, teacher_index: Tensor) -> Tensor:
    """Count the tokens of each loss: [2] long, AR and consistency."""
    return torch.stack([(ar_targets != IGNORED).sum(), (teacher_index >= 0).sum()])
