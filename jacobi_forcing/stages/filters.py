"""Which decoded answers are kept for training, and why the others are not."""

from collections.abc import Sequence

from jacobi_forcing.config import CollectConfig
from jacobi_forcing.data.prompts import Prompt
from jacobi_forcing.data.trajectories import Dropped, Trajectory
from jacobi_forcing.decoding.measure import distinct_ngrams
from jacobi_forcing.models import CausalLM
from jacobi_forcing.problems.verifier import Rejection, Verifier


class Filters:
    """The filters that a collection's settings ask for, the cheap ones first.

    Nothing is lost: what is dropped comes back with a reason.
    """

    def __init__(self, config: CollectConfig, model: CausalLM, prompts: Sequence[Prompt]):
        self.config = config
        self.tokenizer = model.tokenizer
        self.prompts = prompts
        self.verifier: Verifier | None = None
        if config.verifier:
            self.verifier = Verifier(
                config.verifier, seconds=config.verifier_seconds, workers=config.verifier_workers
            )

    def split(self, rows: Sequence[Trajectory]) -> tuple[list[Trajectory], list[Dropped]]:
        """Part decodes into those that are kept and those that are not, in their order."""
        found = {row.prompt_index: self._rejection(row) for row in rows}
        asked = [row for row in rows if found[row.prompt_index] is None]
        if self.verifier is not None:
            verdicts = self.verifier.judge([self._question(row) for row in asked])
            found |= {row.prompt_index: v for row, v in zip(asked, verdicts, strict=True)}
        kept, dropped = [], []
        for row in rows:
            rejection = found[row.prompt_index]
            if rejection is None:
                kept.append(row)
            else:
                dropped.append(Dropped(row, *rejection))
        return kept, dropped

    def _rejection(self, row: Trajectory) -> Rejection | None:
        config, num_tokens = self.config, len(row.answer_ids)
        if row.finish_reason == "skipped":
            return Rejection("long-prompt", f"{len(row.prompt_ids)} tokens")
        if config.finished_only and row.finish_reason != "eos":
            return Rejection("unfinished", f"{num_tokens} tokens")
        if num_tokens < config.min_answer_tokens:
            return Rejection("short-answer", f"{num_tokens} tokens")
        distinct = distinct_ngrams([row.answer_ids], config.distinct_tokens)
        if distinct < config.min_distinct:
            return Rejection("repetitive", f"{distinct:.3f} distinct")
        return None

    def _question(self, row: Trajectory) -> tuple[str, str, dict]:
        texts = [
            self.tokenizer.decode(ids, skip_special_tokens=True)
            for ids in (row.prompt_ids, row.answer_ids)
        ]
        return texts[0], texts[1], self.prompts[row.prompt_index].record or {}

    def close(self) -> None:
        """End the verifier's processes."""
        if self.verifier is not None:
            self.verifier.close()
