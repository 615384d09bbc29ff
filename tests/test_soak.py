"""Serving's daily life in short: rows come, go and are cancelled without end, under all settings.

Ten minutes of it: JACOBI_SOAK_SECONDS=600 pytest tests/test_soak.py --junitxml=soak.xml
"""

import gc
import os
import random
import time
from pathlib import Path

import pytest
from test_decoding import DECODERS, random_prompts
from test_sampling import SAMPLINGS, run
from toys import toy_model

from jacobi_forcing.config import DecoderConfig
from jacobi_forcing.decoding import DecodingLoop, Finished, Request, Sampling, make_strategy
from jacobi_forcing.decoding.width import AutoWidth

SECONDS = float(os.environ.get("JACOBI_SOAK_SECONDS", "12"))
NUM_TOKENS = 30


def resident_megabytes() -> float:
    """What the process holds in memory."""
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE") / 2**20


@pytest.mark.slow
@pytest.mark.skipif(not Path("/proc/self/statm").exists(), reason="needs /proc to see its memory")
def test_nothing_drifts_and_nothing_differs_under_endless_churn(record_property):
    model, rng = toy_model(), random.Random(11)
    prompts = random_prompts(16, 60)
    used = [rng.choice(SAMPLINGS + (Sampling(),) * 4) for _ in prompts]
    right, _ = run(model, prompts, used, 8, num_tokens=NUM_TOKENS, strategy="autoregressive")
    loop = DecodingLoop(
        model,
        batch_size=8,
        max_tokens=80,
        branch_tokens=40,
        width=AutoWidth(12),
        prefill_tokens=11,
    )
    in_flight: dict[int, int] = {}  # request -> prompt
    counts = {"finished": 0, "cancelled": 0, "forwards": 0}
    next_index, memory, objects = 0, [], []
    end = time.monotonic() + SECONDS
    while time.monotonic() < end or not loop.is_idle:
        while loop.num_free and time.monotonic() < end and rng.random() < 0.7:
            number = rng.randrange(len(prompts))
            decoder = DecoderConfig(block_size=rng.randint(2, 12), **rng.choice(DECODERS))
            strategy = make_strategy(decoder, model.vocab_tokens, next_index)
            stop = ("w7 w9",) if rng.random() < 0.2 else ()
            prompt, wants_logprobs = prompts[number], rng.random() < 0.2
            request = Request(next_index, prompt, NUM_TOKENS, used[number], stop, wants_logprobs)
            loop.add(request, strategy)
            in_flight[next_index] = number
            next_index += 1
        if in_flight and rng.random() < 0.05:
            loop.cancel(rng.choice(list(in_flight)))
        for event in loop.step():
            counts["forwards"] += not isinstance(event, Finished)
            if isinstance(event, Finished):
                expected = right[in_flight.pop(event.request)]
                assert event.answer_ids == expected[: len(event.answer_ids)]
                if event.reason in ("eos", "length"):
                    assert len(event.answer_ids) == len(expected)
                    counts["finished"] += 1
                counts["cancelled"] += event.reason == "cancelled"
        if counts["forwards"] % 500 < 8:
            gc.collect()
            memory.append(resident_megabytes())
            objects.append(len(gc.get_objects()))
    settled = len(memory) // 4  # allocators and caches fill up first
    growth = max(memory[settled:]) - max(memory[: settled + 1])
    record_property("soak", f"{counts}, memory {memory[0]:.0f} to {memory[-1]:.0f} MiB")
    assert counts["finished"] > 20 * SECONDS / 12
    assert counts["cancelled"] > 3
    assert growth < 20
    assert max(objects[settled:]) < 1.02 * max(objects[: settled + 1])
    assert not in_flight
