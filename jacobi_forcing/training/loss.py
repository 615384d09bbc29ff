"""The two losses of a training sequence, as sums over tokens (paper 3.1, Eq. 8 and 9).

Shapes: B = sequences, S = tokens, V = vocabulary, m = tokens that learn.
"""

from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from jacobi_forcing.training.layout import IGNORED


class Losses(NamedTuple):
    """Sums over tokens, so that dividing by the counts of a whole batch gives exact token means."""

    ar: Tensor  # [] cross-entropy of the clean stream against the text
    consistency: Tensor  # [] soft cross-entropy of the noisy stream against the clean one
    agreement: Tensor  # [] long, noisy tokens whose argmax is the teacher's


def losses(
    logits: Tensor,
    ar_targets: Tensor,
    teacher_index: Tensor,
    teacher: Tensor | None,
    ar_teacher: Tensor | None = None,
) -> Losses:
    """Compute both losses.

    The consistency loss is cross-entropy against the teacher's distribution: the KL divergence of
    the paper up to the teacher's entropy, which has no gradient here.

    Args:
        logits: [B, S, V], the student's.
        ar_targets: [B, S] long, IGNORED where there is none (see `layout.ar_targets`).
        teacher_index: [B, S] long, -1 where there is none (see `layout.teacher_index`).
        teacher: [B, S, V] logits of the same sequences; no gradient flows into them. None takes
            the tokens of the fixed point themselves as targets.
        ar_teacher: The same for the clean stream, which keeps the model near the one that it was
            (not in the paper); None takes `ar_targets`.
    """
    at = (ar_targets != IGNORED).nonzero(as_tuple=True)
    if ar_teacher is None:
        ar_target = ar_targets[at]  # [m]
    else:
        ar_target = ar_teacher.detach()[at].float().softmax(-1)  # [m, V]
    ar = F.cross_entropy(logits[at].float(), ar_target, reduction="sum")
    rows, student_at = (teacher_index >= 0).nonzero(as_tuple=True)
    teacher_at = teacher_index[rows, student_at]
    student_logits = logits[rows, student_at].float()  # [m, V]
    if teacher is None:
        target = choice = ar_targets[rows, teacher_at]  # [m]
    else:
        target = teacher.detach()[rows, teacher_at].float().softmax(-1)  # [m, V]
        choice = target.argmax(-1)
    consistency = F.cross_entropy(student_logits, target, reduction="sum")
    agreement = (student_logits.argmax(-1) == choice).sum()
    return Losses(ar, consistency, agreement)


def token_counts(ar_targets: Tensor, teacher_index: Tensor) -> Tensor:
    """Count the tokens of each loss: [2] long, AR and consistency."""
    return torch.stack([(ar_targets != IGNORED).sum(), (teacher_index >= 0).sum()])
