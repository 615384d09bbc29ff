"""collect: decode prompts with the current model and record answers and Jacobi states."""

from collections.abc import Iterator
from pathlib import Path

from jacobi_forcing.config import CollectConfig
from jacobi_forcing.data.files import read_rows, sha256, shard_path, write_json, write_rows
from jacobi_forcing.data.prompts import Prompt, prompts_fingerprint, read_prompts
from jacobi_forcing.data.record import claim, run_record
from jacobi_forcing.data.trajectories import MANIFEST, SCHEMA, Trajectory, tokenizer_fingerprint
from jacobi_forcing.decoding import Finished, Forward, Noise, Request, decode
from jacobi_forcing.decoding.record import TrajectoryRecorder
from jacobi_forcing.decoding.sample import sample_prompts
from jacobi_forcing.decoding.strategies import Jacobi, KnownAnswer, Strategy
from jacobi_forcing.errors import ConfigError
from jacobi_forcing.models import CausalLM
from jacobi_forcing.problems.problem import Problem
from jacobi_forcing.problems.scoring import check_answers
from jacobi_forcing.progress import progress_bar
from jacobi_forcing.stages.machine import check_block_size, open_model


def run(config: CollectConfig) -> Path:
    """Collect trajectories into `config.out`; return that folder.

    Shards hold `shard_prompts` prompts in order and appear whole, so a run that was stopped at any
    moment continues behind its last shard and no prompt is lost or doubled.

    Raises:
        JacobiForcingError: Bad settings, prompts or model, or a folder begun with other settings.
    """
    out = Path(config.out)
    model = open_model(config)
    check_block_size(config, model)
    prompts = load_prompts(config.prompts, model, config.seed, config.self_prompt_tokens)
    record = run_record(config, tokenizer=tokenizer_fingerprint(model.tokenizer))
    inputs = {"weights": model.weights_fingerprint(), "prompts": prompts_fingerprint(prompts)}
    # Where the work is done does not change what comes out of it.
    claim(out, record["settings"] | inputs, free=("out", "threads", "device", "batch_size"))
    if (out / MANIFEST).exists():
        return out

    shards = range(0, len(prompts), config.shard_prompts)
    written = 0
    while written < len(shards) and shard_path(out, written).exists():
        written += 1
    first = min(written * config.shard_prompts, len(prompts))
    rows: dict[int, Trajectory] = {}
    with progress_bar("collect", len(prompts)) as bar:
        bar.advance(first)
        for trajectory in _collect(config, model, prompts, first):
            rows[trajectory.prompt_index] = trajectory
            bar.advance()
            while written < len(shards):
                members = range(shards[written], len(prompts))[: config.shard_prompts]
                if not all(i in rows for i in members):
                    break
                done = [rows.pop(i) for i in members]
                checked = _with_verdicts(model, prompts, done)
                write_rows(shard_path(out, written), [t._asdict() for t in checked], SCHEMA)
                written += 1
    _finish(out, record, config, len(shards))
    return out


def load_prompts(source: str, model: CausalLM, seed: int, self_prompt_tokens: int) -> list[Prompt]:
    """Read prompts, or sample them from the model where `source` is `self:N`."""
    if not source.startswith("self:"):
        return read_prompts(source, model.tokenizer, context_tokens=model.context_tokens, seed=seed)
    count = source.removeprefix("self:")
    if not count.isdigit() or int(count) == 0:
        raise ConfigError(f"--prompts is {source!r}; write self:N with the number of prompts.")
    return [
        Prompt(ids)
        for ids in sample_prompts(model, int(count), max_tokens=self_prompt_tokens, seed=seed)
    ]


def _collect(
    config: CollectConfig, model: CausalLM, prompts: list[Prompt], first: int
) -> Iterator[Trajectory]:
    """Decode prompts[first:] and yield each trajectory as it finishes."""
    num_blocks = -(-config.max_new_tokens // config.block_size)
    # One token more than the blocks hold: else the budget would cut the last block's guesses.
    budget = num_blocks * config.block_size + 1
    recorders: dict[int, TrajectoryRecorder] = {}
    keep_states = config.record == "states"

    def start(request: Request) -> Strategy:
        recorders[request.index] = TrajectoryRecorder(config.block_size, keep_states)
        if not keep_states:
            return KnownAnswer(prompts[request.index].answer or [])
        noise = Noise(config.noise, model.vocab_tokens, f"{config.seed}/{request.index}")
        return Jacobi(config.block_size, noise)

    requests = (Request(i, prompts[i].ids, budget) for i in range(first, len(prompts)))
    longest = max((len(p.ids) for p in prompts[first:]), default=0) + budget
    for event in decode(model, requests, start, batch_size=config.batch_size, max_tokens=longest):
        if isinstance(event, Forward):
            recorders[event.request].observe(event)
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
            )


def _with_verdicts(
    model: CausalLM, prompts: list[Prompt], rows: list[Trajectory]
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


def _finish(out: Path, record: dict, config: CollectConfig, num_shards: int) -> None:
    """Write the manifest, which marks the folder as finished."""
    shards = [shard_path(out, n) for n in range(num_shards)]
    columns = ("answer_ids", "num_forwards", "finish_reason", "solved")
    rows = [row for shard in shards for row in read_rows(shard, columns)]
    num_tokens = sum(len(row["answer_ids"]) for row in rows)
    write_json(
        out / MANIFEST,
        {
            **record,
            "block_size": config.block_size,
            "record": config.record,
            "num_prompts": len(rows),
            "num_tokens": num_tokens,
            "num_forwards": sum(row["num_forwards"] for row in rows),
            "num_finished": sum(row["finish_reason"] == "eos" for row in rows),
            "num_solved": sum(row["solved"] is True for row in rows),
            "shards": {shard.name: sha256(shard) for shard in shards},
        },
    )
