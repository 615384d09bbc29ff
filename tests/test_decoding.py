"""Every decoder is a faster way to compute greedy decoding, and nothing else."""

import dataclasses
import random

import pytest
import torch
from toys import EOS, FAMILIES, VOCAB, toy_model

from jacobi_forcing.decoding import Finished, Forward, Noise, Request, decode, make_strategy
from jacobi_forcing.models import load_model
from jacobi_forcing.models.probe import probe

STRATEGIES = ("autoregressive", "jacobi", "window", "prompt-lookup")


def reference(model, prompt, num_tokens, eos_ids=None):
    """The model's own greedy ids, by transformers' generate."""
    ids = torch.tensor([prompt])
    eos = sorted(model.eos_ids if eos_ids is None else eos_ids)
    out = model.network.generate(
        ids,
        attention_mask=torch.ones_like(ids),
        do_sample=False,
        max_new_tokens=num_tokens,
        eos_token_id=eos,
        pad_token_id=model.pad_id,
    )
    return out[0, len(prompt) :].tolist()


def run(model, prompts, strategy, block_size, num_tokens, batch_size=1, noise="text"):
    """Answers and forwards per prompt, and all events."""

    def make(request):
        source = Noise(noise, model.vocab_tokens, request.index)
        return make_strategy(strategy, block_size, source)

    budgets = [num_tokens] * len(prompts) if isinstance(num_tokens, int) else num_tokens
    requests = [Request(i, p, n) for i, (p, n) in enumerate(zip(prompts, budgets, strict=True))]
    longest = max(map(len, prompts)) + max(budgets)
    events = list(decode(model, requests, make, batch_size=batch_size, max_tokens=longest))
    finished = sorted((e for e in events if isinstance(e, Finished)), key=lambda e: e.request)
    return finished, [e for e in events if isinstance(e, Forward)]


def random_prompts(seed, count):
    rng = random.Random(seed)
    return [[rng.randrange(2, VOCAB) for _ in range(rng.randrange(1, 30))] for _ in range(count)]


@pytest.mark.parametrize("family", FAMILIES)
def test_every_strategy_gives_the_ids_of_generate(family):
    model = toy_model(family)
    probe(model)
    prompts = random_prompts(1, 6)
    expected = [reference(model, p, 40) for p in prompts]
    accepted = []
    for strategy in STRATEGIES:
        for block_size in (2, 5, 16, 64):
            finished, forwards = run(model, prompts, strategy, block_size, 40)
            assert [f.answer_ids for f in finished] == expected, (strategy, block_size)
            assert all(f.num_forwards <= len(f.answer_ids) for f in finished)
            accepted += [len(e.accepted) for e in forwards]
    # Not vacuous: texts differ and do not just repeat, and some guesses were right.
    assert len({tuple(e) for e in expected}) == len(expected)
    assert max(len(set(e)) for e in expected) > 5
    assert max(accepted) > 1


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("strategy", STRATEGIES)
def test_a_batch_of_ragged_rows_gives_each_row_its_own_ids(family, strategy):
    model = toy_model(family)
    prompts = random_prompts(2, 11)
    budgets = [7 + 3 * i for i in range(11)]
    expected = [reference(model, p, n) for p, n in zip(prompts, budgets, strict=True)]
    for batch_size in (1, 3, 16):
        finished, _ = run(model, prompts, strategy, 8, budgets, batch_size)
        assert [f.answer_ids for f in finished] == expected


@pytest.mark.parametrize("strategy", STRATEGIES)
@pytest.mark.parametrize("block_size", [2, 3, 4, 8])
def test_eos_at_every_offset_of_a_block_ends_the_answer(strategy, block_size):
    model = toy_model()
    prompt = random_prompts(3, 1)[0]
    text = reference(model, prompt, 24, eos_ids=[VOCAB - 1])
    offsets = set()
    for position in range(len(text)):
        if text[position] in text[:position]:
            continue
        ended = dataclasses.replace(model, eos_ids=frozenset({text[position]}))
        finished, _ = run(ended, [prompt], strategy, block_size, 24)
        assert finished[0].answer_ids == text[: position + 1]
        assert finished[0].reason == "eos"
        offsets.add(position % block_size)
    assert offsets == set(range(block_size))


@pytest.mark.parametrize("strategy", STRATEGIES)
def test_any_of_several_eos_ids_ends_the_answer(strategy):
    model = toy_model()
    prompt = random_prompts(3, 1)[0]
    text = reference(model, prompt, 24, eos_ids=[VOCAB - 1])
    several = dataclasses.replace(model, eos_ids=frozenset({text[9], text[15], EOS}))
    finished, _ = run(several, [prompt], strategy, 8, 24)
    assert finished[0].answer_ids == reference(several, prompt, 24)
    assert len(finished[0].answer_ids) < 24


@pytest.mark.parametrize("strategy", STRATEGIES)
def test_budgets_that_end_inside_a_block_are_kept_exactly(strategy):
    model = toy_model()
    prompt = random_prompts(4, 1)[0]
    text = reference(model, prompt, 40, eos_ids=[VOCAB - 1])
    endless = dataclasses.replace(model, eos_ids=frozenset({VOCAB - 1}))
    for budget in range(1, 20):
        finished, _ = run(endless, [prompt], strategy, 8, budget)
        assert finished[0].answer_ids == text[:budget]
        assert finished[0].reason == "length"


def test_autoregressive_takes_one_forward_per_token():
    model = toy_model()
    finished, forwards = run(model, random_prompts(5, 3), "autoregressive", 2, 20)
    assert sum(len(f.answer_ids) for f in finished) == len(forwards)
    assert all(len(e.accepted) == 1 and not e.guesses for e in forwards)


def test_uniform_noise_draws_only_real_tokens_and_changes_no_id():
    model = toy_model()
    prompts = random_prompts(6, 4)
    expected = [reference(model, p, 30) for p in prompts]
    finished, forwards = run(model, prompts, "jacobi", 8, 30, noise="vocabulary")
    assert [f.answer_ids for f in finished] == expected
    assert all(0 <= g < model.vocab_tokens for e in forwards for g in e.guesses)


def test_a_stale_cache_entry_would_change_the_answer():
    """Mutation: put a wrong guess's entry over the newest token's, and ids must come out wrong."""
    import jacobi_forcing.decoding.loop as loop

    model = toy_model()
    prompts = random_prompts(7, 8)
    expected = [reference(model, p, 40) for p in prompts]

    class Stale(loop.RaggedForward):
        @torch.inference_mode()
        def greedy(self, first_row, inputs, num_outputs):
            # Positions stay; the newest token's entry becomes that of a wrong guess.
            found = super().greedy(first_row, inputs, num_outputs)
            for layers in (self.cache.keys, self.cache.values):
                for stored in layers.values():
                    for row, ids in enumerate(inputs, first_row):
                        end = self.lengths[row] + len(ids) - 1
                        stored[row, :, self.lengths[row]] = stored[row, :, end].clone()
            return found

    original = loop.RaggedForward
    loop.RaggedForward = Stale
    try:
        finished, _ = run(model, prompts, "window", 8, 40)
    finally:
        loop.RaggedForward = original
    assert [f.answer_ids for f in finished] != expected
    finished, _ = run(model, prompts, "window", 8, 40)
    assert [f.answer_ids for f in finished] == expected


def test_guesses_that_are_right_are_all_accepted():
    """An oracle that knows the answer needs one forward per block_size tokens."""
    model = toy_model()
    prompt = random_prompts(8, 1)[0]
    text = reference(model, prompt, 32, eos_ids=[VOCAB - 1])
    endless = dataclasses.replace(model, eos_ids=frozenset({VOCAB - 1}))

    class Oracle:
        def guess(self, ids, offset, limit):
            return text[offset : offset + min(7, limit)]

        def observe(self, num_accepted, tail):
            assert tail == []

    request = Request(0, prompt, 32)
    *forwards, finished = decode(endless, [request], lambda _: Oracle(), max_tokens=100)
    assert finished.answer_ids == text
    assert len(forwards) == 4


def test_the_real_model_decodes_its_own_greedy_text(stories):
    model = load_model(str(stories))
    probe(model)
    for start in ("Once upon a time", "The dog", "Lily and Tom went to the park"):
        prompt = model.tokenizer.encode(start)
        expected = reference(model, prompt, 120)
        for strategy in STRATEGIES:
            finished, _ = run(model, [prompt], strategy, 16, 120)
            assert finished[0].answer_ids == expected
