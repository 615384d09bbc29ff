"""Collecting with a temperature records what the sampler draws, one token at a time."""

import itertools
import json
import random
from collections import Counter

import pytest
import torch
from test_collect_at_scale import content, run_and_die
from toys import EOS, VOCAB, save_toy

from jacobi_forcing.cli import main
from jacobi_forcing.config import CollectConfig
from jacobi_forcing.data.trajectories import from_line, read_all
from jacobi_forcing.decoding.gumbel import gumbel
from jacobi_forcing.decoding.sampling import truncated
from jacobi_forcing.models import load_model
from jacobi_forcing.stages import collect

BLOCK, BUDGET, NUM_PROMPTS = 4, 20, 14
SAMPLED = ("--temperature", 0.9, "--top-k", 30, "--top-p", 0.95, "--min-p", 0.01, "--seed", 3)


@pytest.fixture(scope="module")
def toy(tmp_path_factory):
    return save_toy(tmp_path_factory.mktemp("toy") / "model", max_position_embeddings=96)


@pytest.fixture(scope="module")
def records():
    rng = random.Random(8)
    lengths = [rng.randrange(2, 20) for _ in range(NUM_PROMPTS)]
    return [{"prompt": " ".join(f"w{rng.randrange(2, VOCAB)}" for _ in range(n))} for n in lengths]


def write(path, records):
    path.write_text("".join(json.dumps(record) + "\n" for record in records))
    return path


@pytest.fixture(scope="module")
def prompts(records, tmp_path_factory):
    return write(tmp_path_factory.mktemp("prompts") / "prompts.jsonl", records)


def settings(toy, prompts, out, *more, sampled=SAMPLED):
    base = ["collect", "--model", toy, "--prompts", prompts, "--out", out, "--threads", 1]
    sizes = ["--block-size", BLOCK, "--max-new-tokens", BUDGET, "--shard-prompts", 4]
    return [str(a) for a in (*base, *sizes, "--batch-size", 5, *sampled, *more)]


@pytest.fixture(scope="module", params=["states", "answers"])
def whole(request, toy, prompts, tmp_path_factory):
    """A finished folder and the flags that ask for its kind of record."""
    out, more = tmp_path_factory.mktemp("whole") / "out", ("--record", request.param)
    assert main(settings(toy, prompts, out, *more)) == 0
    return out, more


def seed_of(index):
    config = CollectConfig(model="m", prompts="p", out="o", temperature=1.0, seed=3)
    return collect.sampling_of(config, index).seed


@torch.no_grad()
def draws(network, ids, seed):
    """Choose behind every token of a text, from one plain forward."""
    scores = truncated(network(torch.tensor([ids])).logits[0] / 0.9, 30, 0.95, 0.01)
    return (scores + gumbel(seed, torch.arange(1, len(ids) + 1), VOCAB)).argmax(-1).tolist()


@pytest.fixture(scope="module")
def slow(toy):
    """One token at a time, without cache, batch or draft."""
    network = load_model(str(toy)).network

    def answer(prompt, index):
        ids = list(prompt)
        while len(ids) < len(prompt) + BUDGET and ids[-1] != EOS:
            ids.append(draws(network, ids, seed_of(index))[-1])
        return ids[len(prompt) :]

    return answer


def test_what_is_recorded_is_what_one_token_at_a_time_draws(toy, whole, slow, tmp_path, prompts):
    found = list(read_all(whole[0]))
    assert len(found) == NUM_PROMPTS
    for one in found:
        assert one.answer_ids == slow(one.prompt_ids, one.prompt_index)
        blocks = [token for states in one.states for token in states[-1]]
        assert blocks[: len(one.answer_ids)] == one.answer_ids[: len(blocks)]
    greedy = tmp_path / "greedy"
    assert main(settings(toy, prompts, greedy, sampled=())) == 0
    others = [one.answer_ids for one in read_all(greedy)]
    assert sum(a.answer_ids != b for a, b in zip(found, others, strict=True)) > NUM_PROMPTS / 2


def test_each_state_is_the_sampler_s_own_next_one(toy, prompts, tmp_path):
    """From a state to the next: one forward, and the noise that decoding has in these places."""
    assert main(settings(toy, prompts, tmp_path / "out")) == 0
    network, steps = load_model(str(toy)).network, Counter()
    for one in read_all(tmp_path / "out"):
        before = list(one.prompt_ids)
        for states in one.states:
            whole = EOS not in states[-1]  # behind an EOS the fixed point is padding
            for state, following in itertools.pairwise(states):
                chosen = draws(network, before + state, seed_of(one.prompt_index))
                chosen = chosen[len(before) - 1 :][:BLOCK]
                right = [a == b for a, b in zip(state, states[-1], strict=True)]
                settled = [*right, False].index(False) + 1
                assert following[:settled] == states[-1][:settled]
                if whole:
                    assert following[settled:] == chosen[settled:]
                    steps[settled < BLOCK] += 1
            before += states[-1]
    assert steps[True] > 20


def test_a_known_answer_costs_one_forward_if_it_is_what_the_sampler_draws(
    toy, records, whole, tmp_path
):
    found = list(read_all(whole[0]))
    texts = [" ".join("<eos>" if t == EOS else f"w{t}" for t in one.answer_ids) for one in found]
    known = [record | {"answer": text} for record, text in zip(records, texts, strict=True)]
    known[3]["answer"] = "w2 w3 w4 w5"  # not what is drawn
    path = write(tmp_path / "known.jsonl", known)
    assert main(settings(toy, path, tmp_path / "out", "--record", "answers")) == 0
    again = list(read_all(tmp_path / "out"))
    assert [one.answer_ids for one in again] == [one.answer_ids for one in found]
    assert [one.num_forwards for one in again if one.prompt_index != 3] == [1] * (NUM_PROMPTS - 1)
    assert again[3].num_forwards > 1


def test_order_batches_and_parts_change_no_byte(toy, prompts, whole, tmp_path):
    folder, more = whole
    for number, other in enumerate((("--batch-size", 1), ("--sort-prompts", 1, "--batch-size", 9))):
        out = tmp_path / str(number)
        assert main(settings(toy, prompts, out, *more, *other)) == 0
        assert content(out) == content(folder)
    for part in ("2/2", "1/2"):
        assert main(settings(toy, prompts, tmp_path / "parts", *more, "--shard", part)) == 0
    assert list(read_all(tmp_path / "parts")) == list(read_all(folder))
    report = (tmp_path / "parts" / "report.json").read_bytes()
    assert report == (folder / "report.json").read_bytes()


def test_an_engine_of_its_own_draws_the_same(toy, whole):
    """What a Ray actor runs, with nothing but its settings and a task of some prompts."""
    folder, (_, record) = whole
    config = CollectConfig(
        model=str(toy),
        prompts="p",
        out="o",
        record=record,
        block_size=BLOCK,
        max_new_tokens=BUDGET,
        temperature=0.9,
        top_k=30,
        top_p=0.95,
        min_p=0.01,
        seed=3,
        threads=1,
    )
    rows = {one.prompt_index: one for one in read_all(folder)}
    asked = [11, 2, 7]
    task = json.dumps([(i, rows[i].prompt_ids, None, None, False) for i in asked])
    found = {one.prompt_index: one for one in map(from_line, collect.Engine(config)(task))}
    assert found == {i: rows[i] for i in asked}


def test_killed_at_any_moment_it_continues_to_the_same_bytes(toy, prompts, whole, tmp_path):
    folder, more = whole
    names = run_and_die(settings(toy, prompts, tmp_path / "dry", *more), tmp_path / "dry", 0)
    opened, *_, removed = (n for n, name in enumerate(names, 1) if name.endswith(".journal"))
    rng = random.SystemRandom()  # other moments in every run of the tests
    for first, last in ((1, opened), (opened + 1, removed), (removed + 1, len(names))):
        moment = rng.randint(first, last)
        out = tmp_path / f"killed-{moment}"
        run_and_die(settings(toy, prompts, out, *more), out, moment)
        assert bool(list(out.glob("*.journal"))) == (first == opened + 1), moment
        assert main(settings(toy, prompts, out, *more)) == 0
        assert content(out) == content(folder), moment


def test_each_prompt_s_noise_is_its_own_and_the_seed_s():
    def seeds(seed):
        config = CollectConfig(model="m", prompts="p", out="o", temperature=1.0, seed=seed)
        return [collect.sampling_of(config, index).seed for index in range(200)]

    assert seeds(1) == seeds(1)
    assert len({*seeds(1), *seeds(2)}) == 400
    assert all(0 <= seed < 2**64 for seed in seeds(1))


@pytest.mark.parametrize(
    "other", [("--temperature", 0.8), ("--top-k", 29), ("--top-p", 0.9), ("--seed", 4)]
)
def test_a_folder_begun_with_other_sampling_is_refused(other, toy, prompts, whole, refused):
    folder, more = whole
    before = content(folder)
    line = refused(*settings(toy, prompts, folder, *more, *other))
    name = other[0].lstrip("-").replace("-", "_")
    assert f"was begun with {name} = " in line
    assert f"now it is {other[1]}" in line
    assert content(folder) == before


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (("--top-p", 0.9), "--top-p is 0.9, but at --temperature 0 nothing is drawn"),
        (("--top-k", 5), "--top-k is 5, but at --temperature 0 nothing is drawn"),
        (("--min-p", 0.1), "--min-p is 0.1, but at --temperature 0 nothing is drawn"),
        (("--temperature", 1, "--top-p", 0), "--top-p is 0.0, must be above 0"),
        (("--temperature", -1), "--temperature is -1.0, must be 0 or more"),
        (("--temperature", 1, "--seed", 2**32), "must be from 0 to 2**32 - 1"),
    ],
)
def test_sampling_that_makes_no_sense_is_refused(flags, message, toy, prompts, tmp_path, refused):
    line = refused(*settings(toy, prompts, tmp_path / "out", sampled=flags))
    assert message in line
    assert not (tmp_path / "out").exists()
