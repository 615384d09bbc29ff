"""The dry run: small models of every family, estimates against counts, commands, refusals."""

import shlex
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from packs import make_document
from torch.utils.flop_counter import FlopCounterMode
from toys import FAMILIES, save_toy, tiny_network, toy_model
from training import train_config

from jacobi_forcing import cli
from jacobi_forcing.config import ForceConfig
from jacobi_forcing.errors import ConfigError
from jacobi_forcing.models import load_model
from jacobi_forcing.models.shrink import empty_network, find_architecture, save_small, small
from jacobi_forcing.stages import dry_run
from jacobi_forcing.stages.estimates import (
    Work,
    estimate_round,
    longest_tokens,
    shape_of,
    slow_training_ratio,
    step_flops,
)
from jacobi_forcing.stages.recipe import read_recipe
from jacobi_forcing.training import memory
from jacobi_forcing.training.adapters import add_adapters
from jacobi_forcing.training.online import DraftCollator

RECIPES = Path(__file__).parents[1] / "recipes"
LARGE = [
    ("qwen2.5-coder-7b/force.toml", 1, "H200", 7.62e9),
    ("qwen2.5-coder-7b/8xh100.toml", 8, "H100", 7.62e9),
    ("qwen3-8b/force.toml", 1, "H200", 8.19e9),
    ("qwen3-8b/8xh100.toml", 8, "H100", 8.19e9),
]
RECIPE = """
model = "{model}"
out = "{out}"
[collect]
prompts = "{prompts}"
max_new_tokens = 16
block_size = 4
[train]
max_steps = 10
batch_size = 4
gradient_checkpointing = true
lora_rank = 4
bf16 = true
eval_prompts = "packed:4"
{train}
[[rounds]]
[[rounds]]
collect = {{ block_size = 8 }}
"""


@pytest.fixture
def recipe(toy, tmp_path):
    """Writes a recipe of two rounds for a toy model, and returns its file."""
    pytest.importorskip("peft", reason="needs PEFT: pip install 'jacobi-forcing[lora]'")

    def write(train="", prompts=None, model=toy):
        source = tmp_path / "prompts.jsonl"
        source.write_text("".join(f'{{"prompt": "w{i} w{i + 1} w9"}}\n' for i in range(2, 12)))
        path = tmp_path / "force.toml"
        fields = {"model": model, "out": tmp_path / "runs", "prompts": prompts or source}
        path.write_text(RECIPE.format(train=train, **fields))
        return path

    return write


def test_a_dry_run_tries_every_stage_and_leaves_nothing_behind(recipe, tmp_path, capsys):
    path = recipe()
    before = sorted(tmp_path.rglob("*"))
    assert cli.main(["force", str(path), "--dry-run"]) == 0
    out = capsys.readouterr().out
    assert sorted(tmp_path.rglob("*")) == before
    assert out.count("trained for a step (AR loss") == 2
    assert out.count("10 prompts in") == 2
    assert "weights of" in out
    assert "stand" not in out  # it has its own tokenizer
    assert out.count("fits") == 2


def test_the_commands_of_a_dry_run_have_the_very_settings_of_the_recipe(recipe):
    found = read_recipe(recipe())
    lines = [shlex.split(line) for line in dry_run.commands(found, 1)]
    wanted = [c for r in found.rounds for c in (r.collect, r.pack, *r.trains)]
    assert len(lines) == len(wanted) == 6
    for words, config in zip(lines, wanted, strict=True):
        stage, settings = cli.parse(words[1:])
        assert cli.STAGES[stage][0](**settings) == config
    several = dry_run.commands(found, 2)
    assert "--shard $i/2 & done; wait" in several[0]
    assert several[2].startswith("torchrun --nproc-per-node 2 -m jacobi_forcing train ")


def test_the_recipe_of_everything_that_rounds_can_do(stories, capsys):
    path = RECIPES / "stories260K" / "rounds.toml"
    assert cli.main(["force", str(path), "--model", str(stories), "--dry-run"]) == 0
    out = capsys.readouterr().out
    assert out.count("trained for a step (AR loss") == 3
    lines = [line.split() for line in out.splitlines() if line.startswith("  jacobi ")]
    stages = [words[1] for words in lines]
    one = ["collect", "pack", "train", "evaluate"]
    assert stages == ["evaluate", *3 * one, "average", "evaluate"]
    assert ["--mix" in words for words in lines if words[1] == "pack"] == [False, False, True]


def test_what_a_run_would_refuse_a_dry_run_refuses_in_a_line(recipe, refused, tmp_path):
    def line(*flags, **changes):
        return refused("force", recipe(**changes), "--dry-run", *flags)

    assert "absent.jsonl: cannot read: No such file" in line(prompts=tmp_path / "absent.jsonl")
    (tmp_path / "broken.jsonl").write_text('{"prompt": "w2"}\n{"text": "w2"}\n')
    assert 'broken.jsonl:2: needs an object with "prompt"' in line(
        prompts=tmp_path / "broken.jsonl"
    )
    assert "neither a folder here nor in the hub's cache" in line(model="somebody/something")
    assert "--batch-size is 4, which 3 processes cannot share" in line("--gpus", "3")
    assert "--fsdp shards a model over processes" in line(train="fsdp = true")
    with pytest.raises(ConfigError, match="--gpu is 'H2', must be one of"):
        ForceConfig(recipe="r", gpu="H2")


@pytest.mark.parametrize("family", FAMILIES)
def test_a_small_model_of_any_family_loads_and_keeps_what_makes_it_one(family, tmp_path):
    folder = save_toy(tmp_path / "model", family, num_hidden_layers=6)
    found = find_architecture(str(folder), tmp_path)
    assert found.has_own_tokenizer
    save_small(found, tmp_path / "small", seed=0)
    model = load_model(str(tmp_path / "small"), device="cpu")  # probed
    config, large = model.config, found.config
    assert config.model_type == large.model_type
    assert config.vocab_size == large.vocab_size
    assert config.max_position_embeddings == large.max_position_embeddings
    assert set(getattr(config, "layer_types", None) or ()) == set(
        getattr(large, "layer_types", None) or ()
    )
    sizes = [
        sum(p.numel() for p in m.network.parameters()) for m in (model, load_model(str(folder)))
    ]
    assert sizes[0] < sizes[1]


def test_query_heads_share_key_heads_as_in_the_large_model():
    for name, group in (("qwen2.5-coder-7b", 7), ("qwen3-8b", 4)):
        found = find_architecture("Qwen/absent", RECIPES / name)
        config = small(found.config)
        assert config.num_attention_heads == group * config.num_key_value_heads
        assert config.vocab_size == found.config.vocab_size
        assert not found.has_own_tokenizer
        text = "naïve 日本 <b>\n"
        assert found.tokenizer.decode(found.tokenizer.encode(text)) == text


@pytest.mark.parametrize(("name", "gpus", "gpu", "parameters"), LARGE)
def test_the_large_recipes_fit_what_they_are_for(name, gpus, gpu, parameters, monkeypatch):
    """And the page says of them what is estimated today (recipes/page.py writes it)."""
    monkeypatch.chdir(RECIPES.parent)
    page = Path("docs/recipes.md").read_text()
    part = page.split(f"<!-- estimate: {name} {gpus} x {gpu} -->\n")[1].split("<!-- end -->")[0]
    config = ForceConfig(recipe=str(RECIPES / name), gpus=gpus, gpu=gpu)
    recipe = read_recipe(RECIPES / name)
    found, sources = dry_run.checked(config, recipe)
    rounds = dry_run.estimates(config, recipe, found, sources)
    lines = []
    for number, estimate in enumerate(rounds, 1):
        lines += [f"- round {number}"] + [f"  - {line}" for line in dry_run.described(estimate)]
        # As published; adapters, where there are some, come on top.
        base = estimate.parts["all"] - (estimate.parts["trained"] if gpus == 1 else 0)
        assert base == pytest.approx(parameters, rel=1e-3)
        assert estimate.fits
        assert estimate.num_prompts == 8 * estimate.steps  # twelve are too few to go by
        fast, slow = estimate.seconds["train"]
        assert 600 < fast < slow < 3 * 86400
    assert part.splitlines() == lines
    assert len(lines) == 10


def test_collecting_is_shared_by_no_more_gpus_than_there_are_shards(recipe, tmp_path):
    path = recipe()
    stages = read_recipe(path).rounds[0]
    found = find_architecture(stages.collect.model, tmp_path)

    def seconds(gpus, shard_prompts):
        settings = replace(stages.collect, shard_prompts=shard_prompts)
        work = Work(settings, stages.pack, stages.trains[0], None, 1)
        return estimate_round(work, found, 10, 3, 3, "H100", gpus).seconds["collect"][0]

    alone = seconds(1, 4)
    assert alone > 0
    assert [round(alone / seconds(gpus, 4)) for gpus in (1, 2, 3, 4, 8)] == [1, 2, 3, 3, 3]
    assert seconds(8, 512) == alone
    assert seconds(8, 1) == pytest.approx(alone / 8)


@pytest.mark.parametrize("family", ["qwen2", "qwen3", "llama"])
def test_flops_are_those_that_pytorch_counts(family):
    network = tiny_network(family, num_hidden_layers=2)
    network.set_attn_implementation("eager")  # of others, PyTorch does not count all on a CPU
    shape, length = shape_of(network), 48
    mask = torch.zeros(1, 1, length, length)
    ids = torch.arange(length)[None]
    with FlopCounterMode(display=False) as counter:
        logits = network(input_ids=ids, attention_mask=mask, use_cache=False).logits
    expected = shape.forward(length, length**2) + 2 * shape.head * length
    assert counter.get_total_flops() == pytest.approx(expected, rel=0.01)
    with FlopCounterMode(display=False) as counter:
        logits.sum().backward()
    step = step_flops(train_config("-", "-"), shape, 1, length)
    whole = counter.get_total_flops() + expected  # of a head that every token goes through
    # Ours has the teacher's logits of half the tokens besides.
    assert step == pytest.approx(whole + shape.head * length, rel=0.1)


@pytest.mark.parametrize(("reach", "drafts"), [(0, 1), (4, 2), (6, 4), (8, 8)])
def test_the_longest_sequence_has_room_for_its_drafts(recipe, reach, drafts):
    """Whatever part of it is answer; where all of it is, there is no room to spare."""
    stages = read_recipe(recipe()).rounds[0]
    online = {"states": "online", "consistency_reach": reach, "drafts_per_block": drafts}
    train = replace(stages.trains[0], mask="clean-context", **online)
    collect = replace(stages.collect, block_size=8)
    work = Work(collect, replace(stages.pack, max_length=1024), train, None, 1)
    collator = DraftCollator(
        8,
        0,
        ar_on_prompt=False,
        consistency_from="start",
        consistency_reach=reach,
        draft_tokens=reach or 8,
        drafts_per_block=drafts,
    )
    lengths = []
    for num_blocks in (1, 30, 63):
        num_prompt = 1024 - 16 * num_blocks
        ids = list(range(1024))
        document = make_document(0, num_prompt, 8 * num_blocks, ids, [0.5] * num_blocks)
        lengths.append(collator([(document,)])["input_ids"].shape[1])
    found = longest_tokens(work)
    assert max(lengths) <= found
    assert found <= 1.05 * max(1024, lengths[-1])


def test_memory_is_estimated_for_the_sequences_that_the_prompts_make(recipe):
    """As they are packed; the longest that packing allows stands beside it."""
    stages = read_recipe(recipe()).rounds[0]
    pack = replace(stages.pack, max_length=2048)
    collect = replace(stages.collect, max_new_tokens=16, block_size=8)
    train = replace(stages.trains[0], lora_rank=0)
    found = find_architecture("tiny-base", Path())

    def estimated(longest, **packing):
        work = Work(collect, replace(pack, **packing), train, None, 1)
        return estimate_round(work, found, 10, 20, longest, "H100", 1)

    short, long, unknown = estimated(30), estimated(5000), estimated(0)
    assert short.longest_tokens == 30 + 2 * 16
    assert long.longest_tokens == unknown.longest_tokens == 2048
    assert estimated(30, sequence_prompts=0).longest_tokens == 2048
    network = empty_network(found.config, torch.float32)
    assert short.memory == memory.estimate(network, train, short.longest_tokens)
    assert short.memory_allowed == long.memory == unknown.memory
    assert short.memory.total < long.memory.total
    lines = "\n".join(dry_run.described(short))
    assert "at 62 tokens, the longest sequence" in lines
    assert "if a sequence has the 2,048 tokens that pack allows" in lines
    assert "2,048" not in "\n".join(dry_run.described(short._replace(allowed_tokens=62)))


def test_throughputs_that_are_assumed_lie_below_the_peak():
    assert 0.01 < slow_training_ratio() < 0.2


def test_shards_divide_what_they_can():
    network = toy_model().network
    config = train_config("-", "-", batch_size=8, eval_prompts="bundled:4")
    alone = memory.estimate(network, config, 100, 4)
    shared = memory.estimate(network, replace(config, fsdp=True), 100, 4)
    assert shared.gradients == alone.gradients // 4
    assert shared.optimizer == alone.optimizer // 4
    gathered = shared.weights - alone.weights // 4
    assert 0 < gathered <= alone.weights
    assert shared[4:] == alone[4:]
    # Before it is sharded, and for its tests, the first process holds the whole network.
    network = toy_model(num_hidden_layers=16).network
    whole = sum(p.numel() * p.element_size() for p in network.parameters())
    small = memory.estimate(network, replace(config, fsdp=True, batch_size=4), 1, 4)
    assert small.tests > 0
    assert small.total == whole + whole // 4 + small.optimizer


def test_an_original_is_counted_where_it_is_a_second_network():
    pytest.importorskip("peft", reason="needs PEFT: pip install 'jacobi-forcing[lora]'")
    network = toy_model().network
    num = 4 * sum(p.numel() for p in network.parameters())

    def copies(**settings):
        return memory.estimate(network, train_config("-", "-", **settings), 10).copies

    assert copies(eval_prompts="packed:4") == num
    assert copies(eval_prompts="bundled:4") == 0
    assert copies(eval_prompts="bundled:4", ar_teacher="frozen") == num
    assert copies(eval_prompts="packed:4", lora_rank=4) == 0
    assert copies(eval_prompts="packed:4", lora_rank=4, frozen_model="first") == num
    config = train_config("-", "-", lora_rank=4, bf16=True, gradient_checkpointing=True)
    found = memory.estimate(add_adapters(network, config), config, 10)
    assert found.optimizer == 2 * found.gradients < num / 2
    assert 0 < found.casts < num / 2


@pytest.mark.slow
@pytest.mark.parametrize("name", ["qwen2.5-coder-7b/force.toml", "qwen3-8b/force.toml"])
def test_the_large_recipes_run_dry(name, monkeypatch, capsys):
    monkeypatch.chdir(RECIPES.parent)
    assert cli.main(["force", str(RECIPES / name), "--dry-run"]) == 0
    out = capsys.readouterr().out
    assert out.count("decoded as AR does") == 2
    assert "a token per byte stood in for it" in out
    assert "does NOT fit" not in out


def test_prompts_are_the_rows_that_fit_once_each(monkeypatch):
    monkeypatch.syspath_prepend(str(RECIPES))
    prompts = __import__("prompts").prompts
    rows = [
        {"text": " a ", "score": 1.0, "id": "x"},
        {"text": "b", "score": 0.5},
        {"text": "a", "score": 1.0},
        {"text": "", "score": 1.0},
        {"text": "c", "score": 1.0},
    ]
    found = list(prompts(rows, "text", {"score": "1.0"}, " /no_think"))
    assert found == [
        {"id": "x", "messages": [{"role": "user", "content": "a /no_think"}]},
        {"id": "4", "messages": [{"role": "user", "content": "c /no_think"}]},
    ]
