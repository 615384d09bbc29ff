"""The trainer: exact means over any batching, the shipped decoder as its test."""

import random
from types import SimpleNamespace

import pytest
import torch
from packs import (
    flat,
    make_document,
    pack_config,
    pack_one,
    random_packed,
    random_states,
    random_trajectory,
)
from toys import PAD, tiny_network, toy_model
from training import (
    BLOCK,
    Snapshots,
    alone,
    collator,
    gradient,
    make_trainer,
    online_drafts,
    parameters,
    slow_loss,
    slow_sums,
    train_config,
    uneven_sequences,
)
from transformers import TrainerCallback

from jacobi_forcing.config import DecoderConfig
from jacobi_forcing.data.packed import num_tokens
from jacobi_forcing.decoding.measure import decode_all
from jacobi_forcing.errors import DataError
from jacobi_forcing.stages import judge, train
from jacobi_forcing.training.loss import token_counts
from jacobi_forcing.training.trainer import copy_on_cpu


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
    assert seen == ["jacobi_tiled", "jacobi_grouped"]
    network.save_pretrained(tmp_path / "saved")
    assert "jacobi_tiled" not in (tmp_path / "saved" / "config.json").read_text()


@pytest.mark.parametrize("noise", ["text", "vocabulary"])
@pytest.mark.parametrize("sizes", [(3, 2), (2, 3), (1, 6)], ids=str)
def test_a_step_has_the_same_drafts_however_its_batch_is_split(tmp_path, noise, sizes):
    """Of seven sequences, so that an epoch ends with a step of one; also where it continues."""
    sequences = random_packed(4, 7, BLOCK)
    runs = {}
    for batch, accumulation in ((6, 1), sizes):
        network, snapshots = tiny_network(), Snapshots()
        trainer = make_trainer(
            tmp_path / f"{batch}",
            network,
            sequences,
            states="online",
            noise=noise,
            max_steps=5,
            save_strategy="steps",
            save_steps=3,
            per_device_train_batch_size=batch,
            gradient_accumulation_steps=accumulation,
            callbacks=[snapshots],
        )
        trainer.train()
        runs[batch] = snapshots.parameters
        trainer.train(resume_from_checkpoint=str(tmp_path / f"{batch}" / "checkpoint-3"))
        assert torch.allclose(parameters(network), runs[batch][5], atol=1e-6)
        assert (runs[batch][5] - runs[batch][3]).abs().max() > 1e-3
    assert len(runs) == 2
    for found, expected in zip(*runs.values(), strict=True):
        assert torch.allclose(found, expected, atol=1e-5)
    drawn = {online_drafts().iterations(step) for step in range(5)}
    assert len(drawn) > 1  # so that one number for all steps would show


def test_without_gradients_there_is_nothing_to_check(tmp_path):
    """DeepSpeed has stepped by then, and holds none."""
    network = tiny_network()
    trainer = make_trainer(tmp_path, network, uneven_sequences())
    assert all(p.grad is None for p in network.parameters())
    assert trainer._check_gradients(network, torch.zeros(())) is None


@pytest.mark.parametrize("settings", [{"consistency_per": "pair"}, {"consistency_decay": 0.7}])
def test_weighted_means_do_not_depend_on_the_split_either(tmp_path, settings):
    sequences = uneven_sequences()
    moved = []
    for batch, accumulation in ((4, 1), (1, 4)):
        network = tiny_network()
        before = parameters(network)
        sizes = {
            "per_device_train_batch_size": batch,
            "gradient_accumulation_steps": accumulation,
        }
        make_trainer(tmp_path, network, sequences, **settings, **sizes).train()
        moved.append(before - parameters(network))
    assert torch.allclose(*moved, atol=1e-6)
    plain = tiny_network()
    make_trainer(tmp_path, plain, sequences, per_device_train_batch_size=4).train()
    assert (before - parameters(plain) - moved[0]).abs().max() > 3e-4


def test_the_ar_weight_goes_in_a_straight_line_to_its_end(tmp_path):
    trainer = make_trainer(
        tmp_path,
        tiny_network(),
        uneven_sequences(),
        ar_weight=10.0,
        ar_weight_end=2.0,
        learning_rate=1e-12,
        max_steps=4,
        per_device_train_batch_size=4,
    )
    trainer.train()
    lines = [line for line in trainer.state.log_history if "ar_loss" in line]
    weights = [(line["loss"] - line["consistency_loss"]) / line["ar_loss"] for line in lines]
    assert weights == pytest.approx([10.0, 8.0, 6.0, 4.0], abs=1e-3)


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
        decoder_test=judge._likelihood_test(settings, model, original, prompts, BLOCK),
    )
    start, plain = trainer.evaluate(), plain_speed(model, prompts)
    trainer.train()
    return SimpleNamespace(
        trainer=trainer, model=model, prompts=prompts, answers=answers, start=start, plain=plain
    )


def plain_speed(model, prompts):
    """Tokens per forward of drafts alone: the untrained toy repeats itself, which branches use."""
    decoder = DecoderConfig(strategy="window", block_size=BLOCK, pool_size=0)
    longest = 256 - max(map(len, prompts))
    return decode_all(model, prompts, decoder, max_new_tokens=longest).tokens_per_forward


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
    model.network.eval()
    longest = 256 - max(map(len, prompts))
    decoder = DecoderConfig(strategy="window", block_size=BLOCK)
    decoded = decode_all(model, prompts, decoder, max_new_tokens=longest)
    assert metrics["eval_tokens_per_forward"] == decoded.tokens_per_forward
    assert trainer.state.log_history[-1]["eval_tokens_per_forward"] == decoded.tokens_per_forward
    for answer, right in zip(decoded.answers, decoded.num_right, strict=True):
        # Every forward commits its right guesses and one more; the last is cut at the answer's end.
        assert len(answer) <= sum(num + 1 for num in right) <= len(answer) + BLOCK
    assert metrics["eval_accepted_at_1"] == decoded.acceptance(1) > 0.2
    # What training lowered the losses for: the answers, in fewer forwards than before.
    assert decoded.answers == [answer.answer_ids for answer in overfitted.answers]
    assert metrics["eval_tokens_per_forward"] > overfitted.start["eval_tokens_per_forward"]
    assert plain_speed(model, prompts) > 1.4 > overfitted.plain


def test_a_copy_on_the_cpu_is_a_whole_network_of_its_own():
    """Shared weights stay shared, frozen ones frozen, and the original is untouched."""
    network = tiny_network("qwen2", 0, tie_word_embeddings=True)
    network.model.layers[0].requires_grad_(False)
    copied = copy_on_cpu(network)
    assert copied.lm_head.weight is copied.model.embed_tokens.weight
    ours, theirs = dict(network.named_parameters()), dict(copied.named_parameters())
    assert ours.keys() == theirs.keys()
    for name, weight in ours.items():
        assert torch.equal(weight, theirs[name])
        assert weight.requires_grad == theirs[name].requires_grad
        assert weight.data_ptr() != theirs[name].data_ptr()
    ids = torch.tensor([[5, 6, 7]])
    assert torch.equal(network(ids).logits, copied(ids).logits)
