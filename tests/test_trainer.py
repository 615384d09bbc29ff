"""The trainer: exact means over any batching, exact resuming, the shipped decoder as its test."""

import json
import random
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from packs import (
    flat,
    joined,
    make_document,
    pack_config,
    pack_one,
    random_packed,
    random_states,
    random_trajectories,
    random_trajectory,
    write_trajectories,
)
from safetensors.torch import load_file
from torch.nn.functional import one_hot
from toys import PAD, save_toy, tiny_network, toy_model
from transformers import TrainerCallback, TrainingArguments

from jacobi_forcing.config import DecoderConfig, TrainConfig
from jacobi_forcing.data.packed import num_tokens, read_packed
from jacobi_forcing.data.trajectories import read_manifest
from jacobi_forcing.decoding.measure import decode_all
from jacobi_forcing.errors import ConfigError, DataError
from jacobi_forcing.models import load_model
from jacobi_forcing.stages import pack, train
from jacobi_forcing.training.batch import Collator, PackedDataset
from jacobi_forcing.training.layout import IGNORED, deinterleave
from jacobi_forcing.training.loss import token_counts
from jacobi_forcing.training.trainer import JacobiTrainer

BLOCK = 4


class Snapshots(TrainerCallback):
    """Keeps the parameters before the first step and after every one."""

    def __init__(self):
        self.parameters = []

    def on_train_begin(self, args, state, control, model, **_):
        self.parameters.append(parameters(model))

    def on_step_end(self, args, state, control, model, **_):
        self.parameters.append(parameters(model))


def parameters(network):
    return torch.cat([p.detach().flatten() for p in network.parameters()]).clone()


def make_trainer(tmp_path, network, sequences, *, callbacks=(), pad_id=PAD, **options):
    """A trainer with plain gradient descent and no clipping, so that steps show gradients."""
    own = {
        "mask": "noise-conditioned",
        "window": 3,
        "ar_weight": 2.0,
        "consistency_weight": 1.0,
        "teacher": "self",
        "ar_teacher": "fixed-point",
        "frozen": None,
        "nan_gradients": "stop",
        "decoder_test": lambda network: {"score": 0.0},
    }
    settings = {
        "optim": "sgd",
        "learning_rate": 0.1,
        "lr_scheduler_type": "constant",
        "max_grad_norm": 0.0,
        "max_steps": 1,
        "logging_steps": 1,
        "save_strategy": "no",
    }
    own |= {name: options.pop(name) for name in list(options) if name in own}
    arguments = TrainingArguments(
        output_dir=str(tmp_path),
        use_cpu=True,
        report_to=[],
        disable_tqdm=True,
        remove_unused_columns=False,
        dataloader_pin_memory=False,
        **settings | options,
    )
    return JacobiTrainer(
        model=network,
        args=arguments,
        train_dataset=PackedDataset(sequences),
        data_collator=collator(pad_id),
        callbacks=list(callbacks),
        **own,
    )


def collator(pad_id=PAD, **options):
    settings = {"ar_on_prompt": False, "consistency_from": "first-difference"} | options
    return Collator(BLOCK, pad_id, **settings)


def uneven_sequences():
    """Four sequences of different lengths and token counts; one has no noisy token at all."""
    found = random_packed(3, 40, BLOCK)
    chosen = [max(found, key=num_tokens), *found[:2]]
    [document] = found[2]
    prompt, _, clean = deinterleave(document.input_ids, document.prompt_length, BLOCK)
    converged = flat([prompt, *(block for block in clean for _ in range(2))])
    chosen.append((document._replace(input_ids=np.array(converged), prompt_index=99),))
    counts = [token_counts(b["ar_targets"], b["teacher_index"]).tolist() for b in alone(chosen)]
    assert len(set(map(num_tokens, chosen))) == 4
    assert counts[3][1] == 0
    assert len({c[0] for c in counts}) == len({c[1] for c in counts}) == 4
    return chosen


def alone(sequences):
    """Each sequence as a batch of its own."""
    return [collator()([s]) for s in sequences]


def slow_sums(network, batch, teacher=None, ar_teacher=None):
    """Both losses of a batch of one, from plain causal forwards and a loop over tokens.

    The noisy stream's context is all earlier noisy blocks: `noise-conditioned`.
    """
    ids, index = batch["input_ids"][0], batch["teacher_index"][0]
    prompt, clean, noisy = (batch["stream"][0] == s for s in (0, 2, 1))
    rows = {}
    models = (network, network, teacher or network, ar_teacher or network)
    for stream, model in zip((clean, noisy, clean, clean), models, strict=True):
        text = torch.cat([ids[prompt], ids[stream]])
        logits = model(input_ids=text[None], use_cache=False).logits[0]
        where = torch.cat([prompt.nonzero()[:, 0], stream.nonzero()[:, 0]]).tolist()
        rows[len(rows)] = dict(zip(where, logits, strict=True))
    ar = consistency = torch.zeros(())
    for place, target in enumerate(batch["ar_targets"][0].tolist()):
        if target != IGNORED:
            probs = one_hot(torch.tensor(target), len(rows[0][place])).float()
            if ar_teacher is not None:
                probs = rows[3][place].detach().softmax(-1)
            ar = ar - (probs * rows[0][place].log_softmax(-1)).sum()
    for place, taught_by in enumerate(index.tolist()):
        if taught_by >= 0:
            probs = rows[2][taught_by].detach().softmax(-1)
            consistency = consistency - (probs * rows[1][place].log_softmax(-1)).sum()
    return ar, consistency


def slow_loss(network, sequences, ar_weight, teacher=None, ar_teacher=None):
    """Both losses as token means over all sequences."""
    batches = alone(sequences)
    counts = sum(token_counts(b["ar_targets"], b["teacher_index"]) for b in batches)
    sums = [slow_sums(network, b, teacher, ar_teacher) for b in batches]
    ar, consistency = (sum(parts) for parts in zip(*sums, strict=True))
    return ar_weight * ar / counts[0] + consistency / counts[1]


def gradient(loss, network):
    return torch.cat([g.flatten() for g in torch.autograd.grad(loss, [*network.parameters()])])


@pytest.mark.parametrize(("batch", "accumulation"), [(4, 1), (1, 4), (2, 2), (3, 2)])
def test_a_step_is_the_same_however_its_batch_is_split(tmp_path, batch, accumulation):
    sequences = uneven_sequences()
    network = tiny_network()
    before = parameters(network)
    expected = gradient(slow_loss(network, sequences, 2.0), network)
    trainer = make_trainer(
        tmp_path,
        network,
        sequences,
        per_device_train_batch_size=batch,
        gradient_accumulation_steps=accumulation,
    )
    trainer.train()
    moved = (before - parameters(network)) / 0.1
    assert torch.allclose(moved, expected, atol=1e-5)
    # Means of means would be another gradient.
    fresh = tiny_network()
    naive = sum(gradient(slow_loss(fresh, [s], 2.0), fresh) for s in sequences[:3]) / 3
    assert (naive - expected).abs().max() > 0.01


def test_a_padded_batch_has_the_losses_of_its_sequences_alone(tmp_path):
    sequences = uneven_sequences()
    network = tiny_network()
    for ar_weight, consistency_weight in ((1.0, 0.0), (0.0, 1.0)):
        trainer = make_trainer(
            tmp_path,
            network,
            sequences,
            ar_weight=ar_weight,
            consistency_weight=consistency_weight,
        )
        trainer.current_gradient_accumulation_steps = 1
        total = count = 0
        for batch in alone(sequences):
            counts = token_counts(batch["ar_targets"], batch["teacher_index"])
            own = counts[0 if ar_weight else 1]
            total += float(trainer.compute_loss(network, batch).detach()) * own
            count += own
        together = trainer.compute_loss(network, collator()(sequences))
        assert float(together.detach()) == pytest.approx(float(total / count), rel=1e-6)
        assert float(together.detach()) > 1


def test_what_stands_in_the_padding_changes_nothing(tmp_path):
    sequences = uneven_sequences()
    network = tiny_network()
    trainer = make_trainer(tmp_path, network, sequences)
    trainer.current_gradient_accumulation_steps = 1
    batches = [collator(pad_id)(sequences) for pad_id in (PAD, 7)]
    assert not torch.equal(batches[0]["input_ids"], batches[1]["input_ids"])
    first, second = (trainer.compute_loss(network, batch) for batch in batches)
    assert torch.equal(first, second)


def test_a_batch_without_any_target_has_a_loss_of_zero(tmp_path):
    network = tiny_network()
    sequence = (make_document(0, prompt_length=1, answer_length=0, ids=[5], ratios=[]),)
    trainer = make_trainer(tmp_path, network, [sequence])
    trainer.current_gradient_accumulation_steps = 1
    loss = trainer.compute_loss(network, collator()([sequence]))
    loss.backward()
    assert loss == 0


def test_both_losses_and_the_agreement_are_logged_as_token_means_of_the_step(tmp_path):
    sequences = uneven_sequences()
    network = tiny_network()
    batches = alone(sequences)
    counts = sum(token_counts(b["ar_targets"], b["teacher_index"]) for b in batches)
    sums = [slow_sums(network, b) for b in batches]
    ar, consistency = (
        float(sum(parts).detach() / n)
        for parts, n in zip(zip(*sums, strict=True), counts, strict=True)
    )
    trainer = make_trainer(
        tmp_path,
        network,
        sequences,
        max_steps=6,
        logging_steps=3,
        learning_rate=1e-12,
        per_device_train_batch_size=1,
        gradient_accumulation_steps=4,
    )
    trainer.train()
    lines = [line for line in trainer.state.log_history if "loss" in line]
    assert len(lines) == 2
    for line in lines:
        assert line["ar_loss"] == pytest.approx(ar, abs=2e-5)
        assert line["consistency_loss"] == pytest.approx(consistency, abs=2e-5)
        assert line["loss"] == pytest.approx(2 * ar + consistency, abs=2e-4)
        assert 0 < line["agreement"] < 0.5


@pytest.mark.parametrize("streams", [["teacher"], ["ar_teacher"], ["teacher", "ar_teacher"]])
def test_a_frozen_teacher_teaches_stays_as_it_is_and_gets_no_gradient(tmp_path, streams):
    sequences = uneven_sequences()
    network, teacher = tiny_network(), tiny_network(seed=1)
    taught_by = dict.fromkeys(streams, teacher)
    expected = gradient(slow_loss(network, sequences, 2.0, **taught_by), network)
    own = gradient(slow_loss(network, sequences, 2.0), network)
    assert (expected - own).abs().max() > 0.01
    before, taught = parameters(network), parameters(teacher)
    snapshots = Snapshots()
    options = {"per_device_train_batch_size": 4, "max_steps": 3, "callbacks": [snapshots]}
    options |= {"frozen": teacher} | dict.fromkeys(streams, "frozen")
    make_trainer(tmp_path, network, sequences, **options).train()
    moved = (before - snapshots.parameters[1]) / 0.1
    assert torch.allclose(moved, expected, atol=1e-5)
    assert torch.equal(parameters(teacher), taught)
    assert all(p.grad is None for p in teacher.parameters())


@pytest.mark.parametrize("attention", ["eager", "sdpa"])
def test_a_model_with_bfloat16_weights_trains(tmp_path, attention):
    network = tiny_network().bfloat16()
    network.set_attn_implementation(attention)
    before = parameters(network)
    trainer = make_trainer(tmp_path, network, uneven_sequences(), per_device_train_batch_size=4)
    exact = float(slow_loss(tiny_network(), uneven_sequences(), 2.0).detach())
    trainer.train()
    assert trainer.state.log_history[0]["loss"] == pytest.approx(exact, rel=0.05)
    assert torch.isfinite(parameters(network)).all()
    assert not torch.equal(parameters(network), before)


def test_training_attends_tile_by_tile_and_its_decoder_test_as_it_will_serve(tmp_path):
    network, teacher, seen = tiny_network(), tiny_network(seed=1), []

    def note(network):
        seen.append(network.config._attn_implementation)
        return {"score": 0.0}

    class Evaluation(TrainerCallback):
        def on_step_end(self, *_, **__):
            trainer.evaluate()

    options = {"decoder_test": note, "frozen": teacher, "ar_teacher": "frozen"}
    options |= {"callbacks": [Evaluation()]}
    trainer = make_trainer(tmp_path, network, uneven_sequences(), **options)
    hook = network.register_forward_pre_hook(
        lambda network, _: seen.append(network.config._attn_implementation)
    )
    trainer.train()
    hook.remove()
    assert seen == ["jacobi_tiled", "sdpa"]
    network.save_pretrained(tmp_path / "saved")
    assert "jacobi_tiled" not in (tmp_path / "saved" / "config.json").read_text()


# The order of the sequences


def epochs(tmp_path, sequences, count=3, **options):
    """The prompts of every batch, per epoch, as the trainer's own loader deals them."""
    trainer = make_trainer(tmp_path, tiny_network(), sequences, **options)
    loader = trainer.get_train_dataloader()
    dealt = []
    for epoch in range(count):
        trainer.state.epoch = float(epoch)
        dealt.append([batch["prompt_index"].tolist() for batch in loader])
    return dealt


def test_every_epoch_deals_every_sequence_once_in_an_order_of_its_own(tmp_path):
    sequences = random_packed(1, 60, BLOCK)
    dealt = epochs(tmp_path, sequences, per_device_train_batch_size=4)
    for batches in dealt:
        assert sorted(flat(batches)) == list(range(60))
    assert len({str(batches) for batches in dealt}) == 3
    assert epochs(tmp_path, sequences, per_device_train_batch_size=4) == dealt
    assert epochs(tmp_path, sequences, per_device_train_batch_size=4, seed=7) != dealt


def test_batches_hold_sequences_of_similar_lengths(tmp_path):
    sequences = random_packed(1, 64, BLOCK)
    (batches,) = epochs(tmp_path, sequences, 1, per_device_train_batch_size=4)

    def num_padding(batches):
        lengths = [[num_tokens(sequences[i]) for i in batch] for batch in batches]
        return sum(len(batch) * max(batch) - sum(batch) for batch in lengths)

    in_order = [list(range(i, i + 4)) for i in range(0, 64, 4)]
    assert num_padding(batches) < 0.5 * num_padding(in_order)


# Gradients that are not finite


class Spoiler:
    """Makes one parameter's gradient NaN in the given backward passes, counted from 1."""

    def __init__(self, network, spoiled):
        self.num_backwards, self.spoiled = 0, spoiled
        network.model.layers[1].mlp.up_proj.weight.register_hook(self)

    def __call__(self, gradient):
        self.num_backwards += 1
        return gradient * float("nan") if self.num_backwards in self.spoiled else gradient


def test_a_nan_gradient_stops_the_run_and_names_the_step_and_the_prompts(tmp_path):
    sequences = uneven_sequences()
    network = tiny_network()
    spoiler = Spoiler(network, {3})
    snapshots = Snapshots()
    trainer = make_trainer(
        tmp_path,
        network,
        sequences,
        max_steps=6,
        per_device_train_batch_size=2,
        callbacks=[snapshots],
    )
    seen = []
    step = trainer.training_step
    trainer.training_step = lambda model, inputs, *rest: (
        seen.append(inputs["prompt_index"].tolist()),
        step(model, inputs, *rest),
    )[1]
    with pytest.raises(DataError, match=r"step 3: .* finite .*--nan-gradients skip") as caught:
        trainer.train()
    assert str(seen[2]) in str(caught.value)
    assert len(set(map(str, seen[:3]))) > 1
    assert len(snapshots.parameters) == 3  # before, and after steps 1 and 2
    assert torch.equal(parameters(network), snapshots.parameters[-1])
    assert spoiler.num_backwards == 3


@pytest.mark.parametrize(
    ("accumulation", "spoiled", "step"), [(1, {3}, 3), (2, {5}, 3), (2, {6}, 3), (2, {3, 4}, 2)]
)
def test_a_skipped_nan_gradient_leaves_everything_as_it_was_and_training_goes_on(
    tmp_path, accumulation, spoiled, step
):
    network = tiny_network()
    spoiler = Spoiler(network, spoiled)
    snapshots = Snapshots()
    trainer = make_trainer(
        tmp_path,
        network,
        uneven_sequences(),
        max_steps=5,
        optim="adamw_torch",
        learning_rate=1e-3,
        weight_decay=0.1,
        max_grad_norm=1.0,
        nan_gradients="skip",
        per_device_train_batch_size=2,
        gradient_accumulation_steps=accumulation,
        callbacks=[snapshots],
    )
    trainer.train()
    assert spoiler.num_backwards == 5 * accumulation
    states = snapshots.parameters
    kept = [torch.equal(states[i], states[i + 1]) for i in range(5)]
    assert kept == [number == step for number in range(1, 6)]
    assert torch.isfinite(states[-1]).all()
    losses = [line["loss"] for line in trainer.state.log_history if "loss" in line]
    assert len(losses) == 5
    assert all(0 < loss < 100 for loss in losses)


# Learning, and what the trainer measures


@pytest.fixture(scope="module")
def overfitted(tmp_path_factory):
    """A model that has learnt a handful of answers by heart, under all kinds of noise."""
    rng = random.Random(8)
    answers = [random_trajectory(rng, i, BLOCK, 4) for i in range(2)]
    config = pack_config(window=3, phase="random")
    sequences = []
    for number in range(64):
        for answer in answers:
            states = [random_states(rng, block[-1]) for block in answer.states]
            sequences.append(pack_one(answer._replace(states=states), BLOCK, config, number))
    model = toy_model()
    prompts = [answer.prompt_ids for answer in answers]
    settings = train_config("-", "-")
    original = train._original(settings, model)
    trainer = make_trainer(
        tmp_path_factory.mktemp("trainer"),
        model.network,
        sequences,
        ar_weight=1.0,
        optim="adamw_torch",
        learning_rate=1e-2,
        lr_scheduler_type="linear",
        max_steps=150,
        logging_steps=5,
        max_grad_norm=1.0,
        per_device_train_batch_size=8,
        decoder_test=train._likelihood_test(settings, model, original, prompts, BLOCK),
    )
    start = trainer.evaluate()
    trainer.train()
    return SimpleNamespace(
        trainer=trainer, model=model, prompts=prompts, answers=answers, start=start
    )


def train_config(model, packed, out="-", **settings):
    return TrainConfig(model=str(model), packed=str(packed), out=str(out), **settings)


def test_a_handful_of_sequences_is_learnt_by_heart(overfitted):
    lines = [line for line in overfitted.trainer.state.log_history if "loss" in line]
    first, last = lines[0], lines[-1]
    assert last["ar_loss"] < 0.2 * first["ar_loss"]
    assert last["consistency_loss"] < 0.2 * first["consistency_loss"]
    # The first lines may agree too: early on the model says the same token everywhere.
    assert min(line["agreement"] for line in lines) < 0.3
    assert last["agreement"] > 0.9


def test_evaluate_decodes_with_the_shipped_decoder(overfitted):
    trainer, model, prompts = overfitted.trainer, overfitted.model, overfitted.prompts
    model.network.train()
    metrics = trainer.evaluate()
    assert model.network.training
    longest = 256 - max(map(len, prompts))
    decoder = DecoderConfig(strategy="window", block_size=BLOCK)
    decoded = decode_all(model, prompts, decoder, max_new_tokens=longest)
    assert metrics["eval_tokens_per_forward"] == decoded.tokens_per_forward
    assert trainer.state.log_history[-1]["eval_tokens_per_forward"] == decoded.tokens_per_forward
    # What training lowered the losses for: the answers, in fewer forwards than before.
    assert decoded.answers == [answer.answer_ids for answer in overfitted.answers]
    assert metrics["eval_tokens_per_forward"] > 1.4 > overfitted.start["eval_tokens_per_forward"]


# The stage


@pytest.fixture(scope="module")
def toy(tmp_path_factory):
    return save_toy(tmp_path_factory.mktemp("toy"), max_position_embeddings=96)


@pytest.fixture(scope="module")
def packed(tmp_path_factory):
    source = write_trajectories(tmp_path_factory.mktemp("in"), random_trajectories(2, 14, BLOCK))
    return pack.run(pack_config(source, tmp_path_factory.mktemp("packed"), window=3, copies=2))


@pytest.fixture
def scores(monkeypatch):
    """Replace the decoder test by one that gives these scores in turn."""
    values = []

    def make(*_):
        return lambda network: {"score": values.pop(0) if values else 0.0}

    monkeypatch.setattr(train, "_likelihood_test", make)
    return values


def small_run(toy, packed, out, **settings):
    defaults = {
        "max_steps": 12,
        "batch_size": 5,
        "learning_rate": 1e-3,
        "eval_prompts": "packed:2",
        "save_steps": 4,
        "threads": 1,
    }
    return train.run(train_config(toy, packed, out, **defaults | settings))


def test_a_frozen_model_that_is_named_teaches_and_judges_instead_of_the_start(
    toy, packed, tmp_path, monkeypatch
):
    other = save_toy(tmp_path / "other", seed=5)
    taught_by, judges = [], []
    whole_init, test = JacobiTrainer.__init__, train._likelihood_test

    def init(self, **options):
        taught_by.append(parameters(options["frozen"]))
        whole_init(self, **options)

    def likelihood_test(config, model, original, *rest):
        judges.append(parameters(original.network))
        return test(config, model, original, *rest)

    monkeypatch.setattr(JacobiTrainer, "__init__", init)
    monkeypatch.setattr(train, "_likelihood_test", likelihood_test)
    settings = {"ar_teacher": "frozen", "max_steps": 3}
    small_run(toy, packed, tmp_path / "named", frozen_model=str(other), **settings)
    small_run(toy, packed, tmp_path / "start", **settings)
    expected = [parameters(load_model(str(name)).network) for name in (other, toy)]
    for found in (taught_by, judges):
        assert all(torch.equal(*pair) for pair in zip(found, expected, strict=True))
    weights = [load_file(tmp_path / name / "model.safetensors") for name in ("named", "start")]
    assert any(not torch.equal(weights[0][name], weights[1][name]) for name in weights[0])


def test_a_frozen_model_that_nothing_asks_for_is_refused():
    settings = {"frozen_model": "somewhere", "eval_prompts": "bundled:4"}
    with pytest.raises(ConfigError, match="no teacher is frozen"):
        train._original(train_config("-", "-", **settings), toy_model())


class KilledError(Exception):
    pass


def killed(*_):
    raise KilledError


@pytest.mark.parametrize(
    ("save_steps", "killed_in"), [(3, 5), (5, 8), (4, 11)], ids=["epoch 1", "its end", "epoch 2"]
)
def test_a_run_that_was_killed_ends_up_with_the_very_weights_of_one_that_was_not(
    toy, packed, tmp_path, scores, monkeypatch, uninterrupted, save_steps, killed_in
):
    steps = []
    whole_step = JacobiTrainer.training_step

    def step(self, *arguments):
        steps.append(self.state.global_step + 1)
        if steps.count(killed_in) == 1 and steps[-1] == killed_in:
            raise KilledError
        return whole_step(self, *arguments)

    monkeypatch.setattr(JacobiTrainer, "training_step", step)
    settings, whole = uninterrupted
    with pytest.raises(KilledError):
        small_run(toy, packed, tmp_path, save_steps=save_steps, **settings)
    assert not (tmp_path / "model.safetensors").exists()
    small_run(toy, packed, tmp_path, save_steps=save_steps, **settings)
    saved = killed_in - 1 - (killed_in - 1) % save_steps
    assert steps == [*range(1, killed_in + 1), *range(saved + 1, 13)]
    found = load_file(tmp_path / "model.safetensors")
    assert found.keys() == whole.keys()
    assert all(torch.equal(found[name], whole[name]) for name in found)


@pytest.fixture(
    scope="module",
    params=[{"states": "recorded"}, {"states": "online", "mask": "clean-context"}],
    ids=["recorded", "online"],
)
def uninterrupted(request, toy, packed, tmp_path_factory):
    out = tmp_path_factory.mktemp("whole")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(train, "_likelihood_test", lambda *_: lambda network: {"score": 0.0})
        small_run(toy, packed, out, **request.param)
    record = json.loads((out / "run.json").read_text())
    assert record["steps"] == 12
    assert record["num_sequences"] == 24  # 5 steps per epoch
    weights, start = load_file(out / "model.safetensors"), load_file(toy / "model.safetensors")
    assert not any(torch.equal(weights[name], start[name]) for name in weights)
    return request.param, weights


def test_a_finished_run_is_left_as_it_is(toy, packed, tmp_path, scores, monkeypatch):
    small_run(toy, packed, tmp_path, max_steps=2)
    before = {f.name: f.stat().st_mtime_ns for f in tmp_path.iterdir() if f.is_file()}
    monkeypatch.setattr(JacobiTrainer, "train", None)
    assert small_run(toy, packed, tmp_path, max_steps=2) == tmp_path
    after = {f.name: f.stat().st_mtime_ns for f in tmp_path.iterdir() if f.is_file()}
    assert after == before
    assert {"model.safetensors", "run.json", "tokenizer.json"} <= after.keys()


def test_a_run_that_was_killed_behind_its_last_step_makes_no_further_one(
    toy, packed, tmp_path, scores, monkeypatch
):
    settings = {"max_steps": 7, "lr_schedule": "constant"}
    small_run(toy, packed, tmp_path / "whole", **settings)
    with monkeypatch.context() as patch:
        patch.setattr(train, "save_model", killed)
        with pytest.raises(KilledError):
            small_run(toy, packed, tmp_path / "killed", **settings)
    small_run(toy, packed, tmp_path / "killed", **settings)
    assert json.loads((tmp_path / "killed" / "run.json").read_text())["steps"] == 7
    found, whole = (load_file(tmp_path / out / "model.safetensors") for out in ("killed", "whole"))
    assert all(torch.equal(found[name], whole[name]) for name in whole)


def test_other_settings_do_not_continue_a_run_except_how_it_takes_a_nan(
    toy, packed, tmp_path, scores, monkeypatch
):
    monkeypatch.setattr(train, "save_model", killed)
    with pytest.raises(KilledError):
        small_run(toy, packed, tmp_path, max_steps=2)
    # A checkpoint brings its own learning rate, so another one would go unheard.
    with pytest.raises(ConfigError, match="learning_rate"):
        small_run(toy, packed, tmp_path, max_steps=2, learning_rate=1e-4)
    with pytest.raises(KilledError):
        small_run(toy, packed, tmp_path, max_steps=2, nan_gradients="skip")


def test_the_best_checkpoint_is_the_one_with_the_highest_score(toy, packed, tmp_path, scores):
    scores += [9.0, 1.0, 3.0, 2.0, 0.5]  # before training, four times in it
    out = small_run(toy, packed, tmp_path, eval_steps=3, save_steps=3)
    record = json.loads((out / "run.json").read_text())
    assert record["best_checkpoint_step"] == 6
    best = load_file(out / "steps" / "checkpoint-6" / "model.safetensors")
    last = load_file(out / "steps" / "checkpoint-12" / "model.safetensors")
    found = load_file(out / "model.safetensors")
    assert all(torch.equal(found[name], best[name]) for name in best)
    assert not all(torch.equal(found[name], last[name]) for name in last)


def test_a_checkpoint_that_lost_too_much_scores_below_every_one_that_did_not(
    toy, packed, monkeypatch
):
    config = train_config(toy, packed, max_nll_rise=0.1)
    nlls = iter([2.0, 2.19, 2.21, 3.0])
    monkeypatch.setattr(train, "negative_log_likelihood", lambda *_: next(nlls))
    speeds = iter([1.0, 1.01, 5.0, 9.0])
    monkeypatch.setattr(
        train, "_decode", lambda *_: SimpleNamespace(answers=[[5]], tokens_per_forward=next(speeds))
    )
    model = toy_model()
    test = train._likelihood_test(config, model, model, [[2]], BLOCK)
    assert [test(model.network)["score"] for _ in range(4)] == [1.0, 1.01, -2.21, -3.0]


def test_prompts_kept_for_evaluation_are_in_no_training_sequence(packed):
    sequences = read_packed(packed, BLOCK)
    manifest = read_manifest(packed, "pack")
    config = train_config("-", packed, eval_prompts="packed:3")
    training, _ = train._split(config, toy_model(), toy_model(), sequences, manifest)
    held = {s[0].prompt_index for s in sequences} - {s[0].prompt_index for s in training}
    assert len(held) == 3
    assert len(training) == len(sequences) - 2 * 3  # both copies


def test_prompts_kept_for_evaluation_leave_the_sequences_that_they_share():
    sequences = joined(random_packed(0, 12, BLOCK), 5, 1, 4, 2)
    config = train_config("-", "-", eval_prompts="packed:3")
    manifest = {"block_size": BLOCK}
    training, _ = train._split(config, toy_model(), toy_model(), sequences, manifest)
    assert [len(sequence) for sequence in training] == [5, 1, 3]
    assert [d.prompt_index for sequence in training for d in sequence] == list(range(9))


@pytest.mark.parametrize(
    "eval_prompts", ["packed:0", "packed:", "packed", "packed:-1", "nothing:3"]
)
def test_eval_prompts_that_name_nothing_are_refused(packed, eval_prompts):
    config = train_config("-", packed, eval_prompts=eval_prompts)
    with pytest.raises(ConfigError, match="--eval-prompts"):
        train._split(
            config, toy_model(), None, read_packed(packed, BLOCK), read_manifest(packed, "pack")
        )


def test_data_of_one_prompt_is_an_error_and_not_an_empty_training_set():
    sequences = [(make_document(4, 1, 3, [5] * 9, [0.5]),)] * 2
    config = train_config("-", "data/packed", eval_prompts="packed:32")
    with pytest.raises(DataError, match="data/packed"):
        train._split(
            config, toy_model(), None, sequences, {"num_sequences": 2, "block_size": BLOCK}
        )
