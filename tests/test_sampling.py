"""Sampled text is as definite as greedy text, and its law is the model's."""

import dataclasses
import random

import pytest
import torch
from test_decoding import DECODERS, random_prompts
from toys import EOS, VOCAB, toy_model
from transformers import (
    MinPLogitsWarper,
    NoRepeatNGramLogitsProcessor,
    TopKLogitsWarper,
    TopPLogitsWarper,
)

from jacobi_forcing.config import DecoderConfig
from jacobi_forcing.decoding import (
    Finished,
    Forward,
    Request,
    Sampling,
    decode,
    make_strategy,
)
from jacobi_forcing.decoding import sampling as sampling_module
from jacobi_forcing.decoding.draft import chain, grow
from jacobi_forcing.decoding.gumbel import as_long, draw, gumbel, likeliest, philox
from jacobi_forcing.decoding.sampling import NOTHING, Asked, Sampler, choose, truncated
from jacobi_forcing.decoding.strategies import branch_tokens
from jacobi_forcing.errors import ConfigError

BANNED = [[5], [9, 11], [20, 21, 22]]
ODD = [token for token in range(VOCAB) if token % 2 or token == EOS]
SAMPLINGS = (
    Sampling(temperature=1.0, seed=3),
    Sampling(temperature=0.7, top_k=7, seed=2**64 - 1),
    Sampling(temperature=1.3, top_p=0.8, min_p=0.02, seed=9),
    Sampling(temperature=0.9, repetition_penalty=1.4, frequency_penalty=0.3, seed=1),
    Sampling(presence_penalty=0.8, frequency_penalty=-0.2, min_new_tokens=25),
    Sampling(temperature=1.0, logit_bias={7: 4.0, 8: -5.0}, bad_words=BANNED, seed=4),
    Sampling(temperature=1.0, constraint=lambda answer: ODD if sum(answer) % 3 else None, seed=5),
    Sampling(temperature=0.8, processors=[NoRepeatNGramLogitsProcessor(2)], seed=6),
    # Drawn together with the first and the third of these.
    Sampling(temperature=1.0, seed=2**63 + 5),
    Sampling(temperature=1.3, top_p=0.8, min_p=0.02, seed=10),
)


def run(model, prompts, samplings, batch_size=4, num_tokens=40, **decoder):
    config = DecoderConfig(**({"block_size": 6} | decoder))
    pairs = zip(prompts, samplings, strict=True)
    events = list(
        decode(
            model,
            [
                Request(i, prompt, num_tokens, used, (), True)
                for i, (prompt, used) in enumerate(pairs)
            ],
            lambda request: make_strategy(config, model.vocab_tokens, request.index),
            batch_size=batch_size,
            max_tokens=max(map(len, prompts)) + num_tokens,
            branch_tokens=branch_tokens(config),
        )
    )
    finished = sorted((e for e in events if isinstance(e, Finished)), key=lambda e: e.request)
    return [f.answer_ids for f in finished], [e for e in events if isinstance(e, Forward)]


def test_philox_gives_the_published_words():
    """Known answers of Random123, the authors' library, for philox4x32-10."""
    ones, pi = 0xFFFFFFFF, (0x243F6A88, 0x85A308D3, 0x13198A2E, 0x03707344)
    known = {
        ((0, 0, 0, 0), 0): (0x6627E8D5, 0xE169C58D, 0xBC57AC4C, 0x9B00DBD8),
        ((ones,) * 4, 2**64 - 1): (0x408F276D, 0x41C83B0E, 0xA20BC7C6, 0x6D5451FD),
        (pi, 0x299F31D0A4093822): (0xD16CFE09, 0x94FDCCEB, 0x5001E420, 0x24126EA1),
    }
    for (counter, key), words in known.items():
        found = philox(tuple(torch.tensor(word) for word in counter), key)
        assert tuple(map(int, found)) == words


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
def test_the_likeliest_is_the_argmax_whatever_the_numbers(dtype):
    scores = torch.randn(3, 5, 300, generator=torch.Generator().manual_seed(0)).round().to(dtype)
    scores[0, 0] = -torch.inf
    scores[0, 1, 17] = torch.nan
    scores[1, 2, [40, 250]] = torch.inf
    for some in (scores, scores[:, -2:], scores[:, :, 7:], scores[0]):  # ties, as it is rounded
        assert torch.equal(likeliest(some), some.argmax(-1))
        assert likeliest(some).dtype == torch.long


def test_noise_of_a_position_does_not_depend_on_what_it_is_asked_with():
    alone = torch.cat([gumbel(5, torch.tensor([p]), 50) for p in range(20)])
    assert torch.equal(gumbel(5, torch.arange(20), 50), alone)
    assert torch.equal(gumbel(5, torch.arange(20), 13), alone[:, :13])
    assert not torch.equal(gumbel(6, torch.arange(20), 50), alone)
    assert len(alone.unique()) > 990
    seeds = [5, 2**63, 2**64 - 1, 5]
    mixed = gumbel(torch.tensor([as_long(seed) for seed in seeds]), torch.arange(4), 50)
    for place, seed in enumerate(seeds):
        assert torch.equal(mixed[place], gumbel(seed, torch.tensor([place]), 50)[0])
    # Of a Gumbel number: mean 0.5772, variance pi^2 / 6.
    many = gumbel(1, torch.arange(200), 1000)
    assert abs(float(many.mean()) - 0.5772) < 0.01
    assert abs(float(many.var()) - 1.6449) < 0.03


def asked_at_random(rng, generator, num_tokens):
    """Make what a row of random settings, text and draft asks; its logits spread or flat."""
    used = rng.choice(SAMPLINGS)
    if rng.random() < 0.5:
        used = dataclasses.replace(used, seed=rng.getrandbits(64))
    text = [rng.randrange(2, VOCAB) for _ in range(rng.randint(2, 40))]
    guesses = [[rng.randrange(2, VOCAB) for _ in range(rng.randint(0, 6))] for _ in range(3)]
    limits = {"max_depth": 6, "max_branches": 2, "max_branch_tokens": 8}
    draft = grow(chain(guesses[0]), guesses[1:], **limits)
    logits = torch.randn(len(draft.tokens) + 1, num_tokens, generator=generator)
    sampler = Sampler(used, 1, frozenset({EOS}))
    return Asked(sampler, logits * rng.choice([0.3, 3, 20]), text, draft)


@pytest.mark.parametrize("num_tokens", [VOCAB, 5000])
def test_any_mixture_of_rows_draws_what_each_draws_alone(num_tokens, monkeypatch):
    """Whatever is beside a row, to the bit; lots of all sizes, on one thread and on two."""
    rng, generator = random.Random(3), torch.Generator().manual_seed(3)
    every = [asked_at_random(rng, generator, num_tokens) for _ in range(80)]
    alone = [choose([asked])[0].tolist() for asked in every]
    assert [len(ids) for ids in alone] == [len(asked.draft.tokens) + 1 for asked in every]
    greedy = [asked.logits.argmax(-1).tolist() for asked in every]
    assert sum(ids != likeliest for ids, likeliest in zip(alone, greedy, strict=True)) > 40
    sizes = []
    draw_together = sampling_module._draw

    def noted(some, *law):
        sizes.append(len(some))
        return draw_together(some, *law)

    monkeypatch.setattr(sampling_module, "_draw", noted)
    for at_once in (1 << 22, 30 * num_tokens, 1):
        monkeypatch.setattr(sampling_module, "LOGITS_AT_ONCE", at_once)
        numbers = rng.sample(range(80), 80)
        for threads in (1, 2):
            torch.set_num_threads(threads)
            try:
                found = choose([every[number] for number in numbers])
            finally:
                torch.set_num_threads(1)
            assert [ids.tolist() for ids in found] == [alone[number] for number in numbers]
    assert max(sizes) > 10
    assert min(sizes) == 1


def test_truncation_is_the_same_to_the_bit_in_any_batch():
    """A vocabulary beyond what one thread takes, on two threads, in lots of every kind."""
    scores = torch.randn(5, 70_001, generator=torch.Generator().manual_seed(1)) * 2
    torch.set_num_threads(2)
    try:
        together = truncated(scores, 5000, 0.97, 1e-4)
        for parts in ([1] * 5, [2, 3], [4, 1]):
            apart = [truncated(part, 5000, 0.97, 1e-4) for part in scores.split(parts)]
            assert torch.equal(together, torch.cat(apart))
    finally:
        torch.set_num_threads(1)
    assert (together.isfinite().sum(-1) > 1024).all()


def test_a_row_that_may_choose_nothing_leaves_those_beside_it_alone():
    logits = torch.randn(3, 1, VOCAB, generator=torch.Generator().manual_seed(0))
    settings = {"temperature": 1.0, "top_k": 9, "top_p": 0.9, "min_p": 0.01}
    used = [Sampling(**settings, seed=seed) for seed in range(3)]
    used[1] = dataclasses.replace(used[1], constraint=lambda answer: [])
    every = [
        Asked(Sampler(one, 1, frozenset({EOS})), rows, [2], chain([]))
        for one, rows in zip(used, logits, strict=True)
    ]
    found = [ids.tolist() for ids in choose(every)]
    assert found[1] == [NOTHING]
    assert found[::2] == [choose([asked])[0].tolist() for asked in every[::2]]


@pytest.mark.parametrize("family", ["qwen2", "gemma2"])
def test_a_seed_gives_the_same_ids_with_every_decoder_and_batch_size(family):
    model = toy_model(family)
    prompts = random_prompts(11, len(SAMPLINGS))
    right, _ = run(model, prompts, SAMPLINGS, 1, strategy="autoregressive")
    assert len({tuple(answer) for answer in right}) == len(right)
    num_guessed = 0
    for decoder in DECODERS:
        for batch_size in (1, 5):
            found, forwards = run(model, prompts, SAMPLINGS, batch_size, **decoder)
            assert found == right, (decoder, batch_size)
            num_guessed += sum(len(event.path) for event in forwards)
    assert num_guessed > 100
    others = [dataclasses.replace(used, seed=used.seed ^ 7) for used in SAMPLINGS]
    changed, _ = run(model, prompts, others, strategy="window")
    for used, before, after in zip(SAMPLINGS, right, changed, strict=True):
        assert (before != after) == (used.temperature > 0)


def test_a_continued_answer_is_the_answer_that_was_not_interrupted():
    """Noise belongs to the place in the sequence, wherever the prompt ends."""
    model = toy_model()
    (prompt,) = random_prompts(12, 1)
    used = [Sampling(temperature=1.0, seed=8)]
    ((*answer,),), _ = run(model, [prompt], used)
    for cut in (1, 7, 12):
        (rest,), _ = run(model, [prompt + answer[:cut]], used, num_tokens=40 - cut)
        assert rest == answer[cut:]


@pytest.mark.parametrize("decoder", ["autoregressive", "window"])
def test_greedy_text_with_penalties_and_bans_is_that_of_generate(decoder):
    model = toy_model()
    prompts = random_prompts(13, 8)
    settings = [
        ({"repetition_penalty": 1.5}, {"repetition_penalty": 1.5}),
        ({"bad_words": BANNED}, {"bad_words_ids": BANNED}),
        ({"min_new_tokens": 30}, {"min_new_tokens": 30}),
        ({"logit_bias": {6: 9.0}}, {"sequence_bias": [[[6], 9.0]]}),
    ]
    changed = 0
    for mine, theirs in settings:
        found, _ = run(model, prompts, [Sampling(**mine)] * len(prompts), strategy=decoder)
        plain, _ = run(model, prompts, [Sampling()] * len(prompts))
        changed += found != plain
        for prompt, answer in zip(prompts, found, strict=True):
            ids = torch.tensor([prompt])
            mask, options = torch.ones_like(ids), {"do_sample": False, "max_new_tokens": 40}
            text = model.network.generate(ids, attention_mask=mask, **options, **theirs)
            assert text[0, len(prompt) :].tolist() == answer, mine
    assert changed >= 3


def test_truncation_keeps_what_transformers_keeps():
    scores = torch.randn(200, 40, generator=torch.Generator().manual_seed(0)) * 3
    scores[:20, :10] = 1.0  # ties
    for settings, warper in (
        ({"top_k": 5}, TopKLogitsWarper(5)),
        ({"top_p": 0.6}, TopPLogitsWarper(0.6)),
        ({"top_p": 0.05}, TopPLogitsWarper(0.05)),
        ({"min_p": 0.1}, MinPLogitsWarper(0.1)),
    ):
        found = truncated(scores, **({"top_k": 0, "top_p": 1.0, "min_p": 0.0} | settings))
        kept, theirs = found.isfinite(), warper(None, scores.clone()).isfinite()
        assert torch.equal(kept[20:], theirs[20:]), settings
        # Of equals on the border of top-p theirs keeps some, ours all.
        assert kept[theirs].all(), settings
        least = found.masked_fill(~kept, torch.inf).amin(-1, keepdim=True)
        assert (scores == least)[kept & ~theirs].all(), settings


def test_a_nucleus_beyond_a_thousand_tokens_is_found_whole():
    """Rows with a narrow and a wide nucleus together, and each as it is alone."""
    scores = torch.randn(6, 5000, generator=torch.Generator().manual_seed(0))
    scores[::2] *= 6
    for top_p in (0.5, 0.9, 0.999):
        found = truncated(scores, 0, top_p, 0.0)
        assert torch.equal(found.isfinite(), TopPLogitsWarper(top_p)(None, scores).isfinite())
        alone = [truncated(row[None], 0, top_p, 0.0) for row in scores]
        assert torch.equal(found, torch.cat(alone))
    assert (found.isfinite().sum(-1) > 1024).tolist() == [False, True] * 3


@pytest.mark.parametrize("spread", [0.1, 3.0, 30.0])
def test_noise_left_out_would_not_have_won(spread):
    """The drawn tokens, most noise not made where scores are spread, are those of all noise."""
    scores = torch.randn(300, 2000, generator=torch.Generator().manual_seed(2)) * spread
    scores[:, 1000:] = -torch.inf
    positions = torch.arange(2**33, 2**33 + 300)
    right = (scores + gumbel(9, positions, 2000)).argmax(-1)
    assert torch.equal(draw(scores, 9, positions), right)
    assert (right != scores.argmax(-1)).any()


@pytest.mark.parametrize(
    "settings",
    [
        {"temperature": 1.0},
        {"temperature": 0.5},
        {"temperature": 2.0, "top_k": 5},
        {"temperature": 1.0, "top_p": 0.7},
        {"temperature": 0.8, "min_p": 0.1},
    ],
    ids=str,
)
def test_drawn_tokens_follow_the_exact_law(settings, record_property):
    """Pearson's chi-square over 20,000 positions of one seed, against the exact probabilities."""
    num_tokens, num_draws = 12, 20_000
    logits = torch.randn(num_tokens, generator=torch.Generator().manual_seed(1)) * 1.5
    used = Sampling(**settings, seed=123)
    sampler = Sampler(used, 1, frozenset())
    # Drafts of equal logits, place after place.
    counts = torch.zeros(num_tokens)
    for start in range(0, num_draws, 500):
        text, draft = [2] * (start + 1), chain([2] * 499)
        (found,) = choose([Asked(sampler, logits.expand(500, -1), text, draft)])
        counts += torch.bincount(found, minlength=num_tokens)
    assert int(counts.sum()) == num_draws
    limits = {"top_k": used.top_k, "top_p": used.top_p, "min_p": used.min_p}
    law = truncated(logits[None] / used.temperature, **limits).softmax(-1)[0].double()
    possible = law > 0
    assert counts[~possible].sum() == 0
    expected = law[possible] * num_draws
    assert float(expected.min()) > 5
    statistic = float(((counts[possible] - expected) ** 2 / expected).sum())
    freedom = int(possible.sum()) - 1
    p_value = chi_square_tail(statistic, freedom)
    record_property("p_value", p_value)
    assert p_value > 0.001
    # And it can fail: the law of another temperature is refused.
    other = torch.where(possible, law**0.6, 0.0)
    expected = (other / other.sum())[possible] * num_draws
    statistic = float(((counts[possible] - expected) ** 2 / expected).sum())
    assert chi_square_tail(statistic, freedom) < 0.001


def chi_square_tail(statistic, freedom):
    """Give P(chi-square > statistic): the regularised upper incomplete gamma function."""
    halves = torch.tensor([freedom / 2, statistic / 2], dtype=torch.float64)
    return float(torch.special.gammaincc(*halves))


def test_log_probabilities_are_the_models_own():
    model = toy_model()
    prompts = random_prompts(14, 3)
    used = [Sampling(), Sampling(temperature=1.0, seed=2), Sampling(repetition_penalty=1.3)]
    answers, forwards = run(model, prompts, used, strategy="multiblock", pool_size=3)
    for index, (prompt, answer) in enumerate(zip(prompts, answers, strict=True)):
        found = [p for e in forwards if e.request == index for p in e.logprobs]
        logits = model.network(torch.tensor([prompt + answer])).logits[0]
        right = logits[len(prompt) - 1 : -1].log_softmax(-1)[range(len(answer)), answer]
        torch.testing.assert_close(torch.tensor(found), right, atol=1e-3, rtol=1e-3)


@pytest.mark.parametrize(
    ("setting", "value"),
    [
        *(("top_p", 0.0), ("top_p", 1.1), ("temperature", -1.0), ("temperature", float("nan"))),
        *(("seed", 2**64), ("seed", -1), ("min_p", 2.0), ("top_k", -1)),
        *(("repetition_penalty", 0.0), ("bad_words", [[]])),
    ],
)
def test_settings_out_of_range_are_refused_by_name(setting, value):
    with pytest.raises(ConfigError, match=setting.replace("_", ".")):
        Sampling(**{setting: value})


def test_rows_that_join_and_leave_in_any_order_keep_their_ids():
    """Random requests, settings and cancellations; every row as it is alone."""
    from jacobi_forcing.decoding import DecodingLoop

    model = toy_model()
    rng = random.Random(5)
    prompts = random_prompts(15, 40)
    used = [rng.choice(SAMPLINGS + (Sampling(),) * 4) for _ in prompts]
    right, _ = run(model, prompts, used, 1, num_tokens=30, strategy="autoregressive")
    loop = DecodingLoop(model, batch_size=5, max_tokens=80, branch_tokens=40)
    waiting, events, cancelled = list(range(len(prompts))), [], set()
    while waiting or not loop.is_idle:
        while waiting and loop.num_free and rng.random() < 0.6:
            index = waiting.pop(rng.randrange(len(waiting)))
            decoder = DecoderConfig(block_size=rng.randint(2, 12), **rng.choice(DECODERS))
            strategy = make_strategy(decoder, model.vocab_tokens, index)
            loop.add(Request(index, prompts[index], 30, used[index]), strategy)
        if rng.random() < 0.1:
            loop.cancel(rng.randrange(len(prompts)))  # which may not be there
        if rng.random() < 0.1 and events:
            loop.cancel(events[-1].request)
        events += loop.step()
    finished = {e.request: e for e in events if isinstance(e, Finished)}
    assert sorted(finished) == list(range(len(prompts)))
    for index, event in finished.items():
        cancelled.update({index} if event.reason == "cancelled" else ())
        assert event.answer_ids == right[index][: len(event.answer_ids)]
        if event.reason != "cancelled":
            assert event.answer_ids == right[index]
    assert 2 < len(cancelled) < 35


def test_a_temperature_near_zero_is_greedy():
    model, prompts = toy_model(), random_prompts(17, 5)
    greedy, _ = run(model, prompts, [Sampling()] * 5)
    for temperature in (1e-40, 1e-30, 1e-6):
        found, _ = run(model, prompts, [Sampling(temperature=temperature, seed=3)] * 5)
        assert found == greedy


@pytest.mark.parametrize("decoder", DECODERS, ids=str)
@pytest.mark.parametrize("temperature", [0.0, 1.0])
def test_a_text_behind_which_nothing_is_allowed_is_an_error_and_no_made_up_token(
    decoder, temperature
):
    model, prompts = toy_model(), random_prompts(18, 1)
    for nothing in ([], torch.zeros(VOCAB, dtype=torch.bool)):

        def allowed(answer, nothing=nothing):
            return nothing if len(answer) >= 7 else ODD

        sampling = Sampling(temperature=temperature, constraint=allowed)
        with pytest.raises(ConfigError, match="prompt 0: behind 7 tokens"):
            run(model, prompts, [sampling], **decoder)
        # What would only stand behind a wrong guess, or behind the budget, is nobody's concern.
        found, _ = run(model, prompts, [sampling], num_tokens=7, **decoder)
        assert len(found[0]) == 7
