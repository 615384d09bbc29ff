"""Weights in fewer bits: a model's decoders give its own AR's ids; other layers are refused."""

import dataclasses
import json
import sys

import pytest
import torch
from test_decoding import random_prompts
from test_sampling import run
from torch import nn
from toys import save_toy, toy_model

from jacobi_forcing import problems
from jacobi_forcing.cli import main
from jacobi_forcing.decoding import Sampling
from jacobi_forcing.errors import ConfigError
from jacobi_forcing.models import CompiledStep, load_model
from jacobi_forcing.models.quantized import WEIGHT_ONLY, quantized

pytest.importorskip("torchao", reason="needs torchao: pip install 'jacobi-forcing[quantize]'")

GREEDY = Sampling()
FAST = (
    {"strategy": "window", "pool_size": 4, "pool": "both"},
    {"strategy": "multiblock", "pool_size": 4, "branch_tokens": 40, "pool": "both"},
)


def held(model, quantize):
    return quantized(model, quantize, "cpu")


def num_bytes(weight):
    """Count the bytes of a weight: those of the tensors inside where it is a torchao tensor."""
    inside = [weight]
    if hasattr(weight, "__tensor_flatten__"):
        inside = [getattr(weight, name) for name in weight.__tensor_flatten__()[0]]
    return sum(tensor.numel() * tensor.element_size() for tensor in inside)


@pytest.mark.parametrize("quantize", WEIGHT_ONLY)
@pytest.mark.parametrize("family", ["llama", "gemma2", "phi3", "bloom"])
def test_every_decoder_gives_the_ids_of_the_same_models_ar(family, quantize):
    prompts = random_prompts(21, 6)
    samplings = [
        Sampling(temperature=0.8, top_p=0.95, seed=i) if i % 2 else GREEDY for i in range(6)
    ]
    whole, _ = run(toy_model(family), prompts, samplings, 1, strategy="autoregressive")
    model = held(toy_model(family), quantize)
    right, _ = run(model, prompts, samplings, 1, strategy="autoregressive")
    assert right != whole, "quantized weights choose otherwise somewhere"
    num_guessed = num_branches = 0
    for decoder in FAST:
        for batch_size in (1, 4):
            found, forwards = run(model, prompts, samplings, batch_size, **decoder)
            assert found == right, (decoder, batch_size)
            num_guessed += sum(len(event.path) for event in forwards)
            num_branches += sum(event.draft.num_branch_tokens > 0 for event in forwards)
    assert num_guessed > 20
    assert num_branches > 20


@pytest.mark.parametrize(("quantize", "num_tokens"), [("int8", 100), ("int4", 24)])
def test_the_bundled_model_stays_exact_and_nearly_itself(quantize, num_tokens):
    whole = load_model("tiny-forced", device="cpu", probed=False)
    model = load_model("tiny-forced", device="cpu", probed=quantize == "int8", quantize=quantize)
    (problem,) = problems.held_out("math", 1)
    prompt = [whole.tokenizer.encode(problem.prompt)]
    for sampling in ([GREEDY], [Sampling(temperature=0.7, seed=2)]):
        settings = {"num_tokens": num_tokens, "block_size": 16}
        right, _ = run(model, prompt, sampling, 1, strategy="autoregressive", **settings)
        found, forwards = run(model, prompt, sampling, 1, strategy="window", **settings)
        assert found == right
        assert len(forwards) < 0.7 * len(found[0]), "the forced model still guesses well"
    ids = torch.tensor(prompt)
    with torch.no_grad():
        wanted, given = (m.network(ids).logits.log_softmax(-1) for m in (whole, model))
    divergence = (wanted.exp() * (wanted - given)).sum(-1).mean()
    assert 0 < divergence < {"int8": 0.005, "int4": 1}[quantize]


@pytest.mark.parametrize(("quantize", "most"), [("int8", 0.3), ("int4", 0.21)])
def test_linear_layers_shrink_and_nothing_else_changes(quantize, most):
    whole, model = toy_model(hidden_size=256, head_dim=64), None
    before = {name: weight.detach().clone() for name, weight in whole.network.named_parameters()}
    model = held(whole, quantize)
    shrunk = 0
    for name, weight in model.network.named_parameters():
        if ".layers." in name and name.endswith("proj.weight"):
            assert num_bytes(weight) < most * num_bytes(before[name]), name
            shrunk += 1
        else:
            assert torch.equal(weight, before[name]), name
    assert shrunk == 3 * 7
    assert (
        model.weights_fingerprint() == toy_model(hidden_size=256, head_dim=64).weights_fingerprint()
    )


@pytest.mark.slow
@pytest.mark.parametrize("quantize", WEIGHT_ONLY)
def test_compiled_answers_are_the_eager_ones(quantize):
    model = held(toy_model("gemma2", num_hidden_layers=1), quantize)
    fast = dataclasses.replace(model, step=CompiledStep(model))
    prompts = random_prompts(22, 4)
    right, _ = run(model, prompts, [GREEDY] * 4, 3, **FAST[0])
    found, _ = run(fast, prompts, [GREEDY] * 4, 3, **FAST[0])
    assert fast.step.failure == ""
    assert found == right


@pytest.mark.parametrize(
    ("family", "settings", "quantize", "said"),
    [
        ("gpt2", {}, "int8", r"but h\.0\.attn\.c_attn is of another kind, Conv1D\. Leave"),
        ("qwen3_moe", {}, "int4", r"but layers\.0\.mlp\.experts is of another kind, Qwen3MoeExp"),
        (
            "llama",
            {"intermediate_size": 80},
            "int4",
            r"layers\.0\.mlp\.down_proj, 80 inputs to 32 outputs: its inputs .* groups of 32",
        ),
        (
            "llama",
            {"intermediate_size": 40},
            "int4",
            r"layers\.0\.mlp\.gate_proj, 32 inputs to 40 outputs: .*divid.* Take --quantize int8\.",
        ),
    ],
)
def test_layers_that_cannot_be_held_are_refused_by_name(family, settings, quantize, said):
    with pytest.raises(ConfigError, match=said) as caught:
        held(toy_model(family, **settings), quantize)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("quantize", "device", "said"),
    [
        ("int4", "meta", "--quantize int4 needs a CPU or a CUDA device, this is meta"),
        ("int4", "cuda", "--quantize int4 needs --dtype bfloat16 on a CUDA device"),
    ],
)
def test_what_has_no_kernel_is_refused(quantize, device, said):
    with pytest.raises(ConfigError, match=said):
        quantized(toy_model(), quantize, device)


def test_a_kind_that_is_not_known_is_refused(toy):
    with pytest.raises(ConfigError, match="'int2', must be one of int8, int4, nf4"):
        load_model(str(toy), quantize="int2")


def test_a_missing_torchao_is_one_line(toy, refused, monkeypatch):
    monkeypatch.setitem(sys.modules, "torchao", None)
    line = refused("decode", "--model", toy, "--prompt", "w2 w3", "--quantize", "int8")
    assert (
        "needs torchao, which is not installed. Run: pip install 'jacobi-forcing[quantize]'" in line
    )


def test_the_command_line_decodes_and_collects_with_it(tmp_path, capsys, refused):
    toy = save_toy(tmp_path / "toy")
    answers = {}
    for quantize in ("", "int8", "int4"):
        for strategy in ("autoregressive", "window"):
            settings = ["--prompt", "w2 w3 w4", "--max-new-tokens", "30", "--strategy", strategy]
            extra = ["--quantize", quantize] if quantize else []
            assert main(["decode", "--model", str(toy), "--json", *settings, *extra]) == 0
            answers[quantize, strategy] = json.loads(capsys.readouterr().out)["ids"]
        assert answers[quantize, "window"] == answers[quantize, "autoregressive"]
    assert answers["int4", "window"] != answers["", "window"]
    prompts = tmp_path / "prompts.jsonl"
    prompts.write_text('{"prompt": "w2 w3 w4"}\n')
    command = ["collect", "--model", str(toy), "--prompts", str(prompts), "--out", "traj"]
    command[-1] = str(tmp_path / "traj")
    command += ["--block-size", "4", "--max-new-tokens", "8"]
    assert main([*command, "--quantize", "int8"]) == 0
    line = refused(*command)
    assert "was begun with quantize = 'int8', now it is ''" in line


def test_adapters_are_merged_before_their_base_is_quantized(toy, tmp_path):
    peft = pytest.importorskip("peft", reason="needs peft: pip install 'jacobi-forcing[lora]'")
    base = load_model(str(toy), device="cpu", probed=False)
    adapted = peft.get_peft_model(base.network, peft.LoraConfig(r=2, target_modules="all-linear"))
    with torch.no_grad():
        for name, weight in adapted.named_parameters():
            if "lora_B" in name:
                nn.init.normal_(weight, std=0.3)
    adapted.peft_config["default"].base_model_name_or_path = str(toy)
    adapted.save_pretrained(tmp_path)
    merged = load_model(str(tmp_path), device="cpu", probed=False)
    prompts = random_prompts(23, 3)
    plain = [GREEDY] * 3
    right, _ = run(held(merged, "int8"), prompts, plain, strategy="autoregressive")
    found, _ = run(load_model(str(tmp_path), device="cpu", quantize="int8"), prompts, plain)
    unadapted, _ = run(load_model(str(toy), device="cpu", quantize="int8"), prompts, plain)
    assert found == right != unadapted
    with pytest.raises(ConfigError, match="holds adapters"):
        load_model(str(tmp_path), quantize="nf4")
