"""Every decoder is a faster way to compute greedy decoding, and nothing else."""

import dataclasses
import random

import pytest
import torch
from toys import EOS, FAMILIES, MORE_FAMILIES, PAD, VOCAB, tiny_network, toy_model

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
from jacobi_forcing.decoding.answer import answer
from jacobi_forcing.decoding.draft import chain, grow
from jacobi_forcing.decoding.request import Row
from jacobi_forcing.decoding.strategies import branch_tokens
from jacobi_forcing.errors import ConfigError, DataError, ModelError
from jacobi_forcing.models import MaskBuilder, RaggedForward, load_model, masks
from jacobi_forcing.models.attention import attention
from jacobi_forcing.models.probe import probe

DECODERS = (
    {"strategy": "autoregressive"},
    {"strategy": "prompt-lookup"},
    {"strategy": "jacobi"},
    {"strategy": "window"},
    {"strategy": "multiblock", "max_blocks": 3, "spawn_ratio": 0.3},
    {"strategy": "autoregressive", "pool_size": 2, "pool": "text"},
    {"strategy": "jacobi", "pool_size": 3},
    {"strategy": "window", "pool_size": 4, "pool": "both"},
    {"strategy": "multiblock", "pool_size": 4, "branch_tokens": 40, "pool": "both"},
)


def reference(model, prompt, num_tokens, eos_ids=None):
    """The model's own greedy ids, by transformers' generate."""
    ids = torch.tensor([prompt])
    eos = sorted(model.eos_ids if eos_ids is None else eos_ids)
    with attention(model.network, "sdpa"):  # transformers' own
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

    if isinstance(strategy, str):
        strategy = {"strategy": strategy}
    config = DecoderConfig(block_size=block_size, noise=noise, **strategy)

    def make(request):
        return make_strategy(config, model.vocab_tokens, request.index)

    budgets = [num_tokens] * len(prompts) if isinstance(num_tokens, int) else num_tokens
    requests = [Request(i, p, n) for i, (p, n) in enumerate(zip(prompts, budgets, strict=True))]
    longest = max(map(len, prompts)) + max(budgets)
    size = {"batch_size": batch_size, "max_tokens": longest, "branch_tokens": branch_tokens(config)}
    events = list(decode(model, requests, make, **size))
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
    for strategy in DECODERS:
        for block_size in (5, 16) if "pool_size" in strategy else (2, 5, 16, 64):
            # Alone, and in ragged batches.
            batch_size = 1 if block_size in (2, 16) else 3
            finished, forwards = run(model, prompts, strategy, block_size, 40, batch_size)
            assert [f.answer_ids for f in finished] == expected, (strategy, block_size)
            assert all(f.num_forwards <= len(f.answer_ids) for f in finished)
            accepted += [len(e.accepted) for e in forwards]
    # Not vacuous: texts differ and do not just repeat, and some guesses were right.
    assert len({tuple(e) for e in expected}) == len(expected)
    assert max(len(set(e)) for e in expected) > 5
    assert max(accepted) > 1


@pytest.mark.parametrize("family", MORE_FAMILIES)
def test_more_families_give_the_ids_of_generate(family):
    """Experts, ALiBi, windows of their own: with blocks, branches and ragged neighbours."""
    model = toy_model(family)
    assert probe(model) < 1e-5
    prompts = random_prompts(36, 7)
    expected = [reference(model, p, 30) for p in prompts]
    assert len({tuple(ids) for ids in expected}) > 5
    recycled = 0
    for strategy in DECODERS[2:]:
        finished, forwards = run(model, prompts, strategy, 7, 30, batch_size=3)
        assert [f.answer_ids for f in finished] == expected, strategy
        recycled += sum(event.num_recycled for event in forwards)
    assert recycled > 0


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16], ids=str)
@pytest.mark.parametrize("family", ["mistral", "gemma2", "gemma3_text", "gpt_neo"])
def test_the_probe_lets_rounding_pass_and_no_window_that_is_off_by_one(family, dtype, monkeypatch):
    model = toy_model(family)
    model.network.to(dtype)
    assert probe(model) < 0.02
    true_windows = masks.layer_windows

    def off_by_one(config):
        return {kind: size and size - 1 for kind, size in true_windows(config).items()}

    monkeypatch.setattr(masks, "layer_windows", off_by_one)
    with pytest.raises(ModelError, match="gives other logits"):
        probe(model)


@pytest.mark.parametrize("family", ["bloom", "falcon, alibi", "gpt_neo"])
def test_a_family_that_was_taught_does_what_it_did_with_other_masks(family):
    network = tiny_network(family)
    ids = torch.tensor([[0, 0, 5, 6, 7, 8], [9, 10, 11, 12, 13, 14]])
    shown = torch.ones_like(ids)
    shown[0, :2] = 0
    before = network(ids, attention_mask=shown).logits, network(ids).logits
    MaskBuilder(network)
    after = network(ids, attention_mask=shown).logits, network(ids).logits
    assert torch.equal(before[0], after[0])
    assert torch.equal(before[1], after[1])


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("strategy", DECODERS, ids=str)
def test_a_batch_of_ragged_rows_gives_each_row_its_own_ids(family, strategy):
    model = toy_model(family)
    prompts = random_prompts(2, 11)
    budgets = [7 + 3 * i for i in range(11)]
    expected = [reference(model, p, n) for p, n in zip(prompts, budgets, strict=True)]
    for batch_size in (1, 3, 16):
        finished, _ = run(model, prompts, strategy, 8, budgets, batch_size)
        assert [f.answer_ids for f in finished] == expected


@pytest.mark.parametrize("family", FAMILIES)
def test_a_branch_sees_its_own_way_and_nothing_else(family):
    """Every token of a tree gets the logits that its text gets alone; so do changed neighbours."""
    model = toy_model(family)
    rng = random.Random(5)
    texts = [[rng.randrange(2, VOCAB) for _ in range(n)] for n in (23, 9, 30)]
    found = [[rng.randrange(2, VOCAB) for _ in range(n)] for n in (4, 6, 3)]
    drafts = [
        grow(
            chain([rng.randrange(2, VOCAB) for _ in range(5)]),
            [candidate, [*candidate[:2], 7, 8, 9], [11, 12]],
            max_depth=20,
            max_branches=9,
            max_branch_tokens=99,
        )
        for candidate in found
    ]
    changed = [
        draft._replace(tokens=[*draft.tokens[:-1], draft.tokens[-1] % 60 + 3]) for draft in drafts
    ]
    logits = [tree_logits(model, texts, some) for some in (drafts, changed)]
    for row, (text, draft) in enumerate(zip(texts, drafts, strict=True)):
        for node in range(-1, len(draft.tokens)):
            way = text + [draft.tokens[n] for n in draft.way(node)]
            alone = model.network(torch.tensor([way]), use_cache=False).logits[0, -1]
            torch.testing.assert_close(logits[0][row][node + 1], alone, atol=2e-4, rtol=1e-4)
        unchanged = range(len(draft.tokens))  # all but the last node; [0] is the committed text's
        assert torch.equal(logits[0][row][unchanged], logits[1][row][unchanged])
        assert not torch.equal(logits[0][row][-1], logits[1][row][-1])


@torch.inference_mode()
def tree_logits(model, texts, drafts):
    """Run drafts behind texts, ragged; logits [nodes + 1, V] per row."""
    forward = RaggedForward(model, len(texts), 64)
    forward.logits(0, [text[:-2] for text in texts], 1)
    forward.lengths = [len(text) - 2 for text in texts]
    rows = [
        Row(Request(0, text, 1), None, None, None, text, text[-2:], draft)
        for text, draft in zip(texts, drafts, strict=True)
    ]
    found = forward.logits(
        0,
        [row.pending + row.draft.tokens for row in rows],
        max(len(draft.tokens) for draft in drafts) + 1,
        [row.branches for row in rows],
    )
    return [one[-len(draft.tokens) - 1 :] for one, draft in zip(found, drafts, strict=True)]


@pytest.mark.parametrize("family", FAMILIES)
def test_a_mask_cut_out_of_a_large_one_is_the_one_made_anew(family, monkeypatch):
    """A row alone, chain or tree, gets the same logits with either, at every length."""
    model = toy_model(family)
    rng = random.Random(8)
    text = [rng.randrange(2, VOCAB) for _ in range(90)]
    trunk = chain(text[40:45])
    tree = grow(
        chain(text[40:45]), [[9, 8, 7], [9, 3]], max_depth=9, max_branches=2, max_branch_tokens=9
    )
    cases = [(start, text[start : start + num], None) for start in (0, 3, 31) for num in (1, 9, 59)]
    for draft in (trunk, tree):
        row = Row(Request(0, text, 1), None, None, None, text[:40], text[38:40], draft)
        cases.append((38, row.pending + draft.tokens, row.branches))
    found = []
    for is_cut in (True, False):
        if not is_cut:
            monkeypatch.setattr(RaggedForward, "_can_cut", lambda *_: False)
        forward = RaggedForward(model, 3, 95)
        forward.logits(1, [text], 1)
        for start, ids, branches in cases:
            forward.lengths[1] = start
            found.append(forward.logits(1, [ids], len(ids), [branches]))
    half = len(cases)
    assert any(branches is not None for _, _, branches in cases)
    for one, other in zip(found[:half], found[half:], strict=True):
        assert torch.equal(one, other)


@pytest.mark.parametrize("family", FAMILIES)
def test_branches_win_and_their_entries_move_into_place(family):
    """An oracle puts the right tokens on a branch beside a wrong trunk, and they all count."""
    model = dataclasses.replace(toy_model(family), eos_ids=frozenset({VOCAB - 1}))
    prompts = random_prompts(9, 3)
    texts = [reference(model, prompt, 40) for prompt in prompts]

    class Oracle:
        max_branch_tokens = 8

        def __init__(self, text):
            self.text = text

        def propose(self, ids, offset, limit):
            right = self.text[offset : offset + min(5, limit)]
            # A trunk that is wrong at once, or from its second token on.
            trunk = right[: offset % 2] + [2] * 6
            return grow(
                chain(trunk[:limit]), [right], max_depth=limit, max_branches=1, max_branch_tokens=8
            )

        def observe(self, accepted, tail):
            pass

    requests = [Request(i, prompt, 40) for i, prompt in enumerate(prompts)]
    events = list(
        decode(
            model,
            requests,
            lambda request: Oracle(texts[request.index]),
            batch_size=3,
            max_tokens=100,
            branch_tokens=8,
        )
    )
    finished = sorted((e for e in events if isinstance(e, Finished)), key=lambda e: e.request)
    assert [f.answer_ids for f in finished] == texts
    forwards = [e for e in events if isinstance(e, Forward)]
    assert all(len(e.accepted) >= 6 for e in forwards if e.offset + 6 <= len(texts[e.request]))
    assert sum(e.num_recycled for e in forwards) > 60


@pytest.mark.parametrize("strategy", DECODERS, ids=str)
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


@pytest.mark.parametrize("strategy", DECODERS, ids=str)
def test_any_of_several_eos_ids_ends_the_answer(strategy):
    model = toy_model()
    prompt = random_prompts(3, 1)[0]
    text = reference(model, prompt, 24, eos_ids=[VOCAB - 1])
    several = dataclasses.replace(model, eos_ids=frozenset({text[9], text[15], EOS}))
    finished, _ = run(several, [prompt], strategy, 8, 24)
    assert finished[0].answer_ids == reference(several, prompt, 24)
    assert len(finished[0].answer_ids) < 24


@pytest.mark.parametrize("strategy", DECODERS, ids=str)
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

    class Stale(RaggedForward):
        @torch.inference_mode()
        def logits(self, first_row, inputs, num_outputs, branches):
            # Positions stay; the newest token's entry becomes that of a wrong guess.
            found = super().logits(first_row, inputs, num_outputs, branches)
            for layers in (self.cache.keys, self.cache.values):
                for stored in layers.values():
                    for row, ids in enumerate(inputs, first_row):
                        end = self.lengths[row] + len(ids) - 1
                        stored[row, :, self.lengths[row]] = stored[row, :, end].clone()
            return found

    original = loop.make_forward
    loop.make_forward = Stale
    try:
        finished, _ = run(model, prompts, "window", 8, 40)
    finally:
        loop.make_forward = original
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
        max_branch_tokens = 0

        def propose(self, ids, offset, limit):
            return chain(text[offset : offset + min(7, limit)])

        def observe(self, accepted, tail):
            assert tail == []

    request = Request(0, prompt, 32)
    *forwards, finished = decode(endless, [request], lambda _: Oracle(), max_tokens=100)
    assert finished.answer_ids == text
    assert len(forwards) == 4


def test_the_real_model_decodes_its_own_greedy_text(stories):
    model = load_model(str(stories))
    for start in ("Once upon a time", "The dog", "Lily and Tom went to the park"):
        prompt = model.tokenizer.encode(start)
        expected = reference(model, prompt, 120)
        for strategy in DECODERS:
            finished, _ = run(model, [prompt], strategy, 16, 120)
            assert finished[0].answer_ids == expected


@pytest.mark.parametrize(
    ("request_", "message"),
    [
        (Request(0, [5, VOCAB], 4), f"holds {VOCAB}, which is no token"),
        (Request(0, [5, -1], 4), "holds -1"),
        (Request(0, [5], 0), "max_new_tokens of prompt 0 is 0"),
        (Request(0, [5], 4, Sampling(bad_words=[[3, 999]])), "bad_words"),
        (Request(0, [5], 4, Sampling(logit_bias={-1: 2.0})), "logit_bias"),
    ],
    ids=str,
)
def test_a_bad_request_is_refused_and_its_neighbours_go_on(request_, message):
    model, prompts = toy_model(), random_prompts(31, 3)
    expected = [reference(model, prompt, 20) for prompt in prompts]
    loop = DecodingLoop(model, batch_size=4, max_tokens=60)

    def strategy():
        return make_strategy(DecoderConfig(block_size=6), model.vocab_tokens, 0)

    loop.add(Request(1, prompts[0], 20), strategy())
    events = loop.step()
    loop.add(Request(2, prompts[1], 20), strategy())
    with pytest.raises((ConfigError, DataError), match=message):
        loop.add(request_, strategy())
    loop.add(Request(3, prompts[2], 20), strategy())
    while not loop.is_idle:
        events += loop.step()
    finished = {e.request: e.answer_ids for e in events if isinstance(e, Finished)}
    assert finished == dict(zip((1, 2, 3), expected, strict=True))


@pytest.mark.parametrize("fails_at", [1, 2, 3, 6, 9])
def test_a_stop_rule_that_fails_once_leaves_every_row_as_it_was(fails_at):
    model, prompts = toy_model(), random_prompts(32, 3)
    expected = [reference(model, prompt, 20) for prompt in prompts]
    calls = []

    def fails_once(answer):
        calls.append(len(answer))
        if len(calls) == fails_at:
            raise OSError("disk")
        return False

    loop = DecodingLoop(model, batch_size=4, max_tokens=60)
    waiting, events, failures = list(enumerate(prompts)), [], 0
    while waiting or not loop.is_idle:
        if waiting:  # one more with every step, the failing one among them
            index, prompt = waiting.pop(0)
            strategy = make_strategy(DecoderConfig(block_size=6), model.vocab_tokens, 0)
            stop = fails_once if index == 0 else ()
            loop.add(Request(index, prompt, 1 if index == 1 else 20, stop=stop), strategy)
        try:
            events += loop.step()
        except OSError:
            failures += 1
    finished = [(e.request, e.answer_ids) for e in events if isinstance(e, Finished)]
    expected[1] = expected[1][:1]
    assert sorted(finished) == list(enumerate(expected))
    assert failures == 1


def test_a_stop_string_may_be_a_bare_text():
    model = toy_model()
    (prompt,) = random_prompts(33, 1)
    text = reference(model, prompt, 20)
    word = f"w{text[6]} w{text[7]}"
    found = answer(model, prompt, stop=word, max_new_tokens=20, block_size=6)
    assert found.ids == answer(model, prompt, stop=[word], max_new_tokens=20, block_size=6).ids
    assert 1 < len(found.ids) < 20


def test_positions_that_would_change_every_angle_are_never_reached():
    """longrope takes other factors as soon as any position of a forward is beyond its start."""
    rope = {"rope_type": "longrope", "rope_theta": 10000.0}
    rope |= {"short_factor": [1.0] * 4, "long_factor": [4.0] * 4}
    rope |= {"original_max_position_embeddings": 64, "factor": 4.0}
    model = toy_model(
        "phi3",
        rope_parameters=rope,
        original_max_position_embeddings=64,
        max_position_embeddings=256,
        pad_token_id=PAD,
    )
    assert model.context_tokens == 64
    prompts = [prompt[:9] + [7] * 30 for prompt in random_prompts(34, 3)]
    for strategy in ({"strategy": "autoregressive"}, {"strategy": "window"}):
        finished, _ = run(model, prompts, strategy, 8, 60)
        for prompt, row in zip(prompts, finished, strict=True):
            room = 64 - len(prompt)
            assert row.answer_ids == reference(model, prompt, room)[:room]


def test_a_family_that_attends_in_chunks_is_refused_by_name():
    with pytest.raises(ModelError, match="chunks"):
        toy_model("llama4_text", layer_types=["chunked_attention"] * 3, num_hidden_layers=3)


@pytest.mark.parametrize("prefill_tokens", [1, 3, 8, 29])
def test_a_prompt_read_in_pieces_is_the_same_prompt(prefill_tokens, monkeypatch):
    """Requests join while others run, and one forward in the middle of a prompt fails."""
    model, prompts = toy_model("mistral"), random_prompts(34, 7)
    expected = [reference(model, prompt, 20) for prompt in prompts]
    widest, calls, plain = [], [], RaggedForward.logits

    def watched(forward, first_row, inputs, *rest):
        calls.append(max(map(len, inputs)))
        if len(calls) == 6:
            raise torch.OutOfMemoryError("of the test")
        widest.append(calls[-1])
        return plain(forward, first_row, inputs, *rest)

    monkeypatch.setattr(RaggedForward, "logits", watched)
    loop = DecodingLoop(model, batch_size=3, max_tokens=60, prefill_tokens=prefill_tokens)
    waiting, events, failures = list(enumerate(prompts)), [], 0
    while waiting or not loop.is_idle:
        if waiting and loop.num_free:
            index, prompt = waiting.pop(0)
            strategy = make_strategy(DecoderConfig(block_size=6), model.vocab_tokens, 0)
            loop.add(Request(index, prompt, 20), strategy)
        try:
            events += loop.step()
        except torch.OutOfMemoryError:
            failures += 1
            loop.cancel(0)  # a row leaves before the second try: places change
    assert failures == 1
    finished = {e.request: e for e in events if isinstance(e, Finished)}
    for index, answer_ids in enumerate(expected):
        found = finished[index].answer_ids
        assert found == answer_ids[: len(found)]
        assert found == answer_ids or finished[index].reason == "cancelled"
        assert finished[index].num_forwards <= max(1, len(found))  # pieces are no forwards of AR
    assert max(widest) <= prefill_tokens + 5 + 8  # and the guesses and branches that ride along


@pytest.mark.parametrize("family", FAMILIES)
def test_the_cache_takes_the_memory_that_is_said(family):
    """2 (keys, values) x layers x rows x heads x (slots + 1) x head size x 4 bytes, all at once."""
    model = toy_model(family)
    loop = DecodingLoop(model, batch_size=5, max_tokens=70, branch_tokens=9)
    strategy = make_strategy(DecoderConfig(block_size=6), model.vocab_tokens, 0)
    loop.add(Request(0, random_prompts(35, 1)[0], 20), strategy)
    sizes = set()
    while not loop.is_idle:
        loop.step()
        sizes.add(loop.forward.cache.nbytes)
    config = model.config
    heads = 4 if family == "gpt2" else 2  # of 4, which no gpt2 shares
    head_size = getattr(config, "head_dim", None) or 32 // 4
    assert sizes == {2 * config.num_hidden_layers * 5 * heads * (70 + 9 + 1) * head_size * 4}
