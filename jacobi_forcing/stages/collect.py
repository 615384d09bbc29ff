"""collect: decode prompts with the current model and record answers and Jacobi states."""

import json
import logging
import random
from collections import deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import closing
from dataclasses import replace
from pathlib import Path
from typing import Any

from rich.console import Console

from jacobi_forcing.config import CollectConfig
from jacobi_forcing.data import collection
from jacobi_forcing.data.counts import count
from jacobi_forcing.data.files import locked
from jacobi_forcing.data.open_shards import OpenShards
from jacobi_forcing.data.prompts import Prompt, file_hashes, prompts_fingerprint, read_prompts
from jacobi_forcing.data.record import claim, run_record
from jacobi_forcing.data.trajectories import (
    MANIFEST,
    Trajectory,
    from_line,
    to_line,
    tokenizer_fingerprint,
    write_shard,
)
from jacobi_forcing.decoding import Finished, Forward, Noise, Request, Sampling, decode
from jacobi_forcing.decoding.record import TrajectoryRecorder
from jacobi_forcing.decoding.sample import sample_prompts
from jacobi_forcing.decoding.strategies import Jacobi, KnownAnswer, Strategy
from jacobi_forcing.drawing.report import table, write_page
from jacobi_forcing.errors import ConfigError
from jacobi_forcing.integrations.ray_engine import in_actors, require_ray
from jacobi_forcing.models import CausalLM
from jacobi_forcing.problems.problem import Problem
from jacobi_forcing.problems.scoring import check_answers
from jacobi_forcing.progress import AnswerProgress, progress_bar
from jacobi_forcing.stages.filters import Filters
from jacobi_forcing.stages.machine import check_block_size, open_model
from jacobi_forcing.stop import telling

logger = logging.getLogger(__name__)

# Settings that say how the work is done: what comes out of it is the same.
FREE = ("out", "threads", "device", "batch_size", "sort_prompts", "shard", "engine", "num_engines")
FREE += ("verifier_workers", "compile")
_TASK_BATCHES = 4  # what a Ray actor does in one go: the more, the less often its batch runs empty
_WAITING_SHARDS = 2  # complete ones, kept in memory while another is filtered


def run(config: CollectConfig) -> Path:
    """Collect trajectories into `config.out`; return that folder.

    A prompt that is decoded is noted at once, so a run that was stopped at any moment continues
    behind it: no prompt is lost, doubled or decoded again, and the shards' bytes are those of a run
    that nothing stopped.

    Raises:
        JacobiForcingError: Bad settings, prompts or model, or a folder begun with other settings.
    """
    out = collection.own_folder(config)
    if config.engine == "ray":
        require_ray()
    # Ray's engines have the GPUs; here the model is only asked who it is.
    model = open_model(config if config.engine == "local" else replace(config, device="cpu"))
    check_block_size(config, model)
    prompts = load_prompts(config, model)
    record = run_record(
        config,
        tokenizer=tokenizer_fingerprint(model.tokenizer),
        inputs=file_hashes(config.prompts),
    )
    inputs = {"weights": model.weights_fingerprint(), "prompts": prompts_fingerprint(prompts)}
    facts = record["settings"] | inputs
    with closing(Filters(config, model, prompts)) as filters:
        claim(out, facts, free=FREE)
        with locked(out / "settings.json"):
            if (out / MANIFEST).exists():
                logger.info("%s: is collected already; nothing is left to do.", out)
            else:
                origin = collection.origin(facts, FREE)
                _collect(config, model, prompts, filters, out, origin)
                _finish(config, out, record, origin)
    joined = collection.joined(config)
    if joined is not None:
        _finish(config, Path(config.out), *joined)
    return Path(config.out)


def _finish(
    config: CollectConfig, out: Path, record: dict[str, Any], origin: dict[str, Any]
) -> None:
    """Write what is said of a folder's shards, the manifest last, and show it."""
    report = collection.write_report(out)
    write_page(out / "report.html", report, model_name=config.model, prompts=config.prompts)
    collection.write_manifest(out, record, origin, report)
    Console(stderr=True).print(table(report, prompts=config.prompts))
    logger.info(
        "wrote %s: %d trajectories; %s says more", out, report["num_prompts"], "report.html"
    )


def load_prompts(config: CollectConfig, model: CausalLM) -> list[Prompt]:
    """Read prompts, or sample them from the model where their source is `self:N`."""
    source, longest = config.prompts, config.max_prompt_tokens
    if longest >= model.context_tokens:
        raise ConfigError(
            f"--max-prompt-tokens is {longest}, but the context of {model.context_tokens} tokens "
            "has to hold the answer too. Take a smaller number."
        )
    if not source.startswith("self:"):
        return read_prompts(
            source,
            model.tokenizer,
            context_tokens=None if longest else model.context_tokens,
            seed=config.seed,
            keep_records=bool(config.verifier),
        )
    num = source.removeprefix("self:")
    if not num.isdigit() or int(num) == 0:
        raise ConfigError(f"--prompts is {source!r}; write self:N with the number of prompts.")
    sampled = sample_prompts(
        model, int(num), max_tokens=config.self_prompt_tokens, seed=config.seed
    )
    return [Prompt(ids) for ids in sampled]


def _collect(
    config: CollectConfig,
    model: CausalLM,
    prompts: Sequence[Prompt],
    filters: Filters,
    out: Path,
    origin: dict[str, Any],
) -> None:
    """Decode what no earlier run has decoded, and write every shard that is not there."""
    members = collection.members(config, len(prompts))
    collection.check_folder(out, members, origin)
    shards = OpenShards(out, members)
    num_prompts = sum(map(len, members.values()))

    def kept() -> str:
        done = num_prompts - len(shards.todo)
        return f"{done} of {num_prompts} prompts are finished and kept in {out}."

    def write(number: int, rows: list[Trajectory]) -> None:
        kept, dropped = filters.split(_with_verdicts(model, prompts, rows))
        counts = count(kept, dropped)
        write_shard(out, number, kept, dropped, origin=origin, counts=counts)
        shards.forget(number)

    with telling(kept), closing(shards), _Beside(write, stop=filters.close) as writer:
        todo = shards.todo
        for number in shards.complete:
            writer.submit(number, shards.take(number))
        done = num_prompts - len(todo)
        with progress_bar("collect", num_prompts, done, "prompts") as bar:
            answers = AnswerProgress(bar, len(todo), _budget(config))
            for trajectory in _trajectories(config, model, prompts, todo, answers):
                number = shards.add(trajectory)
                if number is not None:
                    writer.submit(number, shards.take(number))
                answers.finished(trajectory.prompt_index, at_end=trajectory.finish_reason == "eos")
        writer.wait()


class _Beside:
    """Runs a function on a thread of its own, call after call, while decoding goes on.

    Args:
        function: What to run.
        stop: Makes a call that is under way end soon, when decoding was broken off.
    """

    def __init__(self, function: Callable[..., None], stop: Callable[[], None]):
        self.function, self.stop = function, stop
        self._thread = ThreadPoolExecutor(1)
        self._calls: deque[Future] = deque()

    def __enter__(self) -> "_Beside":
        return self

    def __exit__(self, error: type | None, *_) -> None:
        if error is not None:
            self.stop()
        self._thread.shutdown(cancel_futures=True)

    def submit(self, *arguments: Any) -> None:
        """Add a call, waiting while too many are; raises what an earlier one has raised."""
        self._calls.append(self._thread.submit(self.function, *arguments))
        self.wait(_WAITING_SHARDS)

    def wait(self, num_left: int = 0) -> None:
        """Wait until no more than `num_left` calls are left; raises what one has raised."""
        while self._calls and (len(self._calls) > num_left or self._calls[0].done()):
            self._calls.popleft().result()


def _trajectories(
    config: CollectConfig,
    model: CausalLM,
    prompts: Sequence[Prompt],
    todo: Sequence[int],
    answers: AnswerProgress,
) -> Iterator[Trajectory]:
    """Yield each prompt's trajectory as it finishes, in any order."""
    longest = config.max_prompt_tokens or model.context_tokens
    short = []
    for index in todo:
        if len(prompts[index].ids) > longest:
            yield _skipped(prompts[index], index)
        else:
            short.append(index)
    order = _by_length(config, prompts, short)
    if config.engine == "ray":
        yield from _decode_in_actors(config, prompts, order)
    else:
        yield from decode_prompts(config, model, prompts, order, answers.forward)


def _skipped(prompt: Prompt, index: int) -> Trajectory:
    return Trajectory(index, prompt.ids, [], [], "skipped", 0, None, prompt.id)


def _by_length(
    config: CollectConfig, prompts: Sequence[Prompt], indices: Sequence[int]
) -> list[int]:
    """Order prompts so that those decoded together are alike in length.

    Only within `sort_prompts` of them, so that shards are completed one after the other; up and
    down in turn, so that the last ones of one lot are like the first ones of the next.
    """
    size, ordered = config.sort_prompts, []
    for number, first in enumerate(range(0, len(indices), size)):
        lot = indices[first : first + size]
        ordered += sorted(lot, key=lambda i: len(prompts[i].ids), reverse=number % 2 == 1)
    return ordered


class Engine:
    """A model in a process of its own, which decodes the prompts of one task after another."""

    def __init__(self, config: CollectConfig):
        self.config = config
        self.model = open_model(config)

    def __call__(self, task: str) -> Iterator[str]:
        """Yield a trajectory's line (`data.trajectories`) for every prompt of a task."""
        prompts = {
            index: Prompt(ids, answer=answer, id=name)
            for index, ids, answer, name in json.loads(task)
        }
        yield from map(to_line, decode_prompts(self.config, self.model, prompts, list(prompts)))


def _decode_in_actors(
    config: CollectConfig, prompts: Sequence[Prompt], order: Sequence[int]
) -> Iterator[Trajectory]:
    """Do as `decode_prompts`, in Ray actors."""
    if not order:
        return
    size = _TASK_BATCHES * config.batch_size
    tasks = [
        json.dumps([(i, prompts[i].ids, prompts[i].answer, prompts[i].id) for i in some])
        for some in (order[first : first + size] for first in range(0, len(order), size))
    ]
    lines = in_actors(
        Engine,
        (config,),
        tasks,
        num_actors=config.num_engines,
        num_cpus=max(config.threads, 1),
        use_gpus=config.device != "cpu",
    )
    yield from map(from_line, lines)


def decode_prompts(
    config: CollectConfig,
    model: CausalLM,
    prompts: Mapping[int, Prompt] | Sequence[Prompt],
    order: Sequence[int],
    on_forward: Callable[..., None] = lambda *_, **__: None,
) -> Iterator[Trajectory]:
    """Decode prompts in that order, others joining as some finish; yield each as it is done.

    `on_forward` is told of every forward, as `AnswerProgress.forward` is.
    """
    budget = _budget(config)
    recorders: dict[int, TrajectoryRecorder] = {}
    keep_states = config.record == "states"

    def start(request: Request) -> Strategy:
        recorders[request.index] = TrajectoryRecorder(config.block_size, keep_states)
        if not keep_states:
            return KnownAnswer(prompts[request.index].answer or [])
        noise = Noise(config.noise, model.vocab_tokens, f"{config.seed}/{request.index}")
        return Jacobi(config.block_size, noise)

    requests = (Request(i, prompts[i].ids, budget, sampling_of(config, i)) for i in order)
    longest = max((len(prompts[i].ids) for i in order), default=0) + budget
    for event in decode(model, requests, start, batch_size=config.batch_size, max_tokens=longest):
        if isinstance(event, Forward):
            recorders[event.request].observe(event)
            num = len(event.accepted)
            on_forward(event.request, num, is_first=event.iteration == 0)
        elif isinstance(event, Finished):
            recorder = recorders.pop(event.request)
            yield Trajectory(
                prompt_index=event.request,
                prompt_ids=prompts[event.request].ids,
                answer_ids=event.answer_ids,
                states=recorder.finish(model.pad_id, model.eos_ids),
                finish_reason=event.reason,
                num_forwards=event.num_forwards,
                solved=None,
                prompt_id=prompts[event.request].id,
            )


def _budget(config: CollectConfig) -> int:
    """Give the tokens of the longest answer.

    One token more than the blocks hold: else it would cut the last block's guesses.
    """
    return -(-config.max_new_tokens // config.block_size) * config.block_size + 1


def sampling_of(config: CollectConfig, index: int) -> Sampling:
    """Say how a prompt's tokens are chosen.

    Its noise is a function of the seed and its index alone: whoever decodes it, in whatever batch,
    draws the same answer.
    """
    seed = random.Random(f"sampling/{config.seed}/{index}").getrandbits(64)
    return Sampling(**config.sampling, seed=seed)


def _with_verdicts(
    model: CausalLM, prompts: Sequence[Prompt], rows: list[Trajectory]
) -> list[Trajectory]:
    """Say of every answer to a bundled problem whether it solves it."""
    answers: list[tuple[Problem, str]] = []
    for row in rows:
        problem = prompts[row.prompt_index].problem
        if problem is not None:
            text = model.tokenizer.decode(row.answer_ids, skip_special_tokens=True)
            answers.append((problem, text))
    if not answers:
        return rows
    return [
        row._replace(solved=verdict)
        for row, verdict in zip(rows, check_answers(answers), strict=True)
    ]
