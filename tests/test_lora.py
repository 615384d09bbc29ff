"""LoRA: adapters alone are trained and saved, and decode as they were trained."""

import json
import sys

import pytest
import torch
from safetensors.torch import load_file
from toys import save_toy, toy_model
from training import small_run, train_config

from jacobi_forcing.errors import ConfigError, ModelError
from jacobi_forcing.models import load_model
from jacobi_forcing.stages import train
from jacobi_forcing.training.adapters import WithoutAdapters, add_adapters, bare

peft = pytest.importorskip("peft", reason="needs PEFT: pip install 'jacobi-forcing[lora]'")

IDS = torch.arange(2, 30)[None]
SETTINGS = {"lora_rank": 4, "max_steps": 4, "learning_rate": 1e-2, "save_steps": 2}


@torch.no_grad()
def logits(network):
    return network(input_ids=IDS, use_cache=False).logits


def adapted(seed=0, **settings):
    """A toy model with adapters that do something."""
    model = toy_model()
    network = add_adapters(model.network, train_config("-", "-", lora_rank=4, **settings))
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for parameter in network.parameters():
            if parameter.requires_grad:
                parameter.copy_(0.3 * torch.randn(parameter.shape, generator=generator))
    return model, network.eval()


@pytest.fixture(scope="module")
def trained(toy, packed, tmp_path_factory):
    """Two runs of one training, and the adapted network as the trainer left it."""
    out, networks = tmp_path_factory.mktemp("lora"), []
    save = train._save
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(
            train, "_save", lambda c, m, n, w: (networks.append(logits(n.eval())), save(c, m, n, w))
        )
        small_run(toy, packed, out / "adapters", **SETTINGS)
        small_run(toy, packed, out / "merged", merge_adapters=True, **SETTINGS)
    return out, networks


def test_adapters_and_merged_weights_decode_as_what_was_trained(trained, toy):
    out, (expected, again) = trained
    assert torch.equal(expected, again)
    start = logits(load_model(str(toy)).network)
    assert (expected - start).abs().max() > 0.1
    for name in ("adapters", "merged"):
        model = load_model(str(out / name))
        assert torch.allclose(logits(model.network), expected, atol=2e-4)
        assert not any("lora" in key for key in model.network.state_dict())


def test_an_adapter_folder_holds_the_adapters_and_says_of_what(trained, toy):
    out = trained[0] / "adapters"
    weights = load_file(out / "adapter_model.safetensors")
    assert all("lora_" in name for name in weights)
    assert not (out / "model.safetensors").exists()
    base = json.loads((out / "base.json").read_text())
    assert base["model"] == str(toy)
    assert base["weights"] == load_model(str(toy)).weights_fingerprint()
    assert json.loads((out / "run.json").read_text())["steps"] == 4
    # Every linear layer but the head has its two matrices.
    assert len(weights) == 2 * 3 * 7


def test_adapters_of_another_base_are_refused(trained, tmp_path):
    out = trained[0] / "adapters"
    copied = tmp_path / "adapters"
    copied.mkdir()
    for file in out.iterdir():
        if file.is_file():
            (copied / file.name).write_bytes(file.read_bytes())
    base = json.loads((copied / "base.json").read_text())
    base["model"] = str(save_toy(tmp_path / "other", seed=3))
    (copied / "base.json").write_text(json.dumps(base))
    with pytest.raises(ModelError, match=r"trained beside other weights .*other"):
        load_model(str(copied))
    base["model"] = str(tmp_path / "gone")
    (copied / "base.json").write_text(json.dumps(base))
    with pytest.raises(ModelError, match=r"the base of these adapters: .*gone"):
        load_model(str(copied))


def test_a_base_in_another_type_is_the_same_base():
    model = toy_model()
    rounded = model.weights_fingerprint(torch.bfloat16)
    assert rounded != model.weights_fingerprint()
    model.network.bfloat16()
    assert model.weights_fingerprint() == rounded


def test_without_peft_one_line_says_what_to_install(trained, monkeypatch):
    monkeypatch.setitem(sys.modules, "peft", None)
    with pytest.raises(ConfigError, match=r"PEFT is not installed.*jacobi-forcing\[lora\]"):
        load_model(str(trained[0] / "adapters"))
    with pytest.raises(ConfigError, match="--lora-rank is 4, but PEFT is not installed"):
        adapted()


def test_a_network_without_its_adapters_is_the_original(tmp_path):
    model, network = adapted(lora_dropout=0.5)
    network.train()
    original = logits(toy_model().network)
    assert (logits(bare(network)) - original).abs().max() > 0.1
    before = WithoutAdapters(network)
    assert torch.equal(logits(before), original)
    assert before.config is model.network.config
    assert network.training
    assert [p.requires_grad for p in network.parameters()].count(True) == 2 * 3 * 7


def test_adapters_with_a_frozen_teacher_take_no_second_network(toy, packed, tmp_path):
    config = train_config(toy, packed, lora_rank=4, ar_teacher="frozen")
    model, network = adapted()
    original = train._original(config, model, network)
    assert original.network.adapted is network
    settings = SETTINGS | {"ar_teacher": "frozen", "teacher": "frozen", "max_steps": 2}
    small_run(toy, packed, tmp_path, **settings)
    assert json.loads((tmp_path / "run.json").read_text())["log"]


def test_only_adapters_learn(toy, packed, tmp_path, monkeypatch):
    moved = {}
    save = train._save

    def note(config, model, network, weights):
        start = load_file(toy / "model.safetensors")
        for name, value in bare(network).state_dict().items():
            plain = name.replace(".base_layer", "")
            if "lora_B" in name:
                moved[name] = bool(value.abs().max() > 0)  # they begin at 0
            elif plain in start:
                moved[name] = not torch.equal(value, start[plain])
        save(config, model, network, weights)

    monkeypatch.setattr(train, "_save", note)
    small_run(toy, packed, tmp_path, gradient_checkpointing=True, bf16=True, **SETTINGS)
    assert all(changed == ("lora_B" in name) for name, changed in moved.items())
    assert len(moved) > 3 * 7


@pytest.mark.parametrize("targets", ["nowhere", "q_proj,lm_head"])
def test_targets_that_cannot_be_adapted_are_refused(targets):
    with pytest.raises(ConfigError, match="--lora-targets"):
        adapted(lora_targets=targets)


def test_a_target_that_is_not_there_is_told_the_ones_that_are():
    with pytest.raises(ConfigError, match=r"Linear layers here: .*down_proj.* q_proj"):
        adapted(lora_targets="q_prj")


def test_four_bits_without_a_gpu_are_refused(toy):
    with pytest.raises(ConfigError, match="--quantize nf4 needs bitsandbytes and a CUDA device"):
        load_model(str(toy), device="cpu", quantize="nf4")


@pytest.mark.parametrize(
    "setting", [{"lora_alpha": 8}, {"merge_adapters": True}, {"lora_targets": "q_proj"}]
)
def test_settings_of_adapters_without_adapters_are_refused(setting):
    with pytest.raises(ConfigError, match="--lora-rank is 0"):
        train_config("-", "-", **setting)
