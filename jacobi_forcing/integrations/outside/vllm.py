"""vLLM in this process: its own autoregressive decoding, and our plugin's `window` in it."""

import os
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import partial
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from jacobi_forcing.decoding.compare import Run, Way
from jacobi_forcing.errors import ConfigError
from jacobi_forcing.integrations.outside.transcript import Transcript
from jacobi_forcing.integrations.vllm import hook
from jacobi_forcing.models import CausalLM
from jacobi_forcing.models.adapters import is_adapter
from jacobi_forcing.models.bundled import BUNDLED

PROPOSER = "jacobi_forcing.integrations.vllm.proposer.JacobiProposer"
_GPU_SHARE = 0.9  # of its memory, for all engines together
_ENVIRONMENT = {
    "VLLM_ENABLE_V1_MULTIPROCESSING": "0",  # a step is run where it is timed
    "VLLM_CPU_KVCACHE_SPACE": "4",  # GiB per engine
    "VLLM_LOGGING_LEVEL": "ERROR",
    "VLLM_NO_USAGE_STATS": "1",
}


def require() -> None:
    """Raise ConfigError where vLLM is not installed."""
    if find_spec("vllm") is None:
        raise ConfigError(
            "--engine vllm needs vLLM, best in an environment of its own. Run: pip install "
            "'jacobi-forcing[vllm]'"
        )


def ways(
    model: CausalLM,
    strategies: Sequence[str],
    prompts: Sequence[Sequence[int]],
    *,
    max_new_tokens: int,
    stop: Sequence[str] = (),
    batch_size: int = 1,
    block_size: int = 16,
    seed: int = 0,
    num_threads: int = 1,
    trust_remote_code: bool = False,
    num_engines: int = 2,
) -> list[Way]:
    """Give a way to decode for every strategy, each an engine: `autoregressive`, `window`.

    Engines are as vLLM sets them up, compiled, but for its prefix cache, because the warm-up would
    fill it. A forward is a step that settled something for the prompt, its prefill one, in how many
    pieces it may be read. Texts are not made from ids inside the seconds, as in our own loop.

    Args:
        model: What answers, by its name; its weights here are not used, its dtype and ids are.
        strategies: Names.
        prompts: Token ids.
        max_new_tokens: Longest answer; it ends where the context does.
        stop: Texts that end an answer and stay in it.
        batch_size: Most prompts in flight.
        block_size: Of `window`: vLLM verifies one token less.
        seed: Of the noise in drafts.
        num_threads: On a CPU.
        trust_remote_code: Run model code that comes with the checkpoint.
        num_engines: How many share a GPU, those of other calls included.

    Raises:
        ConfigError: vLLM is missing, or cannot run this model.
    """
    require()
    # The context leaves room for guesses: near its end vLLM drafts for nobody.
    longest = max(map(len, prompts)) + max_new_tokens + block_size
    arguments = {
        "dtype": str(model.dtype).removeprefix("torch."),
        "max_model_len": min(longest, model.context_tokens),
        "max_num_seqs": batch_size,
        "gpu_memory_utilization": _GPU_SHARE / num_engines,
        "enable_prefix_caching": False,
        "trust_remote_code": trust_remote_code,
    }
    speculative = {
        "method": "custom_class",
        "model": PROPOSER,
        "num_speculative_tokens": block_size - 1,
    }
    of_window = {
        "speculative_config": speculative,
        "additional_config": {"jacobi": {"seed": seed}},
    }
    more: dict[str, dict[str, Any]] = {"autoregressive": {}, "window": of_window}
    _prepare(num_threads)

    def way(strategy: str) -> Way:
        engine = _engine(model.name, arguments | more[strategy])
        return partial(_answer, engine, model, prompts, max_new_tokens, stop)

    return [way(strategy) for strategy in strategies]


def _prepare(num_threads: int) -> None:
    """Set up this process; what the user has set in its environment stays."""
    cores = sorted(os.sched_getaffinity(0))[:num_threads]
    environment = _ENVIRONMENT | {"VLLM_CPU_OMP_THREADS_BIND": ",".join(map(str, cores))}
    for name, value in environment.items():
        os.environ.setdefault(name, value)
    hook.register()  # also where no entry point does it, in a checkout that is not installed


def _engine(name: str, arguments: Mapping[str, Any]) -> Any:
    from vllm import LLM

    path = str(BUNDLED.get(name, name))
    if is_adapter(Path(path)):
        raise ConfigError(f"{name}: holds adapters; --engine vllm needs them merged into weights.")
    with _refusals(name):
        return LLM(path, **arguments).llm_engine


@contextmanager
def _refusals(name: str) -> Iterator[None]:
    """Say in a line what vLLM finds that a model or a machine lacks, at times in its first step."""
    try:
        yield
    except Exception as error:
        reason = " ".join(str(error).split())[:300].rstrip(".")
        raise ConfigError(f"{name}: vLLM cannot run this model here: {reason}.") from error


def _answer(
    engine: Any,
    model: CausalLM,
    prompts: Sequence[Sequence[int]],
    max_new_tokens: int,
    stop: Sequence[str],
    group: range,
) -> list[Run]:
    """Decode some prompts together."""
    from vllm import SamplingParams
    from vllm.inputs import tokens_input
    from vllm.sampling_params import RequestOutputKind

    found = {str(index): Transcript(model, stop) for index in group}
    for index in group:
        settings = SamplingParams(
            temperature=0.0,
            max_tokens=min(max_new_tokens, model.context_tokens - len(prompts[index])),
            stop_token_ids=sorted(model.eos_ids),
            detokenize=False,
            output_kind=RequestOutputKind.DELTA,
        )
        engine.add_request(str(index), tokens_input(list(prompts[index])), settings)
    while engine.has_unfinished_requests():
        with _refusals(model.name):
            outputs = engine.step()
        for output in outputs:
            transcript = found[output.request_id]
            transcript.hear(output.outputs[0].token_ids)
            if output.finished or transcript.is_done:
                transcript.close()
                if not output.finished:  # it has met a stop text, which vLLM is not told
                    engine.abort_request([output.request_id])
    seconds = max(one.run.seconds for one in found.values())
    for one in found.values():
        one.run.all_seconds, one.run.num_together = seconds, len(group)
    return [one.run for one in found.values()]
