"""How fast packing is, and how much memory it takes, over the number of blocks; synthetic.

    python benchmarks/pack_speed.py

Every run is a process of its own. Its seconds are those of the whole stage, hashing the
trajectories and writing the manifest included, without Python's imports; its memory is the most
that it ever held, beside what the imports took. Core seconds are processor time, that of workers
and their imports included. Blocks have states as decoding with a base model gives them: each
settles one to three tokens. The last line printed is one JSON object.
"""

import argparse
import json
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from common import save

from jacobi_forcing.data.columns import nest, offsets_of
from jacobi_forcing.data.files import read_json, sha256, shard_path, shard_paths, write_json
from jacobi_forcing.data.trajectories import MANIFEST, SCHEMA

BLOCK = 16
BLOCKS = 12  # per prompt on average, 1 to 23
PROMPT_TOKENS = 100  # on average, 1 to 199
SHARD_PROMPTS = 256
VOCAB = 150_000
# Not a function of this file: workers are spawned, and each would import all that this one does.
ONE_RUN = """
import json, resource, sys, time
from jacobi_forcing.config import PackConfig
from jacobi_forcing.stages import pack

def core_seconds():
    used = [resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)]
    return sum(usage.ru_utime + usage.ru_stime for usage in used)

def megabytes(name):
    lines = open("/proc/self/status").read().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith(name)) * 1024 / 1e6

trajectories, out, workers = sys.argv[1:]
config = PackConfig(
    trajectories=trajectories, out=out, sequence_prompts=0, workers=int(workers)
)
open("/proc/self/clear_refs", "w").write("5")  # forget the most that was held while importing
found = {"import_megabytes": megabytes("VmRSS")}
start, cores = time.perf_counter(), core_seconds()
pack.run(config)
found |= {"seconds": time.perf_counter() - start, "core_seconds": core_seconds() - cores}
print(json.dumps(found | {"peak_megabytes": megabytes("VmHWM")}))
"""


def shard(rng: np.random.Generator, first: int) -> pa.Table:
    """Make the trajectories of `SHARD_PROMPTS` prompts."""
    num_blocks = rng.integers(1, 2 * BLOCKS, SHARD_PROMPTS)
    prompt_tokens = rng.integers(1, 2 * PROMPT_TOKENS, SHARD_PROMPTS)
    # Right tokens of every block's states: 0 or 1 at first, then one to three more each time.
    steps = np.concatenate(
        [
            rng.integers(0, 2, (num_blocks.sum(), 1)),
            rng.integers(1, 4, (num_blocks.sum(), BLOCK)),
        ],
        axis=1,
    ).cumsum(1)
    num_states = (steps < BLOCK).sum(1) + 1  # and the fixed point
    right = np.minimum(steps, BLOCK)[np.arange(BLOCK + 1) < num_states[:, None]]
    fixed = rng.integers(0, VOCAB, (num_blocks.sum(), BLOCK))
    noise = rng.integers(0, VOCAB, (len(right), BLOCK))
    is_right = np.arange(BLOCK) < right[:, None]
    states = np.where(is_right, np.repeat(fixed, num_states, axis=0), noise)
    ends = offsets_of(num_blocks)
    columns = {
        "prompt_index": pa.array(np.arange(first, first + SHARD_PROMPTS)),
        "prompt_ids": nest(
            [offsets_of(prompt_tokens)], rng.integers(0, VOCAB, prompt_tokens.sum()), pa.int32()
        ),
        "answer_ids": nest([ends * BLOCK], fixed.reshape(-1), pa.int32()),
        "states": nest(
            [ends, offsets_of(num_states), np.arange(len(states) + 1) * BLOCK],
            states.reshape(-1),
            pa.int32(),
        ),
        "finish_reason": pa.array(["length"] * SHARD_PROMPTS),
        "num_forwards": pa.array([1] * SHARD_PROMPTS, pa.int32()),
        "solved": pa.nulls(SHARD_PROMPTS, pa.bool_()),
    }
    return pa.table(columns, schema=SCHEMA)


def write_trajectories(folder: Path, num_blocks: int) -> None:
    """Write a folder as `jacobi collect` leaves it, with at least `num_blocks` blocks."""
    rng, written, number = np.random.default_rng(0), 0, 0
    folder.mkdir()
    while written < num_blocks:
        table = shard(rng, number * SHARD_PROMPTS)
        pq.write_table(table, shard_path(folder, number), compression="zstd")
        written += blocks_of(table)
        number += 1
    manifest = {
        "stage": "collect",
        "block_size": BLOCK,
        "tokenizer": "none",
        "num_prompts": number * SHARD_PROMPTS,
        "num_finished": 0,
        "num_solved": 0,
        "num_blocks": written,
        "shards": {path.name: sha256(path) for path in shard_paths(folder)},
    }
    write_json(folder / MANIFEST, manifest)


def blocks_of(table: pa.Table) -> int:
    """Count a shard's blocks."""
    return len(table["states"].combine_chunks().flatten())


def measured(trajectories: Path, workers: int, repeats: int) -> dict:
    """Pack in new processes: the median of the times, the most of the memory."""
    with tempfile.TemporaryDirectory() as folder:
        out = Path(folder) / "packed"
        command = [sys.executable, "-c", ONE_RUN, trajectories, out, str(workers)]
        runs = []
        for _ in range(repeats):
            found = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True)
            runs.append(json.loads(found.stdout.splitlines()[-1]))
        manifest = read_json(out / MANIFEST)
    tokens, sequences = manifest["num_tokens"], manifest["num_sequences"]
    seconds, cores = (
        statistics.median(run[name] for run in runs) for name in ("seconds", "core_seconds")
    )
    return {
        "num_blocks": read_json(trajectories / MANIFEST)["num_blocks"],
        "workers": workers,
        "tokens": tokens,
        "full": tokens / (manifest["settings"]["max_length"] * sequences),
        "seconds": seconds,
        "core_seconds": cores,
        "tokens_per_second": tokens / seconds,
        "tokens_per_core_second": tokens / cores,
        "import_megabytes": max(run["import_megabytes"] for run in runs),
        "peak_megabytes": max(run["peak_megabytes"] for run in runs),
    }


def main() -> None:
    """Make trajectories, pack, print and save."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    sizes = [10_000, 30_000, 100_000, 300_000, 1_000_000]
    parser.add_argument("--blocks", type=int, nargs="+", default=sizes)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--folder", type=Path, help="where to work; default: a temporary one")
    args = parser.parse_args()
    rows = []
    for num_blocks in args.blocks:
        with tempfile.TemporaryDirectory(dir=args.folder) as folder:
            trajectories = Path(folder) / "trajectories"
            write_trajectories(trajectories, num_blocks)
            for workers in (1, 2):
                rows.append(measured(trajectories, workers, args.repeats))
                print(rows[-1], flush=True)
    save("pack_speed", rows, block_size=BLOCK, repeats=args.repeats)
    rates = {
        f"{row['num_blocks']} x {row['workers']}": round(row["tokens_per_core_second"])
        for row in rows
    }
    print(json.dumps(rates))


if __name__ == "__main__":
    main()
