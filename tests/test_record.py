"""What the recorder keeps of a decode: every state of every block, each a copy of its own."""

import copy
import random
from itertools import pairwise

import pytest
import torch
from packs import first_difference
from tables import greedy, table_decode, table_model
from toys import EOS, PAD, VOCAB, save_toy, toy_model

from jacobi_forcing.config import CollectConfig
from jacobi_forcing.data.trajectories import read_all
from jacobi_forcing.decoding import Forward, Noise, Request, decode
from jacobi_forcing.decoding.draft import chain
from jacobi_forcing.decoding.record import TrajectoryRecorder
from jacobi_forcing.decoding.strategies import Jacobi
from jacobi_forcing.stages import collect

EOS_IDS = frozenset([EOS])


class NotedNoise(Noise):
    """Noise that notes what it drew, by the number of tokens before it."""

    def __init__(self, seed):
        super().__init__("text", VOCAB, seed)
        self.drawn = {}

    def draw(self, text, num_tokens):
        found = super().draw(text, num_tokens)
        self.drawn[len(text)] = tuple(found)
        return found


class Recorded:
    """A recorded decode and what it should hold."""

    def __init__(self, prompt, answer, events, noise, block_size):
        self.answer, self.events, self.block_size = answer, events, block_size
        self.noise = {(n - len(prompt)) // block_size: ids for n, ids in noise.drawn.items()}
        recorder = TrajectoryRecorder(block_size)
        for event in events:
            recorder.observe(event)
        self.states = recorder.finish(PAD, EOS_IDS)

    def fixed_point(self, block):
        fixed = self.answer[block * self.block_size : (block + 1) * self.block_size]
        return fixed + [PAD] * (self.block_size - len(fixed))


def recorded_table(next_token, prompt, num_tokens, block_size, seed, eos_at=None):
    """Record the jacobi strategy on a table."""

    def choose(text):
        # The text ends at one place, whatever a wrong draft holds before it.
        return EOS if len(text) - len(prompt) == eos_at else next_token(text)

    noise = NotedNoise(seed)
    answer, events = table_decode(choose, Jacobi(block_size, noise), prompt, num_tokens, EOS)
    assert answer == greedy(choose, prompt, num_tokens, EOS)
    return Recorded(prompt, answer, events, noise, block_size)


def table_decodes():
    made = []
    for seed in range(120):
        rng = random.Random(seed)
        block_size = rng.choice([2, 3, 4, 8])
        num_tokens = block_size * rng.randint(1, 6)
        prompt = [rng.randrange(2, VOCAB) for _ in range(rng.randint(1, 9))]
        next_token = table_model(seed, rng.choice([4, 8, VOCAB]), VOCAB)
        eos_at = rng.choice([None, rng.randrange(num_tokens)])
        made.append(recorded_table(next_token, prompt, num_tokens, block_size, seed, eos_at))
    assert len({tuple(r.answer) for r in made}) > 100
    return made


def model_decodes():
    model = toy_model()
    rng = random.Random(3)
    prompts = [[rng.randrange(2, VOCAB) for _ in range(rng.randint(2, 20))] for _ in range(12)]
    made = []
    for block_size in (4, 8):
        budget = 6 * block_size
        noises = [NotedNoise(i) for i in range(len(prompts))]
        strategies = [Jacobi(block_size, noise) for noise in noises]
        requests = [Request(i, p, budget) for i, p in enumerate(prompts)]
        events = list(
            decode(model, requests, lambda r, s=strategies: s[r.index], batch_size=5, max_tokens=80)
        )
        for index, prompt in enumerate(prompts):
            ids = torch.tensor([prompt])
            options = {"max_new_tokens": budget, "eos_token_id": EOS, "pad_token_id": PAD}
            mask = torch.ones_like(ids)
            out = model.network.generate(ids, attention_mask=mask, do_sample=False, **options)
            forwards = [e for e in events if isinstance(e, Forward) and e.request == index]
            answer = out[0, len(prompt) :].tolist()
            made.append(Recorded(prompt, answer, forwards, noises[index], block_size))
    return made


@pytest.fixture(scope="module", params=["table", "model"])
def decodes(request):
    return {"table": table_decodes, "model": model_decodes}[request.param]()


def test_the_last_state_of_every_block_is_the_greedy_fixed_point(decodes):
    num_states = 0
    for recorded in decodes:
        for block, states in enumerate(recorded.states):
            assert states[-1] == recorded.fixed_point(block)
            num_states += len(states)
        assert len(recorded.states) == -(-len(recorded.answer) // recorded.block_size)
    assert num_states > 500


def test_state_0_is_the_noise_as_it_was_drawn_behind_what_was_settled_before(decodes):
    """The reference's state 0 equals the fixed point."""
    num_unlike = num_blocks = 0
    for recorded in decodes:
        for block, states in enumerate(recorded.states):
            if len(states) == 1 and block == len(recorded.states) - 1:
                continue  # an EOS that came with the block before, or cut by the budget: see below
            noise = recorded.noise[block]
            settled = recorded.block_size - len(noise)
            assert settled in (0, 1)
            assert states[0] == recorded.fixed_point(block)[:settled] + list(noise)
            num_unlike += states[0] != states[-1]
            num_blocks += 1
    assert num_blocks > 100
    assert num_unlike > 0.95 * num_blocks


def test_states_are_whole_and_no_more_than_the_block_has_tokens_and_one(decodes):
    most = 0
    for recorded in decodes:
        for states in recorded.states:
            assert all(len(state) == recorded.block_size for state in states)
            assert 1 <= len(states) <= recorded.block_size + 1
            most = max(most, len(states) - recorded.block_size)
    assert most == 1


def test_the_right_beginning_grows_from_state_to_state(decodes):
    lengths = set()
    for recorded in decodes:
        for states in recorded.states:
            right = [first_difference(state, states[-1]) for state in states]
            assert all(b > a for a, b in pairwise(right)), right
            lengths.update(b - a for a, b in pairwise(right))
    assert len(lengths) > 2


def test_every_state_is_the_jacobi_iteration_of_the_one_before(decodes):
    """Eq. 4 of the paper: the model's choice at every position after the state before it."""
    num_checked = 0
    for recorded in decodes:
        for event in recorded.events:
            block, start = divmod(event.offset, recorded.block_size)
            if block >= len(recorded.states) or len(event.guesses) + start < recorded.block_size:
                continue
            states = recorded.states[block]
            settled = recorded.fixed_point(block)[:start]
            place = states.index(settled + event.guesses)
            following = (settled + event.accepted + event.tail)[: recorded.block_size]
            if EOS not in following and place + 1 < len(states) - 1:
                assert states[place + 1] == following
                num_checked += 1
    assert num_checked > 100


def test_states_share_no_list_with_each_other_or_with_the_events(decodes):
    for recorded in decodes[:20]:
        before = copy.deepcopy(recorded.states)
        lists = [state for states in recorded.states for state in states]
        lists += [event.guesses for event in recorded.events]
        assert len({id(entry) for entry in lists}) == len(lists)
        recorded.states[0][0][:] = [-1] * recorded.block_size
        assert recorded.states[0][1:] == before[0][1:]
        assert recorded.states[1:] == before[1:]


def test_a_block_that_the_budget_cut_off_is_left_out_and_one_with_the_eos_is_filled_up():
    recorder = TrajectoryRecorder(3)
    recorder.observe(Forward(0, 0, 0, chain([7, 7, 7]), [], [2], [9, 9, 9]))
    recorder.observe(Forward(0, 1, 1, chain([3, 8]), [0], [3, 4], [5]))
    recorder.observe(Forward(0, 2, 3, chain([7, 7, 7]), [], [5], [6, 6, 6]))
    first = [[7, 7, 7], [2, 3, 8], [2, 3, 4]]
    assert recorder.finish(PAD, EOS_IDS) == [first]
    recorder.observe(Forward(0, 3, 4, chain([6, 6]), [], [EOS], [2, 2]))
    assert recorder.finish(PAD, EOS_IDS) == [first, [[7, 7, 7], [5, 6, 6], [5, EOS, PAD]]]


@pytest.mark.parametrize("block_size", [2, 4])
def test_an_eos_that_a_full_block_brings_along_is_recorded(block_size):
    """An EOS on a block's first token may come with the block before, as its bonus token."""
    num_bonus = 0
    for seed in range(40):
        eos_at = 3 * block_size
        recorded = recorded_table(
            table_model(seed, 4, VOCAB), [2, 3, 2], 8 * block_size, block_size, seed, eos_at
        )
        assert recorded.answer[-1] == EOS
        assert len(recorded.answer) == eos_at + 1
        num_bonus += recorded.events[-1].offset < eos_at
        assert len(recorded.states) == 4
        assert recorded.states[-1][-1] == [EOS] + [PAD] * (block_size - 1)
    assert num_bonus > 5


def test_a_budget_of_one_token_more_keeps_the_noisy_states_of_the_last_block():
    """So `collect` gives one more: else the last block's guesses would stop short of its end."""
    for seed in range(20):
        recorded = recorded_table(table_model(seed, VOCAB, VOCAB), [2, 3, 2], 13, 4, seed)
        assert len(recorded.states) == 3
        assert all(len(states) > 1 for states in recorded.states)


def test_collect_records_noise_in_every_block_of_an_answer_that_was_cut(tmp_path):
    model = save_toy(tmp_path / "model", max_position_embeddings=64)
    out = tmp_path / "out"
    settings = {"block_size": 4, "max_new_tokens": 11, "threads": 1, "self_prompt_tokens": 6}
    collect.run(CollectConfig(model=str(model), prompts="self:12", out=str(out), **settings))
    blocks = [
        states
        for trajectory in read_all(out)
        if trajectory.finish_reason == "length"
        for states in trajectory.states
    ]
    assert len(blocks) > 9
    assert len(blocks) % 3 == 0
    assert sum(len(states) > 1 for states in blocks) > 0.9 * len(blocks)
