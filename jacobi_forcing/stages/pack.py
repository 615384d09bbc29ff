"""pack: pick each block's noisy state by the schedule and lay it out beside the clean one."""

import os
import random
import threading
from concurrent.futures import ProcessPoolExecutor
from functools import partial
from multiprocessing import get_context, parent_process
from pathlib import Path

from jacobi_forcing.config import PackConfig, check
from jacobi_forcing.data.files import sha256, shard_path, shard_paths, write_json, write_rows
from jacobi_forcing.data.packed import SCHEMA, Packed
from jacobi_forcing.data.record import run_record
from jacobi_forcing.data.trajectories import (
    MANIFEST,
    Trajectory,
    read_manifest,
    read_trajectories,
)
from jacobi_forcing.errors import DataError
from jacobi_forcing.progress import progress_bar
from jacobi_forcing.training.layout import interleave
from jacobi_forcing.training.schedule import nearest_state, scheduled_ratios


def run(config: PackConfig) -> Path:
    """Pack trajectories into `config.out`; return that folder.

    Every trajectory shard becomes one packed shard, and whatever is random is drawn from the seed
    and the prompt's index, so the bytes do not depend on the number of workers or their order.

    What an earlier run left in `config.out` is replaced: its shards would be read as ours.

    Raises:
        ConfigError: `config.out` is the folder of the trajectories.
        DataError: The trajectories are not finished, or nothing is left of them.
    """
    source, out = Path(config.trajectories), Path(config.out)
    manifest = read_manifest(source, "collect")
    check(
        out.resolve() != source.resolve(),
        f"--out is {config.out}, where the trajectories are; needed is a folder of its own.",
    )
    for old in (out / MANIFEST, *shard_paths(out)):
        old.unlink(missing_ok=True)
    block_size = manifest["block_size"]
    shards = shard_paths(source)
    counts = []
    with progress_bar("pack", len(shards)) as bar:
        for count in _map(partial(_pack_shard, config, block_size), shards, config.workers):
            counts.append(count)
            bar.advance()
    if not sum(counts):
        raise DataError(
            f"{source}: no trajectory is left to pack: {manifest['num_prompts']} collected, "
            f"{manifest['num_finished']} ended with EOS, {manifest['num_solved']} solved their "
            "problem."
        )
    record = run_record(config, inputs={MANIFEST: sha256(source / MANIFEST)})
    packed = [shard_path(out, n) for n in range(len(shards))]
    write_json(
        out / MANIFEST,
        {
            **record,
            "block_size": block_size,
            "record": manifest.get("record", "states"),  # older folders hold states
            "window": config.window,
            "num_sequences": sum(counts),
            "num_prompts": manifest["num_prompts"],
            "tokenizer": manifest["tokenizer"],
            "shards": {shard.name: sha256(shard) for shard in packed},
        },
    )
    return out


def _map(function, items, workers: int):
    if workers == 1:
        yield from map(function, items)
        return
    # Spawned, not forked: the parent may hold PyTorch's threads.
    context = get_context("spawn")
    with ProcessPoolExecutor(workers, mp_context=context, initializer=_end_with_parent) as pool:
        yield from pool.map(function, items)


def _end_with_parent() -> None:
    """Let a worker end when its parent is killed; it would wait for work for ever."""

    def wait() -> None:
        parent_process().join()
        os._exit(1)

    threading.Thread(target=wait, daemon=True).start()


def _pack_shard(config: PackConfig, block_size: int, shard: Path) -> int:
    """Pack one trajectory shard into the shard of the same name; return the number of sequences."""
    rows = [
        pack_one(trajectory, block_size, config, copy)._asdict()
        for trajectory in read_trajectories(shard)
        if _wanted(trajectory, config, block_size)
        for copy in range(config.copies)
    ]
    write_rows(Path(config.out) / shard.name, rows, SCHEMA)
    return len(rows)


def _wanted(trajectory: Trajectory, config: PackConfig, block_size: int) -> bool:
    if config.solved_only and trajectory.solved is False:
        return False
    if config.finished_only and trajectory.finish_reason != "eos":
        return False
    fits = len(trajectory.prompt_ids) + 2 * block_size <= config.max_length
    return bool(trajectory.states) and fits


def pack_one(trajectory: Trajectory, block_size: int, config: PackConfig, copy: int = 0) -> Packed:
    """Pack one trajectory: per block, the state nearest to the schedule, and the fixed point."""
    rng = random.Random(f"{config.seed}/{trajectory.prompt_index}/{copy}")
    room = (config.max_length - len(trajectory.prompt_ids)) // (2 * block_size)
    states = trajectory.states[:room]
    ratios = scheduled_ratios(
        config.schedule,
        len(states),
        window=config.window,
        low=config.min_noise_ratio,
        high=config.max_noise_ratio,
        phase=rng.randrange(config.window) if config.phase == "random" else 0,
        rng=rng,
    )
    noisy = [
        block[nearest_state(block, ratio)] for block, ratio in zip(states, ratios, strict=True)
    ]
    return Packed(
        prompt_index=trajectory.prompt_index,
        prompt_length=len(trajectory.prompt_ids),
        answer_length=min(len(trajectory.answer_ids), len(states) * block_size),
        input_ids=interleave(trajectory.prompt_ids, noisy, [block[-1] for block in states]),
        noise_ratios=ratios,
    )
