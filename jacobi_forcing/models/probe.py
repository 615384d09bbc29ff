"""The load-time check that ragged, overwritten drafts change nothing.

No list of families can promise that.
"""

import torch
from torch import Tensor
from transformers import PretrainedConfig

from jacobi_forcing.errors import ModelError
from jacobi_forcing.models.causal_lm import CausalLM
from jacobi_forcing.models.forward import Branches, RaggedForward

_DRAFT_TOKENS = 5
_MAX_PROBE_TOKENS = 8192
# Layers add up their rounding; several times what small models show.
_TOLERANCE = {torch.float32: 2e-4, torch.float16: 0.02, torch.bfloat16: 0.06}


@torch.inference_mode()
def probe(model: CausalLM) -> float:
    """Compare a ragged, draft-style forward with the model's plain one on random ids.

    Two rows of different lengths, longer than any attention window, are prefilled with a wrong
    draft behind them; then the right tokens are written over the draft, the last ones as a branch
    beside another wrong draft. Their logits must be the plain ones.

    Returns:
        The difference as a fraction of the plain logits' standard deviation, both as root mean
        squares over the vocabulary, at the worst place. Rounding gives up to 1e-6 in float32, 0.002
        in float16 and 0.01 in bfloat16 for small models; a window off by one of 12 gives 0.26.

    Raises:
        ModelError: The two differ, so decoding this model would be silently wrong, or the plain
            forward is broken already.
    """
    length = min(_widest_window(model.config) + 16, model.context_tokens - 1, _MAX_PROBE_TOKENS)
    lengths = [length, max(length - 9, _DRAFT_TOKENS + 1)]
    generator = torch.Generator().manual_seed(0)
    rows = [torch.randint(model.vocab_tokens, (n,), generator=generator).tolist() for n in lengths]
    wrong = torch.randint(model.vocab_tokens, (_DRAFT_TOKENS,), generator=generator).tolist()
    family = model.config.model_type
    plain = [_alone(model, row) for row in rows]
    if not all(logits.isfinite().all() for logits in plain):
        raise ModelError(
            f"{model.name}: gives logits that are not finite numbers, as {model.dtype}. Its "
            "weights are broken, or need another --dtype."
        )
    try:
        found = _as_draft(model, rows, wrong)
    except torch.OutOfMemoryError:
        raise
    except Exception as error:  # whatever a family makes of arguments that it does not expect
        reason = " ".join(str(error).split())[:200]
        raise ModelError(
            f"{model.name}: {family} cannot run with explicit positions, masks and cache, which "
            f"decoding needs: {reason}. This family is not supported."
        ) from error
    right = torch.stack(plain)
    worst = float(((right - found).square().mean(-1).sqrt() / right.std(-1)).max())  # NaN if one is
    if not worst <= _TOLERANCE.get(model.dtype, 2e-4):
        raise ModelError(
            f"{model.name}: {family} gives other logits with explicit masks and positions than "
            f"alone (off by {worst:.2g} standard deviations), so decoding would be silently wrong. "
            "This family is not supported."
        )
    return worst


def _as_draft(model: CausalLM, rows: list[list[int]], wrong: list[int]) -> Tensor:
    """Give the logits [rows, draft, V] of the last tokens, written over and beside wrong ones.

    The first of them overwrite a wrong draft as its trunk does; the last hang beside another wrong
    trunk as a branch.
    """
    num_branch = 3
    num_chain = _DRAFT_TOKENS - num_branch
    forward = RaggedForward(model, len(rows), max(map(len, rows)) + num_branch + 1)
    forward.logits(0, [row[:-_DRAFT_TOKENS] + wrong for row in rows], 1)
    forward.lengths = [len(row) - _DRAFT_TOKENS for row in rows]
    trunk = wrong[:num_branch]
    branches = Branches(
        first=num_chain + len(trunk),
        positions=[num_chain + i for i in range(num_branch)],
        ways=[
            [*range(num_chain), *(num_chain + len(trunk) + j for j in range(i + 1))]
            for i in range(num_branch)
        ],
    )
    inputs = [row[-_DRAFT_TOKENS:-num_branch] + trunk + row[-num_branch:] for row in rows]
    logits = forward.logits(0, inputs, len(inputs[0]), [branches] * len(rows)).float()
    return torch.cat([logits[:, :num_chain], logits[:, -num_branch:]], dim=1)


def _alone(model: CausalLM, row: list[int]) -> Tensor:
    """Give the logits [draft, V] of the last tokens in the model's own plain forward."""
    ids = torch.tensor([row], device=model.device)
    return model.logits(input_ids=ids, use_cache=False, num_outputs=_DRAFT_TOKENS)[0].float()


def _widest_window(config: PretrainedConfig) -> int:
    """Find the widest attention window of any kind, under whatever name the family has for it."""
    settings = config.to_dict()
    if settings.get("use_sliding_window") is False:
        del settings["sliding_window"]
    spans = [v for k, v in settings.items() if "window" in k or "chunk" in k]
    return max([24, *(v for v in spans if type(v) is int)])
