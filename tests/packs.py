"""Random trajectories and packed sequences that have the properties of real ones."""

import random
from collections.abc import Iterable
from itertools import chain, islice
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import torch
from toys import EOS, PAD, VOCAB, toy_tokenizer

from jacobi_forcing.config import PackConfig
from jacobi_forcing.data.files import sha256, shard_path, shard_paths, write_json, write_rows
from jacobi_forcing.data.packed import Document, Packed
from jacobi_forcing.data.trajectories import MANIFEST, SCHEMA, Trajectory, tokenizer_fingerprint
from jacobi_forcing.training.schedule import scheduled_ratios
from jacobi_forcing.training.trainer import JacobiTrainer


def random_ids(rng: random.Random, count: int) -> list[int]:
    """Draw ids that are neither EOS nor padding."""
    return [rng.randrange(2, VOCAB) for _ in range(count)]


def flat(blocks: Iterable[list[int]]) -> list[int]:
    """Join blocks into one text."""
    return list(chain.from_iterable(blocks))


def random_states(rng: random.Random, fixed: list[int]) -> list[list[int]]:
    """Make states that end in `fixed`, each with a longer right beginning than the one before."""
    states, right = [], rng.choice([0, 0, 1])
    while right < len(fixed):
        states.append(fixed[:right] + random_ids(rng, len(fixed) - right))
        right += rng.choice([1, 1, 1, 2, 3])
    return [state for state in states if state != fixed] + [fixed]


def random_trajectory(
    rng: random.Random,
    index: int,
    block_size: int,
    num_blocks: int,
    *,
    ends: bool = True,
    solved: bool | None = None,
) -> Trajectory:
    """Make one prompt's decode; with `ends` its EOS lies anywhere in the last block."""
    num_tokens = num_blocks * block_size - (rng.randrange(block_size) if ends else 0)
    answer = random_ids(rng, num_tokens - ends) + [EOS] * ends
    text = answer + [PAD] * (num_blocks * block_size - num_tokens)
    blocks = [text[i : i + block_size] for i in range(0, len(text), block_size)]
    return Trajectory(
        prompt_index=index,
        prompt_ids=random_ids(rng, rng.randint(1, 9)),
        answer_ids=answer,
        states=[random_states(rng, block) for block in blocks],
        finish_reason="eos" if ends else "length",
        num_forwards=num_tokens,
        solved=solved,
    )


def random_trajectories(
    seed: int, count: int, block_size: int = 4, max_blocks: int = 6
) -> list[Trajectory]:
    """Make trajectories of different lengths, some without EOS."""
    rng = random.Random(seed)
    return [
        random_trajectory(rng, i, block_size, rng.randint(1, max_blocks), ends=rng.random() < 0.8)
        for i in range(count)
    ]


def write_trajectories(
    folder: Path,
    trajectories: list[Trajectory],
    block_size: int = 4,
    per_shard: int = 5,
    facts: dict | None = None,
) -> Path:
    """Write a folder as `jacobi collect` leaves it; `facts` go before its manifest's own."""
    for number, first in enumerate(range(0, len(trajectories), per_shard)):
        rows = [t._asdict() for t in trajectories[first : first + per_shard]]
        write_rows(shard_path(folder, number), rows, SCHEMA)
    manifest = {
        "stage": "collect",
        "shards": {shard.name: sha256(shard) for shard in shard_paths(folder)},
        "block_size": block_size,
        "num_prompts": len(trajectories),
        "num_finished": sum(t.finish_reason == "eos" for t in trajectories),
        "num_solved": sum(t.solved is True for t in trajectories),
        "tokenizer": tokenizer_fingerprint(toy_tokenizer()),
        "origin": {"weights": "the weights' fingerprint"},
    }
    write_json(folder / MANIFEST, manifest | (facts or {}))
    return folder


def pack_config(trajectories: Path | str = "-", out: Path | str = "-", **settings) -> PackConfig:
    """Make the settings of a pack run."""
    return PackConfig(trajectories=str(trajectories), out=str(out), **settings)


def first_difference(state: list[int], fixed_point: list[int]) -> int:
    """Count the leading tokens of `state` that equal the fixed point's."""
    return max(k for k in range(len(fixed_point) + 1) if state[:k] == fixed_point[:k])


def nearest_state(states: list[list[int]], ratio: float) -> int:
    """The slow, obvious version: the first of the states that come nearest to `ratio`."""
    size = len(states[-1])
    distances = [abs(1 - first_difference(s, states[-1]) / size - ratio) for s in states]
    return distances.index(min(distances))


def interleave(prompt: list[int], noisy: list[list[int]], clean: list[list[int]]) -> list[int]:
    """Lay out the ids of one document."""
    return flat([prompt, *flat(zip(noisy, clean, strict=True))])


def make_document(
    prompt_index: int, prompt_length: int, answer_length: int, ids: list[int], ratios: list[float]
) -> Document:
    """Make a document of lists."""
    arrays = np.array(ids, np.int32), np.array(ratios, np.float32)
    return Document(prompt_index, prompt_length, answer_length, *arrays)


def pack_one(trajectory: Trajectory, block_size: int, config: PackConfig, copy: int = 0) -> Packed:
    """The slow, obvious version: pack one trajectory into a sequence of its own."""
    rng = random.Random(f"{config.seed}/{trajectory.prompt_index}/{copy}")
    prompt = trajectory.prompt_ids
    states = trajectory.states[: (config.max_length - len(prompt)) // (2 * block_size)]
    ratios = scheduled_ratios(
        config.schedule,
        len(states),
        window=config.window,
        low=config.min_noise_ratio,
        high=config.max_noise_ratio,
        phase=rng.randrange(config.window) if config.phase == "random" else 0,
        rng=rng,
    )
    noisy = [s[nearest_state(s, ratio)] for s, ratio in zip(states, ratios, strict=True)]
    ids = interleave(prompt, noisy, [block[-1] for block in states])
    answer_length = min(len(trajectory.answer_ids), len(states) * block_size)
    return (make_document(trajectory.prompt_index, len(prompt), answer_length, ids, ratios),)


def random_packed(
    seed: int, count: int, block_size: int = 4, max_blocks: int = 6, **settings
) -> list[Packed]:
    """Pack random trajectories of different lengths, each into a sequence of its own."""
    config = pack_config(**{"window": 3} | settings)
    made = random_trajectories(seed, count, block_size, max_blocks)
    return [pack_one(trajectory, block_size, config) for trajectory in made]


def joined(sequences: list[Packed], *sizes: int) -> list[Packed]:
    """Put the documents of that many sequences at a time into one."""
    documents = iter([document for sequence in sequences for document in sequence])
    return [tuple(islice(documents, size)) for size in sizes]


def differentiable_logits(network, batch, variant, window=1):
    """The trainer's own forward; of the trainer it needs only its settings."""
    trainer = SimpleNamespace(
        mask=variant,
        window=window,
        bf16_autocast=False,
        accelerator=SimpleNamespace(unwrap_model=lambda m: m),
    )
    return JacobiTrainer.packed_logits(trainer, network, batch)


@torch.no_grad()
def packed_logits(network, batch, variant, window=1):
    """The same without gradients."""
    return differentiable_logits(network, batch, variant, window)
