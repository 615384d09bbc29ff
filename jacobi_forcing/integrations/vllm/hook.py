"""Tells the proposer what the model said at every place of a draft, rejected ones included.

vLLM's runner has it in `_sample(logits, spec_decode_metadata)` and shows it to nobody. Two ways
in: `register`, which vLLM calls in each of its processes because of our entry point, wraps that
method; `adopt` makes one runner's class a subclass instead. Neither does anything to engines that
use another proposer.
"""

import inspect
from collections.abc import Sequence
from importlib import import_module
from typing import Any, NamedTuple

import numpy as np

from jacobi_forcing.errors import ConfigError

_EXPECTED = ["self", "logits", "spec_decode_metadata"]
_ways: list[str] = []  # in which the hook is active in this process
_misfit: list[str] = []  # why it could not be


class Step(NamedTuple):
    """What the model said in one step."""

    choices: np.ndarray  # of all rows: behind the text, then behind each guess
    num_guesses: Sequence[int] | None  # per row; None where no row had any
    requests: Sequence[str]  # per row


def register() -> None:
    """Wrap the runner's `_sample`; vLLM calls this through the entry point, perhaps repeatedly."""
    if "entry point" in _ways or _misfit:
        return
    runners = import_module("vllm.v1.worker.gpu_model_runner")  # that of CPUs is a subclass
    runner = runners.GPUModelRunner
    if not _fits(runner):
        return
    plain = runner._sample

    def _sample(self: Any, logits: Any, spec_decode_metadata: Any) -> Any:
        if not getattr(self, "_is_adopted", False):
            _tell(self, logits, spec_decode_metadata)
        return plain(self, logits, spec_decode_metadata)

    runner._sample = _sample
    _mend_cpu()
    _ways.append("entry point")


def adopt(runner: Any) -> None:
    """Make one runner tell its proposer, by a subclass of its own."""
    plain = type(runner)
    if not _fits(plain):
        check_active()

    class Adopted(plain):
        _is_adopted = True

        def _sample(self, logits: Any, spec_decode_metadata: Any) -> Any:
            _tell(self, logits, spec_decode_metadata)
            return super()._sample(logits, spec_decode_metadata)

    runner.__class__ = Adopted
    _mend_cpu()
    _ways.append("worker")


def check_active() -> None:
    """Raise ConfigError where nobody tells the proposer anything."""
    if _misfit:
        raise ConfigError(f"Jacobi decoding does not fit this vLLM: {_misfit[0]}")
    if not _ways:
        raise ConfigError(
            "Jacobi decoding is not active in this vLLM process, so nothing would be faster. "
            "Install jacobi-forcing beside vLLM and leave VLLM_PLUGINS unset or list 'jacobi' in "
            "it; or set worker_cls (jacobi_forcing.integrations.vllm.workers)."
        )


def _fits(runner: type) -> bool:
    """Tell whether `_sample` is the method that we know; if not, remember what it is."""
    found = list(inspect.signature(getattr(runner, "_sample", _nothing)).parameters)
    if found != _EXPECTED:
        _misfit.append(
            f"{runner.__name__}._sample takes ({', '.join(found)}), expected is "
            f"({', '.join(_EXPECTED)}). Tested with vLLM 0.32."
        )
    return not _misfit


def _nothing() -> None:
    """Stand in for a method that is not there."""


def _tell(runner: Any, logits: Any, metadata: Any) -> None:
    """Pass on the model's choices; before the sampler, which may change logits in place."""
    observe = getattr(getattr(runner, "drafter", None), "observe", None)
    if observe is None or logits is None:
        return
    num_guesses = None if metadata is None else metadata.num_draft_tokens
    choices = logits.argmax(-1).cpu().numpy()  # a grammar's mask is applied already
    observe(Step(choices, num_guesses, list(runner.input_batch.req_ids)))


def _mend_cpu() -> None:
    platforms = import_module("vllm.platforms")
    if platforms.current_platform.is_cpu():
        import_module("jacobi_forcing.integrations.vllm.cpu_mending").mend()
