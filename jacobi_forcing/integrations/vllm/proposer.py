"""The proposer that vLLM asks for drafts: `method: custom_class` of its speculative config.

Settings go into `--additional-config '{"jacobi": {"seed": 1}}'`. The width is vLLM's own
`num_speculative_tokens`: a forward verifies that many guesses and settles up to one token more.
"""

import logging
from collections.abc import Sequence
from dataclasses import dataclass, fields
from typing import Any

import numpy as np

from jacobi_forcing.config import option, refuse_unknown
from jacobi_forcing.config.base import Base
from jacobi_forcing.errors import ConfigError
from jacobi_forcing.integrations.vllm import hook
from jacobi_forcing.integrations.vllm.drafter import Drafter

logger = logging.getLogger(__name__)


@dataclass(frozen=True, kw_only=True)
class ProposerConfig(Base):
    """Settings of the proposer."""

    pool_size: int = option(0, "recycling: old states whose n-grams fill a draft's end; 0 for none")
    seed: int = option(0, "random seed of the noise, which never changes an answer")


@dataclass
class Statistics:
    """What was guessed, and what of it was right, since the engine began."""

    steps: int = 0
    proposed: int = 0
    accepted: int = 0
    committed: int = 0


class JacobiProposer:
    """Proposes what the model itself said behind the tokens that were rejected.

    Raises:
        ConfigError: A setting is unknown or out of range, or the hook is not active: answers would
            be right, and no faster than AR.
    """

    def __init__(self, vllm_config: Any):
        options = getattr(vllm_config, "additional_config", None) or {}
        settings = options.get("jacobi", {}) if isinstance(options, dict) else {}
        refuse_unknown(settings, [f.name for f in fields(ProposerConfig)], "additional_config")
        self.config = ProposerConfig(**settings)
        self.width = vllm_config.speculative_config.num_speculative_tokens
        self.max_tokens = vllm_config.model_config.max_model_len
        self.vocab_tokens = vllm_config.model_config.get_vocab_size()
        self.statistics = Statistics()
        self._drafters: dict[str, Drafter] = {}
        self._step: hook.Step | None = None  # what the model said in the step under way

    def load_model(self, target_model: Any) -> None:
        """Check that the hook is there; vLLM calls this when its own model is loaded."""
        hook.check_active()

    def observe(self, step: hook.Step) -> None:
        """Take in what the model said; the hook calls this before tokens are accepted."""
        self._step = step

    def propose(
        self,
        sampled_token_ids: Sequence[Sequence[int]],
        num_tokens_no_spec: np.ndarray,
        token_ids_cpu: np.ndarray,
        slot_mappings: Any = None,
    ) -> list[list[int]]:
        """Draft for every row of the batch.

        Args:
            sampled_token_ids: Per row, the tokens that this step settled; none where a prompt is
                still being read.
            num_tokens_no_spec: [rows], tokens of prompt and answer, these included.
            token_ids_cpu: [rows, longest], their ids.
            slot_mappings: Not used.
        """
        step, self._step = self._step, None
        if step is None:
            hook.check_active()
            raise ConfigError("the hook is active, but this step did not reach it.")
        self._drafters = {name: self._drafter(name) for name in step.requests}
        self.statistics.steps += 1
        drafts, first = [], 0
        for row, accepted in enumerate(sampled_token_ids):
            num_guesses = step.num_guesses[row] if step.num_guesses is not None else 0
            choices = step.choices[first : first + num_guesses + 1]
            first += num_guesses + 1
            text = token_ids_cpu[row, : int(num_tokens_no_spec[row])]
            if len(accepted) == 0 or len(text) >= self.max_tokens:
                drafts.append([])
                continue
            drafter = self._drafters[step.requests[row]]
            settled = [int(token) for token in accepted]
            # choices[j] stands behind guess j; all but the last settled token were guesses.
            drafter.observe(settled, choices[len(settled) :].tolist())
            drafts.append([int(t) for t in drafter.propose(text, self.width)])
            self.statistics.proposed += num_guesses
            self.statistics.accepted += len(settled) - 1
            self.statistics.committed += len(settled)
        return drafts

    def _drafter(self, name: str) -> Drafter:
        """Give a request's drafter; those of requests that have left are forgotten."""
        seed = f"{self.config.seed}/{name}"
        return self._drafters.get(name) or Drafter(self.vocab_tokens, self.config.pool_size, seed)
