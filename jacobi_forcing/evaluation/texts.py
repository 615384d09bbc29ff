"""Free text: beginnings that the original samples, and how likely it finds what follows."""

from collections.abc import Sequence
from typing import Any

from jacobi_forcing.config import EvaluateConfig
from jacobi_forcing.decoding.measure import distinct_ngrams, negative_log_likelihood
from jacobi_forcing.decoding.sample import sample_prompts
from jacobi_forcing.evaluation.tasks import Item, Task, Verdict
from jacobi_forcing.models import CausalLM


class TextTask(Task):
    """`self:N`: nothing to solve; the original reads all answers at the end."""

    has_rival = False  # the original judges, and answers nothing

    def __init__(self, config: EvaluateConfig):
        self.config = config
        self.reader: CausalLM | None = None

    def items(self, model: CausalLM, original: CausalLM | None) -> list[Item]:
        """Sample beginnings of texts from the original, by default the model itself."""
        self.reader = original or model
        prompts = sample_prompts(
            self.reader,
            self.config.num_texts,
            max_tokens=self.config.self_prompt_tokens,
            seed=2**32 + self.config.seed,  # no seed of `collect`: nothing that was trained on
        )
        decode = self.reader.tokenizer.decode
        return [
            Item(f"text/{number}", decode(ids), ids, "", "")
            for number, ids in enumerate(prompts[: self.config.limit or None], 1)
        ]

    def judge(self, answers: Sequence[tuple[int, str]]) -> list[Verdict]:
        """Leave it open."""
        return [Verdict(None) for _ in answers]

    def worth(self, records: Sequence[dict[str, Any]], name: str) -> dict[str, float]:
        """Say how likely the original finds the texts, and how little they repeat themselves."""
        prompts = [one["prompt_ids"] for one in records]
        texts = [one["answers"][name]["answer"] for one in records]
        nll = negative_log_likelihood(self.reader, prompts, texts)
        return {"nll": nll, "distinct_8grams": distinct_ngrams(texts)}
