"""One answer, written down while another engine gives it."""

import time
from collections.abc import Sequence

from jacobi_forcing.decoding.compare import Run
from jacobi_forcing.decoding.stops import Stop, StopStrings
from jacobi_forcing.models import CausalLM


class Transcript:
    """One answer as it comes. It ends where our own loop would end it, whatever else is said.

    Args:
        model: Whose ids end an answer.
        stop: Texts that end one, and stay in it.
    """

    def __init__(self, model: CausalLM, stop: Sequence[str]):
        self.run = Run()
        self._eos_ids = model.eos_ids
        self._stop: Stop | None = StopStrings(model.tokenizer, stop) if stop else None
        self._start = time.perf_counter()

    @property
    def is_done(self) -> bool:
        """Whether the answer has met its end."""
        return self.run.reason != ""

    @property
    def seconds(self) -> float:
        """Time since it was begun."""
        return time.perf_counter() - self._start

    def hear(self, ids: Sequence[int]) -> None:
        """Take in what a forward settled; what follows an end is no part of the answer."""
        run = self.run
        run.first_seconds = run.first_seconds or self.seconds
        run.settled.append(0)
        for token in ids:
            if self.is_done:
                return
            run.answer.append(token)
            run.settled[-1] += 1
            if token in self._eos_ids:
                run.reason = "eos"
            elif self._stop is not None and self._stop(run.answer):
                run.reason = "stop"

    def close(self) -> None:
        """Note that the engine has ended the answer."""
        self.run.reason = self.run.reason or "length"
        self.run.seconds = self.seconds
