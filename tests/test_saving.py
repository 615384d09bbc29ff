"""What is written beside the weights is what the start has, and transformers 4 and 5 both read it.

That version 4 does is tested in test_transformers4.py, in an environment of its own.
"""

import json
import os
import shutil
from contextlib import contextmanager

import pytest
import torch
from packs import pack_config, random_trajectories, write_trajectories
from toys import FAMILIES, MORE_FAMILIES, save_toy, tiny_network, toy_model, toy_tokenizer
from training import small_run, train_config
from transformers import AutoConfig, AutoTokenizer, Gemma3Config

from jacobi_forcing.cli import main
from jacobi_forcing.models import load_model
from jacobi_forcing.models.adapters import Base
from jacobi_forcing.models.bundled import BUNDLED
from jacobi_forcing.models.saving import in_both_spellings, save_network, save_tokenizer
from jacobi_forcing.models.shrink import find_architecture, save_small
from jacobi_forcing.stages import pack
from jacobi_forcing.stages.machine import save_model
from jacobi_forcing.training.adapters import add_adapters

LLAMA3 = {"rope_type": "llama3", "factor": 8.0, "low_freq_factor": 1.0, "high_freq_factor": 4.0}
LLAMA3 |= {"original_max_position_embeddings": 64}
YARN = {"rope_type": "yarn", "factor": 4.0, "original_max_position_embeddings": 64}
FACTORS = {"short_factor": [1.0, 1.1, 1.2, 1.3], "long_factor": [2.0, 2.1, 2.2, 2.3]}
LINEAR = {"rope_type": "linear", "factor": 2.0}
# By family: its own settings as version 5 has them, and what version 4 has in their place.
SPELLED = {
    "llama": (
        {"rope_parameters": LLAMA3 | {"rope_theta": 5e5}},
        {"rope_theta": 5e5, "rope_scaling": LLAMA3},
    ),
    "qwen2": (
        {"rope_parameters": YARN | {"rope_theta": 1e6}},
        {"rope_theta": 1e6, "rope_scaling": YARN},
    ),
    "qwen3": ({"rope_parameters": {"rope_theta": 1e6}}, {"rope_theta": 1e6, "rope_scaling": None}),
    "olmo2": (
        {"rope_parameters": LINEAR | {"rope_theta": 3e4}},
        {"rope_theta": 3e4, "rope_scaling": {"type": "linear", "factor": 2.0}},
    ),
    "phi3": (
        {
            "rope_parameters": FACTORS | {"rope_type": "longrope", "rope_theta": 2e4},
            "original_max_position_embeddings": 64,
        },
        {
            "rope_theta": 2e4,
            "rope_scaling": FACTORS | {"type": "longrope"},
            "partial_rotary_factor": 1.0,
            "original_max_position_embeddings": 64,
        },
    ),
    "gemma3_text": (
        {
            "rope_parameters": {
                "full_attention": LINEAR | {"rope_theta": 2e6},
                "sliding_attention": {"rope_type": "default", "rope_theta": 3e4},
            }
        },
        {"rope_theta": 2e6, "rope_scaling": LINEAR, "rope_local_base_freq": 3e4},
    ),
    "gpt_neox": (
        {"rope_parameters": {"rope_theta": 2e4, "partial_rotary_factor": 0.5}},
        {"rotary_emb_base": 2e4, "rotary_pct": 0.5, "rope_scaling": None},
    ),
    "stablelm": (
        {"rope_parameters": {"rope_theta": 2e4, "partial_rotary_factor": 0.5}},
        {"rope_theta": 2e4, "partial_rotary_factor": 0.5, "rope_scaling": None},
    ),
}


@contextmanager
def umask(mask):
    before = os.umask(mask)
    try:
        yield
    finally:
        os.umask(before)


def read(path):
    return json.loads(path.read_text(encoding="utf-8"))


def rotary(config):
    """The rotary settings, without the older name that a type may have beside the newer."""

    def plain(part):
        if not isinstance(part, dict):
            return part
        return {name: plain(x) for name, x in part.items() if name != "type"}

    return plain(config.rope_parameters)


@pytest.mark.parametrize("family", SPELLED)
def test_rotary_settings_have_the_names_of_transformers_4_too(family, tmp_path):
    settings, older = SPELLED[family]
    network = tiny_network(family, **settings)
    save_network(network, tmp_path)
    written = read(tmp_path / "config.json")
    assert {name: written[name] for name in older} == older
    assert written["torch_dtype"] == written["dtype"] == "float32"
    names = {"rotary_emb_base", "rotary_pct", "rope_local_base_freq", "global_rope_theta"}
    assert names.intersection(written) == names.intersection(older)
    assert rotary(AutoConfig.from_pretrained(tmp_path)) == rotary(network.config)


@pytest.mark.parametrize("family", sorted(FAMILIES | MORE_FAMILIES))
def test_either_spelling_alone_tells_all(family):
    """Version 5 reads the older names as well, so they can be tried without version 4."""
    config = tiny_network(family).config
    config.dtype = torch.float32
    theta = 54321.0
    rope = getattr(config, "rope_parameters", None) or {}
    parts = [part for part in rope.values() if isinstance(part, dict)] or [rope]
    for number, part in enumerate(parts):
        if part:
            part["rope_theta"] = theta + number
    written = json.loads(config.to_json_string())
    found = in_both_spellings(written, config)
    assert written.items() <= found.items()
    for name in ("rope_parameters", "dtype"):
        found.pop(name, None)
    again = type(config).from_dict(found)
    assert again.dtype == config.dtype == torch.float32
    assert getattr(again, "rope_parameters", None) == getattr(config, "rope_parameters", None)
    assert (str(theta) in json.dumps(found)) == bool(rope)


def test_a_setting_kept_under_another_name_has_its_own_too(tmp_path):
    save_network(tiny_network("qwen3_moe"), tmp_path)
    written = read(tmp_path / "config.json")
    assert written["num_experts"] == written["num_local_experts"] == 4
    assert AutoConfig.from_pretrained(tmp_path).num_experts == 4


def test_parts_of_a_configuration_have_both_spellings():
    text = {"rope_parameters": {"full_attention": {"rope_type": "default", "rope_theta": 2e6}}}
    config = Gemma3Config(text_config=text)
    found = in_both_spellings(json.loads(config.to_json_string()), config)
    assert found["text_config"]["rope_theta"] == 2e6
    assert found["text_config"]["rope_local_base_freq"] == 1e4
    assert "rope_theta" not in found


@pytest.fixture(scope="module")
def start(tmp_path_factory):
    """A model that says things of its own wherever a model can."""
    rope = {"rope_parameters": {"rope_theta": 5e4}}
    folder = save_toy(tmp_path_factory.mktemp("start"), "llama", **rope)
    tokens = {"extra_special_tokens": ["w5", "w6"], "chat_template": "{{ messages[0].content }}"}
    toy_tokenizer(**tokens).save_pretrained(folder)
    # Such as publishers write, and transformers 5 would not save again in this form.
    own = {"do_sample": False, "temperature": 0.6, "eos_token_id": [0, 7], "x_own": 1}
    (folder / "generation_config.json").write_text(json.dumps(own))
    (folder / "special_tokens_map.json").write_text('{"eos_token": "<eos>"}')
    return folder


@pytest.fixture(scope="module")
def written(start, tmp_path_factory):
    """What the stages make of it, under a mask that is not the usual one."""
    out = tmp_path_factory.mktemp("written")
    with umask(0o027):
        source = write_trajectories(out / "collected", random_trajectories(2, 8, 4))
        packed = pack.run(pack_config(source, out / "packed", window=3))
        run = {"max_steps": 2, "save_steps": 1, "keep_checkpoints": True}
        small_run(start, packed, out / "trained", **run)
        small_run(start, packed, out / "adapters", lora_rank=2, **run)
        models = f"{start},{out / 'trained'}"
        arguments = ["--models", models, "--weights", "0.5,0.5", "--out", str(out / "mean")]
        assert main(["average", *arguments]) == 0
    return out


def test_every_file_has_the_mode_that_the_umask_leaves(written):
    files = [path for path in written.rglob("*") if path.is_file()]
    modes = {str(path.relative_to(written)): path.stat().st_mode & 0o777 for path in files}
    assert {name: oct(mode) for name, mode in modes.items() if mode != 0o640} == {}
    endings = {path.suffix for path in files}
    assert {".safetensors", ".json", ".parquet", ".html", ".py", ".pt", ".jinja"} <= endings
    assert "trained/steps/checkpoint-2/model.safetensors" in modes
    assert "adapters/steps/checkpoint-2/adapter_model.safetensors" in modes


@pytest.mark.parametrize("name", ["trained", "mean", "trained/steps/checkpoint-1"])
def test_a_checkpoint_says_what_its_start_says(name, written, start):
    begun, found = read(start / "config.json"), read(written / name / "config.json")
    assert found == begun | {"rope_theta": 5e4, "rope_scaling": None, "torch_dtype": "float32"}
    assert found["use_cache"] is True
    generation = "generation_config.json"
    assert (written / name / generation).read_bytes() == (start / generation).read_bytes()


def test_a_start_that_is_gone_by_then_costs_nothing(start, tmp_path):
    model = load_model(str(shutil.copytree(start, tmp_path / "start")), probed=False)
    shutil.rmtree(tmp_path / "start")
    save_network(model.network, tmp_path / "out")
    save_tokenizer(model.tokenizer, tmp_path / "out")
    again = load_model(str(tmp_path / "out"))
    assert again.eos_ids == model.eos_ids == {0, 7}
    assert again.tokenizer.get_vocab() == model.tokenizer.get_vocab()
    assert again.tokenizer.chat_template == model.tokenizer.chat_template
    assert read(tmp_path / "out" / "config.json")["rope_theta"] == 5e4


@pytest.mark.parametrize("uses", [True, False])
def test_whether_it_uses_a_cache_is_as_in_the_start(uses, toy, packed, tmp_path):
    start = shutil.copytree(toy, tmp_path / "start")
    config = read(start / "config.json") | {"use_cache": uses}
    (start / "config.json").write_text(json.dumps(config))
    out = small_run(start, packed, tmp_path / "out", max_steps=1, save_steps=1)
    assert read(out / "config.json")["use_cache"] is uses
    network = load_model(str(out)).network
    assert (network(torch.tensor([[5]])).past_key_values is not None) is uses


@pytest.mark.parametrize("name", ["trained", "mean", "adapters"])
def test_the_tokenizer_is_that_of_the_start_by_a_class_both_versions_know(name, written, start):
    begun, found = (read(folder / "tokenizer_config.json") for folder in (start, written / name))
    assert begun["tokenizer_class"] == "TokenizersBackend"
    assert begun["extra_special_tokens"] == ["w5", "w6"]
    assert found["tokenizer_class"] == "PreTrainedTokenizerFast"
    assert found["additional_special_tokens"] == ["w5", "w6"]
    assert "extra_special_tokens" not in found  # a list of that name stops version 4
    assert not {"is_local", "local_files_only"}.intersection(found)
    for file in ("tokenizer.json", "special_tokens_map.json", "chat_template.jinja"):
        assert (written / name / file).read_bytes() == (start / file).read_bytes()
    tokenizers = [AutoTokenizer.from_pretrained(folder) for folder in (start, written / name)]
    assert tokenizers[1].extra_special_tokens == tokenizers[0].extra_special_tokens == ["w5", "w6"]
    assert tokenizers[1].chat_template == tokenizers[0].chat_template
    ids = [t("w2 w5 <eos> w6")["input_ids"] for t in tokenizers]
    assert ids[1] == ids[0] == [2, 5, 0, 6]
    assert tokenizers[1].decode(ids[1], skip_special_tokens=True) == "w2"


def test_a_tokenizer_in_memory_is_saved_for_both(tmp_path):
    named = {"image_token": "w9"}
    options = {"extra_special_tokens": ["w5"], "model_specific_special_tokens": named}
    tokenizer = toy_tokenizer(**options)
    save_tokenizer(tokenizer, tmp_path)
    found = read(tmp_path / "tokenizer_config.json")
    assert found["tokenizer_class"] == "PreTrainedTokenizerFast"
    assert found["additional_special_tokens"] == ["w5"]
    assert found.get("extra_special_tokens", named) == named
    again = AutoTokenizer.from_pretrained(tmp_path)
    assert again.extra_special_tokens == tokenizer.extra_special_tokens == ["w5"]
    assert again.get_vocab() == tokenizer.get_vocab()


def test_adapters_name_a_base_that_other_tools_find(toy, packed, tmp_path, monkeypatch):
    monkeypatch.chdir(toy.parent)
    run = {"max_steps": 1, "save_steps": 1, "lora_rank": 2}
    out = small_run(toy.name, packed, tmp_path / "adapters", **run)
    named = read(out / "adapter_config.json")["base_model_name_or_path"]
    assert named == read(out / "base.json")["model"] == str(toy.resolve())


def test_a_bundled_base_is_named_by_its_folder(tmp_path):
    peft = pytest.importorskip("peft")
    model = toy_model()
    network = add_adapters(model.network, train_config("-", "-", lora_rank=2))
    save_model(tmp_path, model, network, Base("tiny-base", "float32", None))
    settings = peft.PeftConfig.from_pretrained(tmp_path)
    assert settings.base_model_name_or_path == str(BUNDLED["tiny-base"])


def test_a_small_stand_in_is_written_for_both(start, tmp_path):
    save_small(find_architecture(str(start), tmp_path), tmp_path / "small", seed=0)
    config = read(tmp_path / "small" / "config.json")
    assert (config["rope_theta"], config["torch_dtype"]) == (5e4, "float32")
    settings = read(tmp_path / "small" / "tokenizer_config.json")
    assert settings["tokenizer_class"] == "PreTrainedTokenizerFast"


@pytest.mark.parametrize("name", BUNDLED)
def test_the_bundled_pair_is_as_it_would_be_written_now(name, tmp_path):
    model = load_model(name, probed=False)
    save_model(tmp_path, model, model.network)
    folder = BUNDLED[name]
    for path in folder.iterdir():
        if path.name != "run.json":
            assert (tmp_path / path.name).read_bytes() == path.read_bytes(), path.name
    config = read(folder / "config.json")
    assert (config["use_cache"], config["rope_theta"]) == (True, 1e4)
