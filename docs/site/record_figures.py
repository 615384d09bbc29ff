"""Record what the figures of docs/figures.md show: real decodes, the real schedule, the real mask.

    python docs/site/record_figures.py

writes figures.json beside this file, from the bundled pair and the code that trains and decodes.
Nothing in it is written by hand; tests/test_site.py records it again and compares. Run it after a
change of the bundled pair, a decoder, the schedule or the mask.
"""

import json
import random
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch

from jacobi_forcing import problems
from jacobi_forcing.config import MASKS, SCHEDULES, DecoderConfig
from jacobi_forcing.decoding import Finished, Forward, decode_one, make_strategy
from jacobi_forcing.decoding.record import TrajectoryRecorder
from jacobi_forcing.drawing.text import token_text
from jacobi_forcing.models import CausalLM, load_model
from jacobi_forcing.training.layout import make_layout
from jacobi_forcing.training.mask import dense_mask
from jacobi_forcing.training.schedule import nearest_states, noise_ratios, scheduled_ratios

PATH = Path(__file__).with_name("figures.json")
# Held-out math problem 8 of seed 0: of the first twelve, its tokens per forward lie in the middle.
PROBLEM, SEED = 8, 0
MAX_NEW_TOKENS = 256
BLOCK_SIZE = 8  # half of what is usual, so that a block fits into a line
JACOBI = DecoderConfig(strategy="jacobi", block_size=BLOCK_SIZE, pool_size=0)
MULTIBLOCK = DecoderConfig(strategy="multiblock", block_size=BLOCK_SIZE)
WINDOWS = (2, 4, 8)
MASK_PROMPT, MASK_BLOCKS, MASK_BLOCK_SIZE, MASK_WINDOW = 3, 4, 3, 2


class Texts:
    """Numbers tokens as they are first met, so that each text is kept once."""

    def __init__(self, model: CausalLM):
        self.model = model
        self.places: dict[int, int] = {}

    def __call__(self, ids: Sequence[int]) -> list[int]:
        """Give the numbers of `ids`."""
        return [self.places.setdefault(token, len(self.places)) for token in ids]

    def table(self) -> list[str]:
        """List all texts; that of an end-of-sequence token is its picture."""
        tokenizer, ends = self.model.tokenizer, self.model.eos_ids
        return ["⟨end⟩" if i in ends else token_text(tokenizer, i) for i in self.places]


def record() -> dict[str, Any]:
    """Decode the problem with the bundled pair, and ask schedule and mask."""
    torch.set_num_threads(1)
    forced, base = load_model("tiny-forced"), load_model("tiny-base")
    prompt = problems.held_out("math", PROBLEM + 1, SEED)[PROBLEM].prompt
    texts = Texts(forced)
    runs = [
        (model, *_decode(model, prompt, decoder))
        for model, decoder in ((forced, JACOBI), (base, JACOBI), (forced, MULTIBLOCK))
    ]
    figures = {
        "problem": {"prompt": prompt, "seed": SEED, "number": PROBLEM},
        "decode": {
            "blockSize": BLOCK_SIZE,
            "runs": [_iterations(texts, *run) for run in runs[:2]],
        },
        "schedule": _schedule(texts, base, runs[1][2]),
        "mask": _mask(),
        "blocks": _blocks(texts, *runs[2]),
    }
    return {"texts": texts.table()} | figures


def _decode(model: CausalLM, prompt: str, decoder: DecoderConfig) -> tuple[Finished, list[Forward]]:
    strategy = make_strategy(decoder, model.vocab_tokens, f"{SEED}/0")
    return decode_one(model, model.tokenizer.encode(prompt), strategy, MAX_NEW_TOKENS)


def _iterations(
    texts: Texts, model: CausalLM, finished: Finished, forwards: Sequence[Forward]
) -> dict[str, Any]:
    """Give each forward's guesses and, one place more, what the model said in their places."""
    return {
        "model": model.name,
        "answer": texts(finished.answer_ids),
        "forwards": [
            {
                "offset": forward.offset,
                "guesses": texts(forward.guesses),
                "accepted": len(forward.accepted),
                "choices": texts(forward.accepted + forward.tail),
            }
            for forward in forwards
        ],
    }


def _schedule(texts: Texts, model: CausalLM, forwards: Sequence[Forward]) -> dict[str, Any]:
    """Give a trajectory's states, and what each schedule aims for and takes of them."""
    recorder = TrajectoryRecorder(BLOCK_SIZE)
    for forward in forwards:
        recorder.observe(forward)
    blocks = recorder.finish(model.pad_id, model.eos_ids)
    block = np.repeat(np.arange(len(blocks)), [len(states) for states in blocks])
    states = np.array([state for states in blocks for state in states])
    noise = noise_ratios(states, np.array([states[-1] for states in blocks])[block])
    first = np.searchsorted(block, np.arange(len(blocks)))
    cases = []
    for schedule in SCHEDULES:
        for window in WINDOWS:
            aims = scheduled_ratios(schedule, len(blocks), window=window, rng=random.Random(SEED))
            taken = nearest_states(noise, block, np.array(aims)) - first
            cases.append(
                {
                    "schedule": schedule,
                    "window": window,
                    "aims": [round(aim, 4) for aim in aims],
                    "taken": taken.tolist(),
                }
            )
    return {
        "model": model.name,
        "blockSize": BLOCK_SIZE,
        "blocks": [[texts(state) for state in states] for states in blocks],
        "noise": [noise[block == number].tolist() for number in range(len(blocks))],
        "cases": cases,
    }


def _mask() -> dict[str, Any]:
    """Give a small packed sequence, and of every variant who sees whom, row by row."""
    layout = make_layout(MASK_PROMPT, MASK_BLOCKS, MASK_BLOCK_SIZE)
    batch = type(layout)(*(field[None] for field in layout))
    variants = {
        variant: [
            "".join("01"[seen] for seen in row)
            for row in dense_mask(batch, variant, MASK_WINDOW)[0].int().tolist()
        ]
        for variant in MASKS
    }
    return {
        "promptTokens": MASK_PROMPT,
        "blockSize": MASK_BLOCK_SIZE,
        "window": MASK_WINDOW,
        "stream": layout.stream.tolist(),
        "block": layout.block.tolist(),
        "position": layout.position.tolist(),
        "variants": variants,
    }


def _blocks(
    texts: Texts, model: CausalLM, finished: Finished, forwards: Sequence[Forward]
) -> dict[str, Any]:
    """Give each forward's draft as a tree: trunk nodes with their block, branches behind them."""
    return {
        "model": model.name,
        "blockSize": BLOCK_SIZE,
        "maxBlocks": MULTIBLOCK.max_blocks,
        "spawnRatio": MULTIBLOCK.spawn_ratio,
        "answer": texts(finished.answer_ids),
        "forwards": [
            {
                "offset": forward.offset,
                "tokens": texts(forward.draft.tokens),
                "trunk": forward.draft.num_trunk,
                "parents": forward.draft.parents[forward.draft.num_trunk :],
                "sources": forward.draft.sources,
                "path": forward.path,
                "accepted": len(forward.accepted),
                "held": texts(forward.accepted + forward.tail),
            }
            for forward in forwards
        ],
    }


def write(figures: dict[str, Any]) -> None:
    """Write figures.json, one figure per line."""
    lines = [
        f"{json.dumps(name)}: {json.dumps(figure, ensure_ascii=False, separators=(',', ':'))}"
        for name, figure in figures.items()
    ]
    PATH.write_text("{\n" + ",\n".join(lines) + "\n}\n", encoding="utf-8")


if __name__ == "__main__":
    write(record())
