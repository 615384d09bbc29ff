"""Fixed shapes: the same bits for a text wherever it lies in a forward, in every dtype."""

import dataclasses
import random

import pytest
import torch
from toys import EOS, VOCAB, toy_model

from jacobi_forcing.config import DecoderConfig
from jacobi_forcing.decoding import (
    DecodingLoop,
    Finished,
    Forward,
    Request,
    Sampling,
    decode,
    make_strategy,
)
from jacobi_forcing.errors import ConfigError, ModelError
from jacobi_forcing.models import load_model
from jacobi_forcing.models.exact import TILE, ExactForward, Shapes, find_shapes
from jacobi_forcing.models.forward import RaggedForward
from jacobi_forcing.problems import held_out

DECODERS = (
    {"strategy": "autoregressive"},
    {"strategy": "prompt-lookup"},
    {"strategy": "window", "block_size": 16},
    {"strategy": "window", "block_size": 23, "pool_size": 0},
    {"strategy": "multiblock", "block_size": 9, "pool": "both"},
)


def exact_toy(family, dtype, shapes=None):
    model = toy_model(family)
    model.network.to(dtype)
    return dataclasses.replace(model, exact=shapes or find_shapes(model))


def decoded(model, prompts, decoder, *, batch_size=1, sampled=False, num_tokens=0, **options):
    """Answers and log-probabilities of prompts that join as others leave; right guesses."""
    config = DecoderConfig(**decoder)
    loop = DecodingLoop(model, batch_size=batch_size, max_tokens=400, branch_tokens=64, **options)
    waiting = [
        Request(
            i,
            prompt,
            num_tokens or 9 + 5 * (i % 5),
            Sampling(temperature=0.9, top_p=0.9, seed=i) if sampled else Sampling(),
            wants_logprobs=True,
        )
        for i, prompt in enumerate(prompts)
    ]
    answers, num_right, logprobs = {}, 0, {}
    while waiting or not loop.is_idle:
        while waiting and loop.num_free:
            request = waiting.pop(0)
            loop.add(request, make_strategy(config, model.vocab_tokens, request.index))
        for event in loop.step():
            if isinstance(event, Finished):
                answers[event.request] = event.answer_ids
            else:
                num_right += len(event.path)
                logprobs.setdefault(event.request, []).extend(event.logprobs)
    found = [(answers[i], logprobs[i]) for i in range(len(prompts))]
    return found, num_right


def prompts(seed, count):
    rng = random.Random(seed)
    shared = [rng.randrange(2, VOCAB) for _ in range(20)]
    beginnings = [shared[: rng.choice([0, 0, 18, 20])] for _ in range(count)]
    return [
        [*beginning, *(rng.randrange(2, VOCAB) for _ in range(rng.randrange(1, 40)))]
        for beginning in beginnings
    ]


@pytest.mark.parametrize(
    ("family", "sampled"),
    [("llama", False), ("gemma3_text", True), ("gpt2", False), ("bloom", True)],
)
def test_in_bfloat16_every_decoder_gives_the_ids_of_ar_alone_and_in_any_batch(family, sampled):
    model = exact_toy(family, torch.bfloat16)
    asked = prompts(3, 7)
    expected, _ = decoded(model, asked, DECODERS[0], sampled=sampled)
    accepted = 0
    for decoder, options in (
        (DECODERS[0], {"batch_size": 3}),
        (DECODERS[1], {"batch_size": 4, "prefill_tokens": 7}),
        (DECODERS[2], {"batch_size": 4, "prefix_tokens": 200}),
        (DECODERS[3], {"batch_size": 1}),
        (DECODERS[4], {"batch_size": 3, "prefix_tokens": 200, "prefill_tokens": 7}),
    ):
        found, num_right = decoded(model, asked, decoder, sampled=sampled, **options)
        assert found == expected, (decoder, options)
        accepted += num_right
    assert accepted > 0
    assert len({tuple(answer) for answer, _ in expected}) > 3


def test_branches_that_were_right_change_no_bit():
    model = load_model("tiny-forced", dtype="bfloat16", exact=True, probed=False)
    texts = [problem.prompt for problem in held_out("math", 3) + held_out("code", 3)]
    asked = [model.tokenizer.encode(text) for text in texts]
    expected, _ = decoded(model, asked, DECODERS[0], num_tokens=110)
    for decoder in ({"strategy": "window"}, {"strategy": "prompt-lookup"}):
        found, num_right = decoded(model, asked, decoder, num_tokens=110)
        assert found == expected
        assert num_right > 5
    # Not vacuous: with the same draws, branches do win where they may.
    plain = dataclasses.replace(model, exact=None)
    config = DecoderConfig()
    events = decode(
        plain,
        [Request(i, ids, 110) for i, ids in enumerate(asked)],
        lambda request: make_strategy(config, model.vocab_tokens, request.index),
        branch_tokens=64,
    )
    assert sum(event.num_recycled for event in events if isinstance(event, Forward)) > 0


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float32], ids=str)
@pytest.mark.parametrize("family", ["qwen2", "mistral"])
def test_fixed_shapes_give_the_logits_of_the_ragged_forward(family, dtype):
    model = exact_toy(family, dtype)
    rng = random.Random(5)
    rows = [[rng.randrange(VOCAB) for _ in range(n)] for n in (37, 5, 16)]
    found = ExactForward(model, 3, 64).logits(0, rows, 4)
    plain = RaggedForward(model, 3, 64).logits(0, rows, 4)
    assert found.shape == plain.shape
    close = 1e-4 if dtype == torch.float32 else 0.05
    assert (found - plain).float().abs().max() < close * plain.float().std()
    assert plain.float().std() > 0.1


def test_every_forward_has_one_of_the_shapes_and_keys_from_the_grid(monkeypatch):
    shapes = Shapes(rows=(1, 2), tokens=(TILE,))
    model = exact_toy("qwen2", torch.float32, shapes)
    seen = set()
    run = RaggedForward.run

    def noted(self, first_row, ids, positions, visible, *rest):
        seen.add((*ids.shape, visible.shape[-1]))
        return run(self, first_row, ids, positions, visible, *rest)

    monkeypatch.setattr(RaggedForward, "run", noted)
    asked = [[2 + i % 50 for i in range(length)] for length in (3, 70, 20, 31)]
    decoded(model, asked, DECODERS[2], batch_size=3)
    assert {rows for rows, _, _ in seen} == {1, 2}
    assert {tokens for _, tokens, _ in seen} == {TILE}
    assert all(keys % 64 == 0 for _, _, keys in seen)
    assert len({keys for _, _, keys in seen}) > 1


def test_a_kernel_that_looks_at_a_tokens_place_is_refused():
    model = toy_model("llama")
    norm = model.network.model.norm

    def by_place(module, inputs, output):
        output = output.clone()
        output[:, 3] *= 1 + 2**-20  # one of a forward's tokens is rounded in another way
        return output

    handle = norm.register_forward_hook(by_place)
    with pytest.raises(ModelError, match=r"--exact does not hold .* depend on its place"):
        find_shapes(model)
    handle.remove()
    assert find_shapes(model).tokens[0] == TILE


def test_a_shape_with_other_bits_is_not_used():
    model = toy_model("llama")

    def by_shape(module, inputs, output):
        return output * (1 + 2**-20) if output.shape[0] in (2, 8) else output

    model.network.model.norm.register_forward_hook(by_shape)
    found = find_shapes(model)
    assert 2 not in found.rows
    assert 8 not in found.rows
    assert found.rows[0] == 1


def test_exact_and_compiled_steps_exclude_each_other(toy):
    with pytest.raises(ConfigError, match="leave --compile out"):
        load_model(str(toy), exact=True, compile=True)
    model = load_model(str(toy), exact=True, dtype="bfloat16")
    assert model.exact.rows[0] == 1
    assert EOS in model.eos_ids


@pytest.mark.slow
@pytest.mark.parametrize("sampled", [False, True])
def test_a_real_model_in_bfloat16_is_exact(real_model, sampled):
    model = load_model(str(real_model), dtype="bfloat16", exact=True)
    texts = [f"Question {i}: what is {7 * i} plus {i + 3}, and why?" for i in range(12)]
    asked = [model.tokenizer.encode(text) for text in texts]
    expected, _ = decoded(model, asked, DECODERS[0], sampled=sampled)
    for decoder in DECODERS[1:4]:
        for batch_size in (1, 4):
            found, _ = decoded(
                model, asked, decoder, batch_size=batch_size, sampled=sampled, prefix_tokens=500
            )
            assert found == expected, (decoder, batch_size)
    assert len({tuple(answer) for answer, _ in expected}) > 6
