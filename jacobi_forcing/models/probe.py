"""The load-time check that ragged, overwritten drafts change nothing: no list of families can promise that."""

import torch

from jacobi_forcing.errors import ModelError
from jacobi_forcing.models.forward import RaggedForward
from jacobi_forcing.models.loading import CausalLM
from jacobi_forcing.models.masks import layer_windows

_DRAFT_TOKENS = 5
_MAX_PROBE_TOKENS = 8192


@torch.inference_mode()
def probe(model: CausalLM) -> float:
    """Compare a ragged, draft-style forward with the model's plain one on random ids.

    Two rows of different lengths, longer than any attention window, are prefilled with a wrong draft
    behind them; then the right tokens are written over the draft. Their logits must be the plain ones.

    Returns:
        Largest absolute difference, as a fraction of the plain logits' standard deviation.

    Raises:
        ModelError: The two differ, so decoding this model would be silently wrong.
    """
    windows = [w for w in layer_windows(model.config).values() if w is not None]
    length = min(max([*windows, 24]) + 16, model.context_tokens - 1, _MAX_PROBE_TOKENS)
    lengths = [length, max(length - 9, _DRAFT_TOKENS + 1)]
    generator = torch.Generator().manual_seed(0)
    rows = [
        torch.randint(model.vocab_tokens, (n,), generator=generator).tolist() for n in lengths
    ]
    wrong = torch.randint(model.vocab_tokens, (_DRAFT_TOKENS,), generator=generator).tolist()

    forward = RaggedForward(model, num_rows=2, num_slots=length + 1)
    forward.logits(0, [row[:-_DRAFT_TOKENS] + wrong for row in rows], 1)
    forward.lengths = [len(row) - _DRAFT_TOKENS for row in rows]
    ragged = forward.logits(0, [row[-_DRAFT_TOKENS:] for row in rows], _DRAFT_TOKENS)

    worst = 0.0
    for row, found in zip(rows, ragged):
        ids = torch.tensor([row], device=model.device)
        plain = model.network(input_ids=ids, use_cache=False).logits[0, -_DRAFT_TOKENS:].float()
        worst = max(worst, float((plain - found.float()).abs().max() / plain.std()))
    tolerance = 1e-3 if model.dtype == torch.float32 else 0.25
    if not worst <= tolerance:
        raise ModelError(
            f"{model.name}: {model.config.model_type} gives other logits with explicit masks and "
            f"positions than alone (off by {worst:.2g} standard deviations), so decoding would be "
            "silently wrong. This family is not supported."
        )
    return worst
