"""The check at loading tells rounding from error, in every dtype."""

import copy
import json

import pytest
import torch
from toys import VOCAB, save_toy, tiny_network, toy_model, toy_tokenizer

from jacobi_forcing.errors import ModelError
from jacobi_forcing.models import CausalLM, MaskBuilder, SlotCache, forward, load_model, masks
from jacobi_forcing.models import probe as probes
from jacobi_forcing.models.attention import group_heads
from jacobi_forcing.models.causal_lm import wrap
from jacobi_forcing.models.probe import examine, make_twin, probe

DTYPES = [torch.float32, torch.float16, torch.bfloat16]


def deep(layers, width, family="llama", attention="sdpa", dtype=torch.bfloat16, seed=0):
    """A random network as deep as real ones, with channels that are many times the others."""
    network = tiny_network(
        family,
        seed,
        num_hidden_layers=layers,
        hidden_size=width,
        intermediate_size=3 * width,
        num_attention_heads=width // 16,
        num_key_value_heads=width // 32,
        head_dim=16,
        vocab_size=256,
    )
    with torch.no_grad():
        for name, parameter in network.named_parameters():
            if parameter.ndim > 1:
                parameter.mul_(2.0)
            if name.endswith(("embed_tokens.weight", "norm.weight")):
                parameter[..., 3:5] *= 30 if "embed" in name else 0.1
            if name.endswith("down_proj.weight"):
                parameter[3:5] *= 20
    network.to(dtype).set_attn_implementation(attention)
    group_heads(network)
    return CausalLM(f"deep-{family}", network, None, frozenset([0]), 1)


@pytest.mark.parametrize("attention", ["sdpa", "eager"])
@pytest.mark.parametrize("dtype", DTYPES[1:], ids=str)
@pytest.mark.parametrize("family", ["llama", "qwen3"])
def test_the_rounding_of_deep_models_is_no_error(family, dtype, attention):
    model = deep(30, 64, family, attention, dtype)
    probe(model)
    found = examine(model)
    assert found.drafts <= found.limit
    # Not vacuous: the model does round, more than a shallow one.
    assert attention == "eager" or found.rounding > 1.5 * torch.finfo(dtype).eps


@pytest.mark.slow
@pytest.mark.parametrize("attention", ["sdpa", "eager"])
@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize(("layers", "width"), [(30, 576), (40, 1024)])
def test_the_rounding_of_models_of_real_size_is_no_error(layers, width, dtype, attention):
    probe(deep(layers, width, "llama", attention, dtype))


@pytest.mark.slow
@pytest.mark.parametrize("dtype", ["float32", "bfloat16", "float16"])
def test_a_real_model_loads_in_every_dtype(real_model, dtype):
    model = load_model(str(real_model), dtype=dtype)
    found = examine(model)
    assert found.drafts <= found.limit < 0.3


def one_token_too_many(monkeypatch):
    """Every mask shows each query the slot after those it may see."""
    build = MaskBuilder.__call__

    def leaky(self, visible, *rest):
        if visible.shape[1] > 1:
            visible = visible | visible.roll(1, -1)
        return build(self, visible, *rest)

    monkeypatch.setattr(MaskBuilder, "__call__", leaky)


def positions_off_by_one(monkeypatch):
    """A draft's positions begin one too late; a text's own do not."""
    run = forward.RaggedForward.run

    def late(self, first_row, ids, positions, *rest):
        is_draft = ids.shape[1] < 30
        return run(self, first_row, ids, positions + is_draft, *rest)

    monkeypatch.setattr(forward.RaggedForward, "run", late)


def branches_that_see_the_trunk(monkeypatch):
    monkeypatch.setattr(forward, "_branch", lambda tree, shown, hidden: None)


def a_stale_slot(monkeypatch):
    """The first token of a draft is not written over what lies in its slot."""
    write = SlotCache._write

    def lazy(self, stored, new):
        before = stored.clone()
        found = write(self, stored, new)
        if new.shape[2] < 30:
            rows = torch.arange(len(new))
            stored[rows, :, self.slots[:, 0]] = before[rows, :, self.slots[:, 0]]
        return found

    monkeypatch.setattr(SlotCache, "_write", lazy)


def windows_off_by_one(monkeypatch):
    true_windows = masks.layer_windows
    monkeypatch.setattr(
        masks,
        "layer_windows",
        lambda config: {kind: size and size + 1 for kind, size in true_windows(config).items()},
    )


FAULTS = [one_token_too_many, positions_off_by_one, branches_that_see_the_trunk, a_stale_slot]


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("fault", [*FAULTS, windows_off_by_one])
def test_every_fault_is_caught_in_every_dtype(fault, dtype, monkeypatch):
    models = [toy_model("mistral")]
    if fault is not windows_off_by_one:
        models.append(toy_model("llama"))
    for model in models:
        model.network.to(dtype)
        probe(model)
        with monkeypatch.context() as patch:
            fault(patch)
            with pytest.raises(ModelError, match=r"gives other logits .* off by"):
                probe(model)
    if fault in FAULTS:  # also where rounding is loud
        model = deep(30, 96, dtype=dtype)
        probe(model)
        fault(monkeypatch)
        with pytest.raises(ModelError, match=r"gives other logits .* off by"):
            probe(model)


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
def test_what_the_model_does_in_a_draft_is_measured_on_the_model_itself(dtype):
    """A fault that no twin has: this network alone is off in forwards as short as a draft's."""
    model = toy_model("qwen3")
    model.network.to(dtype)

    def off(module, inputs, output):
        return output.roll(1, 1) if 1 < output.shape[1] < 20 and output.shape[0] > 1 else output

    model.network.model.layers[1].self_attn.o_proj.register_forward_hook(off)
    with pytest.raises(ModelError, match="it is off by"):
        probe(model)


def test_the_probe_runs_few_tokens_however_wide_the_window():
    model = toy_model("mistral", sliding_window=4096, max_position_embeddings=16384)
    num_tokens = []
    model.network.register_forward_pre_hook(
        lambda _, args, inputs: num_tokens.append(inputs["input_ids"].numel()), with_kwargs=True
    )
    probe(model)
    assert 100 < sum(num_tokens) <= 40 * 64
    assert len(num_tokens) <= 40


def test_a_twin_has_narrow_windows_and_leaves_the_random_state_alone():
    model = toy_model("gemma3_text", sliding_window=4096)
    torch.manual_seed(7)
    expected = torch.rand(3)
    torch.manual_seed(7)
    twin = make_twin(model)
    assert torch.equal(torch.rand(3), expected)
    assert twin.config.sliding_window == 12
    assert model.config.sliding_window == 4096
    assert twin.dtype == torch.float32


def test_a_passed_probe_is_remembered_per_weights_and_dtype(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    calls = []
    monkeypatch.setattr(probes, "probe", lambda model: calls.append(model.dtype) or 0.0)
    one, other = (str(save_toy(tmp_path / str(seed), seed=seed)) for seed in (1, 2))
    for name, dtype in ((one, "float32"), (one, "float32"), (one, "bfloat16"), (other, "float32")):
        load_model(name, dtype=dtype)
    assert calls == [torch.float32, torch.bfloat16, torch.float32]
    torch_threads = torch.get_num_threads()
    torch.set_num_threads(torch_threads + 1)
    load_model(one)
    torch.set_num_threads(torch_threads)
    assert len(calls) == 4
    assert load_model(one, probed=False).name == one


def test_a_failed_probe_is_not_remembered_and_can_be_left_out(tmp_path):
    network = tiny_network("mpt", d_model=32, n_heads=4, n_layers=2, max_seq_len=256)
    network.save_pretrained(tmp_path)
    toy_tokenizer().save_pretrained(tmp_path)
    for _ in range(2):
        with pytest.raises(ModelError, match="--no-probe"):
            load_model(str(tmp_path))
    assert load_model(str(tmp_path), probed=False).config.model_type == "mpt"


@pytest.mark.parametrize("pad_id", [VOCAB, VOCAB + 500, -1])
def test_a_pad_token_without_an_embedding_is_no_reason_to_refuse(pad_id, tmp_path):
    save_toy(tmp_path)
    config = json.loads((tmp_path / "config.json").read_text())
    (tmp_path / "config.json").write_text(json.dumps(config | {"pad_token_id": pad_id}))
    tokenizer = toy_tokenizer(pad_token="<beyond>")
    tokenizer.save_pretrained(tmp_path)
    model = load_model(str(tmp_path), dtype="bfloat16")
    assert tokenizer.pad_token_id == VOCAB
    assert model.pad_id in model.eos_ids
    other = wrap("toy", copy.deepcopy(model.network), tokenizer)
    assert other.pad_id == model.pad_id
