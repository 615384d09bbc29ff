"""Two mistakes of vLLM 0.32.0 on CPUs, which concern every kind of speculative decoding.

With a temperature, `expand_batch_to_tokens` writes into a copy and drops it, so that the rejection
sampler works with uninitialised temperatures: wrong text, with n-gram drafts just as with ours. And
top-k without top-p fails on a step without drafts. Other versions are left as they are.
"""

from importlib import import_module
from typing import Any

import torch
from torch import Tensor

_VERSION = "0.32.0"


def mend() -> None:
    """Replace both functions, once, where vLLM is the version that has the mistakes."""
    sampler: Any = import_module("vllm.v1.sample.rejection_sampler")
    version = import_module("vllm.version").__version__
    if not version.startswith(_VERSION) or sampler.expand_batch_to_tokens is _expand:
        return
    sampler.expand_batch_to_tokens = _expand
    constrain = sampler.apply_sampling_constraints

    def constrain_some(logits: Tensor, cu_num_draft_tokens: Tensor, metadata: Any) -> Tensor:
        return constrain(logits, cu_num_draft_tokens, metadata) if len(logits) else logits

    sampler.apply_sampling_constraints = constrain_some


def _expand(
    x: Tensor, cu_num_tokens: Tensor, num_tokens: int, replace_from: int = 0, replace_to: int = 0
) -> Tensor:
    """Repeat every request's value for each of its tokens."""
    ends = cu_num_tokens.to(torch.int64)
    counts = torch.diff(ends, prepend=ends.new_zeros(1))
    values = torch.where(x == replace_from, torch.full_like(x, replace_to), x)
    return torch.repeat_interleave(values, counts, output_size=num_tokens)
