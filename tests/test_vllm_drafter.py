"""What the vLLM plugin decides, without vLLM: the chain it drafts, and how it fails."""

from types import SimpleNamespace

import numpy as np
import pytest
from toys import toy_model

from jacobi_forcing import problems
from jacobi_forcing.config import DecoderConfig
from jacobi_forcing.decoding import Finished, Request, decode, make_strategy
from jacobi_forcing.decoding.draft import chain
from jacobi_forcing.errors import ConfigError
from jacobi_forcing.integrations.vllm import hook
from jacobi_forcing.integrations.vllm.drafter import Drafter
from jacobi_forcing.integrations.vllm.proposer import JacobiProposer
from jacobi_forcing.models import load_model

WIDTH = 15


class Chain:
    """The plugin's drafter in our own loop; like vLLM, it drafts nothing with the prompt."""

    max_branch_tokens = 0

    def __init__(self, drafter):
        self.drafter = drafter

    def propose(self, text, offset, limit):
        return chain(self.drafter.propose(text, min(WIDTH, limit)) if offset else [])

    def observe(self, accepted, tail):
        self.drafter.observe(accepted, tail)


def forwards_of(model, prompts, make):
    """Answers, and forwards behind the prefill."""
    requests = [Request(index, ids, 192) for index, ids in enumerate(prompts)]
    events = decode(model, requests, make, batch_size=16)
    done = {e.request: e for e in events if isinstance(e, Finished)}
    return [done[i].answer_ids for i in sorted(done)], sum(e.num_forwards for e in done.values())


def test_a_chain_takes_as_many_forwards_as_our_window():
    model = load_model("tiny-forced")
    prompts = [
        model.tokenizer.encode(problem.prompt)
        for kind in ("math", "code")
        for problem in problems.held_out(kind, 12, 5)
    ]
    window = DecoderConfig(strategy="window", block_size=WIDTH + 1, pool_size=0)
    found = {
        pool_size: forwards_of(
            model, prompts, lambda r, n=pool_size: Chain(Drafter(model.vocab_tokens, n, r.index))
        )
        for pool_size in (0, 4)
    }
    ours = forwards_of(model, prompts, lambda r: make_strategy(window, model.vocab_tokens, r.index))
    for answers, num_forwards in found.values():
        assert answers == ours[0]
        assert num_forwards < 1.05 * ours[1]


def test_a_draft_is_as_wide_as_asked_and_made_of_what_is_known():
    drafter = Drafter(50, 2, 0)
    assert len(drafter.propose([7], 5)) == 5
    drafter.observe([7, 8], [9, 10])
    assert drafter.propose([3, 7, 8], 2) == [9, 10]
    drafter.observe([9], [10])
    draft = drafter.propose([3, 7, 8, 9], 4)
    assert draft[0] == 10
    assert set(draft[1:]) <= {3, 7, 8, 9}
    drafter.observe([4, 5, 6, 1, 2], [])
    assert drafter.propose([3, 7, 8, 9, 4], 3) == [5, 6, 1]  # an old state goes on like this


def config_of(**settings):
    return SimpleNamespace(
        additional_config={"jacobi": settings},
        speculative_config=SimpleNamespace(num_speculative_tokens=WIDTH),
        model_config=SimpleNamespace(max_model_len=64, get_vocab_size=lambda: 64),
    )


def test_rows_of_a_batch_are_told_apart_whatever_their_order():
    """Two requests that change places, one still reading its prompt, one at the end of its room."""
    proposer = JacobiProposer(config_of(pool_size=0))
    ids = np.arange(4 * 70).reshape(4, 70) % 64
    proposer.observe(hook.Step(np.array([11, 12, 13, 5, 6, 7]), [2, 0, 0, 0], list("abcd")))
    drafts = proposer.propose([[11, 12], [5], [], [7]], np.array([20, 30, 10, 64]), ids)
    assert drafts[0][:1] == [13]
    assert [len(draft) for draft in drafts] == [WIDTH, WIDTH, 0, 0]
    proposer.observe(hook.Step(np.array([21, 22, 13, 14, 15]), [1, 2], list("ba")))
    drafts = proposer.propose([[21], [13, 14]], np.array([31, 22]), ids)
    assert drafts[0][0] == 22
    assert drafts[1][0] == 15
    assert proposer.statistics.accepted == 2
    assert set(proposer._drafters) == {"a", "b"}


def test_a_proposer_that_nobody_tells_anything_says_so(monkeypatch):
    monkeypatch.setattr(hook, "_ways", [])
    proposer = JacobiProposer(config_of())
    for ask in (
        lambda: proposer.load_model(None),
        lambda: proposer.propose([[1]], np.array([1]), np.zeros((1, 9), dtype=int)),
    ):
        with pytest.raises(ConfigError, match="not active"):
            ask()
    monkeypatch.setattr(hook, "_ways", ["entry point"])
    proposer.load_model(None)
    with pytest.raises(ConfigError, match="did not reach"):
        proposer.propose([[1]], np.array([1]), np.zeros((1, 9), dtype=int))


def test_a_method_of_another_shape_is_refused_with_what_was_found(monkeypatch):
    monkeypatch.setattr(hook, "_ways", [])
    monkeypatch.setattr(hook, "_misfit", [])

    class Runner:
        def _sample(self, logits, metadata, more):
            """What a later vLLM might have."""

    with pytest.raises(ConfigError, match=r"_sample takes \(self, logits, metadata, more\)"):
        hook.adopt(Runner())


def test_settings_of_the_plugin_are_checked():
    with pytest.raises(ConfigError, match="pool_sise"):
        JacobiProposer(config_of(pool_sise=3))
    with pytest.raises(ConfigError, match="pool-size"):
        JacobiProposer(config_of(pool_size=-3))


def test_a_toy_model_decodes_alike_with_any_chain():
    model = toy_model()
    prompts = [[5, 9, 11, 3 + i] for i in range(6)]
    plain = DecoderConfig(strategy="autoregressive")
    right, _ = forwards_of(model, prompts, lambda r: make_strategy(plain, 64, 0))
    found, _ = forwards_of(model, prompts, lambda r: Chain(Drafter(64, 3, r.index)))
    assert found == right
