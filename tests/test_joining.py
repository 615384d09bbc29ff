"""Requests that join while others run: long prompts hold nobody up, known beginnings are copied."""

import random
from collections import Counter

import pytest
import torch
from toys import FAMILIES, VOCAB, toy_model

from jacobi_forcing.config import DecoderConfig
from jacobi_forcing.decoding import (
    DecodingLoop,
    Finished,
    Forward,
    Request,
    Sampling,
    decode_one,
    make_strategy,
)
from jacobi_forcing.errors import ConfigError
from jacobi_forcing.models import RaggedForward

NUM_TOKENS = 16


def strategy(model):
    return make_strategy(DecoderConfig(block_size=6), model.vocab_tokens, 0)


def finish(loop, requests, events=()):
    """Run requests as there is room for them; ids by index, and all events."""
    waiting, events = list(requests), list(events)
    while waiting or not loop.is_idle:
        while waiting and loop.num_free:
            loop.add(waiting.pop(0), strategy(loop.model))
        events += loop.step()
    return {e.request: e.answer_ids for e in events if isinstance(e, Finished)}, events


def random_text(seed, num_tokens):
    rng = random.Random(seed)
    return [rng.randrange(2, 64) for _ in range(num_tokens)]


def test_a_long_prompt_holds_running_rows_up_for_one_piece_at_a_time(monkeypatch):
    model, widths, plain = toy_model(), [], RaggedForward.logits

    def watched(forward, first_row, inputs, *rest):
        widths.append(max(map(len, inputs)))
        return plain(forward, first_row, inputs, *rest)

    prompts = {0: random_text(0, 5), 1: random_text(1, 100), 2: random_text(2, 90)}
    prompts[3] = random_text(3, 7)
    alone = {}
    for index, prompt in prompts.items():
        loop = DecodingLoop(model, batch_size=1, max_tokens=200)
        alone |= finish(loop, [Request(index, prompt, 60)])[0]
    monkeypatch.setattr(RaggedForward, "logits", watched)
    loop = DecodingLoop(model, batch_size=4, max_tokens=200, prefill_tokens=10)
    loop.add(Request(0, prompts[0], 60), strategy(model))
    events = loop.step()
    widths.clear()
    for index in (1, 2, 3):
        loop.add(Request(index, prompts[index], 60), strategy(model))
    settled = Counter()
    order = []  # in which the three begin to answer
    while len(order) < 3:
        found = loop.step()
        events += found
        forwards = [e for e in found if isinstance(e, Forward)]
        settled.update(e.request for e in forwards)
        order += [e.request for e in forwards if e.iteration == 0]
        if 0 not in {e.request for e in events if isinstance(e, Finished)}:
            assert 0 in {e.request for e in forwards}  # it moves in every step
    assert settled[0] > 3
    assert order == [3, 1, 2]  # the short one overtakes, the long ones do not
    assert max(widths) <= 10 + 5 + 8  # a piece, or the last one with guesses and branches
    assert len(widths) > 18
    answers, _ = finish(loop, [], events)
    assert answers == alone


@pytest.mark.parametrize("family", FAMILIES)
def test_a_known_beginning_changes_nothing_but_what_is_computed(family, monkeypatch):
    model, computed, plain = toy_model(family), Counter(), RaggedForward.logits

    def counted(forward, first_row, inputs, *rest):
        computed[forward] += sum(map(len, inputs))
        return plain(forward, first_row, inputs, *rest)

    monkeypatch.setattr(RaggedForward, "logits", counted)
    common = random_text(5, 60)
    prompts = [common + random_text(6 + i, 3 + 9 * (i % 3)) for i in range(9)] + [common, common]
    requests = [
        Request(i, p, NUM_TOKENS, Sampling(temperature=0.8 * (i % 2), seed=i))
        for i, p in enumerate(prompts)
    ]
    found, total = [], []
    for prefix_tokens in (0, 150):
        loop = DecodingLoop(
            model, batch_size=3, max_tokens=120, prefill_tokens=25, prefix_tokens=prefix_tokens
        )
        answers, events = finish(loop, requests)
        # A second turn begins with the first one and its answer, and takes both from there.
        turn = [*prompts[-1], *answers[len(prompts) - 1], *random_text(30, 4)]
        computed_before = computed[loop.forward]
        answers |= finish(loop, [Request(99, turn, 1)], events)[0]
        found.append(answers)
        total.append(computed[loop.forward])
        assert loop.prefixes.num_kept <= prefix_tokens
        assert (computed[loop.forward] - computed_before < 20) == (prefix_tokens > 0)
    assert found[0] == found[1]
    assert total[1] < total[0] - 7 * 50  # the first three began before any text was known


def test_a_kept_text_is_as_it_was_when_its_row_has_long_been_written_over():
    model = toy_model()
    loop = DecodingLoop(model, batch_size=1, max_tokens=120, prefix_tokens=150)
    text = random_text(40, 50)
    finish(loop, [Request(0, text, 1)])
    finish(loop, [Request(1, random_text(41, 49), NUM_TOKENS)])
    (kept, _) = loop.prefixes._kept
    network = model.network(torch.tensor([text]), use_cache=True).past_key_values
    for layer, keys in kept.keys.items():
        assert keys.shape[1] == len(text)
        torch.testing.assert_close(keys, network.layers[layer].keys[0])
        torch.testing.assert_close(kept.values[layer], network.layers[layer].values[0])


def test_the_oldest_text_goes_first_and_a_longer_one_replaces_its_beginning():
    model = toy_model()
    loop = DecodingLoop(model, batch_size=1, max_tokens=120, prefix_tokens=100)
    texts = [random_text(50 + i, 40) for i in range(3)]
    finish(loop, [Request(i, text, 1) for i, text in enumerate(texts[:2])])
    assert loop.prefixes.find([*texts[0], 5]).num_tokens == 40  # and so it is the latest used
    finish(loop, [Request(2, texts[2], 1)])
    known = [loop.prefixes.find([*text, 5]) is not None for text in texts]
    assert known == [True, False, True]
    finish(loop, [Request(3, texts[2] + random_text(60, 20), 1)])
    assert [len(kept.ids) for kept in loop.prefixes._kept] == [40, 60]
    assert loop.prefixes.find(random_text(70, 30)) is None
    assert loop.prefixes.find(texts[0][:15]) is None  # too short to be worth it


@pytest.mark.parametrize("culprit", ["stop", "constraint", "processor", "nothing"])
def test_who_made_a_step_fail_is_named_and_the_others_go_on(culprit):
    model = toy_model()

    def fails(*_):
        raise ValueError("of the test")

    used = {
        "stop": {"stop": fails},
        "constraint": {"sampling": Sampling(constraint=fails)},
        "processor": {"sampling": Sampling(processors=[fails], temperature=0.5)},
        "nothing": {"sampling": Sampling(constraint=lambda _: [])},
    }[culprit]
    requests = [Request(i, random_text(80 + i, 6), NUM_TOKENS) for i in range(4)]
    alone, _ = finish(DecodingLoop(model, batch_size=4, max_tokens=60), requests)
    requests[2] = requests[2]._replace(**used)
    requests[1] = requests[1]._replace(sampling=Sampling(temperature=0.5))
    loop, events, blamed = DecodingLoop(model, batch_size=4, max_tokens=60), [], []
    for request in requests:
        loop.add(request, strategy(model))
    while not loop.is_idle:
        try:
            events += loop.step()
            assert loop.blamed is None
        except Exception:
            blamed.append(loop.blamed)
            loop.cancel(loop.blamed)
    assert blamed == [2]
    answers, _ = finish(loop, [], events)
    assert answers[0] == alone[0]
    assert answers[3] == alone[3]
    assert len(answers[1]) == NUM_TOKENS or answers[1][-1] in model.eos_ids
    assert answers[2] == []


def test_alternatives_are_the_likeliest_tokens_of_the_models_own():
    model = toy_model()
    prompt = random_text(90, 8)
    request = Request(0, prompt, NUM_TOKENS, wants_logprobs=True, num_alternatives=3)
    answers, events = finish(DecodingLoop(model, batch_size=1, max_tokens=60), [request])
    found = [one for e in events if isinstance(e, Forward) for one in e.alternatives]
    logits = model.network(torch.tensor([prompt + answers[0]])).logits[0, len(prompt) - 1 : -1]
    right = logits.log_softmax(-1).topk(3)
    assert [[token for token, _ in one] for one in found] == right.indices.tolist()
    values = torch.tensor([[value for _, value in one] for one in found])
    torch.testing.assert_close(values, right.values, atol=1e-3, rtol=1e-3)
    assert [one[0][0] for one in found] == answers[0]


@pytest.mark.parametrize("leaver", [0, 2])
def test_a_strategy_that_fails_at_its_first_tokens_costs_nobody_elses(leaver):
    """Those who joined with it are placed anew, whoever leaves in between."""
    model = toy_model()
    prompts = [[5, 9, 11], [6, 7, 8, 9, 10], [12, 13]]
    config = DecoderConfig(block_size=5)

    class FailsOnce:
        def __init__(self, strategy):
            self.strategy, self.has_failed = strategy, False
            self.max_branch_tokens = strategy.max_branch_tokens

        def propose(self, *asked):
            return self.strategy.propose(*asked)

        def observe(self, accepted, tail):
            if not self.has_failed:
                self.has_failed = True
                raise ValueError("not yet")
            self.strategy.observe(accepted, tail)

    def strategy(index):
        return make_strategy(config, model.vocab_tokens, index)

    expected = [
        decode_one(model, prompt, strategy(index), 30)[0].answer_ids
        for index, prompt in enumerate(prompts)
    ]
    loop = DecodingLoop(model, batch_size=3, max_tokens=60)
    for index, prompt in enumerate(prompts):
        own = FailsOnce(strategy(index)) if index == 1 else strategy(index)
        loop.add(Request(index, prompt, 30), own)
    with pytest.raises(ValueError, match="not yet"):
        loop.step()
    loop.cancel(leaver)
    finished = {}
    while not loop.is_idle:
        finished |= {e.request: e for e in loop.step() if isinstance(e, Finished)}
    for index, answer in enumerate(expected):
        found = finished[index]
        assert found.reason == "cancelled" if index == leaver else found.answer_ids == answer


def test_more_alternatives_than_there_are_tokens_are_refused_when_the_request_joins():
    model = toy_model()
    loop = DecodingLoop(model, max_tokens=60)
    request = Request(0, [5, 6], 10, wants_logprobs=True, num_alternatives=VOCAB + 1)
    with pytest.raises(ConfigError, match="asks for 65 alternatives"):
        loop.add(request, make_strategy(DecoderConfig(), model.vocab_tokens, 0))
    assert loop.is_idle
