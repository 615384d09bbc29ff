"""From a file of trajectories to a file of packed sequences, without a Python object per token.

What a worker process of `jacobi pack` runs: neither PyTorch nor transformers is imported here.

Shapes: R = trajectories, B = blocks of all of them, N = states of all blocks, n = block size.
"""

import os
import random
import signal
import threading
from collections.abc import Iterator
from multiprocessing import parent_process
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from jacobi_forcing.config import PackConfig
from jacobi_forcing.data.columns import read_batches, unnest
from jacobi_forcing.data.packed import Counts, Document, packed_writer
from jacobi_forcing.data.trajectories import SCHEMA
from jacobi_forcing.errors import DataError
from jacobi_forcing.training.first_fit import FirstFit
from jacobi_forcing.training.schedule import nearest_states, noise_ratios, scheduled_ratios

_ROWS = 32  # trajectories in memory at a time: one may have some hundred thousand state tokens
_UNREAD = ("num_forwards", "prompt_id")
_COLUMNS = pa.schema([field for field in SCHEMA if field.name not in _UNREAD])


class Trajectories(NamedTuple):
    """Trajectories as flat arrays."""

    prompt_index: np.ndarray  # [R]
    prompts: np.ndarray  # [R + 1] offsets into prompt_ids
    prompt_ids: np.ndarray  # [tokens of all prompts] int32
    answer_length: np.ndarray  # [R]
    blocks: np.ndarray  # [R + 1] offsets of each one's blocks
    block_of_state: np.ndarray  # [N]
    fixed_point: np.ndarray  # [B] the last state of each block
    states: np.ndarray  # [N, n] int32
    noise: np.ndarray  # [N] noise ratio of each state
    is_finished: np.ndarray  # [R] bool
    is_wrong: np.ndarray  # [R] bool: checked, and failed


def pack_shard(config: PackConfig, block_size: int, source: Path, target: Path) -> Counts:
    """Pack the trajectories of one file; memory does not grow with their number.

    Raises:
        DataError: `source` cannot be read, or a trajectory is not what `block_size` makes of it.
    """
    fit = FirstFit(config.max_length, config.sequence_prompts, shortest=1 + 2 * block_size)
    with packed_writer(target) as writer:
        for batch in read_batches(source, _COLUMNS, _ROWS):
            trajectories = _flatten(batch, block_size, source)
            for copy in range(config.copies):
                for document in make_documents(trajectories, config, copy):
                    writer.write(fit.add(document))
        writer.write(fit.finish())
    return writer.counts


def make_documents(
    trajectories: Trajectories, config: PackConfig, copy: int = 0
) -> Iterator[Document]:
    """Pack each trajectory alone: per block the state nearest to the schedule, and the fixed point.

    Blocks beyond `config.max_length` are left out, and trajectories that the settings do not want.
    What is random is drawn from the seed, the prompt's index and the copy's number.
    """
    t = trajectories
    block_size = t.states.shape[1]
    prompt_length = np.diff(t.prompts)
    room = (config.max_length - prompt_length) // (2 * block_size)
    num_blocks = np.minimum(np.diff(t.blocks), room)
    wanted = (num_blocks > 0) & ~(t.is_wrong & config.solved_only)
    wanted &= t.is_finished | (not config.finished_only)

    ratios = np.zeros(len(t.fixed_point))
    for row in np.flatnonzero(wanted):
        first, last = t.blocks[row], t.blocks[row] + num_blocks[row]
        ratios[first:last] = _ratios(config, int(t.prompt_index[row]), copy, int(num_blocks[row]))
    noisy = nearest_states(t.noise, t.block_of_state, ratios)
    pairs = np.stack([t.states[noisy], t.states[t.fixed_point]], axis=1)  # [B, 2, n]
    for row in np.flatnonzero(wanted):
        blocks = slice(t.blocks[row], t.blocks[row] + num_blocks[row])
        prompt = t.prompt_ids[t.prompts[row] : t.prompts[row + 1]]
        yield Document(
            prompt_index=int(t.prompt_index[row]),
            prompt_length=len(prompt),
            answer_length=int(min(t.answer_length[row], num_blocks[row] * block_size)),
            input_ids=np.concatenate([prompt, pairs[blocks].reshape(-1)]),
            noise_ratios=ratios[blocks].astype(np.float32),
        )


def _ratios(config: PackConfig, prompt_index: int, copy: int, num_blocks: int) -> list[float]:
    rng = random.Random(f"{config.seed}/{prompt_index}/{copy}")
    return scheduled_ratios(
        config.schedule,
        num_blocks,
        window=config.window,
        low=config.min_noise_ratio,
        high=config.max_noise_ratio,
        phase=rng.randrange(config.window) if config.phase == "random" else 0,
        rng=rng,
    )


def _flatten(batch: pa.RecordBatch, block_size: int, source: Path) -> Trajectories:
    """Take a batch of rows apart, and see that it is what the manifest says."""
    (prompts,), prompt_ids = unnest(batch["prompt_ids"], f"{source}: prompt_ids")
    (answers,), _ = unnest(batch["answer_ids"], f"{source}: answer_ids")
    (blocks, states, tokens), ids = unnest(batch["states"], f"{source}: states")
    prompt_index = batch["prompt_index"].to_numpy()
    num_states = np.diff(states)
    block_of_state = np.repeat(np.arange(len(num_states)), num_states)

    def refuse(wrong: np.ndarray, offsets: np.ndarray, what: str) -> None:
        if wrong.any():
            row = np.searchsorted(offsets, wrong.argmax(), side="right") - 1
            raise DataError(
                f"{source}: prompt {prompt_index[row]}: {what}. Collect again, and keep folders "
                "of different settings apart."
            )

    lengths = np.diff(tokens)
    refuse(
        lengths != block_size,
        states[blocks],
        f"a state is not of {block_size} tokens, the block size that the manifest names",
    )
    refuse(num_states < 1, blocks, "a block has no state, not even its fixed point")
    rows = np.arange(len(prompt_index) + 1)
    refuse(np.diff(prompts) < 1, rows, "the prompt is empty")
    num_blocks, answer_length = np.diff(blocks), np.diff(answers)
    refuse(
        (num_blocks > 0) & (answer_length <= (num_blocks - 1) * block_size),
        rows,
        "there are more blocks than the answer fills",
    )
    by_state = ids.reshape(-1, block_size)  # [N, n]
    fixed_point = states[1:] - 1
    return Trajectories(
        prompt_index,
        prompts,
        prompt_ids,
        answer_length,
        blocks,
        block_of_state,
        fixed_point,
        by_state,
        noise_ratios(by_state, by_state[fixed_point[block_of_state]]),
        is_finished=pc.equal(pc.fill_null(batch["finish_reason"], ""), "eos").to_numpy(
            zero_copy_only=False
        ),
        is_wrong=pc.equal(pc.fill_null(batch["solved"], True), False).to_numpy(
            zero_copy_only=False
        ),
    )


def end_with_parent() -> None:
    """Let a worker end with its parent, and not before: a Ctrl-C reaches both."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)

    def wait() -> None:
        parent_process().join()
        os._exit(1)

    threading.Thread(target=wait, daemon=True).start()
