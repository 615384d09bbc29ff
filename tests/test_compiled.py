"""The compiled step: the eager one's answers, whatever the shapes, and eager where it cannot be."""

import dataclasses
import logging
import sys

import pytest
import torch
from toys import VOCAB, toy_model

from jacobi_forcing.config import DecoderConfig
from jacobi_forcing.decoding.measure import decode_all
from jacobi_forcing.models import CompiledForward, CompiledStep, RaggedForward
from jacobi_forcing.models.compiled import _next_slots
from jacobi_forcing.models.forward import Branches

DECODERS = {
    "AR": DecoderConfig(strategy="autoregressive"),
    "window with branches": DecoderConfig(block_size=6),
    "multiblock": DecoderConfig(strategy="multiblock", block_size=5),
}


def compiled(model, **options):
    if " " in sys.prefix:
        pytest.skip("PyTorch's compiler does not quote the paths of its environment")
    return dataclasses.replace(model, step=CompiledStep(model, **options))


def prompts_of(lengths, seed=0):
    generator = torch.Generator().manual_seed(seed)
    return [torch.randint(2, VOCAB, (n,), generator=generator).tolist() for n in lengths]


@pytest.fixture(scope="module")
def pair():
    """A model with a sliding window, eager and compiled in one graph for all shapes."""
    model = toy_model("gemma2", num_hidden_layers=1)
    return model, compiled(model)


# One row is compiled apart from several rows, and one token from several: each takes a while, so
# that these are slow tests. Run them with `pytest -m "slow or not slow" tests/test_compiled.py`.
@pytest.mark.parametrize(
    ("name", "batch_size"),
    [
        pytest.param(name, batch_size, marks=pytest.mark.slow)
        for batch_size in (1, 3)
        for name in DECODERS
    ],
)
def test_compiled_answers_are_the_eager_ones(pair, name, batch_size, monkeypatch):
    eager_runs = []
    run = RaggedForward.run
    monkeypatch.setattr(
        RaggedForward, "run", lambda *inputs: eager_runs.append(inputs[2].shape) or run(*inputs)
    )
    prompts = prompts_of([5, 17, 9, 30])
    found = []
    for model in pair:
        eager_runs.clear()
        found.append(
            decode_all(model, prompts, DECODERS[name], max_new_tokens=40, batch_size=batch_size)
        )
    assert found[0].answers == found[1].answers
    assert pair[1].step.failure == ""
    assert len(eager_runs) <= len(prompts), "more than the prefills ran eager"


@pytest.mark.parametrize("num_rows", [pytest.param(1, marks=pytest.mark.slow), 3])
def test_padding_to_fixed_shapes_changes_no_logit(num_rows, monkeypatch):
    """With fixed shapes as a GPU wants them: rows, tokens and slots are padded."""
    monkeypatch.setattr("jacobi_forcing.models.compiled._SLOTS_STEP", 16)
    model = toy_model("gemma2", num_hidden_layers=1)
    fast = compiled(model, static=True)
    prompts = prompts_of([7, 12, 20][:num_rows])
    draft = prompts_of([5, 4, 5][:num_rows], seed=1)
    tree = Branches(first=3, positions=[1, 2], ways=[[0, 3], [0, 3, 4]])  # beside tokens 1 and 2
    forwards = [RaggedForward(model, 4, 50), CompiledForward(fast, 4, 50)]
    found = []
    for forward in forwards:
        forward.logits(0, prompts, 1)
        for row, ids in enumerate(prompts):
            forward.keep(row, len(ids), [])
        branches = [tree if len(ids) == 5 else None for ids in draft]
        found.append(forward.logits(0, draft, 5, branches))
    assert forwards[1].step.failure == ""
    shapes = [forward.cache.keys[0].shape[2] for forward in forwards]
    assert shapes == [51, 65], "slots in whole steps, and one for padding"
    for row, ids in enumerate(draft):
        torch.testing.assert_close(found[0][row, -len(ids) :], found[1][row, -len(ids) :])


@pytest.mark.parametrize("static", [True, False])
@pytest.mark.parametrize("family", ["qwen2", "gemma2"])
def test_what_is_compiled_for_has_one_layout_and_mode(family, static, monkeypatch):
    """Whatever the caller's tensors are parts of, and where nothing has to be padded."""
    monkeypatch.setattr("jacobi_forcing.models.compiled._SLOTS_STEP", 8)
    model = toy_model(family)
    found = {}

    def record(step, *inputs):
        assert len({id(tensor) for tensor in inputs[:5]}) == 5
        for tensor in inputs[:5]:
            assert tensor.stride() == torch.empty(tensor.shape).stride()
            assert tensor.is_inference()
        found[tuple(inputs[0].shape), inputs[2].shape[-1]] = True

    monkeypatch.setattr(CompiledStep, "__call__", record)  # and so every step runs eager
    fast = compiled(model, static=static)
    for name, batch_size in (("AR", 1), ("AR", 2), ("window with branches", 3), ("multiblock", 1)):
        prompts = prompts_of([5, 9, 7])
        options = {"max_new_tokens": 20, "batch_size": batch_size}
        answers = decode_all(fast, prompts, DECODERS[name], **options).answers
        assert answers == decode_all(model, prompts, DECODERS[name], **options).answers
    assert {size for shape, _ in found for size in shape} >= {1, 2, 3}
    if static:
        assert {keys for _, keys in found} == {8, 16, 24, 32, 40}


def test_decodes_one_after_the_other_have_the_same_cache(monkeypatch):
    """A CUDA graph belongs to its addresses; two at a time have one each, and none stays."""
    monkeypatch.setattr(CompiledStep, "__call__", lambda *_: None)
    model = toy_model(num_hidden_layers=1)
    fast = compiled(model, static=True)

    def decoded(lengths):
        prompts, cache = prompts_of(lengths), CompiledForward(fast, 2, 60).cache
        decoder = DECODERS["window with branches"]
        found = decode_all(fast, prompts, decoder, max_new_tokens=20, batch_size=2)
        assert found.answers == decode_all(model, prompts, decoder, max_new_tokens=20).answers
        return cache

    caches = {id(decoded(lengths)) for lengths in ([5, 9, 7], [30, 11], [8])}
    assert len(caches) == 1
    one, other = CompiledForward(fast, 2, 60), CompiledForward(fast, 2, 60)
    assert one.cache is not other.cache
    del one
    assert fast.step._idle is None
    wide = other.cache
    del other
    assert fast.step._idle is wide
    assert CompiledForward(fast, 2, 300).cache.num_slots == 512
    assert fast.step._idle is not wide


def test_a_model_that_does_not_compile_decodes_eager_and_says_so_once(caplog):
    model = toy_model()
    layer = model.network.model.layers[1]
    original = layer.forward

    def untraceable(*arguments, **options):
        torch._dynamo.graph_break()
        return original(*arguments, **options)

    layer.forward = untraceable
    fast = compiled(model)
    prompts = prompts_of([5, 9])
    with caplog.at_level(logging.WARNING):
        for _ in range(2):
            found = decode_all(fast, prompts, DECODERS["AR"], max_new_tokens=8, batch_size=2)
    assert found.answers == decode_all(model, prompts, DECODERS["AR"], max_new_tokens=8).answers
    said = [record.getMessage() for record in caplog.records if "eager" in record.getMessage()]
    assert len(said) == 1
    assert "\n" not in said[0]


def test_a_machine_without_a_compiler_decodes_eager_and_says_so(caplog, tmp_path, monkeypatch):
    monkeypatch.setenv("TORCHINDUCTOR_CACHE_DIR", str(tmp_path))  # nothing from earlier
    model = toy_model(num_hidden_layers=1, intermediate_size=96)
    fast = compiled(model)
    with (
        torch._inductor.config.patch({"cpp.cxx": ("no-such-compiler",), "fx_graph_cache": False}),
        caplog.at_level(logging.WARNING, logger="jacobi_forcing"),
    ):
        found = decode_all(fast, prompts_of([5]), DECODERS["AR"], max_new_tokens=8)
    assert (
        found.answers
        == decode_all(model, prompts_of([5]), DECODERS["AR"], max_new_tokens=8).answers
    )
    (said,) = (r.getMessage() for r in caplog.records if r.name.startswith("jacobi_forcing"))
    assert "decodes eager" in said
    assert "compiler" in said.lower()


def test_a_family_whose_mask_is_read_in_python_is_not_tried(caplog):
    with caplog.at_level(logging.WARNING):
        step = CompiledStep(toy_model("bloom"))
    assert "bloom" in step.failure
    assert len(caplog.records) == 1


def test_there_are_few_sizes_of_what_is_seen_and_little_padding():
    sizes = [_next_slots(number) for number in range(1, 2**17 + 1)]
    assert sizes == sorted(sizes)
    assert all(size >= number for number, size in enumerate(sizes, 1))
    assert all(size - number < max(256, size / 8) for number, size in enumerate(sizes, 1))
    assert len(set(sizes)) == 56
    assert sizes[2**17 - 1] == 2**17


@pytest.mark.slow
def test_sizes_that_are_equal_by_chance_are_not_compiled_for():
    """Two key/value heads, and two rows of two tokens in a cache of four rows."""
    model = toy_model(num_hidden_layers=1)
    assert model.config.num_key_value_heads == 2
    forward = CompiledForward(compiled(model, static=True), 4, 500)
    forward.logits(0, [[5] * 40] * 4, 1)
    forward.lengths = [40] * 4
    count = torch._dynamo.utils.counters["stats"]
    before = count["unique_graphs"]
    for num_rows in (2, 4, 3, 1):
        for width in (2, 3, 4, 8, 1):
            forward.logits(0, [[5] * width] * num_rows, width)
    assert forward.step.failure == ""
    assert count["unique_graphs"] - before == 4, "one row and several, one token and several"


@pytest.mark.slow
def test_models_that_are_compiled_beside_each_other_keep_to_themselves():
    """They differ in weights and in a number that no shape shows."""
    prompts = prompts_of([5, 9])
    models = [
        toy_model(num_hidden_layers=1, seed=1),
        toy_model(num_hidden_layers=1, seed=2, rms_norm_eps=0.5),
    ]
    fast = [compiled(model) for model in models]
    found = [
        decode_all(model, prompts, DECODERS["AR"], max_new_tokens=20, batch_size=2)
        for model in fast
    ]
    assert [model.step.failure for model in fast] == ["", ""]
    expected = [
        decode_all(model, prompts, DECODERS["AR"], max_new_tokens=20, batch_size=2)
        for model in models
    ]
    assert [one.answers for one in found] == [one.answers for one in expected]
    assert found[0].answers != found[1].answers
