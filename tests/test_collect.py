"""Collecting: right, repeatable, and safe to kill; packing and training survive a kill too."""

import itertools
import json
import random
import shutil
import signal
import socket
import subprocess
import sys
import time
from hashlib import sha256
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
from packs import random_trajectories, write_trajectories
from safetensors.torch import load_file
from toys import EOS, PAD, VOCAB, save_toy

from jacobi_forcing import problems
from jacobi_forcing.cli import main
from jacobi_forcing.data.files import shard_path
from jacobi_forcing.data.trajectories import read_all
from jacobi_forcing.models import load_model

# An answer may have one token more: see `_collect`.
BLOCK, BUDGET = 4, 24


@pytest.fixture(scope="module")
def toy(tmp_path_factory):
    return save_toy(tmp_path_factory.mktemp("toy") / "model", max_position_embeddings=96)


@pytest.fixture(scope="module")
def model(toy):
    return load_model(str(toy))


def command(model, prompts, out, *more, block_size=BLOCK, budget=BUDGET):
    arguments = ["collect", "--model", model, "--prompts", prompts, "--out", out, "--threads", 1]
    sizes = ["--block-size", block_size, "--max-new-tokens", budget, "--shard-prompts", 4]
    return [str(a) for a in (*arguments, *sizes, *more)]


def collect(*arguments, **sizes):
    """Collect and return the trajectories."""
    line = command(*arguments, **sizes)
    assert main(line) == 0
    return list(read_all(line[line.index("--out") + 1]))


def jsonl(path, records):
    path.write_text("".join(json.dumps(record) + "\n" for record in records))
    return path


def shards_of(folder):
    return {
        p.name: sha256(p.read_bytes()).hexdigest() for p in sorted(folder.glob("part-*.parquet"))
    }


def greedy(model, prompt_ids, num_tokens, eos_ids):
    """The model's own greedy answer, from transformers."""
    prompt = torch.tensor([prompt_ids])
    options = {"max_new_tokens": num_tokens, "do_sample": False, "pad_token_id": PAD}
    mask = torch.ones_like(prompt)
    found = model.network.generate(
        prompt, attention_mask=mask, eos_token_id=sorted(eos_ids), **options
    )
    return found[0, len(prompt_ids) :].tolist()


# What is collected


def test_fixed_points_are_the_ids_of_generate(toy, model, tmp_path):
    found = collect(toy, "self:24", tmp_path / "out", "--self-prompt-tokens", 8)
    assert len({t.finish_reason for t in found}) == 2, "some must end with EOS, some must not"
    for trajectory in found:
        answer = greedy(model, trajectory.prompt_ids, BUDGET, {EOS})
        assert trajectory.answer_ids == answer
        text = [token for block in trajectory.states for token in block[-1]]
        assert text[: len(answer)] == answer[: len(text)]
        assert set(text[len(answer) :]) <= {PAD}
        assert (trajectory.finish_reason == "eos") == (answer[-1] == EOS)
        assert trajectory.solved is None
    assert sum(len(t.states) for t in found) > 50


def test_the_real_model_is_collected_exactly(stories, tmp_path):
    prompts = [{"prompt": text} for text in ("Once upon a time", "Tom and Lily", "The big dog")]
    path = jsonl(tmp_path / "prompts.jsonl", prompts)
    found = collect(stories, path, tmp_path / "out", block_size=16, budget=48)
    real = load_model(str(stories))
    for trajectory, prompt in zip(found, prompts, strict=True):
        assert trajectory.prompt_ids == real.tokenizer.encode(prompt["prompt"])
        assert trajectory.answer_ids == greedy(real, trajectory.prompt_ids, 48, real.eos_ids)
        assert trajectory.num_forwards <= len(trajectory.answer_ids)


def test_any_of_several_eos_ids_ends_an_answer(toy, tmp_path):
    folder = shutil.copytree(toy, tmp_path / "model")
    plain = collect(toy, "self:40", tmp_path / "plain", "--self-prompt-tokens", 8)
    tokens = [t for trajectory in plain for t in trajectory.answer_ids if t != EOS]
    other = max(set(tokens), key=tokens.count)
    path = folder / "generation_config.json"
    settings = json.loads(path.read_text()) | {"eos_token_id": [EOS, other]}
    path.write_text(json.dumps(settings))

    found = collect(folder, "self:40", tmp_path / "out", "--self-prompt-tokens", 8)
    ended = [t.answer_ids for t in found if t.finish_reason == "eos"]
    assert {answer[-1] for answer in ended} == {EOS, other}
    for trajectory in found:
        assert not {EOS, other} & set(trajectory.answer_ids[:-1])
        assert not {EOS, other} & set(trajectory.prompt_ids[1:]), "self-prompts stop there too"


def test_the_manifest_counts_what_is_in_the_shards(toy, tmp_path):
    out = tmp_path / "size=16" / "out"  # a name that Parquet readers may take for a column
    found = collect(toy, "self:10", out)
    manifest = json.loads((out / "manifest.json").read_text())
    assert [t.prompt_index for t in found] == list(range(10))
    assert manifest["shards"] == shards_of(out)
    assert len(manifest["shards"]) == 3
    assert manifest["num_prompts"] == 10
    assert manifest["num_tokens"] == sum(len(t.answer_ids) for t in found)
    assert manifest["num_forwards"] == sum(t.num_forwards for t in found)
    assert manifest["num_finished"] == sum(t.finish_reason == "eos" for t in found)
    assert manifest["settings"]["block_size"] == manifest["block_size"] == BLOCK


# Answers without states


def test_answers_are_those_of_full_trajectories_and_known_ones_take_one_forward(toy, tmp_path):
    rng = random.Random(4)
    prompts = [" ".join(f"w{rng.randrange(2, VOCAB)}" for _ in range(6)) for _ in range(80)]
    path = jsonl(tmp_path / "prompts.jsonl", [{"prompt": p} for p in prompts])
    whole = collect(toy, path, tmp_path / "whole")
    finished = [t for t in whole if t.finish_reason == "eos" and PAD not in t.answer_ids]
    assert len(finished) > 5
    records, expected = [], []
    for number, trajectory in enumerate(finished):
        answer = trajectory.answer_ids[:-1]
        told = [f"w{token}" for token in answer]
        num_right = number % (len(answer) + 2)
        if num_right < len(answer):
            told[num_right] = "w2" if answer[num_right] != 2 else "w3"
        elif num_right == len(answer):  # right, but it goes on where the model stops
            told.append("w5")
        records.append({"prompt": prompts[trajectory.prompt_index], "answer": " ".join(told)})
        # The prefill settles what is right and one token; then it is one token per forward.
        expected.append(1 + max(len(answer) - num_right, 0))
    path = jsonl(tmp_path / "known.jsonl", records)
    found = collect(toy, path, tmp_path / "out", "--record", "answers", "--batch-size", 3)
    assert [t.answer_ids for t in found] == [t.answer_ids for t in finished]
    assert [t.states for t in found] == [[[s[-1]] for s in t.states] for t in finished]
    assert [t.num_forwards for t in found] == expected
    assert 1 in expected
    assert max(expected) > 3


def test_without_known_answers_they_are_decoded(toy, tmp_path):
    whole = collect(toy, "self:10", tmp_path / "whole")
    found = collect(toy, "self:10", tmp_path / "out", "--record", "answers")
    for answer, trajectory in zip(found, whole, strict=True):
        assert answer.answer_ids == trajectory.answer_ids
        assert answer.states == [[states[-1]] for states in trajectory.states]
        assert answer.num_forwards == len(answer.answer_ids)


# Noise


def test_text_noise_is_drawn_from_the_text_so_far(toy, tmp_path):
    found = collect(toy, "self:12", tmp_path / "out", "--noise", "text")
    for trajectory in found:
        assert set(trajectory.states[0][0]) <= set(trajectory.prompt_ids)


def test_vocabulary_noise_draws_only_real_tokens(tmp_path):
    padded = save_toy(tmp_path / "model", vocab_size=VOCAB + 40)  # embeddings without a token
    found = collect(padded, "self:60", tmp_path / "out", "--noise", "vocabulary")
    drawn = [token for t in found for token in t.states[0][0]]
    # In later blocks the first token may be the model's own, settled by the forward before.
    drawn += [token for t in found for block in t.states[1:] for token in block[0][1:]]
    assert max(drawn) < VOCAB
    assert len(set(drawn)) > 0.9 * VOCAB
    assert any(max(t.answer_ids) >= VOCAB for t in found), "the model itself may say such tokens"


# Sources


@pytest.mark.parametrize("family", ["qwen2", "llama"])
def test_text_is_split_as_tokenizer_json_says(family, tmp_path):
    # AutoTokenizer takes Qwen2's own class for every qwen2 model, and that finds no token here.
    loaded = load_model(str(save_toy(tmp_path / "model", family)))
    assert loaded.tokenizer.encode("w5 w6 w7") == [5, 6, 7]


def test_prompts_from_jsonl_and_parquet_and_a_folder(toy, model, tmp_path, monkeypatch):
    records = [{"prompt": f"w{i} w{2 * i} w{3 * i}", "other": i} for i in range(2, 9)]
    folder = tmp_path / "data"
    folder.mkdir()
    jsonl(folder / "train.jsonl", records)
    jsonl(tmp_path / "a.jsonl", records)
    pq.write_table(pa.Table.from_pylist(records), tmp_path / "b.parquet")
    datasets = pytest.importorskip("datasets")
    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path / "cache")
    found = {}
    for number, source in enumerate((tmp_path / "a.jsonl", tmp_path / "b.parquet", folder)):
        found[number] = collect(toy, source, tmp_path / f"out-{number}")
    assert found[0] == found[1] == found[2]
    assert [t.prompt_ids for t in found[0]] == [
        model.tokenizer.encode(record["prompt"]) for record in records
    ]


def test_messages_go_through_the_chat_template(toy, tmp_path):
    folder = shutil.copytree(toy, tmp_path / "model")
    template = (
        "{% for m in messages %}{{ 'w60 ' if m['role'] == 'user' else 'w61 ' }}"
        "{{ m['content'] + ' ' }}{% endfor %}{% if add_generation_prompt %}w61{% endif %}"
    )
    (folder / "chat_template.jinja").write_text(template)
    turns = [("user", "w5 w6"), ("assistant", "w7"), ("user", "w8")]
    messages = [{"role": role, "content": content} for role, content in turns]
    records = [{"messages": messages}, {"messages": messages[:1], "prompt": "w9"}, {"prompt": "w9"}]
    found = collect(folder, jsonl(tmp_path / "prompts.jsonl", records), tmp_path / "out")
    prompts = [t.prompt_ids for t in found]
    assert prompts == [[60, 5, 6, 61, 7, 60, 8, 61], [60, 5, 6, 61], [9]]


def test_prompts_sampled_from_the_model_are_seeded_and_end_before_eos(toy, tmp_path):
    options = ("--self-prompt-tokens", 6)
    found = collect(toy, "self:30", tmp_path / "a", *options)
    prompts = [t.prompt_ids for t in found]
    assert len(prompts) == 30
    assert {len(p) for p in prompts} <= set(range(1, 8))
    assert len({len(p) for p in prompts}) > 3
    for prompt in prompts:
        assert prompt[0] == EOS, "this model has no BOS, so its texts start behind an EOS"
        assert not {EOS, PAD} & set(prompt[1:])
    again = collect(toy, "self:30", tmp_path / "b", *options)
    other = collect(toy, "self:30", tmp_path / "c", *options, "--seed", 1)
    assert again == found
    assert [t.prompt_ids for t in other] != prompts


@pytest.mark.parametrize(("source", "kind"), [("bundled:6", "all"), ("bundled:code:3", "code")])
def test_bundled_problems_are_dealt_and_checked(source, kind, tmp_path):
    toy = save_toy(tmp_path / "model", max_position_embeddings=512)
    found = collect(toy, source, tmp_path / "out", "--seed", 3, budget=8)
    dealt = list(itertools.islice(problems.stream(kind, seed=3), len(found)))
    tokenizer = load_model(str(toy)).tokenizer
    assert len(found) == int(source.rpartition(":")[2])
    assert [t.prompt_ids for t in found] == [tokenizer.encode(p.prompt) for p in dealt]
    assert all(t.solved is False for t in found)


# Repeating and continuing


def test_the_same_seed_gives_the_same_bytes(toy, tmp_path):
    prompts = jsonl(tmp_path / "prompts.jsonl", [{"prompt": f"w{i} w3"} for i in range(2, 14)])
    runs = {"a": (), "b": (), "batch": ("--batch-size", 5), "seed": ("--seed", 1)}
    shards = {}
    for name, more in runs.items():
        collect(toy, prompts, tmp_path / name, *more)
        shards[name] = shards_of(tmp_path / name)
    assert len(shards["a"]) == 3
    assert shards["a"] == shards["b"] == shards["batch"]
    assert shards["a"].keys() == shards["seed"].keys()
    assert not set(shards["a"].values()) & set(shards["seed"].values())


def killed(arguments, sign, log, delay_seconds=0.0):
    """Start `jacobi ARGUMENTS` and kill it `delay_seconds` after the file `sign` appears."""
    line = [sys.executable, "-m", "jacobi_forcing", *map(str, arguments)]
    with log.open("w") as output:
        process = subprocess.Popen(line, stdout=output, stderr=output)
        try:
            end = time.monotonic() + 300
            while not sign.exists():
                assert process.poll() is None, log.read_text()
                assert time.monotonic() < end, "nothing was written"
                time.sleep(0.002)
            time.sleep(delay_seconds)
        finally:
            process.send_signal(signal.SIGKILL)
            process.wait()
    assert process.returncode == -signal.SIGKILL, "it was done before it was killed"


def some_delay():
    return random.SystemRandom().uniform(0, 0.1)  # another moment in every run of the tests


def test_a_collect_that_is_killed_continues_to_the_same_bytes(toy, tmp_path):
    whole = collect(toy, "self:240", tmp_path / "whole")
    out = tmp_path / "out"
    slowly = command(toy, "self:240", out, "--batch-size", 1)
    killed(slowly, shard_path(out, 0), tmp_path / "log", some_delay())
    assert not (out / "manifest.json").exists()
    before = shards_of(out)
    assert 1 <= len(before) < 60

    assert collect(toy, "self:240", out) == whole
    assert shards_of(out) == shards_of(tmp_path / "whole")
    assert before.items() <= shards_of(out).items(), "finished shards are kept"
    assert [t.prompt_index for t in whole] == list(range(240))
    assert not list(out.glob(".*"))


def test_what_a_killed_writer_left_behind_is_removed(toy, tmp_path):
    dead = subprocess.Popen([sys.executable, "-c", ""])
    dead.wait()
    out = tmp_path / "out"
    out.mkdir()
    here, elsewhere = socket.gethostname(), "another-machine"
    name = ".part-00000.parquet.{}.{}.tmp".format
    (out / name(here, dead.pid)).write_bytes(b"PAR1")
    (out / name(here, 1)).write_bytes(b"a process that lives is writing this")
    (out / name(elsewhere, dead.pid)).write_bytes(b"this one may live")
    collect(toy, "self:4", out)
    assert {p.name for p in out.glob(".*")} == {name(here, 1), name(elsewhere, dead.pid)}


def test_a_pack_that_is_killed_ends_with_the_same_bytes_when_run_again(tmp_path):
    source = write_trajectories(tmp_path / "in", random_trajectories(0, 500), per_shard=1)
    pack = ["pack", "--trajectories", str(source), "--copies", "4", "--phase", "random", "--out"]
    assert main([*pack, str(tmp_path / "whole")]) == 0
    out = tmp_path / "out"
    killed([*pack, out], shard_path(out, 5), tmp_path / "log", some_delay())
    assert not (out / "manifest.json").exists()
    assert 6 <= len(shards_of(out)) < 500
    assert main([*pack, str(out)]) == 0
    assert shards_of(out) == shards_of(tmp_path / "whole")
    assert len(shards_of(out)) == 500
    assert not list(out.glob(".*"))


@pytest.fixture(scope="module")
def packed(tmp_path_factory):
    folder = tmp_path_factory.mktemp("packed")
    source = write_trajectories(folder / "in", random_trajectories(1, 60))
    assert main(["pack", "--trajectories", str(source), "--out", str(folder / "out")]) == 0
    return folder / "out"


def training(toy, packed, out):
    """A command that trains for several epochs of seven steps."""
    base = ["train", "--model", toy, "--packed", packed, "--out", out, "--threads", 1]
    steps = ["--batch-size", 8, "--max-steps", 24, "--save-steps", 4, "--learning-rate", 1e-3]
    return [str(a) for a in (*base, *steps, "--eval-prompts", "packed:4")]


@pytest.fixture(scope="module")
def trained(toy, packed, tmp_path_factory):
    out = tmp_path_factory.mktemp("trained")
    assert main(training(toy, packed, out)) == 0
    weights, start = load_file(out / "model.safetensors"), load_file(toy / "model.safetensors")
    assert not any(torch.equal(weights[name], start[name]) for name in weights)
    return weights


@pytest.fixture(scope="module")
def stopped(toy, packed, tmp_path_factory):
    """The folder of a training that was killed behind its second checkpoint."""
    folder = tmp_path_factory.mktemp("stopped")
    out = folder / "out"
    state = out / "steps" / "checkpoint-8" / "trainer_state.json"
    killed(training(toy, packed, out), state, folder / "log")
    assert not (out / "run.json").exists()
    return out


def resumed(toy, packed, stopped, *more):
    """Give the same command again, in the same folder; return its exit code."""
    return main([*training(toy, packed, stopped), *more])


def assert_same_weights(out, trained):
    weights = load_file(out / "model.safetensors")
    assert weights.keys() == trained.keys()
    assert all(torch.equal(weights[name], trained[name]) for name in trained)


@pytest.fixture
def in_turn(stopped):
    """The stopped folder, put back as it was afterwards."""
    copy = shutil.copytree(stopped, stopped.parent / "copy")
    yield stopped
    shutil.rmtree(stopped)
    shutil.move(copy, stopped)


def test_a_training_that_is_killed_continues_to_the_same_weights(toy, packed, trained, in_turn):
    assert resumed(toy, packed, in_turn) == 0
    assert json.loads((in_turn / "run.json").read_text())["steps"] == 24
    assert_same_weights(in_turn, trained)


def test_a_training_that_is_killed_in_a_checkpoint_continues_from_the_one_before(
    toy, packed, trained, in_turn
):
    # As if the next checkpoint were being written: weights first, the trainer's state last.
    steps = in_turn / "steps"
    half = Path(
        shutil.copytree(steps / "checkpoint-8", steps / "checkpoint-12", dirs_exist_ok=True)
    )
    (half / "trainer_state.json").unlink()
    (half / "optimizer.pt").write_bytes((half / "optimizer.pt").read_bytes()[:1000])
    assert resumed(toy, packed, in_turn) == 0
    assert_same_weights(in_turn, trained)


def test_a_training_does_not_continue_with_other_settings(toy, packed, in_turn, capsys):
    before = {p: p.read_bytes() for p in in_turn.rglob("*") if p.is_file()}
    assert resumed(toy, packed, in_turn, "--learning-rate", "0.5") == 2
    assert "was begun with learning_rate = 0.001, now it is 0.5" in capsys.readouterr().err
    assert {p: p.read_bytes() for p in in_turn.rglob("*") if p.is_file()} == before
